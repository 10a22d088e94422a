//! The errors of this crate.

use std::path::PathBuf;

use crate::config::ConfigError;
use crate::file::SealError;
use crate::graph::GraphError;
use crate::run::configuration::{Difference, lines};
use crate::target::{Mode, ParseTargetError, Target, TargetId};
use crate::{BlockError, UnknownDtype, layer::KindError};

/// An error of an algorithm, whatever its type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Any error of a program that compresses: of building, fusing, training, saving, resuming and
/// cutting.
///
/// The errors of all crates become this one with `?`, so that a program needs no other:
///
/// ```
/// use burn_compress_core::{Error, TargetId};
///
/// fn main() -> Result<(), Error> {
///     let weight: TargetId = "conv1.weight".parse()?;
///     assert_eq!(weight.layer, "conv1");
///     Ok(())
/// }
/// ```
///
/// The detailed errors of pruning, quantization, distillation and speedup keep their types, see
/// [`downcast_ref`](Self::downcast_ref). A message holds that of the wrapped error, which is
/// therefore no [`source`](std::error::Error::source) besides: reports that print all sources print
/// nothing twice.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration list does not fit the model.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// The model's graph could not be captured or analysed.
    #[error(transparent)]
    Graph(#[from] GraphError),

    /// A compressor needs something of the evaluator that nobody gave.
    #[error(
        "{algorithm} needs {missing}, but no compressor of this chain was given it: pass an \
         `Evaluator` with `.{builder}(..)`"
    )]
    MissingEvaluator {
        /// The compressor that needs it.
        algorithm: &'static str,
        /// The missing part, in words.
        missing: &'static str,
        /// The builder method that gives it.
        builder: &'static str,
    },

    /// Two compressors of one mode claim one target.
    #[error(
        "`{target}` is already the target of another {mode} compressor of this chain: select \
         different layers, or exclude `{layer}` from one of the two configurations",
        layer = target.layer
    )]
    TargetTaken {
        /// The target.
        target: TargetId,
        /// The mode of both compressors.
        mode: Mode,
    },

    /// A norm cannot be folded into the layer before it.
    #[error("`{norm}` cannot be folded into `{host}`: {reason}")]
    Folding {
        /// The layer that would take up the norm.
        host: String,
        /// The norm.
        norm: String,
        /// Reason and remedy.
        reason: String,
    },

    /// The model has no such target.
    #[error("the model has no target `{target}`: {reason}")]
    UnknownTarget {
        /// The target.
        target: TargetId,
        /// What is there in the model instead.
        reason: String,
    },

    /// The parameter of a target is computed from another one already.
    #[error(
        "the parameter `{target}` carries another reparameterization, such as a LoRA adapter, and \
         Burn holds one a parameter: merge it into the parameter with `materialize`"
    )]
    Reparameterized {
        /// The target.
        target: TargetId,
    },

    /// Values that cannot be a mask.
    #[error("invalid mask: {reason}")]
    InvalidMask {
        /// Reason.
        reason: String,
    },

    /// Values of a learnable tensor that do not fill its shape.
    #[error(
        "the learnable tensor `{name}` has the shape {expected:?}, but {found} values were given"
    )]
    Learnable {
        /// Name of the tensor.
        name: String,
        /// Its shape.
        expected: Vec<usize>,
        /// The number of values.
        found: usize,
    },

    /// A mask or tensor does not fit its target.
    #[error("`{target}` has the shape {expected:?}, but {what} has the shape {found:?}")]
    ShapeMismatch {
        /// The target.
        target: TargetId,
        /// The values given for it.
        what: &'static str,
        /// Shape of the target.
        expected: Vec<usize>,
        /// Shape that was found.
        found: Vec<usize>,
    },

    /// Scales and zero points that cannot be used.
    #[error("invalid calibration of `{target}`: {reason}")]
    InvalidCalibration {
        /// The target.
        target: TargetId,
        /// Reason.
        reason: String,
    },

    /// The values of a quantized target cannot be quantized.
    #[error("cannot quantize `{target}`: {reason}")]
    Observation {
        /// The target.
        target: TargetId,
        /// Reason.
        reason: String,
    },

    /// No forward pass reached a target that a compressor acts on.
    #[error(
        "no forward pass of the first step reached `{target}`, so nothing would be simulated \
         there: check that the model calls this layer through its `Wrapper`"
    )]
    Unreached {
        /// The target.
        target: TargetId,
    },

    /// An input or output that its layer does not have.
    #[error("there is no `{target}`: `{layer}` has {}", ports(target, *found), layer = target.layer)]
    NoPosition {
        /// The target.
        target: TargetId,
        /// Number of inputs or outputs of the layer, whichever the target is.
        found: usize,
    },

    /// A mask with another number of dimensions than its target.
    #[error(
        "`{target}` has {expected} dimensions, but its mask has the shape {found:?}: give it a size \
         for each, 1 where it does not distinguish"
    )]
    MaskRank {
        /// The target.
        target: TargetId,
        /// Dimensions of the target.
        expected: usize,
        /// Shape of the mask.
        found: Vec<usize>,
    },

    /// The forward pass uses the parameters of wrapped layers without a call of their wrapper.
    #[error(
        "the forward pass uses the parameters of {layers} but does not call `Wrapper::forward`, so \
         that nothing would be simulated at their inputs and outputs: implement `Layer` for the type \
         of a layer of your own, and call the wrapper rather than the layer inside",
        layers = listed(layers)
    )]
    Bypassed {
        /// The layers.
        layers: Vec<String>,
    },

    /// Training went wrong.
    #[error(
        "the loss of step {step} is {loss}: lower the learning rate, or check the data and the \
         loss function for values that are not finite"
    )]
    LossNotFinite {
        /// Completed optimizer steps before the failing one.
        step: usize,
        /// The loss.
        loss: f64,
    },

    /// A check failed in one of several steps that were read together.
    #[error("in step {step}, which was read together with others: {error}")]
    Step {
        /// Completed optimizer steps before the failing one.
        step: usize,
        /// Message of the failure.
        error: Box<Error>,
    },

    /// A model that holds values which are not finite.
    #[error(
        "after {step} steps these hold values that are not finite: `{names}`. Check the data for \
         huge values, lower the learning rate, or go on from an earlier checkpoint",
        names = names.join("`, `")
    )]
    NotFinite {
        /// Completed optimizer steps.
        step: usize,
        /// Parameters and running statistics by path, scales and zero points by target.
        names: Vec<String>,
    },

    /// A loss that is not one number.
    #[error(
        "the loss of a batch has the shape {found:?}, but must be one number: return its mean or \
         its sum"
    )]
    LossShape {
        /// Shape that was found.
        found: Vec<usize>,
    },

    /// A loss that no parameter has a part in.
    #[error(
        "the loss of a batch depends on no parameter, so that nothing can be learned from it: \
         compute it from the output of the model that the loss function is given"
    )]
    LossDetached,

    /// An epoch of the evaluator's data is empty.
    #[error("epoch {epoch} of the evaluator's data holds no batch")]
    NoBatches {
        /// The epoch, from 0.
        epoch: usize,
    },

    /// The evaluator's data failed.
    #[error("the evaluator's data failed in epoch {epoch}: {reason}")]
    Data {
        /// The epoch, from 0.
        epoch: usize,
        /// Reason.
        reason: String,
    },

    /// The budget is too short for the schedules of the compressors.
    #[error("the budget does not fit: {reason}")]
    Budget {
        /// Reason, and a budget that fits.
        reason: String,
    },

    /// A run that is finished before its end.
    #[error(
        "{done} of the {total} steps of the run are done, and what its compressors do in the \
         others is missing: take the run to its end, or end it here with `finish_early` if the \
         model shall be what it is by now"
    )]
    Unfinished {
        /// Completed optimizer steps.
        done: usize,
        /// Optimizer steps of the run.
        total: usize,
    },

    /// A chain that is finished before its run has begun.
    #[error(
        "the run has not begun, so that no compressor has done anything: call `compress`, or \
         `advance` before `finish`"
    )]
    NotBegun,

    /// An algorithm failed.
    #[error("{algorithm}: {source}")]
    Algorithm {
        /// The algorithm.
        algorithm: &'static str,
        /// Its error. Raw, as the message holds it already: it is no source besides.
        r#source: BoxError,
    },

    /// An error with a type of its own, such as that of the speedup.
    #[error(transparent)]
    Other(BoxError),

    /// A trainee is used when its run cannot go on.
    #[error("this trainee cannot go on: {reason}")]
    Trainee {
        /// Reason and remedy.
        reason: &'static str,
    },

    /// A trainee is to hand out another type of output than the evaluator gives.
    #[error(
        "the output of a batch is a `{found}`, but the trainee is to hand out a `{asked}`: give \
         `with_output` and `into_trainee_with_output` the same type"
    )]
    OutputType {
        /// Type of the evaluator's output.
        found: &'static str,
        /// Type that the trainee is to hand out.
        asked: &'static str,
    },

    /// A checkpoint could not be written or does not belong to this chain.
    #[error("checkpoint `{path}`: {reason}", path = path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// Reason.
        reason: String,
    },

    /// A run would go on with another configuration than it began with.
    #[error(
        "{origin} was made with another configuration:{}\nBuild the chain as it was, or, if you \
         mean it, resume with `{call}`",
        lines(differences)
    )]
    Changed {
        /// The state that was to be resumed.
        origin: String,
        /// Every setting that is another one.
        differences: Vec<Difference>,
        /// The call that accepts the differences.
        call: &'static str,
    },

    /// The history of a run cannot be written or read.
    #[error("the history of the run: {reason}")]
    History {
        /// Reason.
        reason: String,
    },

    /// The record of a trainee cannot be restored.
    #[error("the record does not belong to this trainee: {reason}")]
    Record {
        /// Reason and remedy.
        reason: String,
    },

    /// A device failed to hand over its data.
    #[error("reading a tensor back from its device failed: {0}")]
    Device(String),
}

