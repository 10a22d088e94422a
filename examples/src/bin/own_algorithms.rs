//! Algorithms of a user's own: an importance, a feature loss, a quantizer and a rule for an own
//! operation, fused over one model, stopped and resumed, cut, and put through the test kit.

#[path = "own_algorithms/gain.rs"]
mod gain;

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::AdamConfig;
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::BoxError;
use burn_compress::distillation::feature::{FeatureLoss, FeaturePair, Learnables};
use burn_compress::graph::{OperationRule, any_zero};
use burn_compress::prelude::*;
use burn_compress::pruning::{Blocks, Importance};
use burn_compress::quantization::{QParams, RangeRule, Ranges, qparams};
use burn_compress_testkit::{self as kit, Subject};
use gain::gain;

// ANCHOR: importance
/// Channels whose weights spread least around their mean go first.
struct Spread;

impl Importance for Spread {
    fn score(&self, values: &[f32], blocks: &Blocks) -> Vec<f32> {
        blocks.reduce(values, |block| {
            let mean = block.iter().sum::<f32>() / block.len() as f32;
            block.iter().map(|value| (value - mean).powi(2)).sum()
        })
    }
}
// ANCHOR_END: importance

// ANCHOR: loss
/// One minus the cosine between the features of student and teacher.
struct Cosine;

impl FeatureLoss for Cosine {
    fn loss(&self, pair: &FeaturePair, _: &mut Learnables) -> Result<Tensor<1>, BoxError> {
        let (student, teacher) = (pair.student.samples(), pair.teacher.samples());
        let length = |rows: &Tensor<2>| rows.clone().square().sum_dim(1).clamp_min(1e-12).sqrt();
        let lengths = length(&student) * length(&teacher);
        let cosine = (student * teacher).sum_dim(1) / lengths;
        Ok(cosine.neg().add_scalar(1.0).mean())
    }
}
// ANCHOR_END: loss

// ANCHOR: grid
/// Scales that are powers of two, for hardware that shifts in place of a multiplication.
#[derive(Debug)]
struct PowerOfTwo;

impl RangeRule for PowerOfTwo {
    fn name(&self) -> &'static str {
        "PowerOfTwo"
    }

    fn qparams(&self, ranges: Ranges, dtype: QuantDtype, _: QuantScheme) -> QParams {
        let symmetric = QuantScheme::Symmetric;
        let found = qparams::compute(ranges.minimum, ranges.maximum, dtype, symmetric);
        let exponent = (found.scale.log() / std::f64::consts::LN_2).ceil();
        QParams {
            scale: (exponent * std::f64::consts::LN_2).exp(),
            ..found
        }
    }
}
// ANCHOR_END: grid

// ANCHOR: operation
/// The channels of the feature map are the entries of the gain; zero where one of them is.
fn gain_rule() -> OperationRule {
    OperationRule::new()
        .carry([(0, 0)], (0, 0), any_zero)
        .carry([(0, 1), (1, 0)], (0, 1), any_zero)
        .carry([(0, 2)], (0, 2), any_zero)
        .carry([(0, 3)], (0, 3), any_zero)
}
// ANCHOR_END: operation

