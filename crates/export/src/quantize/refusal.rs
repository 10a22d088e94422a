//! What a target cannot execute, found before anything is written.

use std::fmt;

/// A quantizer or a parameter that the target cannot execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The target of the compression, `stage1.0.conv1._input_0`.
    pub path: String,
    /// What was found.
    pub found: String,
    /// What to do.
    pub remedy: String,
}

impl Refusal {
    pub(crate) fn new(
        path: impl fmt::Display,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            path: path.to_string(),
            found: found.into(),
            remedy: remedy.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}; {}", self.path, self.found, self.remedy)
    }
}

/// One line for each refusal.
pub(crate) fn lines(refusals: &[Refusal]) -> String {
    let lines: Vec<String> = refusals.iter().map(|r| format!("\n  {r}")).collect();
    lines.concat()
}
