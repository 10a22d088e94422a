//! Checks whose outcome the next read shows.

use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;

use burn::tensor::Tensor;

use super::floats;
use crate::Error;
use crate::error::BoxError;
use crate::simulate::quantization::Quantization;
use crate::target::TargetId;

/// Checks that all values lie in `range`, which NaN does not.
///
/// Inside a step of a training run the values stay on the device: the run reads the checks of all
/// its compressors together and ends with the error of the first that fails. Anywhere else the
/// values are read at once, and what `otherwise` makes of them is returned.
///
/// # Shapes
///
/// - values: `[any]`
///
/// # Errors
///
/// [`Error::Device`] when the values are read at once and the device fails to hand them over.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::reads;
///
/// let labels = Tensor::<1>::from_floats([0.0, 3.0], &Device::flex());
/// let error = reads::check(labels, 0.0..=2.0, |labels| format!("no classes: {labels:?}"))?;
/// assert_eq!(error.unwrap(), "no classes: [0.0, 3.0]");
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub fn check<E: Into<BoxError>>(
    values: Tensor<1>,
    range: RangeInclusive<f32>,
    otherwise: impl Fn(&[f32]) -> E + Send + Sync + 'static,
) -> Result<Option<E>, Error> {
    let values = values.detach().without_autodiff();
    let is_open = COLLECTED.with_borrow(|open| open.is_some());
    if !is_open {
        let values = floats(values)?;
        return Ok((!lie_in(&range, &values)).then(|| otherwise(&values)));
    }
    let concerns = CONCERNS.with_borrow(Clone::clone);
    let check = Check {
        values,
        range,
        otherwise: Box::new(move |values| otherwise(values).into()),
        concerns,
    };
    COLLECTED.with_borrow_mut(|open| open.as_mut().map(|checks| checks.push(check)));
    Ok(None)
}

fn lie_in(range: &RangeInclusive<f32>, values: &[f32]) -> bool {
    values.iter().all(|value| range.contains(value))
}

/// Makes the error of values that do not lie in the range.
type Otherwise = Box<dyn Fn(&[f32]) -> BoxError + Send + Sync>;

/// Values on a device that must lie in a range.
pub(crate) struct Check {
    pub(crate) values: Tensor<1>,
    pub(crate) range: RangeInclusive<f32>,
    otherwise: Otherwise,
    concerns: Vec<Concern>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("range", &self.range)
            .field("concerns", &self.concerns)
            .finish_non_exhaustive()
    }
}

impl Check {
    pub(crate) fn len(&self) -> usize {
        self.values.dims()[0]
    }

    /// Whether the other one is the same check of another step.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let concerns = self.concerns.iter().zip(&other.concerns);
        self.len() == other.len()
            && self.range == other.range
            && self.concerns.len() == other.concerns.len()
            && concerns.into_iter().all(|(a, b)| a.is_like(b))
    }

    /// The error of values that do not lie in the range.
    pub(crate) fn judge(&self, values: &[f32]) -> Option<Error> {
        if lie_in(&self.range, values) {
            return None;
        }
        let found = (self.otherwise)(values);
        let mut concerns = self.concerns.iter().rev();
        let Some(innermost) = concerns.next() else {
            return Some(Error::Device(found.to_string()));
        };
        let error = innermost.error(found);
        Some(concerns.fold(error, |error, concern| concern.error(error.into())))
    }

    /// The quantization that a target had before its observer saw the values.
    pub(crate) fn before(&self) -> Option<(TargetId, Quantization)> {
        self.concerns.iter().find_map(|concern| match concern {
            Concern::Target(id, before) => Some((id.clone(), before.as_ref().clone())),
            Concern::Algorithm(_) => None,
        })
    }
}

/// Origin of a check.
#[derive(Clone, Debug)]
pub(crate) enum Concern {
    /// A hook of this algorithm.
    Algorithm(&'static str),
    /// The observer of a target, whose quantization was this before.
    Target(TargetId, Box<Quantization>),
}

impl Concern {
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Algorithm(a), Self::Algorithm(b)) => a == b,
            (Self::Target(a, _), Self::Target(b, _)) => a == b,
            _ => false,
        }
    }

    fn error(&self, source: BoxError) -> Error {
        match self {
            Self::Algorithm(algorithm) => Error::Algorithm { algorithm, source },
            Self::Target(target, _) => Error::Observation {
                target: target.clone(),
                reason: source.to_string(),
            },
        }
    }
}

thread_local! {
    static COLLECTED: RefCell<Option<Vec<Check>>> = const { RefCell::new(None) };
    static CONCERNS: RefCell<Vec<Concern>> = const { RefCell::new(Vec::new()) };
}

/// Runs `part`, whose checks are made for `concern`.
pub(crate) fn concerning<T>(concern: Concern, part: impl FnOnce() -> T) -> T {
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            CONCERNS.with_borrow_mut(Vec::pop);
        }
    }
    CONCERNS.with_borrow_mut(|concerns| concerns.push(concern));
    let _ends = Ends;
    part()
}

/// Collects the checks of this thread while it lives.
#[derive(Debug)]
pub(crate) struct Collector {
    outer: Option<Vec<Check>>,
}

impl Collector {
    pub(crate) fn open() -> Self {
        let outer = COLLECTED.replace(Some(Vec::new()));
        Self { outer }
    }

    /// Checks collected since the last call.
    pub(crate) fn take(&self) -> Vec<Check> {
        COLLECTED.with_borrow_mut(|open| open.as_mut().map(std::mem::take).unwrap_or_default())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        COLLECTED.set(self.outer.take());
    }
}
