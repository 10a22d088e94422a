//! The contract of range estimators.

use std::fmt;

use burn::tensor::Tensor;
use burn_compress_core::{FlatTensor, Grid, HostTensor, QuantDtype, QuantScheme};

use crate::QuantizationError;

/// The smallest and largest value of each block.
///
/// # Shapes
///
/// - minimum, maximum: `[blocks]`
#[derive(Clone, Debug)]
pub struct Ranges {
    /// Smallest values.
    pub minimum: Tensor<1>,
    /// Largest values.
    pub maximum: Tensor<1>,
}

/// Estimator of the range of one target from the values that it takes.
///
/// A user's own one is given to the targets by
/// [`RangeRule::estimator`](crate::RangeRule::estimator).
///
/// # Laws
///
/// - Deterministic: the same batches in the same order give the same ranges.
/// - Complete state: an estimator that loads the [`state`](Self::state) of another one continues as
///   that one does, together with the tracked range, which the chain saves.
/// - One number per block, on the device and in the order of `batch`.
pub trait RangeEstimator: fmt::Debug + Send + Sync {
    /// Adds a batch and returns the tracked range.
    ///
    /// `batch` holds the extremes of `values`, which are finite if the observer checks them;
    /// `tracked` is the result for the batch before, `None` for the first one. Both are in 32 bits,
    /// whatever the precision of the values.
    ///
    /// # Errors
    ///
    /// Values that cannot be added; the estimator is unchanged then.
    fn track(
        &self,
        values: &FlatTensor,
        grid: &Grid,
        batch: Ranges,
        tracked: Option<Ranges>,
    ) -> Result<Ranges, QuantizationError>;

    /// The range that scale and zero point span: the tracked one, unless it pays to clip.
    ///
    /// # Errors
    ///
    /// A device failed to hand over its values.
    fn choose(
        &self,
        tracked: Ranges,
        _dtype: QuantDtype,
        _scheme: QuantScheme,
    ) -> Result<Ranges, QuantizationError> {
        Ok(tracked)
    }

    /// A defect of the chosen ranges and its remedy, in words.
    fn warning(&self) -> Option<String> {
        None
    }

    /// State that a resumed run needs beyond the tracked range.
    fn state(&self) -> Option<HostTensor> {
        None
    }

    /// Restores what [`state`](Self::state) gave.
    ///
    /// # Errors
    ///
    /// The state of another estimator.
    fn load_state(&self, state: Option<&HostTensor>) -> Result<(), QuantizationError> {
        match state {
            None => Ok(()),
            Some(_) => Err(QuantizationError::State(
                "this observer has none".to_string(),
            )),
        }
    }
}
