//! Options of an export.

use crate::OnnxTarget;

/// Options of [`export_onnx`](crate::export_onnx).
///
/// ```
/// use burn_compress_export::OnnxConfig;
///
/// let config = OnnxConfig::new()
///     .with_input_names(["tokens"])
///     .with_output_names(["logits"])
///     .with_dynamic_axis(0, 1, "sequence");
/// assert!(config.dynamic_batch);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnnxConfig {
    /// The runtime that a quantized model is written for; [`OnnxTarget::OnnxRuntimeX86`] by default.
    pub target: OnnxTarget,
    /// Whether weights of at most four bits of linear layers whose input is not quantized are stored in
    /// four bits, which needs operator set 21; false by default, as onnxruntime rounds the input of such
    /// a layer to 8 bits.
    pub four_bit_weights: bool,
    /// Whether the first dimension of every input may have any size, under the name `batch`; true by
    /// default.
    pub dynamic_batch: bool,
    /// Further dimensions that may have any size.
    pub dynamic_axes: Vec<DynamicAxis>,
    /// The names of the inputs; `input`, or `input_0`, `input_1`, .. by default.
    pub input_names: Option<Vec<String>>,
    /// The names of the outputs; `output`, or `output_0`, `output_1`, .. by default.
    pub output_names: Option<Vec<String>>,
}

/// A dimension of an input that may have any size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicAxis {
    /// Number of the input.
    pub input: usize,
    /// Dimension of the input.
    pub axis: usize,
    /// Name of the size; dimensions of one name are equal.
    pub name: String,
}

impl OnnxConfig {
    /// For onnxruntime on any x86, a dynamic batch, and names by number.
    pub fn new() -> Self {
        Self {
            target: OnnxTarget::default(),
            four_bit_weights: false,
            dynamic_batch: true,
            dynamic_axes: Vec::new(),
            input_names: None,
            output_names: None,
        }
    }

    /// Sets the runtime that a quantized model is written for.
    #[must_use]
    pub fn with_target(mut self, target: OnnxTarget) -> Self {
        self.target = target;
        self
    }

    /// Sets whether weights of at most four bits are stored in four bits.
    #[must_use]
    pub fn with_four_bit_weights(mut self, four_bits: bool) -> Self {
        self.four_bit_weights = four_bits;
        self
    }

    /// Sets whether the first dimension of every input may have any size.
    #[must_use]
    pub fn with_dynamic_batch(mut self, dynamic: bool) -> Self {
        self.dynamic_batch = dynamic;
        self
    }

    /// Lets dimension `axis` of input number `input` have any size, under a name such as `sequence`.
    ///
    /// Dimensions of one name always have the same size. The size in the dummy input is the largest one
    /// where the forward pass holds a table with an entry for each position, as many positional
    /// encodings do; [`OnnxReport::notes`](crate::OnnxReport::notes) tells so.
    #[must_use]
    pub fn with_dynamic_axis(mut self, input: usize, axis: usize, name: impl Into<String>) -> Self {
        let name = name.into();
        self.dynamic_axes.push(DynamicAxis { input, axis, name });
        self
    }

    /// Sets the names of the inputs, in their order.
    #[must_use]
    pub fn with_input_names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.input_names = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the names of the outputs, in their order.
    #[must_use]
    pub fn with_output_names<S: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = S>,
    ) -> Self {
        self.output_names = Some(names.into_iter().map(Into::into).collect());
        self
    }
}

impl Default for OnnxConfig {
    fn default() -> Self {
        Self::new()
    }
}
