//! Parts of algorithms by themselves, for comparison with other implementations of them.
//!
//! Not part of the interface: what is here may change or go without notice.

use std::sync::Arc;

use burn::tensor::Tensor;
use burn_compress_core::{BoxError, FlatTensor, Learnable, Target, TargetId};

use crate::DistillationLoss;
use crate::fitnets::Hints;
use crate::link::{Hidden, LinkLoss};
use crate::projection::Projected;

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
    let hidden = |layer: &str, state: FlatTensor| Hidden {
        id: TargetId::new(layer, Target::Output(0)),
        teacher: 0,
        state,
        channel_dim: 1,
    };
    let (student, teacher) = (hidden("student", student), hidden("teacher", teacher));
    let mut hints = Projected::new(Hints, 0);
    hints.attach(&device);
    // The first call makes the regressor.
    hints.loss(&student, &teacher, DistillationLoss::Mse)?;
    let learnables = hints.learnables();
    let learnable = |at: usize| -> Result<&Arc<Learnable>, BoxError> {
        learnables
            .get(at)
            .ok_or_else(|| "there is no regressor".into())
    };
    learnable(0)?.set_values(weight)?;
    learnable(1)?.set_values(bias)?;
    let loss = hints.loss(&student, &teacher, DistillationLoss::Mse)?;
    Ok((loss, [learnable(0)?.tensor(), learnable(1)?.tensor()]))
}
