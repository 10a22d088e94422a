//! The name of an estimator in a configuration.

use burn_compress_core::config::did_you_mean;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use super::entropy::Entropy;
use super::estimator::RangeEstimator;
use super::histogram_estimator::HistogramEstimator;
use super::min_max::MinMax;
use super::moving_average::MovingAverage;
use super::mse::Mse;
use super::percentile::Percentile;
use crate::QuantizationError;

/// Name of the observer of a target, as written in a configuration.
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
    /// whose blocks hold fewer than [`FEWEST`](super::FEWEST) values is an error.
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
                Err(QuantizationError::setting(
                    "observer",
                    format!("{{\"percentile\":{percent:?}}}"),
                    "a percentage is more than 50 and at most 100",
                ))
            }
            _ => Ok(()),
        }
    }

    /// The estimator of this name. With `latest` a histogram holds the latest values alone, as for
    /// a parameter, of which each value is all there is.
    pub(crate) fn estimator(self, latest: bool) -> Box<dyn RangeEstimator> {
        match self {
            Self::MinMax => Box::new(MinMax),
            Self::MovingAverage => Box::new(MovingAverage),
            Self::Percentile(percent) => {
                Box::new(HistogramEstimator::new(Percentile::new(percent), latest))
            }
            Self::Histogram => Box::new(HistogramEstimator::new(Entropy, latest)),
            Self::Mse => Box::new(HistogramEstimator::new(Mse, latest)),
        }
    }
}

/// Observers without a number, by name.
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

/// Error of a value that is no observer, with the observers there are.
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
