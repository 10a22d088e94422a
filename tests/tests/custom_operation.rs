//! A model with a kernel of the user: coupled through it, pruned while it trains, sped up, verified.

#[path = "../../examples/src/bin/own_algorithms/gain.rs"]
mod gain;

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::AdamConfig;
use burn::tensor::{Device, Distribution, Tensor};
use burn_compress::graph::{GraphError, OperationRule, any_zero};
use burn_compress::prelude::*;
use gain::gain;

/// Channels of the feature map are the entries of the gain; zero where one of them is.
fn rule() -> OperationRule {
    OperationRule::new()
        .carry([(0, 0)], (0, 0), any_zero)
        .carry([(0, 1), (1, 0)], (0, 1), any_zero)
        .carry([(0, 2)], (0, 2), any_zero)
        .carry([(0, 3)], (0, 3), any_zero)
}

#[derive(Module, Debug)]
struct Net {
    conv1: Wrapper<Conv2d>,
    gain: Param<Tensor<1>>,
    conv2: Wrapper<Conv2d>,
    head: Wrapper<Linear>,
}

impl Net {
    fn new() -> Self {
        let device = Device::flex();
        Self {
            conv1: Conv2dConfig::new([1, 6], [3, 3]).init(&device).into(),
            gain: Param::from_tensor(Tensor::full([6], 1.5, &device)),
            conv2: Conv2dConfig::new([6, 4], [3, 3]).init(&device).into(),
            head: LinearConfig::new(4, 2).init(&device).into(),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = gain(self.conv1.forward(images), self.gain.val());
        let x = self.conv2.forward(x).mean_dim(3).mean_dim(2);
        self.head.forward(x.flatten(1, 3))
    }
}

fn images() -> Tensor<4> {
    Tensor::random([4, 1, 8, 8], Distribution::Default, &Device::flex())
}

fn dummy() -> DummyInput<Net> {
    DummyInput::new(images(), |net: &Net, images| net.forward(images))
}

fn evaluator(dummy: DummyInput<Net>) -> Evaluator<Net, Tensor<4>> {
    Evaluator::new()
        .with_dummy_input(dummy)
        .with_data(|_| (0..4).map(|_| images()).collect::<Vec<_>>())
        .with_optimizer(AdamConfig::new().init())
        .with_learning_rate(0.01)
        .with_loss(|net: &Net, images: &Tensor<4>| net.forward(images.clone()).square().mean())
}

#[test]
fn a_model_with_a_kernel_of_the_user_is_pruned_quantized_and_sped_up() {
    let dummy = dummy().with_rule("gain", |_| rule());
    let half = ConfigList::from_json(
        r#"[{"op_names": ["conv1"], "target_names": ["weight", "bias"], "sparse_ratio": 0.5}]"#,
    )
    .unwrap();
    let int8 = ConfigList::from_json(
        r#"[{"op_types": ["Conv2d"], "target_names": ["weight", "_input_"], "quant_dtype": "int8"}]"#,
    )
    .unwrap();
    let pruner = TaylorPruner::new(
        Net::new(),
        &half,
        evaluator(dummy.clone()),
        TaylorConfig::new(2),
    )
    .unwrap();
    let quantizer = QatQuantizer::from_compressor(pruner, &int8, QatConfig::new()).unwrap();
    let compressed = quantizer.compress(Budget::steps(6)).unwrap();

    // The gain is coupled with the convolution through the kernel.
    let masks = compressed.masks();
    let removed = |target: &str| masks[&target.parse::<TargetId>().unwrap()].removed_along(0);
    assert_eq!(
        removed("conv1.weight").iter().filter(|gone| **gone).count(),
        3
    );

    // What is verified is the whole output.
    let small = ModelSpeedup::new(compressed, dummy)
        .speedup_model()
        .unwrap();
    assert_eq!(small.model.conv1.weight.dims(), [3, 1, 3, 3]);
    assert_eq!(small.model.gain.dims(), [3]);
    assert_eq!(small.model.conv2.weight.dims(), [4, 3, 3, 3]);
    assert!(small.report.uncut.is_empty(), "{:?}", small.report.uncut);
}

#[test]
fn a_kernel_without_a_rule_is_an_error_before_the_training() {
    let half = ConfigList::from_json(r#"[{"op_names": ["conv1"], "sparse_ratio": 0.5}]"#).unwrap();
    let error = L1NormPruner::new(Net::new(), &half, evaluator(dummy()), PrunerConfig::new());
    let error = error.map(|chain| chain.algorithms()).unwrap_err();
    let Error::Graph(error) = error else {
        panic!("{error}");
    };
    assert!(
        matches!(&error, GraphError::UnknownOperation { operation, .. } if operation == "gain")
    );
    assert!(
        error
            .to_string()
            .contains("DummyInput::with_rule(\"gain\", ..)"),
        "{error}"
    );
}
