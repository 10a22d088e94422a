//! Moments of Adam, taken out with their channels.

use super::*;
use crate::ModelSpeedup;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor as Values, TensorData};
use burn_compress_core::{DummyInput, Mask, Masks};

#[derive(Module, Debug)]
struct Mlp {
    first: Linear,
    second: Linear,
}

impl Mlp {
    fn forward(&self, x: Values<2>) -> Values<2> {
        self.second.forward(relu(self.first.forward(x)))
    }
}

/// A model and its optimizer after two steps.
fn trained(optimizer: ModuleOptimizer) -> (Mlp, ModuleOptimizer) {
    let device = Device::flex().autodiff();
    device.seed(1);
    let mlp = Mlp {
        first: LinearConfig::new(2, 3).init(&device),
        second: LinearConfig::new(3, 2).init(&device),
    };
    step(step((mlp, optimizer)))
}

fn step((mlp, mut optimizer): (Mlp, ModuleOptimizer)) -> (Mlp, ModuleOptimizer) {
    let device = Device::flex().autodiff();
    let x = Values::<2>::from_floats([[1.0, -2.0], [0.5, 3.0]], &device);
    let gradients = mlp.forward(x).square().sum().backward();
    let gradients = GradientsParams::from_grads(gradients, &mlp);
    let mlp = optimizer.step(0.1, mlp, gradients);
    (mlp, optimizer)
}

/// The second of three hidden features goes.
fn cut(mlp: &Mlp) -> Speedup<Mlp> {
    let dummy = DummyInput::new(Values::ones([1, 2], &Device::flex()), |mlp: &Mlp, x| {
        mlp.forward(x)
    });
    let masks = Masks::from([
        (
            "first.weight".parse().unwrap(),
            Mask::new([1.0, 0.0, 1.0].repeat(2), [2, 3]).unwrap(),
        ),
        (
            "first.bias".parse().unwrap(),
            Mask::new(vec![1.0, 0.0, 1.0], [3]).unwrap(),
        ),
    ]);
    let speedup = ModelSpeedup::from_masks(mlp.valid(), dummy, &masks).unwrap();
    speedup.speedup_model().unwrap()
}

fn moments(record: OptimizerRecord) -> BTreeMap<String, TensorData> {
    let reader = Reader::from_bytes(record.into_bytes().unwrap()).unwrap();
    let tensors = reader.into_tensors().unwrap().into_iter().map(|tensor| {
        let (name, dtype, shape, _, bytes) = tensor.into_parts().unwrap();
        (name, TensorData::from_bytes(bytes, shape, dtype))
    });
    tensors.collect()
}

#[test]
fn moments_follow_their_channels() {
    let (mlp, optimizer) = trained(AdamConfig::new().init());
    let small = cut(&mlp);
    let record = small.optimizer_record(optimizer.to_record()).unwrap();
    let (before, after) = (moments(optimizer.to_record()), moments(record));
    assert_eq!(before.len(), 8, "two moments of four parameters");
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>()
    );
    let id = |id: burn::module::ParamId| id.val().to_string();
    let first = id(small.model.first.weight.id);
    let second = id(small.model.second.weight.id);
    for (name, before) in &before {
        let (whole, after) = (before.try_to_vec::<f32>().unwrap(), &after[name]);
        let kept = after.try_to_vec::<f32>().unwrap();
        if name.starts_with(&first) {
            assert_eq!(kept, [whole[0], whole[2], whole[3], whole[5]]);
            assert_eq!(after.shape().to_vec(), [2, 2]);
        } else if name.starts_with(&second) {
            assert_eq!(kept, [whole[0], whole[1], whole[4], whole[5]]);
        }
    }
}

#[test]
fn training_goes_on_as_if_the_channel_had_never_been_there() {
    let (mlp, optimizer) = trained(AdamConfig::new().init());
    let small = cut(&mlp);
    let record = small.optimizer_record(optimizer.to_record()).unwrap();
    let resumed = AdamConfig::new().init().load_record(record);
    // The third feature of the whole model, masked by hand, neither acts nor moves.
    let mut masked = mlp;
    let keep = |values: Values<2>| {
        let mask = Values::<2>::from_floats([[1.0, 0.0, 1.0]], &values.device());
        (values * mask).detach().require_grad()
    };
    masked.first.weight = masked.first.weight.map(keep);
    masked.first.bias = masked.first.bias.map(|bias| {
        bias.map(|bias| {
            let mask = Values::<1>::from_floats([1.0, 0.0, 1.0], &bias.device());
            (bias * mask).detach().require_grad()
        })
    });
    let (whole, _) = step((masked, optimizer));
    let (small, _) = step((small.model.train(), resumed));
    let values = |weight: Values<2>| weight.into_data().try_into_vec::<f32>().unwrap();
    let (whole, small) = (
        values(whole.first.weight.val()),
        values(small.first.weight.val()),
    );
    for (a, b) in [whole[0], whole[2], whole[3], whole[5]].iter().zip(small) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn records_of_other_models_are_refused() {
    let (mlp, optimizer) = trained(AdamConfig::new().init());
    let small = cut(&mlp);
    let (_, other) = trained(AdamConfig::new().init());
    let error = small.optimizer_record(other.to_record()).unwrap_err();
    assert!(
        error.to_string().contains("the model has no parameter of"),
        "{error}"
    );
    // The record of the small model is no record of the whole one.
    let once = small.optimizer_record(optimizer.to_record()).unwrap();
    let error = small.optimizer_record(once).unwrap_err().to_string();
    assert!(error.contains("before the cut"), "{error}");
}
