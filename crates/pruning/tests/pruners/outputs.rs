//! Scores of outputs, and what pruners refuse.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig, Relu};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Budget, Compressor, DummyInput, Error, Evaluator, TargetId, Wrapper};
use burn_compress_pruning::{
    ActivationConfig, ActivationPruner, ApozConfig, ApozPruner, FpgmPruner, L1NormPruner,
    PrunerConfig, PruningSettings, pruners,
};

use crate::nets;

/// Two layers of three channels and one of two; the first has no wrapper.
#[derive(Module, Debug)]
struct Net {
    first: Linear,
    relu: Wrapper<Relu>,
    second: Wrapper<Linear>,
    last: Wrapper<Linear>,
}

/// `second` is the identity.
fn net(weight: [f32; 3], bias: [f32; 3]) -> Net {
    let device = Device::flex();
    let mut first = LinearConfig::new(1, 3).init(&device);
    first.weight = Param::from_tensor(Tensor::<1>::from_floats(weight, &device).unsqueeze());
    first.bias = Some(Param::from_tensor(Tensor::from_floats(bias, &device)));
    let mut second = LinearConfig::new(3, 3).with_bias(false).init(&device);
    second.weight = Param::from_tensor(Tensor::eye(3, &device));
    Net {
        first,
        relu: Relu::new().into(),
        second: second.into(),
        last: LinearConfig::new(3, 2).init(&device).into(),
    }
}

/// Inputs -2, -1, 1 and 2, and a learning rate of zero.
fn evaluator(device: &Device) -> Evaluator<Net, Tensor<2>> {
    let batch = Tensor::<2>::from_floats([[-2.0], [-1.0], [1.0], [2.0]], device);
    let dummy = DummyInput::new(
        batch.clone().without_autodiff(),
        |net: &Net, x: Tensor<2>| net.forward(x),
    );
    Evaluator::new()
        .with_dummy_input(dummy)
        .with_data(move |_| vec![batch.clone()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.0)
        .with_loss(|net: &Net, x: &Tensor<2>| net.forward(x.clone()).mean())
}

impl Net {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.relu.forward(self.first.forward(x));
        self.last.forward(self.second.forward(x))
    }
}

fn chain(weight: [f32; 3], bias: [f32; 3]) -> Compressor<Net, Tensor<2>> {
    Compressor::from_model(net(weight, bias), evaluator(&Device::flex()))
}

fn rules(text: &str) -> ConfigList<PruningSettings> {
    ConfigList::from_json(text).unwrap()
}

fn alone() -> PrunerConfig {
    PrunerConfig::new().with_coupled(false)
}

/// The channels of a bias that are kept.
fn kept(chain: Compressor<Net, Tensor<2>>, target: &str) -> Vec<f32> {
    let masks = chain.compress(Budget::steps(3)).unwrap().masks();
    let mask = &masks[&target.parse::<TargetId>().unwrap()];
    let removed = mask.removed_along(mask.shape().len() - 1);
    removed
        .iter()
        .map(|removed| f32::from(u8::from(!removed)))
        .collect()
}

