//! Random numbers that depend on a seed alone, not on the state of a device.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next number between -1 and 1.
    pub fn symmetric(&mut self) -> f32 {
        (self.draw() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// The next number between the bounds.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.draw() >> 40) as f32 / (1u64 << 24) as f32;
        low + (high - low) * unit
    }

    /// A magnitude between the bounds with either sign.
    pub fn signed(&mut self, low: f32, high: f32) -> f32 {
        let sign = if self.draw() >> 63 == 0 { 1.0 } else { -1.0 };
        sign * self.between(low, high)
    }
}
