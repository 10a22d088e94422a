//! A count before and after a cut.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A count before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Of the model that was given.
    pub dense: u64,
    /// Of the small model.
    pub small: u64,
}

impl Change {
    /// Writes one line of a report.
    pub(crate) fn write(self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        let Self { dense, small } = self;
        let saved = 100.0 * self.saved();
        writeln!(
            f,
            "{name:<10}  {dense:>12} -> {small:>12}  ({saved:.1} % removed)"
        )
    }

    /// The fraction that was removed, 0 if there was nothing.
    pub fn saved(&self) -> f64 {
        if self.dense == 0 {
            0.0
        } else {
            1.0 - self.small as f64 / self.dense as f64
        }
    }
}
