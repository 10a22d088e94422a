//! Pruned, quantized and distilled in one run of three steps, then cut, saved and loaded: an image
//! network of full size and a decoder.

use std::sync::{Mutex, PoisonError};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor};
use burn_compress::graph::ForwardOutputs;
use burn_compress::prelude::*;
use burn_compress::speedup::verify::rounding_boundary;
use burn_compress_zoo::{LlamaConfig, Model, ResNetConfig, parameters, randomize_statistics};

const STEPS: usize = 3;

/// Random numbers of a device come from one generator, whichever test asks.
static RANDOM: Mutex<()> = Mutex::new(());

/// Bits of every parameter and running statistic.
#[derive(Default)]
struct Bits(Vec<Vec<u32>>);

impl ModuleVisitor for Bits {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let values = param.val().into_data().try_to_vec::<f32>().unwrap();
        self.0.push(values.into_iter().map(f32::to_bits).collect());
    }
}

fn bits<M: Module>(model: &M) -> Vec<Vec<u32>> {
    let mut bits = Bits::default();
    model.visit(&mut bits);
    bits.0
}

/// Prunes what `rules` select, quantizes to int8 what `int8` selects, and distils from an equal network.
fn run<M, const D: usize>(init: impl Fn(&Device) -> M, size: usize, rules: &str, int8: &str)
where
    M: Model<Output = Tensor<D>>,
{
    let _alone = RANDOM.lock().unwrap_or_else(PoisonError::into_inner);
    let device = Device::flex();
    device.seed(2);
    let model = randomize_statistics(init(&device), 1);
    let teacher = model.valid();
    let dense = parameters(&model);
    let batch = model.random_input(2, size, &device);
    let evaluator = Evaluator::new()
        .with_dummy_input(model.dummy_input(2, size, &device))
        .with_data(move |_| vec![batch.clone()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(1e-4)
        .with_loss(|model: &M, input: &M::Input| model.run(input.clone()).square().mean());
    let rules = ConfigList::from_json(rules).unwrap();
    let int8 = ConfigList::from_json(int8).unwrap();
    let outputs = on(["Linear"]).lambda(0.1);
    let teach = |teacher: &M, input: &M::Input| {
        let output = teacher.run(input.clone());
        let classes = output.dims()[D - 1];
        let rows = output.dims().iter().product::<usize>() / classes;
        output.reshape([rows, classes])
    };
    let chain = L1NormPruner::new(model, rules, evaluator, PrunerConfig::new()).unwrap();
    let chain = QatQuantizer::from_compressor(chain, int8, QatConfig::new()).unwrap();
    let config = DistillConfig::new(1.0);
    let chain = DynamicLayerwiseDistiller::from_compressor(chain, outputs, &teacher, teach, config);
    let chain = chain.unwrap();
    let compressed = chain.compress(Budget::steps(STEPS)).unwrap();
    let simulated = compressed.model().valid();
    let small = compressed.speedup().unwrap();
    assert!(small.report.uncut.is_empty(), "{:?}", small.report.uncut);
    let rest = parameters(&small.model) as f64 / dense as f64;
    assert!(rest < 0.6, "{rest}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("small");
    small.save(&file).unwrap();
    let loaded = Small::load(init(&device), &file).unwrap();
    let input = small.model.random_input(3, size, &device);
    let outputs = |model: &M| model.valid().run(input.clone()).data();
    let (found, again) = (outputs(&small.model), outputs(&loaded.model));
    for (found, again) in found.iter().zip(&again) {
        found.assert_eq(again, true);
    }
    let saved_again = folder.path().join("again");
    loaded.save(&saved_again).unwrap();
    let reloaded = Small::load(init(&device), &saved_again).unwrap();
    assert_eq!(bits(&loaded.model), bits(&reloaded.model));

    // In single precision sums of another order land on the other side of a rounding boundary.
    let moved = rounding_boundary(&outputs(&simulated), &found, 1e-6).unwrap();
    println!(
        "{rest:.3} of the parameters, {} of {} values moved over a rounding boundary on a new input; on \
         the dummy input {} of {}, error without quantization {:e}",
        moved.differing,
        moved.values,
        small.report.rounding_boundary.differing,
        small.report.rounding_boundary.values,
        small.report.max_relative_error,
    );
}

#[test]
fn resnet18() {
    let half = r#"[{"op_types": ["Conv2d"], "target_names": ["weight"], "sparse_ratio": 0.5}]"#;
    let int8 = r#"[{"op_types": ["Conv2d"], "target_names": ["weight", "_input_0"],
        "quant_dtype": "int8"}]"#;
    let config = ResNetConfig::resnet18().with_classes(10);
    run(|device| config.init(device), 64, half, int8);
}

#[test]
fn llama() {
    let half = r#"[
        {"op_types": ["Embedding"], "sparse_ratio": 0.5},
        {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5,
         "op_names_re": [".*(o_proj|gate_proj|up_proj|down_proj)"]},
        {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5,
         "granularity": "head", "op_names_re": [".*(q_proj|k_proj|v_proj)"]}
    ]"#;
    let int8 = r#"[{"op_types": ["Linear"], "op_names_re": [".*_proj"],
        "target_names": ["weight", "_input_0"], "quant_dtype": "int8"}]"#;
    let config = LlamaConfig::new(50, 32, 2, 4, 2, 48).with_head_size(8);
    run(|device| config.init(device), 32, half, int8);
}
