//! The 32-bit bias of a batch norm that a deployed network folds into the layer before it.
//!
//! Integer hardware adds the bias of a convolution to the accumulator, whose step is the step of the
//! input times that of the weight. A norm that is folded when the network is exported, with
//! `f = gamma / sqrt(variance + eps)`, leaves the bias `b` there and multiplies the step of the
//! weight by `|f|`. With the step `s` of the accumulator before the folding:
//!
//! ```text
//! b  = beta - mean f
//! b' = round(b / (s |f|)) s |f|       halves to even; b where f = 0
//! y  = norm(x) + b' - b
//! ```
//!
//! The statistics of `b` are the running ones, in training too: they are what is exported. The
//! difference has no gradient, so that the backward pass is that of the norm.
//!
//! `s` is the scale of the quantization of `beta` with the type
//! [`Int32`](crate::IntegerType::Int32), one for each channel. A norm that is folded while the model
//! trains has its bias in the layer that takes it up.

use burn::nn::BatchNorm;
use burn::tensor::{DType, Device, Tensor};

use crate::simulate::flat::in_dtype;
use crate::simulate::quant_dtype::int32;
use crate::simulate::reading::Norm;
use crate::simulate::simulation::Simulation;

/// Steps of the accumulator in front of the norm, `[channels]`, if its bias is rounded.
pub(super) fn steps(norm: &BatchNorm) -> Option<Tensor<1>> {
    let space = norm.beta.reparameterization::<Simulation>()?.space();
    space.norm_bias_steps()
}

/// The difference that rounding makes to the bias of a folded norm, `[channels]`, without a
/// gradient.
pub(super) fn difference(norm: &Norm, steps: Tensor<1>, device: &Device) -> Tensor<1> {
    let plain = |values: &Tensor<1>| {
        let values = values.clone().detach().without_autodiff().to_device(device);
        in_dtype(values, DType::F32)
    };
    let deviation = (plain(&norm.variance) + norm.epsilon).sqrt();
    let factor = match &norm.gamma {
        Some(gamma) => plain(gamma) / deviation,
        None => deviation.recip(),
    };
    let shift = plain(&norm.mean).neg() * factor.clone();
    let bias = match &norm.beta {
        Some(beta) => shift + plain(beta),
        None => shift,
    };
    let steps = plain(&steps) * factor.abs();
    let silent = steps.clone().equal_elem(0.0);
    let q = (bias.clone() / steps.clone()).round();
    let rounded = q.clamp(int32::MIN, int32::MAX) * steps;
    (rounded - bias).mask_fill(silent, 0.0)
}

#[cfg(test)]
mod tests {
    use burn::module::{Module, Param, RunningState};
    use burn::nn::{BatchNorm, BatchNormConfig};

    use super::*;
    use crate::{
        Calibration, Compressor, Evaluator, IntegerType, Quantization, Target, TargetId, Wrapper,
    };

    /// With `gamma` as its factor.
    fn norm(gamma: [f32; 3], beta: [f32; 3], mean: [f32; 3], device: &Device) -> BatchNorm {
        let vector = |values: [f32; 3]| Tensor::<1>::from_floats(values, device);
        let mut norm = BatchNormConfig::new(3).with_epsilon(1.0).init(device);
        norm.gamma = Param::from_tensor(vector(gamma));
        norm.beta = Param::from_tensor(vector(beta));
        norm.running_mean = RunningState::new(vector(mean));
        norm.running_var = RunningState::new(vector([0.0; 3]));
        norm
    }

    fn chain(norm: BatchNorm, steps: [f32; 3]) -> Compressor<Wrapper<BatchNorm>, ()> {
        let mut chain = Compressor::from_model(Wrapper::new(norm), Evaluator::new());
        let device = chain.model().beta.device().without_autodiff();
        let mut state = Quantization::int32(3);
        state.scale = Some(Tensor::from_floats(steps, &device));
        state.zero_point = Some(Tensor::zeros([3], &device));
        state.enabled = true;
        let id = TargetId::new("", Target::param("beta"));
        let calibration = Calibration::from([(id, state.to_calibration().unwrap())]);
        chain.update_calibration(&calibration).unwrap();
        chain
    }

    fn floats(x: Tensor<3>) -> Vec<f32> {
        x.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn the_folded_bias_is_a_multiple_of_the_folded_step() {
        let device = Device::flex();
        let norm = norm(
            [2.0, -1.0, 0.0],
            [0.25, 0.375, 0.3],
            [0.0, 0.25, 7.0],
            &device,
        );
        let chain = chain(norm.clone(), [0.25, 0.5, 0.25]);
        // b = 0.25 in steps of 0.25 * 2: round(0.5) = 0, the even one. b = 0.375 + 0.25 in steps of
        // 0.5: round(1.25) = 1. The last channel is its beta.
        let x = [[[1.0], [1.0], [1.0]], [[0.0], [-2.0], [3.0]]];
        let x = Tensor::<3>::from_floats(x, &device);
        let y = floats(chain.model().valid().forward(x.clone()));
        assert_eq!(y, [2.0, -0.5, 0.3, 0.0, 2.5, 0.3]);
        assert_eq!(floats(norm.valid().forward(x))[..2], [2.25, -0.375]);
        // What is read is beta as it is.
        let beta: Vec<f32> = chain.model().beta.val().into_data().try_to_vec().unwrap();
        assert_eq!(beta, [0.25, 0.375, 0.3]);
    }

    #[test]
    fn gradients_are_those_of_the_norm() {
        let device = Device::flex().autodiff();
        let norm = norm([2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [0.5, 0.25, 7.0], &device);
        let gradient = |model: &Wrapper<BatchNorm>| {
            let x = [[[1.0], [2.0], [1.0]], [[0.0], [-2.0], [3.0]]];
            let x = Tensor::<3>::from_floats(x, &device);
            let y = model.clone().train().forward(x);
            let gradients = (y.clone() * y.detach().sin()).sum().backward();
            let gamma = model.gamma.base().grad(&gradients).unwrap();
            let beta = model.beta.base().grad(&gradients).unwrap();
            [gamma, beta].map(|g| g.into_data().try_to_vec::<f32>().unwrap())
        };
        let plain = Wrapper::new(norm.clone());
        let fine = chain(norm.clone(), [1e-6; 3]);
        for (found, expected) in gradient(fine.model()).iter().zip(gradient(&plain)) {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
        }
    }

    #[test]
    fn the_type_has_a_name_and_a_range() {
        let entry = Quantization::int32(3).to_calibration().unwrap();
        let json = serde_json::to_string(&entry).unwrap();
        assert!(json.contains("\"int32\"") && json.contains("[3]"), "{json}");
        assert_eq!(entry.dtype, IntegerType::from("int32"));
        assert!(entry.to_quantization(&Device::flex()).is_ok());
    }
}
