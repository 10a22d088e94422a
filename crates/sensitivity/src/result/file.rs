//! A result in a file.

use std::fmt::Display;
use std::path::Path;

use burn_compress_core::Error;
use burn_compress_core::file::write_whole;

use super::Sensitivity;
use crate::error::SensitivityError;

impl Sensitivity {
    /// Writes the result to a file as JSON, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`SensitivityError::File`] with the reason why it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(path, error))?;
        write_whole(path, &[text.as_bytes()]).map_err(|error| failed(path, error))?;
        Ok(())
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// [`SensitivityError::File`] for a file that cannot be read or is no result.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| failed(path, error))?;
        let result: Self = serde_json::from_str(&text).map_err(|error| failed(path, error))?;
        result.check().map_err(|error| failed(path, error))?;
        Ok(result)
    }
}

fn failed(path: &Path, reason: impl Display) -> SensitivityError {
    SensitivityError::File {
        path: path.to_path_buf(),
        reason: reason.to_string(),
    }
}
