//! Errors of capture, analysis and slicing plans.

/// An error of the capture, the analysis or a slicing plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The forward pass panicked while it was captured.
    #[error(
        "the forward pass failed on the capture device: {message}; check that the dummy input fits \
         the model and that the forward pass reads no tensor values"
    )]
    Forward {
        /// The panic's message.
        message: String,
    },
    /// An input of the forward pass has no elements.
    #[error(
        "input {index} of the dummy input has the shape {shape:?}, which holds no value: give it at \
         least one sample"
    )]
    EmptyInput {
        /// Position of the input.
        index: usize,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Burn refused the capture.
    #[error("the forward pass cannot be captured: {message}")]
    Capture {
        /// Message of Burn.
        message: String,
    },
    /// An output of the forward pass is no tensor of the capture.
    #[error(
        "output {index} of the forward pass is not on the device it was given: build every tensor \
         on the device of the model"
    )]
    OutputDevice {
        /// Position of the output.
        index: usize,
    },
    /// An operation that the analysis has no rule for reads channels of the model.
    #[error(
        "no rule for the operation `{operation}`, which reads channels of {parameters}: give it one \
         with `DummyInput::with_rule(\"{operation}\", ..)`, or express that part of the forward pass \
         with other operations"
    )]
    UnknownOperation {
        /// The operation's name in Burn's intermediate representation.
        operation: String,
        /// The parameters whose channels it reads.
        parameters: String,
    },
    /// A rule that was given for an operation does not fit it.
    #[error("the rule for the operation `{operation}` does not fit it: {found}")]
    Rule {
        /// The operation's name.
        operation: String,
        /// The mismatch.
        found: String,
    },
    /// A rule was given for an operation that has none to be given.
    #[error(
        "the rule for `{operation}` is never used: the forward pass has no operation of that name \
         without a rule of its own; correct the name or leave the rule out"
    )]
    UnusedRule {
        /// The name that the rule was given for.
        operation: String,
    },
    /// An operation's tensors do not have the shapes its rule expects.
    #[error("the shapes of the operation `{operation}` do not fit its rule: {found}")]
    Shape {
        /// The operation's name in Burn's intermediate representation.
        operation: String,
        /// The shapes found.
        found: String,
    },
    /// Whole heads were asked for of parameters whose output is never taken apart into parts.
    #[error(
        "no reshape takes the output of {} apart, so that there are no heads to remove: use another \
         granularity",
        .params.iter().map(|param| format!("`{param}`")).collect::<Vec<_>>().join(", ")
    )]
    NeverSplit {
        /// The parameters.
        params: Vec<String>,
    },
    /// A channel that must stay was to be removed.
    #[error("a channel of `{param}` cannot be removed: {reason}")]
    Protected {
        /// The parameter.
        param: String,
        /// Reason that keeps it.
        reason: String,
    },
    /// A channel that is not in the graph.
    #[error("channel {channel} is not in this graph: take channels from the graph itself")]
    UnknownChannel {
        /// The channel.
        channel: String,
    },
    /// Every channel of a parameter's dimension was to be removed.
    #[error("all channels of `{param}` (dimension {dim}) would be removed: keep at least one")]
    Emptied {
        /// The parameter.
        param: String,
        /// Its dimension.
        dim: usize,
    },
    /// The groups of a convolution, or the equal parts of a split, would differ in size.
    #[error(
        "`{layer}` needs equally many channels in each of its {blocks} blocks, but would keep \
         {kept:?}: remove equally many from each block"
    )]
    UnequalBlocks {
        /// The layer.
        layer: String,
        /// Number of blocks.
        blocks: usize,
        /// Channels kept, block by block.
        kept: Vec<usize>,
    },
    /// Every channel of a group is masked.
    #[error(
        "all output channels of `{layer}` are masked, so that nothing would be left of it: lower \
         its sparsity so that at least one channel stays"
    )]
    NothingLeft {
        /// The layer or parameter that makes the channels.
        layer: String,
    },
    /// An operation whose numbers would have to follow a cut are not known.
    #[error(
        "`{operation}` reads channels that are removed, and its numbers are known to the code of the \
         model alone: cut the model by its type"
    )]
    NotCut {
        /// The operation.
        operation: String,
    },
    /// A mask of a parameter that the graph does not hold.
    #[error("the graph holds no parameter `{param}`: take masks of the captured model")]
    UnknownParameter {
        /// The parameter.
        param: String,
    },
    /// A mask does not have the shape of its parameter.
    #[error("`{param}` has the shape {expected:?}, but its mask is made for {found:?}")]
    MaskShape {
        /// The parameter.
        param: String,
        /// Its shape.
        expected: Vec<usize>,
        /// The shape of the mask.
        found: Vec<usize>,
    },
    /// An index is outside of a parameter.
    #[error("index {index} of dimension {dim} is outside of `{param}` {shape:?}")]
    Index {
        /// The parameter.
        param: String,
        /// The dimension.
        dim: usize,
        /// The index.
        index: usize,
        /// Shape of the parameter.
        shape: Vec<usize>,
    },
}
