//! Which layers follow each other, and what can be folded.

use std::sync::Arc;

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, Relu};
use burn::tensor::{Device, Tensor};

use super::{Fold, Norm};
use crate::{Compressor, DummyInput, Error, Evaluator, FlatTensor, Wrapper};

#[derive(Module, Debug)]
struct Net {
    first: Wrapper<Linear>,
    norm: Wrapper<BatchNorm>,
    relu: Wrapper<Relu>,
    second: Wrapper<Linear>,
    shared: Wrapper<Relu>,
    last: Wrapper<Relu>,
}

impl Net {
    /// `shared` runs twice; the output of `second` is read by `last` and by the sum.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.relu.forward(self.norm.forward(self.first.forward(x)));
        let x = self
            .second
            .forward(self.shared.forward(self.shared.forward(x)));
        self.last.forward(x.clone()) + x
    }
}

/// Doubles the weight.
#[derive(Debug)]
struct Twice;

impl Fold for Twice {
    fn weight(&self, weight: FlatTensor, _norm: &Norm) -> FlatTensor {
        FlatTensor {
            values: weight.values * 2.0,
            ..weight
        }
    }

    fn bias(&self, _bias: Option<Tensor<1>>, norm: &Norm) -> Tensor<1> {
        norm.mean.zeros_like()
    }
}

fn chain() -> Compressor<Net, Tensor<2>> {
    let device = Device::flex();
    let linear = LinearConfig::new(2, 2);
    let net = Net {
        first: linear.init(&device).into(),
        norm: BatchNormConfig::new(2).init(&device).into(),
        relu: Relu::new().into(),
        second: linear.init(&device).into(),
        shared: Relu::new().into(),
        last: Relu::new().into(),
    };
    let dummy = DummyInput::new(Tensor::<2>::ones([3, 2], &device), |net: &Net, x| {
        net.forward(x)
    });
    Compressor::from_model(net, Evaluator::new().with_dummy_input(dummy))
}

#[test]
fn layers_that_follow_each_other_alone() {
    let successors = chain().chain().successors("a test").unwrap();
    let found: Vec<_> = successors
        .iter()
        .map(|(layer, next)| (layer.as_str(), next.layer.as_str(), next.rank))
        .collect();
    assert_eq!(found, [("first", "norm", 2), ("norm", "relu", 2)]);
}

#[test]
fn a_folded_host_computes_in_the_place_of_its_norm() {
    let mut chain = chain();
    let x = Tensor::<2>::from_floats([[1.0, -2.0]], &Device::flex());
    let folding = chain
        .chain()
        .fold("first", "norm", Arc::new(Twice))
        .unwrap();
    let values = |tensor: Tensor<2>| tensor.into_data().try_to_vec::<f32>().unwrap();
    let run = |model: &Net| values(model.norm.forward(model.first.forward(x.clone())));
    let model = chain.model().valid();
    let doubled = model.first.weight.val() * 2.0;
    assert_eq!(run(&model), values(x.clone().matmul(doubled.clone())));
    folding.end();
    assert_eq!(
        run(&model),
        values(x.clone().matmul(doubled)),
        "a snapshot goes on"
    );
    let ended = chain.model().valid();
    let plain = ended.first.forward(x.clone());
    assert_eq!(run(&ended), values(BatchNorm::forward(&ended.norm, plain)));
}

#[test]
fn what_cannot_be_folded() {
    for (host, norm, expected) in [
        ("relu", "norm", "`relu` is no wrapped convolution"),
        ("first", "relu", "`relu` is no wrapped batch norm"),
        ("first", "nothing", "`nothing` is no wrapped batch norm"),
    ] {
        let error = chain()
            .chain()
            .fold(host, norm, Arc::new(Twice))
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let mut chain = chain();
    chain
        .chain()
        .fold("first", "norm", Arc::new(Twice))
        .unwrap();
    let error = chain
        .chain()
        .fold("second", "norm", Arc::new(Twice))
        .unwrap_err();
    assert!(matches!(error, Error::Folding { .. }));
    assert!(error.to_string().contains("`norm` is folded already"));
}
