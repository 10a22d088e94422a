//! Folding a batch norm into the convolution or linear layer before it.
//!
//! A batch norm in inference is a factor and a shift for each channel. A layer right before it can
//! take up both, and the norm costs nothing any more. What has to be quantized well is then the
//! folded weight, whose channels the norm has scaled.
//!
//! ```text
//! r  = 1 / sqrt(variance + epsilon)
//! W' = W gamma r                        per output channel
//! b' = (b - mean) r gamma + beta        with b = 0 for a layer without a bias
//! ```
//!
//! Mean and variance are the running statistics of the norm; a norm that keeps none has those of
//! the batch ([`batch_statistics`]). Gradients reach the layer and gamma and beta of the norm. In the
//! steps of a training run, what the folded layer returns is brought from the running statistics to
//! those of the batch, as [`Chain::fold`](burn_compress_core::Chain::fold) describes.
//!
//! # References
//!
//! Jacob et al., *Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference*, arXiv 1712.05877, section 3.2 (equation 14). Deviation: the
//! bias of the layer is folded as well.

use burn::tensor::Tensor;
use burn_compress_core::layer::channel_dims;
use burn_compress_core::{FlatTensor, Fold, Norm};

/// The folded weight.
///
/// # Shapes
///
/// - weight: any, with the output channels along `channel`: 0 in convolutions, 1 in linear layers
/// - norm: `[channels]`
/// - result: that of the weight
///
/// # Panics
///
/// As Burn's own operations, where the norm has another number of channels.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::Norm;
/// use burn_compress_quantization::fold;
///
/// let device = Device::flex();
/// let norm = Norm {
///     gamma: Some(Tensor::from_floats([3.0, 1.0], &device)),
///     beta: None,
///     mean: Tensor::from_floats([1.0, 0.0], &device),
///     variance: Tensor::from_floats([4.0, 0.25], &device),
///     epsilon: 0.0,
/// };
/// // A linear layer with two inputs; its outputs are scaled by 3 / 2 and 1 / 0.5.
/// let weight = Tensor::<2>::from_floats([[2.0, 1.0], [4.0, -1.0]], &device);
/// let folded = fold::weight(weight, 1, &norm).into_data().try_to_vec::<f32>().unwrap();
/// assert_eq!(folded, [3.0, 2.0, 6.0, -2.0]);
/// let bias = fold::bias(None, &norm).into_data().try_to_vec::<f32>().unwrap();
/// assert_eq!(bias, [-1.5, 0.0]); // (0 - 1) / 2 * 3
/// ```
pub fn weight<const D: usize>(weight: Tensor<D>, channel: usize, norm: &Norm) -> Tensor<D> {
    let dims = weight.dims();
    fold_flat(FlatTensor::new(weight), channel, norm)
        .values
        .reshape(dims)
}

/// The folded bias.
///
/// # Shapes
///
/// - bias, norm: `[channels]`
/// - result: `[channels]`
///
/// # Panics
///
/// As Burn's own operations, where bias and norm have different numbers of channels.
pub fn bias(bias: Option<Tensor<1>>, norm: &Norm) -> Tensor<1> {
    let centred = match bias {
        Some(bias) => bias - norm.mean.clone(),
        None => norm.mean.clone().neg(),
    };
    let scaled = centred * factor(norm);
    match &norm.beta {
        Some(beta) => scaled + beta.clone(),
        None => scaled,
    }
}

/// Mean and variance (of the population) of each channel of a layer's output.
///
/// # Shapes
///
/// - output: `[batch, channels, ..]`
/// - results: `[channels]`
///
/// # Panics
///
/// For a tensor of one dimension, which has no channels.
pub fn batch_statistics<const D: usize>(output: Tensor<D>) -> (Tensor<1>, Tensor<1>) {
    let dims = output.dims();
    let channels = dims[1];
    let positions: usize = dims[2..].iter().product();
    let rows = output
        .reshape([dims[0], channels, positions])
        .swap_dims(1, 2)
        .reshape([dims[0] * positions, channels]);
    let mean = rows.clone().mean_dim(0);
    let variance = (rows - mean.clone()).square().mean_dim(0);
    (mean.reshape([channels]), variance.reshape([channels]))
}

/// Bias of the host and remainder of the norm.
///
/// - A host with a bias takes up everything.
/// - A host without one leaves the folded bias to the norm, as its mean: a mask may remove `beta`,
///   but never the mean.
/// - Where gamma is 0, beta stays in the norm: a mask that removes gamma would otherwise remove the
///   contribution of the host.
pub(crate) fn remainder(
    norm: &Norm,
    folded_bias: Tensor<1>,
    host_has_bias: bool,
) -> (Tensor<1>, Norm) {
    let zero = norm.mean.zeros_like();
    let cut = norm
        .gamma
        .as_ref()
        .map(|gamma| gamma.clone().equal_elem(0.0));
    let keep = |values: Tensor<1>| match &cut {
        Some(cut) => values.mask_fill(cut.clone(), 0.0),
        None => values,
    };
    let own = norm
        .beta
        .as_ref()
        .map(|beta| beta.clone() - keep(beta.clone()));
    let bias = keep(folded_bias);
    let mean = match host_has_bias {
        true => zero.clone(),
        false => bias.clone().neg(),
    };
    let left = Norm {
        gamma: Some(zero.ones_like()),
        beta: Some(own.unwrap_or_else(|| zero.clone())),
        mean,
        variance: zero.full_like(1.0 - norm.epsilon),
        epsilon: norm.epsilon,
    };
    (bias, left)
}

/// Folding of the parameters of one host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchNormFold {
    channel: usize,
}

impl BatchNormFold {
    /// For a host of type `kind`, `Conv2d`.
    pub(crate) fn of(kind: &str) -> Self {
        let dims = channel_dims(kind, "weight", 2);
        Self {
            channel: dims.output.unwrap_or(0),
        }
    }
}

impl Fold for BatchNormFold {
    fn weight(&self, weight: FlatTensor, norm: &Norm) -> FlatTensor {
        fold_flat(weight, self.channel, norm)
    }

    fn bias(&self, own: Option<Tensor<1>>, norm: &Norm) -> Tensor<1> {
        bias(own, norm)
    }
}

/// Factor of the norm for each channel.
fn factor(norm: &Norm) -> Tensor<1> {
    let inverse = (norm.variance.clone() + norm.epsilon).sqrt().recip();
    match &norm.gamma {
        Some(gamma) => inverse * gamma.clone(),
        None => inverse,
    }
}

fn fold_flat(weight: FlatTensor, channel: usize, norm: &Norm) -> FlatTensor {
    let channels = weight.shape[channel];
    let outer: usize = weight.shape[..channel].iter().product();
    let inner: usize = weight.shape[channel + 1..].iter().product();
    let factor = factor(norm).reshape([1, channels, 1]);
    weight.map(|values| {
        let scaled = values.reshape([outer, channels, inner]) * factor;
        scaled.reshape([outer * channels * inner])
    })
}

#[cfg(test)]
pub(crate) mod tests;
