//! Stopping a run and going on bit for bit.
//!
//! A checkpoint is one sealed file in Burn's pack format: the model and the optimizer as Burn's own
//! records, the numbers of the history, of scales, of masks and of the algorithms as tensors,
//! everything else as JSON in the metadata. JSON holds no number that must come back to the last bit.
//! The record of a trainee holds the same without the model and the optimizer, which are the
//! `Learner`'s.
//!
//! A checkpoint also holds what the chain was made with, so that a run does not go on as another
//! one.
//!
//! | file           | what it holds                                         |
//! |----------------|-------------------------------------------------------|
//! | `header.rs`    | the JSON header, with the identity of its chain       |
//! | `changes.rs`   | what of a chain is another configuration              |
//! | `params.rs`    | the parameters with their ids in the checkpoint       |
//! | `profile.rs`   | what is known of an optimizer and of learning rates   |
//! | `optimizer.rs` | the check of Burn's optimizer records                 |
//! | `tensors.rs`   | named tensors: their names, writing and reading them  |
//! | `history.rs`   | the history of the run as tensors                     |
//! | `save.rs`      | from a chain to a file or to bytes                    |
//! | `load.rs`      | from a file or from bytes to a chain                  |

mod changes;
mod header;
mod history;
mod load;
mod optimizer;
mod params;
pub(crate) mod profile;
mod save;
mod tensors;

use std::fmt::Display;
use std::path::Path;

use burn::module::Module;

use crate::Error;
use crate::file::Seal;
use crate::run::compressor::Compressor;

use load::load;
pub(crate) use load::restore;
pub(crate) use save::{save, to_bytes};

const SEAL: Seal = Seal::new(b"BURNCCKP", 3, "a checkpoint of a compression run");

/// Name of the file's content in errors.
#[derive(Clone, Copy)]
enum At<'a> {
    /// A checkpoint.
    File(&'a Path),
    /// The record of a trainee.
    Record,
}

impl At<'_> {
    fn failed(self, reason: impl Display) -> Error {
        let reason = reason.to_string();
        match self {
            Self::File(path) => Error::Checkpoint {
                path: path.to_path_buf(),
                reason,
            },
            Self::Record => Error::Record { reason },
        }
    }

    fn origin(self) -> String {
        match self {
            Self::File(path) => format!("checkpoint `{}`", path.display()),
            Self::Record => "the record of the trainee".to_string(),
        }
    }

    /// The call that resumes with another configuration.
    fn accepting(self) -> &'static str {
        match self {
            Self::File(_) => "Compressor::resume_with_changes",
            Self::Record => "Trainee::accept_changes",
        }
    }
}

impl<M: Module + 'static, I: 'static> Compressor<M, I> {
    /// Writes everything that a run needs to go on bit for bit to one file.
    ///
    /// # Errors
    ///
    /// The file could not be written, or the model holds values that are not finite; a file that was
    /// there before is intact then.
    pub fn save_checkpoint(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        save(&self.inner, path.as_ref())
    }

    /// Continues the run that [`save_checkpoint`](Self::save_checkpoint) wrote, in a chain that was
    /// built with the same configuration.
    ///
    /// What is compared: the settings of each algorithm and of each of its targets (see
    /// [`Algorithm::configuration`](crate::Algorithm::configuration)), the weights of teachers, and of the evaluator the seed, the
    /// learning rates and the optimizer. Burn does not show what an optimizer was made with, so both
    /// are compared by the state that they keep and by the steps that they make of test parameters:
    /// the kind, its numbers, parameter groups and gradient clipping. A clipping at more than
    /// 30,000, and any difference that moves those steps by less than a hundred-thousandth, are not
    /// seen. What no data can describe is not compared: the batches, the loss function, the
    /// evaluation, the functions that run teachers, and the code of the model.
    ///
    /// The length of the run is no part of the configuration: the budget given next counts.
    ///
    /// # Errors
    ///
    /// A file that is missing, damaged, or written by a chain of other algorithms or targets;
    /// [`Error::Changed`] with every setting that is another one.
    pub fn resume(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        let chain = load(self.inner, path.as_ref(), false)?;
        Ok(Self {
            inner: chain,
            ..self
        })
    }

    /// Continues the run that [`save_checkpoint`](Self::save_checkpoint) wrote, with the
    /// configuration of this chain where it is another one.
    ///
    /// Position, model, masks and history are those of the checkpoint. The settings of this chain
    /// count from the next step on: a schedule goes on from the same step on its own curve, a target
    /// that is quantized otherwise begins with a new range, and an optimizer that keeps another state
    /// begins with none.
    ///
    /// # Errors
    ///
    /// Those of [`resume`](Self::resume), but for [`Error::Changed`].
    pub fn resume_with_changes(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        let chain = load(self.inner, path.as_ref(), true)?;
        Ok(Self {
            inner: chain,
            ..self
        })
    }
}

#[cfg(test)]
mod tests;