/// `one output, _output_0` or `3 inputs, _input_0 to _input_2`.
fn ports(target: &TargetId, count: usize) -> String {
    let (name, port): (_, fn(usize) -> Target) = match target.target {
        Target::Input(_) => ("input", Target::Input),
        _ => ("output", Target::Output),
    };
    match count {
        1 => format!("one {name}, `{}`", port(0)),
        _ => format!("{count} {name}s, `{}` to `{}`", port(0), port(count - 1)),
    }
}

/// Paths as a list: `conv1`, `conv2`.
fn listed(paths: &[String]) -> String {
    let quoted: Vec<String> = paths.iter().map(|path| format!("`{path}`")).collect();
    quoted.join(", ")
}

impl Error {
    /// An error of any type.
    pub fn other(error: impl Into<BoxError>) -> Self {
        Self::Other(error.into())
    }

    /// The error of type `E` in this one.
    ///
    /// ```
    /// use burn_compress_core::Error;
    /// use burn_compress_core::config::ConfigError;
    ///
    /// let error = Error::from(ConfigError::NoRules);
    /// assert_eq!(error.downcast_ref(), Some(&ConfigError::NoRules));
    /// ```
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        let inner: &(dyn std::error::Error + 'static) = match self {
            Self::Config(error) => error,
            Self::Graph(error) => error,
            Self::Step { error, .. } => return error.downcast_ref(),
            Self::Algorithm { source, .. } | Self::Other(source) => &**source,
            _ => return None,
        };
        match inner.downcast_ref::<Self>() {
            Some(nested) => nested.downcast_ref(),
            None => inner.downcast_ref(),
        }
    }

    /// The error with the name of the algorithm that it is of.
    pub(crate) fn of(self, algorithm: &'static str) -> Self {
        match self {
            Self::Other(source) => Self::Algorithm { algorithm, source },
            named => named,
        }
    }

    /// Error of an algorithm, as one of its chain.
    pub(crate) fn met_by(algorithm: &'static str) -> impl FnOnce(BoxError) -> Self {
        move |source| Self::Algorithm { algorithm, source }
    }
}

