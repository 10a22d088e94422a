//! Parts of algorithms by themselves, for comparison with other implementations of them.
//!
//! Not part of the interface: what is here may change or go without notice.

use burn::tensor::Tensor;
use burn_compress_core::{BoxError, FlatTensor, Target, TargetId};

use crate::feature::fitnets::Hints;
use crate::feature::{FeatureLoss, FeaturePair, HiddenState, Learnables};

/// The loss of [`FitNetsDistiller`](crate::FitNetsDistiller) for one hint, and the regressor's weight
/// and bias as its leaves.
///
/// # Shapes
///
/// - student, teacher: `[samples, channels, ..]`, as a [`FlatTensor`] each
/// - weight: `[student channels * teacher channels]`, row-major
/// - bias: `[teacher channels]`
///
/// # Errors
///
/// Hidden states that cannot be compared, and a regressor of other sizes.
pub fn hint_loss(
    student: FlatTensor,
    teacher: FlatTensor,
    weight: Vec<f32>,
    bias: Vec<f32>,
) -> Result<(Tensor<1>, [Tensor<1>; 2]), BoxError> {
    let device = student.values.device().without_autodiff();
    let hidden = |layer: &str, state: FlatTensor| {
        HiddenState::of(layer, TargetId::new(layer, Target::Output(0)), state, 1)
    };
    let pair = FeaturePair::new(hidden("student", student)?, hidden("teacher", teacher)?);
    let (hints, mut learnables) = (Hints { seed: 0 }, Learnables::new(&device));
    hints.check_pair(&pair)?;
    // The first call makes the regressor.
    hints.loss(&pair, &mut learnables)?;
    let [of_weight, of_bias] = &learnables.all()[..] else {
        return Err("there is no regressor".into());
    };
    of_weight.set_values(weight)?;
    of_bias.set_values(bias)?;
    let loss = hints.loss(&pair, &mut learnables)?;
    Ok((loss, [of_weight.tensor(), of_bias.tensor()]))
}
