//! Ranges: from the values that a target takes to the range that is laid over the integers.
//!
//! | observer                 | range                                                 | good for                    |
//! |--------------------------|-------------------------------------------------------|-----------------------------|
//! | `min_max`                | the extremes of everything that was seen              | calibration, weights        |
//! | `moving_average`         | the extremes of a batch, averaged                     | training                    |
//! | `{"percentile": 99.9}`   | without the outermost values                          | outliers of known frequency |
//! | `histogram`              | the least loss of information (Kullback-Leibler)      | activations, 8 bits         |
//! | `mse`                    | the least squared error                               | weights, few bits           |
//!
//! The first two rank clipping a value above a coarse grid in cost, the others weigh one against the
//! other. Each works per tensor, per channel or per block.
//!
//! A [`RangeEstimator`] tracks the range of one target. Those with a histogram are a
//! [`HistogramEstimator`] with a [`ClipSearch`] of their own.

mod entropy;
mod estimator;
mod histogram;
mod histogram_estimator;
mod kind;
mod min_max;
mod moving_average;
mod mse;
mod percentile;

pub use entropy::{Entropy, FEWEST};
pub use estimator::{RangeEstimator, Ranges};
pub use histogram::Histogram;
pub use histogram_estimator::{ClipSearch, HistogramEstimator};
pub use kind::ObserverKind;
pub use min_max::MinMax;
pub use moving_average::{DECAY, MovingAverage, moving_average};
pub use mse::Mse;
pub use percentile::Percentile;