/// An error that becomes an [`Error`] with `?` and keeps its type, for
/// [`downcast_ref`](Error::downcast_ref).
///
/// ```
/// use burn_compress_core::{Detail, Error};
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("no images in `{0}`")]
/// struct NoImages(&'static str);
///
/// impl Detail for NoImages {}
///
/// fn load() -> Result<(), Error> {
///     Err(NoImages("data"))?
/// }
/// assert_eq!(load().unwrap_err().to_string(), "no images in `data`");
/// ```
pub trait Detail: std::error::Error + Send + Sync + 'static {}

impl Detail for ParseTargetError {}
impl Detail for UnknownDtype {}
impl Detail for KindError {}
impl Detail for BlockError {}
impl Detail for SealError {}
impl Detail for std::io::Error {}
impl Detail for serde_json::Error {}

impl<E: Detail> From<E> for Error {
    fn from(error: E) -> Self {
        Self::other(error)
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[derive(Debug, PartialEq, thiserror::Error)]
    #[error("seven")]
    struct Seven;

    impl Detail for Seven {}

    #[test]
    fn the_detailed_error_is_found_at_any_depth() {
        let other = || Error::from(Seven);
        let named = || other().of("Toy");
        assert!(matches!(
            named(),
            Error::Algorithm {
                algorithm: "Toy",
                ..
            }
        ));
        // An error of the chain, met by an algorithm while it runs, in one of several steps.
        let met = || Error::met_by("Outer")(named().into());
        let step = Error::Step {
            step: 3,
            error: Box::new(met()),
        };
        for error in [other(), named(), met(), step] {
            assert_eq!(error.downcast_ref(), Some(&Seven), "{error}");
            assert_eq!(error.downcast_ref::<ConfigError>(), None);
            assert!(error.to_string().ends_with("seven") && error.source().is_none());
        }
    }

    #[test]
    fn a_name_is_given_once() {
        let named = Error::from(Seven).of("First").of("Second");
        assert_eq!(named.to_string(), "First: seven");
        let of_config = Error::from(ConfigError::NoRules).of("First");
        assert!(matches!(of_config, Error::Config(ConfigError::NoRules)));
    }
}
