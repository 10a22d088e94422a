//! The networks and chains that the cases are made with.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::config::Settings;
use burn_compress::prelude::*;
use burn_compress::{Compressed, Mask, Masks};
use burn_compress_tests::chains::{self, Chain, HALF, id};
use burn_compress_tests::nets::{Net, NetConfig, dummy_input, evaluator};

use crate::table::Attempt;

/// Steps of a short run.
pub const STEPS: usize = 4;
/// Integers of 8 bits for the convolutions.
pub const QUANTIZE: &str = r#"[{"op_types": ["Conv2d"], "quant_dtype": "int8"}]"#;
/// Hidden states of the convolutions.
pub const DISTILL: &str = r#"[{"op_types": ["Conv2d"], "lambda": 0.1}]"#;

/// The residual network, narrow.
pub const NET: NetConfig = NetConfig {
    stem: 4,
    width: 4,
    dropout: 0.0,
};

/// The residual network.
pub fn net() -> Net {
    NET.init(1)
}

/// A plain chain over the residual network.
pub fn chain() -> Chain {
    Compressor::from_model(net(), evaluator(STEPS))
}

/// An L1 pruner with these rules.
pub fn prune(rules: &str) -> Result<Chain, Box<dyn std::error::Error>> {
    chains::prune(chain(), rules, PrunerConfig::new())
}

/// A quantizer in training with these rules.
pub fn quantize(rules: &str) -> Result<Chain, Box<dyn std::error::Error>> {
    chains::quantize(chain(), rules, QatConfig::new())
}

/// A distiller with these rules, and a teacher of the same kind.
pub fn distill(rules: &str) -> Result<Chain, Box<dyn std::error::Error>> {
    chains::distill(chain(), rules, &NET.init(2), 1.0)
}

/// Half of the channels of each convolution, masked.
pub fn halved() -> Result<Compressed<Net>, Box<dyn std::error::Error>> {
    Ok(prune(HALF)?.compress(Budget::none())?)
}

/// The residual network with half of its channels.
pub fn small() -> Result<Speedup<Net>, Box<dyn std::error::Error>> {
    Ok(ModelSpeedup::new(halved()?, dummy_input()).speedup_model()?)
}

/// A mode, by what its rules are read and used by.
pub type Build = fn(&str) -> Attempt;

/// The three modes with a setting that each of their rules needs or may have.
pub const MODES: [(&str, Build, &str); 3] = [
    (
        "pruning",
        |rules| prune(rules).map(|_| ()),
        r#""sparse_ratio": 0.5"#,
    ),
    (
        "quantization",
        |rules| quantize(rules).map(|_| ()),
        r#""quant_dtype": "int8""#,
    ),
    (
        "distillation",
        |rules| distill(rules).map(|_| ()),
        r#""lambda": 0.5"#,
    ),
];

/// A list of one rule for all convolutions.
pub fn rule<S: Settings>(settings: S) -> ConfigList<S> {
    let rule = Rule::new()
        .with_op_types(["Conv2d"])
        .with_settings(settings);
    ConfigList::new(vec![rule])
}

/// One mask of a target.
pub fn mask(
    target: &str,
    values: Vec<f32>,
    shape: &[usize],
) -> Result<Masks, burn_compress::Error> {
    Ok(Masks::from([(id(target), Mask::new(values, shape)?)]))
}

/// Two linear layers with a rectifier between them.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[4, 6]`
    pub fc1: Wrapper<Linear>,
    /// `[6, 3]`
    pub fc2: Wrapper<Linear>,
}

impl Mlp {
    /// A network whose weights are a fixed pattern.
    pub fn new() -> Self {
        let device = Device::flex();
        let linear = |inputs: usize, outputs: usize| {
            let mut linear = LinearConfig::new(inputs, outputs).init(&device);
            let value = |at: usize| ((at * 7 + 3) % 11) as f32 / 11.0 - 0.45;
            let values: Vec<f32> = (0..inputs * outputs).map(value).collect();
            let values = TensorData::new(values, [inputs, outputs]);
            linear.weight = Param::from_data(values, &device);
            linear.bias = Some(Param::from_data(
                TensorData::zeros::<f32, _>([outputs]),
                &device,
            ));
            Wrapper::new(linear)
        };
        Self {
            fc1: linear(4, 6),
            fc2: linear(6, 3),
        }
    }

    /// `[batch, 4]` to `[batch, 3]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.fc2
            .forward(burn::tensor::activation::relu(self.fc1.forward(x)))
    }
}

/// Inputs of [`Mlp`].
pub fn rows(values: f32) -> Tensor<2> {
    let values: Vec<f32> = (0..8).map(|at| values * (at as f32 - 3.5)).collect();
    Tensor::from_data(TensorData::new(values, [2, 4]), &Device::flex())
}

/// An input that shows the graph of [`Mlp`].
pub fn mlp_input() -> DummyInput<Mlp> {
    DummyInput::new(rows(0.3), |net: &Mlp, x| net.forward(x))
}

/// An evaluator of [`Mlp`] that trains on these batches.
pub fn mlp_evaluator(batches: Vec<Tensor<2>>) -> Evaluator<Mlp, Tensor<2>> {
    Evaluator::new()
        .with_dummy_input(mlp_input())
        .with_data(move |_| batches.clone())
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.01)
        .with_loss(|net: &Mlp, x: &Tensor<2>| net.forward(x.clone()).square().mean())
}

/// A chain over [`Mlp`].
pub fn mlp() -> Compressor<Mlp, Tensor<2>> {
    Compressor::from_model(Mlp::new(), mlp_evaluator(vec![rows(0.3), rows(-0.2)]))
}
