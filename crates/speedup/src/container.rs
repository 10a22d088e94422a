//! The file of a small model: a burnpack container under a seal.

use std::path::Path;

use burn::tensor::Bytes;
use burn_compress_core::file::{Seal, SealError};
use burn_pack::Reader;

use crate::SpeedupError;

const SEAL: Seal = Seal::new(b"BURNCSML", 3, "a small model");

/// The bytes of a file with a container of this size.
pub(crate) fn file_bytes(container: usize) -> u64 {
    SEAL.file_bytes(&[]) + container as u64
}

/// Writes a file whole or not at all.
pub(crate) fn write(path: &Path, container: &[u8]) -> Result<(), SpeedupError> {
    SEAL.write(path, container)
        .map_err(|error| SpeedupError::Io {
            path: path.to_path_buf(),
            reason: error.to_string(),
        })
}

/// The container of a file whose header is right.
pub(crate) fn read(path: &Path) -> Result<Reader, SpeedupError> {
    let format = |reason: String| SpeedupError::Format {
        path: path.to_path_buf(),
        reason,
    };
    let container = SEAL.read(path).map_err(|error| match error {
        SealError::Io(error) => SpeedupError::Io {
            path: path.to_path_buf(),
            reason: error.to_string(),
        },
        damage => format(damage.to_string()),
    })?;
    Reader::from_bytes(Bytes::from_bytes_vec(container)).map_err(|error| format(error.to_string()))
}
