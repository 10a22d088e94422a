//! Models whose layers are not called, called twice, frozen, of another precision or of no size.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Tensor};
use burn_compress::Compressor;
use burn_compress::prelude::*;
use burn_compress_tests::chains::id;

use crate::fixtures::rows;
use crate::table::{Attempt, Cases, ensure};

/// Two layers and a third that is called or not.
#[derive(Module, Debug)]
struct Net {
    fc1: Wrapper<Linear>,
    fc2: Wrapper<Linear>,
    third: Wrapper<Linear>,
}

impl Net {
    fn new() -> Self {
        let device = Device::flex();
        let linear =
            |inputs, outputs| Wrapper::new(LinearConfig::new(inputs, outputs).init(&device));
        Self {
            fc1: linear(4, 4),
            fc2: linear(4, 3),
            third: linear(4, 4),
        }
    }
}

/// How the layers are called.
type Forward = fn(&Net, Tensor<2>) -> Tensor<2>;

const PLAIN: Forward = |net, x| net.fc2.forward(relu(net.fc1.forward(x)));
const TWICE: Forward = |net, x| {
    let x = relu(net.fc1.forward(x));
    net.fc2.forward(relu(net.fc1.forward(x)))
};

fn chain(net: Net, forward: Forward) -> Compressor<Net, Tensor<2>> {
    let dummy = DummyInput::new(rows(0.3), move |net: &Net, x| forward(net, x));
    let evaluator = Evaluator::new()
        .with_dummy_input(dummy)
        .with_data(|_| vec![rows(0.3), rows(-0.1)])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.01)
        .with_loss(move |net: &Net, x: &Tensor<2>| forward(net, x.clone()).square().mean());
    Compressor::from_model(net, evaluator)
}

fn dummy(forward: Forward) -> DummyInput<Net> {
    DummyInput::new(rows(0.3), move |net: &Net, x| forward(net, x))
}

pub fn fill(cases: &mut Cases) {
    uncalled(cases);
    repeated(cases);
    frozen(cases);
    precision(cases);
}

