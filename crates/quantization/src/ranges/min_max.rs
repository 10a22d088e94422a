//! The extremes of everything that was seen.
//!
//! The observer of calibration without training, and never wrong: nothing is ever clipped. A single
//! outlier makes the grid coarse for all other values, which 8 bits bear and 4 bits do not.
//!
//! ```text
//! range = (min over all batches of min x, max over all batches of max x)
//! ```
//!
//! The range only grows; it is never reset.

use burn_compress_core::{FlatTensor, Grid};

use super::estimator::{RangeEstimator, Ranges};
use crate::QuantizationError;

/// The smallest and largest value of all batches.
#[derive(Clone, Copy, Debug, Default)]
pub struct MinMax;

impl RangeEstimator for MinMax {
    fn track(
        &self,
        _values: &FlatTensor,
        _grid: &Grid,
        batch: Ranges,
        tracked: Option<Ranges>,
    ) -> Result<Ranges, QuantizationError> {
        Ok(widen(batch, tracked))
    }
}

/// The range that holds both.
pub(super) fn widen(batch: Ranges, tracked: Option<Ranges>) -> Ranges {
    match tracked {
        None => batch,
        Some(tracked) => Ranges {
            minimum: tracked.minimum.min_pair(batch.minimum),
            maximum: tracked.maximum.max_pair(batch.maximum),
        },
    }
}

#[cfg(test)]
mod tests {
    use crate::targets::observer_testing::{Follow, observed};
    use crate::{Granularity, ObserverKind};

    #[test]
    fn the_range_only_grows() {
        let mut follow = Follow::new(ObserverKind::MinMax, Granularity::Default);
        follow.see([[1.0, -2.0], [7.0, 0.0]]);
        follow.see([[0.5, -3.0], [2.0, 1.0]]);
        follow.see([[0.0, 0.0], [0.0, 0.0]]);
        assert_eq!(follow.tracked(), (vec![-3.0], vec![7.0]));
        follow.compute_qparams();
        // int4: 7 / 7.
        assert_eq!(observed(&follow.state.scale), [1.0]);
    }

    #[test]
    fn columns_have_ranges_of_their_own() {
        let mut follow = Follow::new(ObserverKind::MinMax, Granularity::PerChannel);
        follow.see([[1.0, -2.0], [7.0, 0.0]]);
        follow.see([[0.5, -3.0], [2.0, 1.0]]);
        assert_eq!(follow.tracked(), (vec![0.5, -3.0], vec![7.0, 1.0]));
        follow.compute_qparams();
        assert_eq!(observed(&follow.state.scale), [1.0, 3.0 / 7.0]);
    }
}
