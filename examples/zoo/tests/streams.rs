//! Half of the channels of networks whose norms run over channels, and half of the units of recurrent
//! layers: the cut network computes what the masked one does, on inputs that the cut has not seen.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Tensor};
use burn_compress::graph::ForwardOutputs;
use burn_compress::prelude::*;
use burn_compress_zoo::{
    ConvNeXtConfig, LlamaConfig, LstmClassifierConfig, Model, ResNetConfig, parameters,
    randomize_statistics,
};

/// Random numbers of a device come from one generator, whichever test asks.
static RANDOM: Mutex<()> = Mutex::new(());

/// Removes half of what `rules` select, but for layers whose channels are not free, and at least
/// `least` of the parameters.
fn assert_cut<M: Model>(init: impl FnOnce(&Device) -> M, size: usize, rules: &str, least: f64) {
    let _alone = RANDOM.lock().unwrap_or_else(PoisonError::into_inner);
    let device = Device::flex();
    device.seed(2);
    let model = init(&device);
    let model = randomize_statistics(model.valid(), 1);
    let dense = parameters(&model);
    let evaluator = Evaluator::<_, ()>::new().with_dummy_input(model.dummy_input(1, size, &device));
    let rules = ConfigList::from_json(rules).unwrap();
    let chain = L1NormPruner::new(model, rules, evaluator, PrunerConfig::new()).unwrap();
    for obstacle in chain.skipped() {
        println!("{obstacle}");
    }
    let compressed = chain.compress(Budget::none()).unwrap();
    let masked = compressed.masked_model();
    let small = compressed.speedup().unwrap();
    assert!(small.report.uncut.is_empty(), "{:?}", small.report.uncut);
    let small = small.model;
    let input = small.random_input(2, size, &device);
    let [expected, found] = [masked.run(input.clone()), small.run(input)].map(values);
    let largest = expected.clone().abs().max().into_scalar::<f32>();
    let error = (expected - found).abs().max().into_scalar::<f32>() / largest;
    let rest = parameters(&small) as f64 / dense as f64;
    println!("error {error:e}, {rest:.3} of the parameters");
    assert!(error <= 1e-6, "{error}");
    assert!(rest < 1.0 - least, "{rest}");
}

/// All values of the outputs in a row.
fn values<O: ForwardOutputs>(outputs: O) -> Tensor<1> {
    let all = outputs.data().into_iter();
    let values: Vec<f32> = all
        .flat_map(|data| data.try_to_vec::<f32>().unwrap())
        .collect();
    Tensor::from_floats(&values[..], &Device::flex())
}

#[test]
fn convnext() {
    let model = ConvNeXtConfig::new(vec![1, 2, 1, 1])
        .with_width(8)
        .with_classes(10);
    let rules = r#"[{"op_types": ["Conv2d", "Linear"], "target_names": ["weight"], "sparse_ratio": 0.5,
        "exclude_op_names_re": ["classifier.*"]}]"#;
    assert_cut(|device| model.init(device), 32, rules, 0.6);
}

#[test]
fn resnet_with_group_norms() {
    let config = ResNetConfig::new([1, 2, 1, 1], false)
        .with_width(64)
        .with_classes(10);
    let rules = r#"[{"op_types": ["Conv2d"], "target_names": ["weight"], "sparse_ratio": 0.5}]"#;
    assert_cut(|device| config.init_with_group_norm(device), 64, rules, 0.6);
}

/// The residual stream and the perceptrons; attention takes its heads apart.
#[test]
fn llama() {
    let model = LlamaConfig::new(50, 32, 2, 4, 2, 48).with_head_size(8);
    let rules = r#"[{"op_types": ["Embedding", "Linear"], "target_names": ["weight"],
        "sparse_ratio": 0.5, "on_unprunable": "skip"}]"#;
    assert_cut(|device| model.init(device), 12, rules, 0.4);
}

#[test]
fn lstm() {
    let rules = r#"[{"op_types": ["Linear"], "op_names_re": ["lstm.*"], "target_names": ["weight"],
        "sparse_ratio": 0.5}, {"op_types": ["Embedding"], "sparse_ratio": 0.5}]"#;
    assert_cut(
        |device| LstmClassifierConfig::new().init(device),
        12,
        rules,
        0.4,
    );
}
