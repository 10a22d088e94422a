//! Length of a run.

use std::path::PathBuf;

/// Length of a run, and the place of its checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub(crate) length: Length,
    pub(crate) checkpoint: Option<(PathBuf, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Steps(usize),
    Epochs(usize),
}

impl Budget {
    /// No training at all.
    pub fn none() -> Self {
        Self::steps(0)
    }

    /// A number of optimizer steps; the data starts over when it ends.
    pub fn steps(steps: usize) -> Self {
        Self {
            length: Length::Steps(steps),
            checkpoint: None,
        }
    }

    /// A number of passes over the evaluator's data.
    pub fn epochs(epochs: usize) -> Self {
        Self {
            length: Length::Epochs(epochs),
            checkpoint: None,
        }
    }

    /// Writes a checkpoint to `path` every `steps` steps, replacing the one before; a run with
    /// `steps` of 0 is refused.
    pub fn with_checkpoint(mut self, path: impl Into<PathBuf>, steps: usize) -> Self {
        self.checkpoint = Some((path.into(), steps));
        self
    }
}
