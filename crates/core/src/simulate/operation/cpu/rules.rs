//! Rounding of one value.

/// Rounding of one value by the scale and the zero point of its block.
pub(super) trait Rule: Copy {
    /// The rounded value, and whether the range cuts it off.
    fn round(self, x: f32, scale: f32, zero_point: f32) -> (f32, bool);
}

/// No rounding.
#[derive(Clone, Copy)]
pub(super) struct Keep;

impl Rule for Keep {
    #[inline(always)]
    fn round(self, x: f32, _scale: f32, _zero_point: f32) -> (f32, bool) {
        (x, false)
    }
}

/// Rounding to the sign times the scale.
#[derive(Clone, Copy)]
pub(super) struct Sign;

impl Rule for Sign {
    #[inline(always)]
    fn round(self, x: f32, scale: f32, _zero_point: f32) -> (f32, bool) {
        let signed = if x < 0.0 { -scale } else { scale };
        let value = if x.is_nan() { x } else { signed };
        let is_inside = x.abs() <= scale;
        (value, !is_inside)
    }
}

/// Rounding to the integers of a range.
#[derive(Clone, Copy)]
pub(super) struct Affine {
    pub(super) qmin: f32,
    pub(super) qmax: f32,
}

impl Rule for Affine {
    #[inline(always)]
    fn round(self, x: f32, scale: f32, zero_point: f32) -> (f32, bool) {
        let (position, q) = self.position(x, scale, zero_point);
        let value = (q - zero_point) * scale;
        (value, !self.holds(position))
    }
}

impl Affine {
    /// The slopes of the rounded value of `x`: of the scale, and minus that of the zero point in
    /// scales, 1 outside the range and 0 inside.
    #[inline(always)]
    pub(super) fn slopes(self, x: f32, scale: f32, zero_point: f32) -> (f32, f32) {
        let (position, q) = self.position(x, scale, zero_point);
        match self.holds(position) {
            true => (q - position, 0.0),
            false => (q - zero_point, 1.0),
        }
    }

    /// Where `x` lies among the integers, and its own integer.
    #[inline(always)]
    fn position(self, x: f32, scale: f32, zero_point: f32) -> (f32, f32) {
        // The whole part towards minus infinity.
        let whole = zero_point.floor();
        let steps = x / scale + (zero_point - whole);
        let q = steps.round_ties_even() + whole;
        // `f32::max` would lose a NaN.
        let q = if q < self.qmin { self.qmin } else { q };
        let q = if q > self.qmax { self.qmax } else { q };
        (steps + whole, q)
    }

    #[inline(always)]
    fn holds(self, position: f32) -> bool {
        position >= self.qmin && position <= self.qmax
    }
}
