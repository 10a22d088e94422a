//! The two ends of a link and what it costs.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use burn_compress_core::config::Selected;
use burn_compress_core::{AlgorithmState, BoxError, FlatTensor, Learnable, TargetId};

use crate::channels::select;
use crate::{DistillationError, DistillationLoss, DistillationSettings};

/// A hidden state at one end of a link.
#[derive(Clone, Debug)]
pub(crate) struct Hidden {
    /// The layer that gave it.
    pub(crate) id: TargetId,
    /// Position of the teacher; 0 for the student.
    pub(crate) teacher: usize,
    pub(crate) state: FlatTensor,
    /// The dimension of the channels.
    pub(crate) channel_dim: usize,
}

impl Hidden {
    pub(crate) fn shape(&self) -> &[usize] {
        &self.state.shape
    }

    /// Samples, channels and positions, the positions behind the channels.
    ///
    /// The state has the dimension of its channels.
    pub(crate) fn sizes(&self) -> [usize; 3] {
        let shape = self.shape();
        let dim = self.channel_dim.min(shape.len());
        let positions = |dims: &[usize]| dims.iter().product::<usize>();
        match dim {
            0 => [1, shape.first().copied().unwrap_or(0), 1],
            _ => [
                shape[0],
                shape.get(dim).copied().unwrap_or(1),
                positions(&shape[1..dim]) * positions(shape.get(dim + 1..).unwrap_or(&[])),
            ],
        }
    }

    /// The state as `[samples, positions, channels]`.
    pub(crate) fn channels_last(&self) -> Tensor<3> {
        let [samples, channels, positions] = self.sizes();
        let shape = self.shape();
        let dim = self.channel_dim;
        let before: usize = shape.get(1..dim).unwrap_or(&[]).iter().product();
        let after: usize = shape.get(dim + 1..).unwrap_or(&[]).iter().product();
        self.state
            .values
            .clone()
            .reshape([samples, before, channels, after])
            .swap_dims(2, 3)
            .reshape([samples, positions, channels])
    }

    /// The state with these channels alone.
    pub(crate) fn only(&self, channels: &[usize]) -> Self {
        Self {
            state: select(&self.state, self.channel_dim, channels),
            ..self.clone()
        }
    }

    pub(crate) fn empty(&self) -> DistillationError {
        DistillationError::Empty {
            student: self.id.layer.clone(),
            shape: self.shape().to_vec(),
        }
    }
}

/// Why two hidden states cannot be compared.
pub(crate) fn incomparable(
    student: &Hidden,
    teacher: &Hidden,
    expected: &'static str,
) -> DistillationError {
    DistillationError::Incomparable {
        student: student.id.layer.clone(),
        teacher: teacher.id.layer.clone(),
        student_shape: student.shape().to_vec(),
        teacher_shape: teacher.shape().to_vec(),
        expected,
    }
}

/// Refuses hidden states without elements.
pub(crate) fn nonempty(student: &Hidden, teacher: &Hidden) -> Result<(), DistillationError> {
    let is_empty = |hidden: &Hidden| hidden.shape().is_empty() || hidden.shape().contains(&0);
    if is_empty(student) {
        return Err(student.empty());
    }
    match is_empty(teacher) {
        true => Err(incomparable(
            student,
            teacher,
            "the teacher's has no elements",
        )),
        false => Ok(()),
    }
}

/// What a link costs: the part that makes one distiller another.
pub(crate) trait LinkLoss: Send {
    /// Refuses what a rule says and the loss does not follow.
    fn check(&self, item: &Selected<DistillationSettings>) -> Result<(), DistillationError>;

    /// The loss of one link.
    fn loss(
        &mut self,
        student: &Hidden,
        teacher: &Hidden,
        configured: DistillationLoss,
    ) -> Result<Tensor<1>, BoxError>;

    /// Told once, where the student's parameters are.
    fn attach(&mut self, _device: &Device) {}

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        Vec::new()
    }

    fn state(&self) -> AlgorithmState {
        AlgorithmState::default()
    }

    fn load_state(&mut self, _state: &AlgorithmState) -> Result<(), BoxError> {
        Ok(())
    }
}

/// Refuses `apply_method` where the distiller brings its own loss.
pub(crate) fn own_loss(
    item: &Selected<DistillationSettings>,
    reason: &'static str,
) -> Result<(), DistillationError> {
    match item.settings.apply_method {
        None => Ok(()),
        Some(_) => Err(DistillationError::UnusedSetting {
            key: "apply_method",
            layer: item.layer.path.clone(),
            reason,
        }),
    }
}

/// Refuses a weight of a loss that is not finite or negative.
pub(crate) fn check_lambda(key: &'static str, lambda: f64) -> Result<(), DistillationError> {
    match lambda.is_finite() && lambda >= 0.0 {
        true => Ok(()),
        false => Err(DistillationError::Setting {
            key,
            value: lambda.to_string(),
            expected: "finite and not negative".to_string(),
        }),
    }
}
