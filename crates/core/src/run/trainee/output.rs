//! Metric input of a trainee's step.

use burn::backend::ExecutionError;
use burn::tensor::Tensor;
use burn::train::ItemLazy;
use burn::train::metric::{Adaptor, LossInput};

/// Metric input of a [`Trainee`](super::Trainee)'s step.
#[derive(Clone, Debug)]
pub struct TraineeOutput {
    /// In training the loss that is minimised, every compressor's part included; in validation the
    /// user's own. One element.
    pub loss: Tensor<1>,
}

impl ItemLazy for TraineeOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        self.loss.device().flush()?;
        Ok(Self {
            loss: self.loss.without_autodiff(),
        })
    }
}

impl Adaptor<LossInput> for TraineeOutput {
    fn adapt(&self) -> LossInput {
        LossInput::new(self.loss.clone())
    }
}
