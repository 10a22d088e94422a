//! Plans in files: JSON under a [seal](burn_compress_core::file::Seal).

use std::path::Path;

use burn_compress_core::file::{Seal, SealError};

use super::CutPlan;
use crate::SpeedupError;

const SEAL: Seal = Seal::new(b"BURNCPLN", 1, "a plan of a cut");

impl CutPlan {
    /// Saves the plan, whole or not at all.
    ///
    /// # Errors
    ///
    /// Whatever goes wrong while writing.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SpeedupError> {
        let path = path.as_ref();
        let io = |reason: String| SpeedupError::Io {
            path: path.to_path_buf(),
            reason,
        };
        let json = serde_json::to_vec(self).map_err(|error| io(error.to_string()))?;
        let written = SEAL.write(path, &json);
        written.map_err(|error| io(error.to_string()))
    }

    /// Loads a plan that [`save`](Self::save) wrote. Whether it is one of a model,
    /// [`apply`](Self::apply) checks.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, that is no plan or one of another version, and one that is cut off
    /// or damaged.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, SpeedupError> {
        let path = path.as_ref();
        let unusable = |reason: String| SpeedupError::PlanFile {
            path: path.to_path_buf(),
            reason,
        };
        let json = SEAL.read(path).map_err(|error| match error {
            SealError::Io(error) => SpeedupError::Io {
                path: path.to_path_buf(),
                reason: error.to_string(),
            },
            damage => unusable(damage.to_string()),
        })?;
        serde_json::from_slice(&json).map_err(|error| unusable(error.to_string()))
    }
}