/// A layer that the forward pass never calls.
fn uncalled(cases: &mut Cases) {
    type Fuse = fn(Compressor<Net, Tensor<2>>) -> Attempt;
    let quantized: [(&str, Fuse); 2] = [
        ("QatQuantizer", |chain| {
            let config = ConfigList::from_json(r#"[{"op_types": ["Linear"]}]"#)?;
            let chain = QatQuantizer::from_compressor(chain, &config, QatConfig::new())?;
            chain.compress(Budget::steps(1))?;
            Ok(())
        }),
        ("PtqQuantizer", |chain| {
            let config = ConfigList::from_json(r#"[{"op_types": ["Linear"]}]"#)?;
            let chain = PtqQuantizer::from_compressor(chain, &config, PtqConfig::new())?;
            chain.compress(Budget::none())?;
            Ok(())
        }),
    ];
    for (name, fuse) in quantized {
        let parts = ["`third._input_0`", "through its `Wrapper`"];
        cases.refused(
            format!("{name}: a layer that is not called"),
            "Unreached",
            parts,
            move || fuse(chain(Net::new(), PLAIN)),
        );
    }
    let parts = ["third.weight", "never calls its layer"];
    cases.refused(
        "L1NormPruner: a layer that is not called",
        "Unprunable",
        parts,
        || {
            let rules = r#"[{"op_names": ["third"], "sparse_ratio": 0.5}]"#;
            let (config, options) = (ConfigList::from_json(rules)?, PrunerConfig::new());
            L1NormPruner::from_compressor(chain(Net::new(), PLAIN), &config, options)?;
            Ok(())
        },
    );
    cases.refused(
        "a distiller: a layer that is not called",
        "NoHiddenState",
        ["`third`"],
        || {
            let config = ConfigList::from_json(r#"[{"op_names": ["third"]}]"#)?;
            let predict = |net: &Net, x: &Tensor<2>| PLAIN(net, x.clone());
            let options = DistillConfig::new(1.0);
            let chain = DynamicLayerwiseDistiller::from_compressor(
                chain(Net::new(), PLAIN),
                &config,
                &Net::new(),
                predict,
                options,
            )?;
            chain.compress(Budget::steps(1))?;
            Ok(())
        },
    );
}

/// A layer that is called twice: its inputs are coupled with its outputs.
fn repeated(cases: &mut Cases) {
    cases.right("a layer that is called twice is cut on both sides", || {
        let rules = r#"[{"op_names": ["fc1"], "sparse_ratio": 0.5}]"#;
        let (config, options) = (ConfigList::from_json(rules)?, PrunerConfig::new());
        let pruner = L1NormPruner::from_compressor(chain(Net::new(), TWICE), &config, options);
        // Its inputs are those of the model, too.
        match pruner {
            Err(error) => ensure(error.to_string().contains("fc1.weight"), error.to_string()),
            Ok(pruner) => {
                let compressed = pruner.compress(Budget::none())?;
                ModelSpeedup::new(compressed, dummy(TWICE)).speedup_model()?;
                Ok(())
            }
        }
    });
    cases.right("a layer that is called twice is quantized", || {
        let config = ConfigList::from_json(r#"[{"op_names": ["fc1"], "quant_dtype": "int8"}]"#)?;
        let chain = chain(Net::new(), TWICE);
        let chain = QatQuantizer::from_compressor(chain, &config, QatConfig::new())?;
        let calibration = chain.compress(Budget::steps(2))?.calibration()?;
        ensure(
            calibration.len() == 3,
            format!("{} targets", calibration.len()),
        )
    });
    cases.right("one parameter in two layers", || {
        let mut net = Net::new();
        net.third.weight = net.fc1.weight.clone();
        let rules = r#"[{"op_names": ["fc1"], "sparse_ratio": 0.5}]"#;
        let (config, options) = (ConfigList::from_json(rules)?, PrunerConfig::new());
        let pruner = L1NormPruner::from_compressor(chain(net, PLAIN), &config, options)?;
        let masks = pruner.compress(Budget::none())?.masks();
        ensure(masks[&id("fc1.weight")].sparsity() == 0.5, "another mask")
    });
}

/// Parameters that do not train.
fn frozen(cases: &mut Cases) {
    cases.right("a frozen model is pruned by its weights", || {
        let rules = r#"[{"op_names": ["fc1"], "sparse_ratio": 0.5}]"#;
        let (config, options) = (ConfigList::from_json(rules)?, PrunerConfig::new());
        let chain = chain(Net::new().no_grad(), PLAIN);
        let pruner = L1NormPruner::from_compressor(chain, &config, options)?;
        let masks = pruner.compress(Budget::none())?.masks();
        ensure(masks[&id("fc1.weight")].sparsity() == 0.5, "another mask")
    });
    cases.refused(
        "a frozen model trains",
        "LossDetached",
        ["no parameter"],
        || {
            chain(Net::new().no_grad(), PLAIN).compress(Budget::steps(1))?;
            Ok(())
        },
    );
    cases.right("a frozen layer stays as it is", || {
        let mut net = Net::new();
        net.fc1 = net.fc1.no_grad();
        let weights = |net: &Net| -> Vec<f32> { net.fc1.weight.val().into_data().iter().collect() };
        let before = weights(&net);
        let compressed = chain(net, PLAIN).compress(Budget::steps(2))?;
        ensure(weights(compressed.model()) == before, "it was trained")
    });
    cases.right("a frozen layer is quantized", || {
        let mut net = Net::new();
        net.fc1 = net.fc1.no_grad();
        let config = ConfigList::from_json(r#"[{"op_names": ["fc1"], "quant_dtype": "int8"}]"#)?;
        let quantizer =
            QatQuantizer::from_compressor(chain(net, PLAIN), &config, QatConfig::new())?;
        let calibration = quantizer.compress(Budget::steps(2))?.calibration()?;
        ensure(
            calibration.len() == 3,
            format!("{} targets", calibration.len()),
        )
    });
}

/// A network of which all values have this type.
fn of_type(dtype: DType) -> Net {
    let cast = |mut linear: Wrapper<Linear>| {
        linear.weight = Param::from_tensor(linear.weight.val().cast(dtype));
        let bias = linear.bias.clone();
        linear.bias = bias.map(|bias| Param::from_tensor(bias.val().cast(dtype)));
        linear
    };
    let net = Net::new();
    Net {
        fc1: cast(net.fc1),
        fc2: cast(net.fc2),
        third: cast(net.third),
    }
}

/// Models of other precision than 32 bits.
fn precision(cases: &mut Cases) {
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        cases.right(
            format!("a model of {dtype:?} is pruned by its weights"),
            move || {
                let rules = r#"[{"op_names": ["fc1"], "sparse_ratio": 0.5}]"#;
                let (config, options) = (
                    ConfigList::from_json(rules)?,
                    PrunerConfig::new().with_coupled(false),
                );
                let chain = chain(of_type(dtype), PLAIN);
                let pruner = L1NormPruner::from_compressor(chain, &config, options)?;
                let masks = pruner.compress(Budget::none())?.masks();
                ensure(masks[&id("fc1.weight")].sparsity() == 0.5, "another mask")
            },
        );
        cases.right(format!("weights of {dtype:?} are quantized"), move || {
            let rules = r#"[{"op_types": ["Linear"], "target_names": ["weight"]}]"#;
            let config = ConfigList::from_json(rules)?;
            let chain = chain(of_type(dtype), PLAIN);
            let chain = PtqQuantizer::from_compressor(chain, &config, PtqConfig::new())?;
            let compressed = chain.compress(Budget::none())?;
            let kept = compressed.model().fc1.weight.val().dtype() == dtype;
            ensure(kept && compressed.calibration()?.len() == 3, "another type")
        });
    }
}
