//! A small network and what every quantizer that trains must do with it.

use burn::module::{Module, Param};
use burn::nn::activation::Relu;
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::Learner;
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Budget, Compressed, Compressor, Error, Evaluator, Wrapper};

use crate::{QuantizationError, QuantizationSettings, quantizers};

/// Two layers with a rectifier between them.
#[derive(Module, Debug)]
pub struct Net {
    pub first: Wrapper<Linear>,
    pub act: Wrapper<Relu>,
    pub second: Wrapper<Linear>,
}

impl Net {
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let hidden = self.act.forward(self.first.forward(x));
        self.second.forward(hidden)
    }
}

pub type Chain = Compressor<Net, Tensor<2>>;

/// Weights `[2, 2]` and `[2, 1]`, no biases.
pub fn net(first: [[f32; 2]; 2], second: [[f32; 1]; 2]) -> Net {
    let device = Device::flex();
    let linear = |out: usize, data: TensorData| {
        let mut linear = LinearConfig::new(2, out).with_bias(false).init(&device);
        linear.weight = Param::from_data(data, &device);
        Wrapper::new(linear)
    };
    Net {
        first: linear(2, TensorData::from(first)),
        act: Relu::new().into(),
        second: linear(1, TensorData::from(second)),
    }
}

const BATCHES: [[[f32; 2]; 2]; 2] = [[[0.9, -0.4], [0.2, 0.7]], [[-0.3, 1.1], [0.5, 0.6]]];

/// Any weights and batches.
pub fn any() -> Chain {
    of(net([[0.31, -0.82], [0.57, 0.24]], [[0.73], [-0.46]]))
}

/// Some batches, which lie on the plain device.
pub fn of(net: Net) -> Chain {
    chain(net, BATCHES.to_vec(), 0.05)
}

/// Gradient descent on the mean output of batches of two rows.
pub fn chain(net: Net, batches: Vec<[[f32; 2]; 2]>, learning_rate: f64) -> Chain {
    let device = Device::flex();
    let batch = move |rows: &[[f32; 2]; 2]| Tensor::<2>::from_floats(*rows, &device);
    let evaluator = Evaluator::new()
        .with_data(move |_| batches.iter().map(&batch).collect::<Vec<_>>())
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(learning_rate)
        .with_loss(|model: &Net, batch: &Tensor<2>| model.forward(batch.clone()).mean());
    Compressor::from_model(net, evaluator)
}

/// The quantizers of the registry, chosen by whether they train.
pub fn names(chosen: impl Fn(bool) -> bool) -> Vec<&'static str> {
    let entries = quantizers::<Net, Tensor<2>>().into_iter();
    let chosen = entries.filter(|entry| chosen(entry.trains));
    chosen.map(|entry| entry.name).collect()
}

pub fn rules(json: &str) -> ConfigList<QuantizationSettings> {
    ConfigList::from_json(json).unwrap()
}

pub fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

pub fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 2e-6, "{found:?} in place of {expected:?}");
    }
}

/// Everything that a run leaves: raw and simulated parameters, calibration, an output.
fn left(compressed: &Compressed<Net>) -> (Vec<Vec<f32>>, String) {
    let model = compressed.model();
    let x = Tensor::<2>::from_floats([[0.4, -1.2], [0.1, 0.8]], &Device::flex());
    let values = vec![
        floats(model.first.weight.base()),
        floats(model.first.weight.val()),
        floats(model.second.weight.base()),
        floats(model.second.weight.val()),
        floats(model.forward(x)),
    ];
    (values, format!("{:?}", compressed.calibration().unwrap()))
}

/// A run that stops after any step and goes on from its checkpoint ends as one that does not.
pub fn resumes(name: &str, build: impl Fn() -> Chain) {
    let file = format!("learned-{name}-{}.ckpt", std::process::id());
    let path = std::env::temp_dir().join(file);
    let whole = left(&build().compress(Budget::steps(5)).unwrap());
    for stop in 0..=5 {
        let mut first = build();
        first.advance(&Budget::steps(5), Some(stop)).unwrap();
        first.save_checkpoint(&path).unwrap();
        let resumed = build().resume(&path).unwrap();
        let resumed = resumed.compress(Budget::steps(5)).unwrap();
        assert_eq!(left(&resumed), whole, "stopped after {stop}");
    }
    std::fs::remove_file(path).unwrap();
}

/// A `Learner` trains as the chain does.
pub fn learner_agrees(build: impl Fn() -> Chain) {
    let alone = left(&build().compress(Budget::steps(4)).unwrap());
    let trainee = build().into_trainee(4).unwrap();
    let mut learner = Learner::new(trainee, SgdConfig::new().init(), 0.05);
    for step in 0..4 {
        let rows = BATCHES[step % BATCHES.len()];
        let output = learner.train_step(Tensor::from_floats(rows, &Device::flex()));
        learner.lr_step();
        learner.optimizer_step(output.grads);
    }
    let learned = learner.model().valid().finish().unwrap();
    assert_eq!(left(&learned), alone);
}

/// The model computes after the run what it computed at its end.
pub fn nothing_changes_at_the_end(build: impl Fn() -> Chain) {
    let mut chain = build();
    chain.advance(&Budget::steps(3), None).unwrap();
    let x = Tensor::<2>::from_floats([[0.4, -1.2], [0.1, 0.8]], &Device::flex());
    let before = floats(chain.model().valid().forward(x.clone()));
    let after = chain.finish().unwrap();
    assert_eq!(floats(after.model().forward(x)), before);
}

/// The error of this crate inside of one of the core, whatever the target.
pub fn cause(error: Error) -> QuantizationError {
    let Error::Algorithm { source, .. } = error else {
        panic!("{error}");
    };
    match *source.downcast().unwrap() {
        QuantizationError::Target { source, .. } => *source,
        other => other,
    }
}
