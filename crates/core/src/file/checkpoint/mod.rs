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
//! | `header.rs`    | the JSON header, and which chain it belongs to        |
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
mod profile;
mod save;
mod tensors;

use std::fmt::Display;
use std::path::Path;

use crate::Error;
use crate::file::Seal;

pub(crate) use load::{load, restore};
pub(crate) use profile::Profile;
pub(crate) use save::{save, to_bytes};

const SEAL: Seal = Seal::new(b"BURNCCKP", 3, "a checkpoint of a compression run");

/// What is read or written, as errors name it.
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

#[cfg(test)]
mod tests;
