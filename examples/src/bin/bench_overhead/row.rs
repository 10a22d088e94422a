//! What is found of one variant.

use burn_compress_examples::quartiles::Quartiles;
use serde::{Deserialize, Serialize};

/// The name of this library in the rows.
pub const LIBRARY: &str = "burn-compress";

/// One variant of one case on one device.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Whose step it is.
    pub library: String,
    /// Where it computes.
    pub device: String,
    /// The network.
    pub model: String,
    /// Images in a batch.
    pub batch: usize,
    /// Name of the variant.
    pub variant: String,
    /// Steps that were measured.
    pub rounds: usize,
    /// Milliseconds of a step.
    pub wall: Quartiles,
    /// Milliseconds that all threads of the process compute in a step.
    pub cpu: Quartiles,
    /// The step in plain steps of its round: by CPU time on a CPU, by wall time elsewhere.
    pub ratio: Quartiles,
    /// Reads of the device in a step that the library makes, on average.
    pub reads: Option<f64>,
    /// Bytes by which training steps make the memory of a process grow at most, from before the network
    /// is made.
    pub memory: Option<u64>,
}
