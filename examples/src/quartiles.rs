//! Three quartiles of what was measured several times.

use serde::{Deserialize, Serialize};

/// Three quartiles of some numbers.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq)]
pub struct Quartiles {
    /// A quarter of the numbers is not above it.
    pub first: f64,
    /// The middle.
    pub median: f64,
    /// A quarter of the numbers is not below it.
    pub third: f64,
}

impl Quartiles {
    /// Of these numbers, of which each quartile is one; NaN of none.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let last = values.len().saturating_sub(1);
        let at = |quarter: usize| values.get(last * quarter / 4).copied().unwrap_or(f64::NAN);
        Self {
            first: at(1),
            median: at(2),
            third: at(3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_values() {
        let quartiles = Quartiles::of(vec![5.0, 1.0, 4.0, 2.0, 3.0]);
        let expected = Quartiles {
            first: 2.0,
            median: 3.0,
            third: 4.0,
        };
        assert_eq!(quartiles, expected);
        assert_eq!(Quartiles::of(vec![7.0]).third, 7.0);
        assert!(Quartiles::of(Vec::new()).median.is_nan());
    }
}
