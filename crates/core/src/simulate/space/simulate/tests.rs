use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use rstest::rstest;

use crate::simulate::once;
use crate::simulate::space::Phase;
use crate::{
    FlatTensor, Grid, Learnable, Mask, MaskMethod, QuantScheme, Quantization, Stage, Target,
    TargetId, TargetSpace, TrainedBy, Transform,
};

fn space(target: Target) -> TargetSpace {
    let id = TargetId::new("fc", target);
    TargetSpace::new(id, None, Arc::new(Phase::default()))
}

fn quantization(grid: Grid, scale: &[f32]) -> Quantization {
    let device = Device::flex();
    let mut state = Quantization::new("int4", QuantScheme::Symmetric, -7.0, 7.0).with_grid(grid);
    state.enabled = true;
    state.scale = Some(Tensor::from_data(TensorData::from(scale), &device));
    state.zero_point = Some(Tensor::zeros([scale.len()], &device));
    state
}

fn value(dtype: FloatDType, device: &Device) -> Tensor<2> {
    Tensor::<2>::from_floats([[0.3, 1.0, -9.0], [0.6, -0.2, 0.5]], device).cast(dtype)
}

/// Doubles what is kept and tenfolds what is removed, with the mask and a learnable.
#[derive(Debug)]
struct Weigh(Arc<Learnable>);

impl Transform for Weigh {
    fn apply(&self, value: FlatTensor, mask: Option<Tensor<1>>) -> FlatTensor {
        let mask = mask.unwrap();
        let factor = self.0.tensor_for(&value.values).expand(mask.dims());
        FlatTensor {
            values: value.values * (mask.clone() * factor + (1.0 - mask) * 10.0),
            ..value
        }
    }

    fn snapshot(&self) -> Arc<dyn Transform> {
        Arc::new(Self(self.0.clone()))
    }
}

#[rstest]
#[case::f16(FloatDType::F16)]
#[case::bf16(FloatDType::BF16)]
#[case::f64(FloatDType::F64)]
fn values_keep_their_type(#[case] dtype: FloatDType) {
    let mask = Mask::new(vec![1.0, 0.0, 1.0], [1, 3]).unwrap();
    let space = space(Target::Output(0));
    space.set_mask(Some(mask)).unwrap();
    for grid in [
        (Grid::per_tensor(2), vec![0.5]),
        (Grid::per_channel(2, 1, 3), vec![0.5; 3]),
        (Grid::new([]), vec![0.5]),
    ] {
        space.set_quantization(Some(quantization(grid.0, &grid.1)));
        for device in [Device::flex(), Device::flex().autodiff()] {
            let found = space.simulate_activation(value(dtype, &device));
            assert_eq!(found.dtype(), DType::from(dtype));
            // x / 0.5 rounds to 1, 2, -18 (cut at -7); 1, 0, 1. The middle column is removed.
            let found = found.into_data().try_into_vec_as::<f32>().unwrap();
            assert_eq!(found, [0.5, 0.0, -3.5, 0.5, 0.0, 0.5]);
        }
    }
    let trained_by = TrainedBy::Evaluator;
    let factor = Learnable::new("factor", vec![2.0], [1], trained_by, &Device::flex()).unwrap();
    space.set_quantization(None);
    space.set_transform(Stage::Mask, Some(Arc::new(Weigh(factor.clone()))));
    let device = Device::flex().autodiff();
    let found = space.simulate_activation(value(dtype, &device));
    assert_eq!(found.dtype(), DType::from(dtype));
    let mut gradients = found.clone().sum().backward();
    factor.take_gradient(&mut gradients);
    let found = found.into_data().try_into_vec_as::<f32>().unwrap();
    for (found, expected) in found.iter().zip([0.6, 10.0, -18.0, 1.2, -2.0, 1.0]) {
        assert!((found - expected).abs() < 0.02, "{found} for {expected}");
    }
    // The gradient is the sum of what is kept: 0.3 - 9.0 + 0.6 + 0.5.
    let gradient = factor.gradient().unwrap();
    assert_eq!(gradient.dtype(), DType::F32);
    let gradient: f32 = gradient.into_scalar();
    assert!((gradient + 7.6).abs() < 0.05, "{gradient}");
}

#[rstest]
#[case::f16(FloatDType::F16)]
#[case::f64(FloatDType::F64)]
fn an_added_mask_moves_what_it_removes_far_down(#[case] dtype: FloatDType) {
    let mask = Mask::new(vec![1.0, 0.0, 1.0], [1, 3]).unwrap();
    let space = space(Target::Output(0));
    space
        .set_mask(Some(mask.with_method(MaskMethod::Add)))
        .unwrap();
    let scores = value(dtype, &Device::flex());
    let found = space.simulate_activation(scores.clone());
    assert_eq!(found.dtype(), DType::from(dtype));
    let moved =
        scores - Tensor::<2>::from_floats([[0.0, 1000.0, 0.0]], &Device::flex()).cast(dtype);
    found
        .clone()
        .into_data()
        .assert_eq(&moved.into_data(), true);
    let removed = burn::tensor::activation::softmax(found, 1).slice([0..2, 1..2]);
    assert_eq!(removed.sum().into_scalar::<f32>(), 0.0);
}

/// Counts its calls.
#[derive(Debug, Default)]
struct Count(Arc<AtomicUsize>);

impl Transform for Count {
    fn apply(&self, value: FlatTensor, _mask: Option<Tensor<1>>) -> FlatTensor {
        self.0.fetch_add(1, Ordering::Relaxed);
        value.map(|values| values * 2.0)
    }

    fn snapshot(&self) -> Arc<dyn Transform> {
        Arc::new(Self(self.0.clone()))
    }
}

#[test]
fn a_parameter_is_simulated_once_in_a_pass_of_its_layer() {
    let id = TargetId::new("fc", Target::param("weight"));
    let space = TargetSpace::new(id, Some(vec![2]), Arc::new(Phase::default()));
    let calls = Arc::new(AtomicUsize::new(0));
    space.set_transform(Stage::Last, Some(Arc::new(Count(calls.clone()))));
    let count = || calls.swap(0, Ordering::Relaxed);
    let device = Device::flex().autodiff();
    let weight = Tensor::<1>::from_floats([1.0, -1.0], &device).require_grad();
    let read = || space.simulate_parameter(weight.clone());

    // Outside of a layer each read is one of its own.
    let _both = (read(), read());
    assert_eq!(count(), 2);

    let pass = || {
        let sum = once::scope(|| read() + read() * 3.0);
        assert_eq!(count(), 1);
        let gradient = weight.grad(&sum.sum().backward()).unwrap();
        gradient.into_data().try_to_vec::<f32>().unwrap()
    };
    assert_eq!(pass(), [8.0, 8.0]);
    // Each pass has a graph of its own: that of the first is used up.
    assert_eq!(pass(), [8.0, 8.0]);

    let other = Tensor::<1>::from_floats([3.0, 5.0], &device).require_grad();
    let plain = Tensor::<1>::from_floats([1.0, -1.0], &Device::flex());
    once::scope(|| {
        let _first = read();
        let other = space.simulate_parameter(other);
        let other: Vec<f32> = other.into_data().try_to_vec().unwrap();
        assert_eq!((other, count()), (vec![6.0, 10.0], 2));
        // Without gradients nothing is kept.
        let _two = [plain.clone(), plain].map(|plain| space.simulate_parameter(plain));
        assert_eq!(count(), 2);
    });
}