#[test]
fn magnitudes_are_those_of_the_layer_or_of_the_one_that_is_named() {
    // Behind the ReLU: means of |2 x| 1.5, of |x| 0.75 and of |0.1 x + 3| 3.
    let chain = || chain([2.0, 1.0, 0.1], [0.0, 0.0, 3.0]);
    let options = || ActivationConfig::new(2).with_pruner(alone());
    let config = rules(r#"[{"op_names": ["second"], "sparse_ratio": 0.34}]"#);
    let pruner = ActivationPruner::from_compressor(chain(), &config, options()).unwrap();
    assert_eq!(kept(pruner, "second.weight"), [1.0, 0.0, 1.0]);
    let config = rules(r#"[{"op_names": ["first"], "sparse_ratio": 0.67, "activation": "relu"}]"#);
    let pruner = ActivationPruner::from_compressor(chain(), &config, options()).unwrap();
    assert_eq!(kept(pruner, "first.bias"), [0.0, 0.0, 1.0]);
}

#[test]
fn zeros_are_counted_behind_the_activation_of_the_layer() {
    // Positive for 2, 3 and 1 of the inputs.
    let chain = chain([1.0, 1.0, 1.0], [0.0, 1.5, -1.5]);
    let config = rules(r#"[{"op_names": ["first"], "sparse_ratio": 0.67}]"#);
    let options = ApozConfig::new(1).with_pruner(alone());
    let pruner = ApozPruner::from_compressor(chain, &config, options).unwrap();
    assert_eq!(kept(pruner, "first.bias"), [0.0, 1.0, 0.0]);
}

#[test]
fn a_layer_that_is_not_wrapped_is_told_how_to_be() {
    let chain = chain([1.0; 3], [0.0; 3]);
    let config = rules(r#"[{"op_names": ["first"], "sparse_ratio": 0.5, "activation": "first"}]"#);
    let options = ActivationConfig::new(1).with_pruner(alone());
    let error = ActivationPruner::from_compressor(chain, &config, options).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`first` is not wrapped; make its field a `Wrapper<Linear>`"),
        "{text}"
    );
}

#[test]
fn an_output_without_the_channels_is_an_error() {
    let options = || ActivationConfig::new(1).with_pruner(alone());
    let pruner = |layer: &str| {
        let config = rules(&format!(
            r#"[{{"op_names": ["first"], "sparse_ratio": 0.5, "activation": "{layer}"}}]"#
        ));
        ActivationPruner::from_compressor(chain([1.0; 3], [0.0; 3]), &config, options())
    };
    refused(pruner("unknown"), "there is no layer `unknown`");
    refused(
        pruner("last"),
        "first.weight: the output of `last` has the shape [4, 2], but its 3 channels are to be \
         scored",
    );
}

#[test]
fn batches_may_lie_on_an_autodiff_device() {
    let device = Device::flex().autodiff();
    let model = net([2.0, 1.0, 0.1], [0.0, 0.0, 3.0]);
    let chain = Compressor::from_model(model, evaluator(&device));
    let config = rules(r#"[{"op_names": ["second"], "sparse_ratio": 0.34}]"#);
    let options = ActivationConfig::new(2).with_pruner(alone());
    let pruner = ActivationPruner::from_compressor(chain, &config, options).unwrap();
    assert_eq!(kept(pruner, "second.weight"), [1.0, 0.0, 1.0]);
}

#[test]
fn observing_outputs_does_not_touch_the_training() {
    let weights = |pruner: &str| {
        let pruner = pruners::<nets::Net, nets::Batch>()
            .into_iter()
            .find(|entry| entry.name == pruner)
            .unwrap();
        let config = rules(r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.0}]"#);
        let chain = (pruner.fuse)(nets::chain(), &config, 3).unwrap();
        let net = chain.compress(Budget::steps(5)).unwrap().unwrap_model();
        let values = |tensor: Tensor<1>| tensor.into_data().try_to_vec::<f32>().unwrap();
        let weight = net.stem.weight.val().without_autodiff().reshape([72]);
        (values(weight), values(net.norm.running_mean.value_sync()))
    };
    assert_eq!(weights("ActivationPruner"), weights("L1NormPruner"));
    assert_eq!(weights("ApozPruner"), weights("L1NormPruner"));
}

fn refused(result: Result<Compressor<Net, Tensor<2>>, Error>, message: &str) {
    let error = result.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

#[test]
fn settings_without_effect_and_scores_without_meaning_are_refused() {
    let chain = || chain([1.0; 3], [0.0; 3]);
    let config = rules(r#"[{"op_names": ["second"], "sparse_ratio": 0.5, "activation": "relu"}]"#);
    refused(
        L1NormPruner::from_compressor(chain(), &config, alone()),
        "second.weight: `activation` has no effect on `L1NormPruner`",
    );
    let config = rules(r#"[{"op_names": ["second"], "sparse_ratio": 0.5, "granularity": [1, 1]}]"#);
    refused(
        FpgmPruner::from_compressor(chain(), &config, alone()),
        "second.weight: its blocks cannot be scored: distances between single elements",
    );
    for granularity in ["[1, 1]", "\"in_channel\""] {
        let config = rules(&format!(
            r#"[{{"op_names": ["second"], "sparse_ratio": 0.5, "granularity": {granularity}}}]"#
        ));
        let options = ActivationConfig::new(1).with_pruner(alone());
        refused(
            ActivationPruner::from_compressor(chain(), &config, options),
            "outputs score whole output channels only",
        );
    }
    let config = rules(r#"[{"op_names": ["second"], "pattern": "1:3"}]"#);
    let options = ApozConfig::new(1).with_pruner(alone());
    refused(
        ApozPruner::from_compressor(chain(), &config, options),
        "outputs score whole output channels only",
    );
    refused(
        FpgmPruner::from_compressor(chain(), &config, alone()),
        "distances between single elements",
    );
    let config =
        rules(r#"[{"op_names": ["second"], "target_names": ["weight"], "pattern": "2:4"}]"#);
    refused(
        L1NormPruner::from_compressor(chain(), &config, alone()),
        "pattern 2:4 does not divide dim 0 of the shape [3, 3]",
    );
    let config = rules(
        r#"[{"op_names": ["first"], "target_names": ["bias"],
            "target_settings": {"bias": {"pattern": "1:3"}}}]"#,
    );
    refused(
        L1NormPruner::from_compressor(chain(), &config, alone()),
        "input-channel dim",
    );
}

#[test]
fn elements_keep_a_pattern_whatever_the_pruner_prunes_by_default() {
    let chain = chain([1.0; 3], [0.0; 3]);
    let config = rules(r#"[{"op_names": ["second"], "pattern": "1:3"}]"#);
    let pruner = L1NormPruner::from_compressor(chain, &config, PrunerConfig::new()).unwrap();
    let masks = pruner.compress(Budget::none()).unwrap().masks();
    // The identity: of every column, the element on the diagonal.
    assert_eq!(
        masks[0].values(),
        [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    );
}
