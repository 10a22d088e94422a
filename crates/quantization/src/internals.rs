//! Parts of algorithms by themselves, for comparison with other implementations of them.
//!
//! Not part of the interface: what is here may change or go without notice.

use burn::module::{Param, ParamId};
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn_compress_core::FlatTensor;

use crate::AdaRoundConfig;
use crate::methods::adaround::reconstruction::Samples;
use crate::methods::adaround::{Weight, beta, initial, objective};

/// Objective of [`AdaRoundQuantizer`](crate::AdaRoundQuantizer) for one linear layer without a
/// bias, with zero point 0 and one scale.
pub struct LearnedRounding {
    weight: Weight,
    samples: Samples,
    config: AdaRoundConfig,
}

impl LearnedRounding {
    /// The roundings of `weight` for the inputs `x`.
    ///
    /// # Shapes
    ///
    /// - x: `[samples, features]`
    /// - weight: `[features, outputs]`
    pub fn new(
        x: Tensor<2>,
        weight: Tensor<2>,
        scale: f64,
        range: (f32, f32),
        config: AdaRoundConfig,
    ) -> Self {
        let wanted = x.clone().matmul(weight.clone());
        let layer = Linear {
            weight: Param::initialized(ParamId::new(), weight.clone()),
            bias: None,
        };
        let raw = FlatTensor::new(weight).values;
        let scale = raw.full_like(scale);
        Self {
            weight: Weight::on_grid(raw.clone(), scale, raw.zeros_like(), range),
            samples: Samples::of_linear(layer, x, wanted),
            config,
        }
    }

    /// Start of `V`, `[features * outputs]`.
    pub fn initial(&self) -> Tensor<1> {
        initial(self.weight.fraction())
    }

    /// The exponent of the regularization in a step; none while it is off.
    pub fn beta(&self, step: usize) -> Option<f64> {
        beta(step, self.config.steps)
    }

    /// The loss of a step at `v`, `[features * outputs]`.
    pub fn loss(&self, v: Tensor<1>, step: usize) -> Tensor<1> {
        objective(&self.weight, &self.samples, v, step, &self.config)
    }
}
