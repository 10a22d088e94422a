//! Family b.

use crate::reference::case::{Case, Result};
use crate::reference::check::Checks;

/// Runs a case.
pub fn run(case: &Case) -> Result<Checks> {
    case.not_covered("not connected")
}
