//! A residual network that is pruned and quantized by the rules of a deployment, cut, saved and
//! loaded.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::prelude::*;
use burn_compress::{CalibrationEntry, IntegerType};
use rstest::rstest;
use tempfile::TempDir;

#[derive(Module, Debug)]
struct Net {
    stem: Wrapper<Conv2d>,
    stem_bn: Wrapper<BatchNorm>,
    conv: Wrapper<Conv2d>,
    bn: Wrapper<BatchNorm>,
    add: Wrapper<Add>,
    concat: Wrapper<Concat>,
    pool: Wrapper<AdaptiveAvgPool2d>,
    head: Wrapper<Linear>,
}

/// Values between -1 and 1 that are the same in every run: tests share the generator of the device.
fn spread<const D: usize>(shape: [usize; D], seed: usize) -> Tensor<D> {
    let values = (0..shape.iter().product()).map(|i| ((i * 617 + seed * 389) % 1009) as f32);
    let values: Vec<f32> = values.map(|value| value / 504.0 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

impl Net {
    fn new(device: &Device) -> Self {
        let conv = |from, to, kernel, seed| {
            let conv = Conv2dConfig::new([from, to], [kernel, kernel]).with_bias(false);
            let mut conv = conv.init(device);
            conv.weight = Param::from_tensor(spread([to, from, kernel, kernel], seed));
            Wrapper::new(conv)
        };
        let norm = |seed| {
            let mut norm = BatchNormConfig::new(8).init(device);
            norm.beta = Param::from_tensor(spread([8], seed) * 0.5);
            Wrapper::new(norm)
        };
        let mut head = LinearConfig::new(16, 3).init(device);
        head.weight = Param::from_tensor(spread([16, 3], 5));
        Self {
            stem: conv(1, 8, 3, 1),
            stem_bn: norm(2),
            conv: conv(8, 8, 1, 3),
            bn: norm(4),
            add: Add::new().into(),
            concat: Concat::new(1).into(),
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init().into(),
            head: head.into(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.stem_bn.forward(self.stem.forward(x)));
        let y = self.bn.forward(self.conv.forward(x.clone()));
        let y = relu(self.add.forward((y, x.clone())));
        let x = self.concat.forward(vec![x, y]);
        self.head.forward(self.pool.forward(x).flatten(1, 3))
    }
}

fn images() -> Tensor<4> {
    spread([8, 1, 6, 6], 7)
}

fn small(deployment: &Deployment) -> Speedup<Net> {
    let device = Device::flex();
    let net = Net::new(&device);
    let batch = images();
    let dummy = DummyInput::new(batch.clone(), Net::forward);
    let rules = deployment.rules(&net, &dummy).unwrap();
    let evaluator = Evaluator::new()
        .with_dummy_input(dummy)
        .with_data(move |_| vec![batch.clone()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.05)
        .with_loss(|model: &Net, x: &Tensor<4>| model.forward(x.clone()).square().mean());
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let chain = L1NormPruner::new(net, half, evaluator, PrunerConfig::new()).unwrap();
    let chain = QatQuantizer::from_compressor(chain, rules, QatConfig::new()).unwrap();
    chain.compress(Budget::steps(4)).unwrap().speedup().unwrap()
}

fn entry<'a>(small: &'a Speedup<Net>, id: &str) -> &'a CalibrationEntry {
    &small.state.calibration[&id.parse::<TargetId>().unwrap()]
}

#[rstest]
#[case(Deployment::onnxruntime())]
#[case(Deployment::tensorrt())]
fn the_small_network_is_quantized_as_the_large_one(#[case] deployment: Deployment) {
    let small = small(&deployment);
    assert_eq!(small.model.stem.weight.dims(), [4, 1, 3, 3]);
    assert_eq!(small.model.head.weight.dims(), [8, 3]);
    assert_eq!(
        entry(&small, "conv.weight").scale.as_ref().unwrap().len(),
        4
    );
    let device = Device::flex();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("net.small");
    small.save(&file).unwrap();
    let again = Small::load(Net::new(&device), &file).unwrap();
    let output = |model: &Net| model.forward(images()).into_data();
    output(&again.model).assert_eq(&output(&small.model), true);
}

#[test]
fn one_tensor_has_one_grid_whoever_reads_it() {
    let small = small(&Deployment::onnxruntime());
    let grid = |id: &str| {
        let entry = entry(&small, id);
        (entry.scale.clone(), entry.zero_point.clone())
    };
    assert_eq!(grid("conv._input_0"), grid("add._input_1"));
    assert_eq!(grid("conv._input_0"), grid("concat._input_0"));
    // Behind a rectifier zero is the smallest integer.
    assert_eq!(grid("conv._input_0").1, Some(vec![0.0]));
    assert_ne!(grid("add._input_0").1, Some(vec![0.0]));
}

#[test]
fn the_steps_of_a_norms_bias_are_cut_with_its_channels() {
    let small = small(&Deployment::onnxruntime());
    for (conv, bias) in [
        ("stem", "stem_bn.beta"),
        ("conv", "bn.beta"),
        ("head", "head.bias"),
    ] {
        let bias = entry(&small, bias);
        assert_eq!(bias.dtype, IntegerType::Int32);
        let input = entry(&small, &format!("{conv}._input_0"))
            .scale
            .clone()
            .unwrap()[0];
        let weight = entry(&small, &format!("{conv}.weight"))
            .scale
            .clone()
            .unwrap();
        let steps: Vec<f32> = weight.iter().map(|scale| scale * input).collect();
        assert_eq!(bias.scale.as_ref(), Some(&steps));
    }
}

/// What the simulation computes is what integers compute: products of integers, added with the bias
/// in steps of the accumulator, are multiples of that step.
#[test]
fn outputs_of_the_folded_layer_are_multiples_of_its_step() {
    let small = small(&Deployment::onnxruntime());
    let model = &small.model;
    let output = model.stem_bn.forward(model.stem.forward(images()));
    let output: Vec<f32> = output.into_data().try_to_vec().unwrap();
    let vector = |tensor: Tensor<1>| tensor.into_data().try_to_vec::<f32>().unwrap();
    let gamma = vector(model.stem_bn.gamma.val());
    let variance = vector(model.stem_bn.running_var.value_sync());
    let steps = entry(&small, "stem_bn.beta").scale.clone().unwrap();
    let positions = output.len() / 8 / 4;
    for (at, value) in output.iter().enumerate() {
        let channel = at / positions % 4;
        let deviation = (f64::from(variance[channel]) + model.stem_bn.epsilon).sqrt();
        let factor = (f64::from(gamma[channel]) / deviation).abs();
        let integer = f64::from(*value) / (f64::from(steps[channel]) * factor);
        assert!((integer - integer.round()).abs() < 0.02, "{integer}");
    }
}
