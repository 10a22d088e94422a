//! Gradients of rounding.

use serde::{Deserialize, Serialize};

/// Gradient of rounding to the grid in the backward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoundGradient {
    /// The gradient passes unchanged everywhere.
    #[default]
    StraightThrough,
    /// The gradient passes where `qmin <= z + x / s <= qmax` and is zero elsewhere, so values that
    /// the range cuts off receive none.
    Clipped,
}
