//! Errors of quantization.

use burn_compress_core::{BlockError, Detail, Obstacle};

/// Error of a quantizer, its settings or its values.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizationError {
    /// The granularity does not exist for this kind of target.
    #[error("granularity `{granularity}` on `{target}`: {reason}")]
    Granularity {
        /// The granularity as configured.
        granularity: String,
        /// The target, `weight` or `_input_0`.
        target: String,
        /// Mismatch and replacement.
        reason: String,
    },

    /// Blocks that do not fit the target.
    #[error("`{target}`: {error}")]
    Blocks {
        /// The target.
        target: String,
        /// Mismatch and remedy.
        error: BlockError,
    },

    /// Blocks were made for another shape.
    #[error("{blocks:?} blocks do not divide a tensor of shape {shape:?}")]
    Grid {
        /// The number of blocks along each dimension.
        blocks: Vec<usize>,
        /// The shape of the tensor.
        shape: Vec<usize>,
    },

    /// A tensor without elements.
    #[error("the values have the shape {shape:?}, which holds none: leave out empty batches")]
    NoValues {
        /// The shape of the tensor.
        shape: Vec<usize>,
    },

    /// A range holds a NaN or an infinity.
    #[error(
        "block {block} has the range {minimum}..{maximum}: the values are not finite, \
         the training has probably diverged"
    )]
    NonFiniteRange {
        /// The block, row-major.
        block: usize,
        /// Smallest value.
        minimum: f32,
        /// Largest value.
        maximum: f32,
    },

    /// A setting has a value that it cannot have.
    #[error("`{key}` is {value}: {expected}")]
    Setting {
        /// The key of the setting.
        key: &'static str,
        /// The value that was found.
        value: String,
        /// Allowed values.
        expected: &'static str,
    },

    /// Other blocks than those observed first, to which the scales belong.
    #[error(
        "the values have {found:?} blocks, the scales {expected:?}: use a granularity whose number \
         of blocks does not depend on the batch, and that is the same wherever the layer is called"
    )]
    OtherBlocks {
        /// The number of blocks along each dimension at first.
        expected: Vec<usize>,
        /// The number of blocks along each dimension now.
        found: Vec<usize>,
    },

    /// The blocks of a parameter are too small for its observer.
    #[error(
        "a block of `{target}` holds {found} values, but the observer `histogram` needs {needed} to \
         know their distribution: use the observer `mse` or `min_max`, or a granularity with larger \
         blocks"
    )]
    FewValues {
        /// The target.
        target: String,
        /// The number of values in a block.
        found: usize,
        /// The number of values that the observer needs.
        needed: u64,
    },

    /// An unsigned type with zero point 0 holds none of the values.
    #[error(
        "no value is positive, but `{dtype}` without a zero point holds positive values only: use \
         a signed type, or a quantizer that learns a zero point"
    )]
    OnlyNegative {
        /// The type.
        dtype: String,
    },

    /// A learned scale or zero point is not a number any more.
    #[error("a learned {what} of `{target}` is {value}: lower the learning rate")]
    NotLearned {
        /// The target.
        target: String,
        /// `scale` or `zero point`.
        what: &'static str,
        /// Its value.
        value: f32,
    },

    /// A [`RangeRule`](crate::RangeRule) or a [`LearnedRule`](crate::LearnedRule) breaks one of its laws.
    #[error("`{rule}` gives block {block} the {what} {value}, but {law}")]
    Unlawful {
        /// The name of the rule.
        rule: String,
        /// `scale` or `zero point`.
        what: &'static str,
        /// The block, row-major.
        block: usize,
        /// The value.
        value: f32,
        /// The law.
        law: String,
    },

    /// A rule does not give one scale and one zero point for each block.
    #[error("`{rule}` gives {found} values of the {what} for {blocks} blocks: give one for each")]
    UnlawfulCount {
        /// The name of the rule.
        rule: String,
        /// `scale` or `zero point`.
        what: &'static str,
        /// The number of values.
        found: usize,
        /// The number of blocks.
        blocks: usize,
    },

    /// A rule does not take a target, or an estimator does not take its values.
    #[error("`{rule}`: {reason}")]
    Rejected {
        /// The name of the rule or of the estimator.
        rule: String,
        /// Reason and remedy.
        reason: String,
    },

    /// Layers cannot be fused.
    #[error("{names:?} cannot be fused: {reason}")]
    Fusion {
        /// The layers, the first of which is the host.
        names: Vec<String>,
        /// Reason and remedy.
        reason: String,
    },

    /// Biases cannot be rounded to 32 bits.
    #[error("`int32_bias` cannot be simulated: {}", listed(.obstacles))]
    Int32Bias {
        /// The biases, each with reason and remedy.
        obstacles: Vec<Obstacle>,
    },

    /// A network does not run in integers where it is to be deployed.
    #[error(
        "the network cannot run in integers on {runtime}: {}",
        listed(.obstacles)
    )]
    NotDeployable {
        /// The runtime.
        runtime: &'static str,
        /// What is in the way, with reason and remedy.
        obstacles: Vec<Obstacle>,
    },

    /// Gradients cannot be rounded on this backend.
    #[error(
        "gradients cannot be rounded on {device}: enable the feature of `burn-compress` for its \
         backend (`flex`, `wgpu`, `vulkan`, `cuda` or `tch`), or leave gradients in full precision"
    )]
    Backend {
        /// The device of the model.
        device: String,
    },

    /// The settings of one target cannot be used.
    #[error("`{target}`: {source}")]
    Target {
        /// The target, `conv1.weight`.
        target: String,
        /// Error of its settings. Raw, as the message holds it already: it is no source
        /// besides.
        r#source: Box<QuantizationError>,
    },

    /// No value was observed, so there is no range to quantize.
    #[error("no values were observed: calibrate on at least one batch")]
    NothingObserved,

    /// The bias of a layer cannot be corrected.
    #[error("the bias of `{layer}` cannot be corrected: {reason}")]
    BiasCorrection {
        /// The layer.
        layer: String,
        /// Reason and remedy.
        reason: String,
    },

    /// The rounding of a weight cannot be learned.
    #[error("the rounding of the weight of `{layer}` cannot be learned: {reason}")]
    Rounding {
        /// The layer.
        layer: String,
        /// Reason and remedy.
        reason: String,
    },

    /// The saved state of an observer is that of other settings or damaged.
    #[error("the saved state of an observer cannot be restored: {0}")]
    State(String),

    /// The device failed to hand over values.
    #[error("the device failed to hand over values: {0}")]
    Device(String),
}

impl QuantizationError {
    /// An error of the setting `key`.
    pub(crate) fn setting(key: &'static str, value: impl ToString, expected: &'static str) -> Self {
        let value = value.to_string();
        Self::Setting {
            key,
            value,
            expected,
        }
    }
}

fn listed(obstacles: &[Obstacle]) -> String {
    let lines = obstacles.iter().map(Obstacle::to_string);
    lines.collect::<Vec<_>>().join("\n")
}

impl Detail for QuantizationError {}
