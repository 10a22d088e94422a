//! Rules for networks that run in integers where they are deployed.
//!
//! Which tensors have to be quantized, and how, follows from what a runtime executes in integers. A
//! [`Deployment`] reads the layers of a network and its forward pass and gives the complete
//! configuration of a quantizer:
//!
//! | | [`onnxruntime`](Deployment::onnxruntime) | [`tensorrt`](Deployment::tensorrt) |
//! |---|---|---|
//! | inputs of convolutions and linear layers | `uint8`, affine, one scale | `int8_full`, symmetric, one scale |
//! | their weights | `int8`, symmetric, one scale an output channel | the same |
//! | their biases, those of folded norms included | 32 bits | floating point |
//! | sums | both inputs as above | the one that no convolution makes |
//! | average pooling | its input as above | its input as above |
//! | concatenations | all inputs as above | floating point |
//! | what something reads in floating point | the output of the layer as above | floating point |
//!
//! One tensor has one grid, whoever reads it: the input of a convolution that a sum reads too is
//! quantized at both with the same settings, and so with the same scale.
//!
//! The rules are for quantizers with affine types and ranges: quantization-aware training, calibration,
//! AdaRound, LSQ+. Weights are the same for all processors. Those without instructions for products of bytes (x86
//! without VNNI) need them as `uint8` with the zero point 128, which is for the exporter to write and
//! changes no value.

mod placement;

use burn::module::Module;
use burn_compress_core::config::ConfigList;
use burn_compress_core::graph::DummyInput;
use burn_compress_core::layer::{LayerInfo, layers};
use burn_compress_core::{Error, QuantDtype, QuantScheme, capture};

use crate::{QuantizationError, QuantizationSettings};
use placement::Placement;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runtime {
    OnnxRuntime,
    TensorRt,
}

/// The complete configuration of a quantizer for a network that is to run in integers.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::conv::{Conv2d, Conv2dConfig};
/// use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
/// use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor, activation::relu};
/// use burn_compress_core::graph::DummyInput;
/// use burn_compress_core::{Add, Wrapper};
/// use burn_compress_quantization::Deployment;
///
/// #[derive(Module, Debug)]
/// struct Net {
///     conv: Wrapper<Conv2d>,
///     bn: Wrapper<BatchNorm>,
///     add: Wrapper<Add>,
///     pool: Wrapper<AdaptiveAvgPool2d>,
///     head: Wrapper<Linear>,
/// }
///
/// impl Net {
///     fn forward(&self, x: Tensor<4>) -> Tensor<2> {
///         let y = self.bn.forward(self.conv.forward(x.clone()));
///         let y = relu(self.add.forward((y, x)));
///         self.head.forward(self.pool.forward(y).flatten(1, 3))
///     }
/// }
///
/// let device = Device::flex();
/// let net = Net {
///     conv: Conv2dConfig::new([4, 4], [1, 1]).with_bias(false).init(&device).into(),
///     bn: BatchNormConfig::new(4).init(&device).into(),
///     add: Add::new().into(),
///     pool: AdaptiveAvgPool2dConfig::new([1, 1]).init().into(),
///     head: LinearConfig::new(4, 2).init(&device).into(),
/// };
/// let dummy = DummyInput::new(Tensor::ones([1, 4, 8, 8], &device), Net::forward);
/// let rules = Deployment::onnxruntime().rules(&net, &dummy)?;
/// // conv and head with weight and bias, the sum, the pool: `QatQuantizer::new(net, rules, ..)`.
/// assert_eq!(rules.rules.len(), 3);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    runtime: Runtime,
    float: Vec<String>,
    float_operations: bool,
    int32_bias: bool,
}

impl Deployment {
    /// For ONNX Runtime on a CPU, of any kind.
    pub fn onnxruntime() -> Self {
        Self {
            runtime: Runtime::OnnxRuntime,
            float: Vec::new(),
            float_operations: false,
            int32_bias: true,
        }
    }

    /// For TensorRT.
    pub fn tensorrt() -> Self {
        Self {
            runtime: Runtime::TensorRt,
            int32_bias: false,
            ..Self::onnxruntime()
        }
    }

    /// Sets layers, by path, that stay in floating point, with all layers below them.
    #[must_use]
    pub fn with_float<T: Into<String>>(mut self, layers: impl IntoIterator<Item = T>) -> Self {
        self.float = layers.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whether sums, means and concatenations that are no layers may stay in floating point,
    /// which is an error by default. What they read is quantized where a layer returns it.
    #[must_use]
    pub fn with_float_operations(mut self, allowed: bool) -> Self {
        self.float_operations = allowed;
        self
    }

    /// Sets whether the rounding of biases to 32 bits is simulated; by default where the runtime
    /// rounds them.
    #[must_use]
    pub fn with_int32_bias(mut self, simulated: bool) -> Self {
        self.int32_bias = simulated;
        self
    }

    /// The rules for `model`, whose forward pass `dummy` calls.
    ///
    /// They can be changed before they are used, and written to a file.
    ///
    /// # Errors
    ///
    /// - [`QuantizationError::NotDeployable`] with everything that is in the way: layers that are not
    ///   wrapped or not called, layers that the runtime has no integers for, sums, means and
    ///   concatenations that are no layers;
    /// - a forward pass that cannot be captured.
    pub fn rules<M: Module>(
        &self,
        model: &M,
        dummy: &DummyInput<M>,
    ) -> Result<ConfigList<QuantizationSettings>, Error> {
        let captured = capture(model, dummy)?;
        let rules = Placement::new(self, &layers(model), &captured).rules();
        rules.map_err(|obstacles| {
            let runtime = match self.runtime {
                Runtime::OnnxRuntime => "ONNX Runtime",
                Runtime::TensorRt => "TensorRT",
            };
            QuantizationError::NotDeployable { runtime, obstacles }.into()
        })
    }

    /// Settings of inputs and outputs.
    fn activation(&self) -> QuantizationSettings {
        let (dtype, scheme) = match self.runtime {
            Runtime::OnnxRuntime => (QuantDtype::UINT8, QuantScheme::Affine),
            Runtime::TensorRt => (QuantDtype::INT8_FULL, QuantScheme::Symmetric),
        };
        QuantizationSettings {
            quant_dtype: Some(dtype),
            quant_scheme: Some(scheme),
            ..QuantizationSettings::default()
        }
    }

    fn is_float(&self, layer: &LayerInfo) -> bool {
        let below = |name: &String| {
            let rest = layer.path.strip_prefix(name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.float.iter().any(below)
    }
}

#[cfg(test)]
mod tests;
