//! Stopping a run and going on bit for bit.
//!
//! A checkpoint is one sealed file in Burn's pack format: the model and the optimizer as Burn's own
//! records, the numbers of the history, of scales, of masks and of the algorithms as tensors,
//! everything else as JSON in the metadata. JSON holds no number that must come back to the last bit.
//!
//! | file         | what it holds                                        |
//! |--------------|------------------------------------------------------|
//! | `header.rs`  | the JSON header, and which chain it belongs to       |
//! | `tensors.rs` | named tensors: their names, writing and reading them |
//! | `history.rs` | the history of the run as tensors                    |
//! | `save.rs`    | from a chain to a file                               |
//! | `load.rs`    | from a file to a chain                               |

mod header;
mod history;
mod load;
mod save;
mod tensors;

use std::fmt::Display;
use std::path::Path;

use crate::Error;
use crate::file::Seal;

pub(crate) use load::load;
pub(crate) use save::save;

const SEAL: Seal = Seal::new(b"BURNCCKP", 3, "a checkpoint of a compression run");

/// The file that is read or written, as errors name it.
#[derive(Clone, Copy)]
struct At<'a>(&'a Path);

impl At<'_> {
    fn failed(self, reason: impl Display) -> Error {
        Error::Checkpoint {
            path: self.0.to_path_buf(),
            reason: reason.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
