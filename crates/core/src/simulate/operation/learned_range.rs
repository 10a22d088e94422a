//! What a learned grid is made with beside its scale and zero point.

/// The range of a learned grid and the factor of the gradient of its scales.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearnedRange {
    /// Smallest integer.
    pub qmin: f32,
    /// Largest integer.
    pub qmax: f32,
    /// Factor of the gradient of the scales.
    pub factor: f64,
}
