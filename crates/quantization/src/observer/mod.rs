//! Observers: from the values that a target takes to the range that is laid over the integers.
//!
//! | observer                 | range                                                 | good for                    |
//! |--------------------------|-------------------------------------------------------|-----------------------------|
//! | `min_max`                | the extremes of everything that was seen              | calibration, weights        |
//! | `moving_average`         | the extremes of a batch, averaged                     | training                    |
//! | `{"percentile": 99.9}`   | without the outermost values                          | outliers of known frequency |
//! | `histogram`              | loses the least information (Kullback-Leibler)        | activations, 8 bits         |
//! | `mse`                    | has the least squared error                           | weights, few bits           |
//!
//! The first two say that clipping a value is worse than a coarse grid, the others weigh one against
//! the other. Each observer works per tensor, per channel or per block.
//!
//! A [`TargetObserver`] follows one target with a [`RangeMethod`]. What it tracks is written to the
//! target's quantization at once; scale and zero point follow while the quantization is enabled, or
//! when [`TargetObserver::settle`] is called.

mod entropy;
mod histogram;
mod min_max;
mod moving_average;
mod mse;
mod percentile;
mod searched;
mod target;

use std::fmt;

use burn::tensor::Tensor;
use burn_compress_core::config::did_you_mean;
use burn_compress_core::{FlatTensor, Grid, HostTensor};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

pub use entropy::{Entropy, FEWEST};
pub use histogram::Histogram;
pub use min_max::MinMax;
pub use moving_average::{DECAY, MovingAverage, moving_average};
pub use mse::Mse;
pub use percentile::Percentile;
pub use searched::{Search, Searched};
pub use target::TargetObserver;

use crate::{QuantDtype, QuantScheme, QuantizationError};

/// Which observer follows a target, as written in a configuration.
///
/// ```
/// use burn_compress_quantization::{ObserverKind, QuantizationSettings};
///
/// let read = |json| serde_json::from_str::<QuantizationSettings>(json).map(|s| s.observer);
/// assert_eq!(read(r#"{"observer": "mse"}"#)?, Some(ObserverKind::Mse));
/// let percentile = Some(ObserverKind::Percentile(99.9));
/// assert_eq!(read(r#"{"observer": {"percentile": 99.9}}"#)?, percentile);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ObserverKind {
    /// [`MinMax`]: the smallest and largest value that was ever seen.
    MinMax,
    /// [`MovingAverage`]: smallest and largest value, averaged over the batches.
    MovingAverage,
    /// [`Percentile`]: the range that holds this percentage of the values on either side, more than
    /// 50 and at most 100.
    Percentile(f64),
    /// [`Entropy`]: the range whose quantized histogram is closest to the histogram. A parameter
    /// whose blocks hold fewer than [`FEWEST`] values is refused.
    Histogram,
    /// [`Mse`]: the range with the least squared error.
    Mse,
}

impl ObserverKind {
    /// Whether its number is possible.
    ///
    /// # Errors
    ///
    /// [`QuantizationError::Setting`] for a percentage outside of 50 to 100.
    pub fn check(self) -> Result<(), QuantizationError> {
        match self {
            Self::Percentile(percent) if !(percent > 50.0 && percent <= 100.0) => {
                Err(QuantizationError::Setting {
                    key: "observer",
                    value: format!("{{\"percentile\":{percent:?}}}"),
                    expected: "a percentage is more than 50 and at most 100",
                })
            }
            _ => Ok(()),
        }
    }

    /// The method of this name. With `latest` a histogram is that of the latest values alone, as
    /// for a parameter, of which each value is all there is.
    pub(crate) fn method(self, latest: bool) -> Box<dyn RangeMethod> {
        match self {
            Self::MinMax => Box::new(MinMax),
            Self::MovingAverage => Box::new(MovingAverage),
            Self::Percentile(percent) => Box::new(Searched::new(Percentile::new(percent), latest)),
            Self::Histogram => Box::new(Searched::new(Entropy, latest)),
            Self::Mse => Box::new(Searched::new(Mse, latest)),
        }
    }
}

/// Those without a number, by name.
const NAMED: [(&str, ObserverKind); 4] = [
    ("min_max", ObserverKind::MinMax),
    ("moving_average", ObserverKind::MovingAverage),
    ("histogram", ObserverKind::Histogram),
    ("mse", ObserverKind::Mse),
];

const PERCENTILE: &str = "percentile";

impl<'de> Deserialize<'de> for ObserverKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Value::deserialize(deserializer)?;
        let found = match &written {
            Value::String(name) => {
                let mut named = NAMED.into_iter();
                named.find(|(known, _)| known == name).map(|(_, kind)| kind)
            }
            Value::Object(map) => match map.iter().next() {
                Some((key, percent)) if key == PERCENTILE && map.len() == 1 => {
                    percent.as_f64().map(Self::Percentile)
                }
                _ => None,
            },
            _ => None,
        };
        found.ok_or_else(|| de::Error::custom(unreadable(&written)))
    }
}

/// Why this is no observer, and what is one.
fn unreadable(written: &Value) -> String {
    let known = NAMED.map(|(name, _)| format!("`{name}`")).join(", ");
    match written {
        Value::String(name) if name == PERCENTILE => {
            "the observer `percentile` needs its percentage: write {\"percentile\": 99.9}"
                .to_string()
        }
        Value::String(name) => {
            let names = NAMED.iter().map(|(name, _)| *name).chain([PERCENTILE]);
            let guess = did_you_mean(name, names);
            format!("unknown observer `{name}`: use {known} or {{\"percentile\": 99.9}}{guess}")
        }
        other => format!("{other} is no observer: use {known} or {{\"percentile\": 99.9}}"),
    }
}

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

/// How the range of a target follows from the values that it takes.
pub trait RangeMethod: fmt::Debug + Send + Sync {
    /// Takes a batch in and returns the range that is tracked.
    ///
    /// `batch` holds the extremes of `values`, which are finite if the observer checks them;
    /// `tracked` is what this returned for the batch before, `None` for the first one. Both are in
    /// 32 bits, whatever the precision of the values.
    ///
    /// # Errors
    ///
    /// Values that the method cannot take in; it is unchanged then.
    fn track(
        &self,
        values: &FlatTensor,
        grid: &Grid,
        batch: Ranges,
        tracked: Option<Ranges>,
    ) -> Result<Ranges, QuantizationError>;

    /// The range that scale and zero point shall span: the tracked one, unless it pays to clip.
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

    /// What is wrong with the ranges that were chosen, and what to do, in words.
    fn warning(&self) -> Option<String> {
        None
    }

    /// What a resumed run needs beyond the tracked range.
    fn state(&self) -> Option<HostTensor> {
        None
    }

    /// Restores what [`state`](Self::state) gave.
    ///
    /// # Errors
    ///
    /// A state of another method.
    fn load_state(&self, state: Option<&HostTensor>) -> Result<(), QuantizationError> {
        match state {
            None => Ok(()),
            Some(_) => Err(QuantizationError::State(
                "this observer has none".to_string(),
            )),
        }
    }
}
