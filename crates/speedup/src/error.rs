//! Errors between a compressed model and its small version.

use std::path::PathBuf;

use burn_compress_core::Error;
use burn_compress_core::graph::GraphError;

/// An error of slicing, verifying, saving or loading a small model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpeedupError {
    /// An error of model or graph; as an [`Error`] it is that error again.
    #[error(transparent)]
    Core(#[from] Error),

    /// A compressed model that remembers no dummy input.
    #[error(
        "the compressed model has no dummy input to be cut and verified with: set one in its evaluator \
         (`Evaluator::with_dummy_input`), or use `ModelSpeedup::new` with one"
    )]
    NoDummyInput,

    /// Forward passes that cannot be timed.
    #[error("the latency cannot be measured: {reason}")]
    Latency {
        /// Reason and remedy.
        reason: String,
    },

    /// The model has no float parameter or running statistic with this path.
    #[error("the model has no float parameter `{path}`: make the plan from this model")]
    UnknownParameter {
        /// The path.
        path: String,
    },

    /// A shape is not the expected one.
    #[error("`{path}` has the shape {expected:?}, but {what} is made for {found:?}")]
    Shape {
        /// The parameter.
        path: String,
        /// Mismatch.
        what: &'static str,
        /// Shape of the parameter.
        expected: Vec<usize>,
        /// The other shape.
        found: Vec<usize>,
    },

    /// The kept indices of a parameter cannot be used.
    #[error("cannot slice `{path}` {shape:?}: {reason}")]
    Slice {
        /// The parameter.
        path: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Reason.
        reason: String,
    },

    /// A constant of a layer must change and cannot be reached.
    #[error(
        "`{field}` of `{layer}` must become {value}, but the constants of a plain layer cannot be \
         changed: make the field a `Wrapper` of its type, or cut the captured forward pass \
         (`ModelSpeedup::cut_graph`), which leaves as an ONNX file"
    )]
    ConstantField {
        /// The layer.
        layer: String,
        /// The constant.
        field: String,
        /// The value that it needs.
        value: usize,
    },

    /// A mask or a scale cannot follow the channels of its target.
    #[error("the state of `{target}` cannot follow its channels: {reason}")]
    Reindex {
        /// The target.
        target: String,
        /// Reason.
        reason: String,
    },

    /// The small model computes something else.
    #[error(
        "the small model differs from the simulated one by {error:.3e} relative to its largest \
         output, more than {tolerance:.1e}{at}; it was not returned",
        at = first_layer(layer)
    )]
    Differs {
        /// The first layer whose slicing changes the function, where it could be found.
        layer: Option<String>,
        /// Largest relative error.
        error: f64,
        /// The tolerance.
        tolerance: f64,
    },

    /// The outputs are too coarse to distinguish rounding from another function.
    #[error(
        "the small model differs from the simulated one by {error:.3e} relative to its largest \
         output, which rounding alone can do to outputs of type {dtype}; it was not returned: give the \
         inputs to `DummyInput::new`, so that both can be computed in f64"
    )]
    Coarse {
        /// Largest relative error.
        error: f64,
        /// The type of the outputs.
        dtype: String,
    },

    /// The two models do not return the same tensors.
    #[error("output {index} of the small model cannot be compared: {reason}")]
    Incomparable {
        /// Position of the output.
        index: usize,
        /// Reason.
        reason: String,
    },

    /// The dummy input's forward pass failed on the small model.
    #[error("the forward pass of the small model failed: {reason}")]
    Forward {
        /// The panic's message.
        reason: String,
    },

    /// A quantization that a tensor of Burn cannot hold.
    #[error(
        "`{target}` cannot become a quantized tensor of Burn: {reason}; {remedy}, or keep it \
         simulated: a file stores it as integers all the same"
    )]
    NotInBurn {
        /// The quantized parameter.
        target: String,
        /// Missing support in Burn.
        reason: String,
        /// Remedy.
        remedy: &'static str,
    },

    /// A file could not be read or written.
    #[error("`{path}`: {reason}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Reason.
        reason: String,
    },

    /// A file is not a small model, or is damaged.
    #[error("`{path}` is not a usable small model: {reason}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Mistake.
        reason: String,
    },

    /// A file is not a plan, or is damaged.
    #[error("`{path}` is not a usable plan: {reason}", path = path.display())]
    PlanFile {
        /// The file.
        path: PathBuf,
        /// Mistake.
        reason: String,
    },

    /// A plan of another model.
    #[error(
        "the plan is not one of this model: {reason}; apply it to a model of the architecture and the \
         sizes that it was made of"
    )]
    OtherModel {
        /// The first parameter that differs.
        reason: String,
    },

    /// A plan of this model before it was cut.
    #[error(
        "the plan was carried out on this model already: `{path}` is {found:?}, as it leaves it, in place \
         of {expected:?}"
    )]
    AlreadyCut {
        /// The first parameter that was cut.
        path: String,
        /// Its shape in the plan.
        expected: Vec<usize>,
        /// Its shape.
        found: Vec<usize>,
    },

    /// A plan without kept indices.
    #[error(
        "the plan has no kept indices of {groups} groups: it was made before the run that decides them; \
         make one of its result (`ModelSpeedup::plan`)"
    )]
    Undecided {
        /// The number of groups without kept indices.
        groups: usize,
    },

    /// A plan whose parts do not go together.
    #[error("the plan contradicts the model at `{what}`: {reason}; nothing was cut")]
    Contradiction {
        /// The parameter or the count.
        what: String,
        /// Mistake.
        reason: String,
    },

    /// A plan is carried out on a model that is still simulated.
    #[error(
        "the model carries a mask or a quantization of `{target}`: a plan cuts plain models; \
         `ModelSpeedup` cuts this one with what it carries, or take the plain one (`unwrap_model`)"
    )]
    NotPlain {
        /// The first simulated target.
        target: String,
    },

    /// Random inputs are asked for and cannot be made.
    #[error(
        "there are no random inputs for this dummy input: give the inputs to `DummyInput::new` as \
         tensors, or verify without `with_random_inputs`"
    )]
    NoRandomInput,

    /// An optimizer record that does not belong to the model.
    #[error("the state of the optimizer cannot follow the cut: {reason}")]
    OptimizerRecord {
        /// Reason.
        reason: String,
    },

    /// A file of another architecture.
    #[error("`{path}` does not belong to this model: {reason}", path = path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// The first parameters that differ.
        reason: String,
    },

    /// A model is saved with a state that is not its own.
    #[error(
        "the model carries a {what} of `{target}` that the state does not hold, so that the file \
         would be one of another function: pass the state that came with the model, or put its \
         present masks and calibration into it (`burn_compress::simulated`)"
    )]
    State {
        /// The target.
        target: String,
        /// `mask` or `quantization`.
        what: &'static str,
    },

    /// A value to save or to load is not finite.
    #[error("`{tensor}` holds a value that is not finite: nothing was {action}")]
    NotFinite {
        /// The parameter or state.
        tensor: String,
        /// `saved` or `loaded`.
        action: &'static str,
    },
}

impl From<GraphError> for SpeedupError {
    fn from(error: GraphError) -> Self {
        Self::Core(error.into())
    }
}

impl From<SpeedupError> for Error {
    fn from(error: SpeedupError) -> Self {
        match error {
            SpeedupError::Core(error) => error,
            error => Self::other(error),
        }
    }
}

fn first_layer(layer: &Option<String>) -> String {
    layer
        .as_ref()
        .map_or_else(String::new, |layer| format!(", first because of `{layer}`"))
}