/// Two convolutions with the kernel between them.
#[derive(Module, Debug)]
struct Net {
    conv1: Wrapper<Conv2d>,
    gain: Param<Tensor<1>>,
    conv2: Wrapper<Conv2d>,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        device.seed(1);
        Self {
            conv1: Conv2dConfig::new([1, 8], [3, 3]).init(device).into(),
            gain: Param::from_tensor(Tensor::full([8], 1.5, device)),
            conv2: Conv2dConfig::new([8, 4], [3, 3]).init(device).into(),
            head: LinearConfig::new(4, 2).init(device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = gain(self.conv1.forward(images), self.gain.val());
        let x = self.conv2.forward(x).mean_dim(3).mean_dim(2);
        self.head.forward(x.flatten(1, 3))
    }
}

fn images(seed: usize, device: &Device) -> Tensor<4> {
    let value = |at: usize| ((at * 37 + seed * 101) % 97) as f32 / 97.0;
    let values: Vec<f32> = (0..4 * 8 * 8).map(value).collect();
    Tensor::from_data(TensorData::new(values, [4, 1, 8, 8]), device)
}

fn evaluator(device: &Device) -> Evaluator<Net, Tensor<4>> {
    let dummy = DummyInput::new(images(0, device), |net: &Net, x| net.forward(x));
    let device = device.clone();
    Evaluator::new()
        .with_dummy_input(dummy.with_rule("gain", |_| gain_rule()))
        .with_data(move |_| (0..4).map(|at| images(at, &device)).collect::<Vec<_>>())
        .with_optimizer(AdamConfig::new().init())
        .with_learning_rate(0.01)
        .with_loss(|net: &Net, x: &Tensor<4>| net.forward(x.clone()).square().mean())
}

// ANCHOR: chain
/// All of them over one model.
fn chain(device: &Device) -> Result<Compressor<Net, Tensor<4>>, Error> {
    let teacher = Net::new(device);
    let forward = |net: &Net, x: &Tensor<4>| net.forward(x.clone());
    let half = named(["conv1"]).sparse_ratio(0.5);
    let int8 = named(["conv1", "conv2"]).quant_dtype(QuantDtype::INT8);
    let hidden = named(["conv2"]).lambda(0.1);
    let pruner = Pruner::with(Spread).new(teacher.clone(), half, evaluator(device))?;
    let quantizer = Quantizer::with(PowerOfTwo).from_compressor(pruner, int8)?;
    let distiller = FeatureDistiller::with(Cosine);
    distiller.from_compressor(quantizer, hidden, &teacher, forward)
}
// ANCHOR_END: chain

fn main() -> Result<(), Error> {
    let (device, budget) = (Device::flex(), Budget::steps(8));
    println!("{}", chain(&device)?);
    let whole = chain(&device)?.compress(budget.clone())?;

    let file = std::env::temp_dir().join(format!("own-algorithms-{}", std::process::id()));
    let mut stopped = chain(&device)?;
    stopped.advance(&budget, Some(4))?;
    stopped.save_checkpoint(&file)?;
    let resumed = chain(&device)?.resume(&file)?.compress(budget)?;
    std::fs::remove_file(&file)?;
    assert_eq!(resumed.history(), whole.history());
    assert_eq!(resumed.masks(), whole.masks());
    println!("stopped after 4 of 8 steps and resumed: the same run\n\n{resumed}");

    let small = resumed.speedup()?;
    println!(
        "small: conv1 {:?}, gain {:?}, conv2 {:?}\n",
        small.model.conv1.weight.dims(),
        small.model.gain.dims(),
        small.model.conv2.weight.dims()
    );

    for subject in subjects() {
        let chains = kit::conform(&subject).map_err(Error::other)?;
        println!("{} conforms in {chains} chains", subject.name());
    }
    Ok(())
}

// ANCHOR: subjects
/// The algorithms over the network of the test kit.
fn subjects() -> [Subject<'static>; 3] {
    [
        Subject::pruner("Spread", |chain| {
            Ok(Pruner::with(Spread).from_compressor(chain, kit::half_of_the_channels())?)
        }),
        Subject::quantizer("PowerOfTwo", 8, |chain| {
            Ok(Quantizer::with(PowerOfTwo).from_compressor(chain, kit::int8())?)
        }),
        Subject::distiller("Cosine", |chain| {
            let (teacher, teach) = (kit::nets::teacher(), kit::nets::teach);
            let distiller = FeatureDistiller::with(Cosine);
            Ok(distiller.from_compressor(chain, kit::hidden_states(), &teacher, teach)?)
        }),
    ]
}
// ANCHOR_END: subjects

#[cfg(test)]
mod tests {
    #[test]
    fn the_program_runs() {
        super::main().unwrap();
    }
}
