//! Operations between tensors as layers, so that what they read can be quantized.
//!
//! A sum in a forward pass belongs to no layer and has no targets. As a [`Wrapper`](super::Wrapper)
//! around an [`Add`] it has two inputs and an output; in the captured graph it is the sum that it
//! was, so that channels are coupled and cut as before.

use burn::module::Module;
use burn::tensor::Tensor;

use super::Layer;

/// The sum of two tensors as a layer: that of a residual connection.
///
/// Its targets are `_input_0`, `_input_1` and `_output_0`.
///
/// # Shapes
///
/// - input: two tensors of one shape
/// - output: that shape
///
/// # Example
///
/// ```
/// use burn::module::Module;
/// use burn::nn::conv::{Conv2d, Conv2dConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::{Add, Wrapper};
///
/// #[derive(Module, Debug)]
/// struct Residual {
///     conv: Wrapper<Conv2d>,
///     add: Wrapper<Add>,
/// }
///
/// impl Residual {
///     fn forward(&self, x: Tensor<4>) -> Tensor<4> {
///         self.add.forward((self.conv.forward(x.clone()), x))
///     }
/// }
///
/// let device = Device::flex();
/// let conv = Conv2dConfig::new([4, 4], [1, 1]).init(&device);
/// let block = Residual { conv: conv.into(), add: Add::new().into() };
/// assert_eq!(block.forward(Tensor::ones([1, 4, 8, 8], &device)).dims(), [1, 4, 8, 8]);
/// ```
#[derive(Module, Debug, Default)]
pub struct Add;

impl Add {
    /// The layer.
    pub fn new() -> Self {
        Self
    }

    /// The sum.
    pub fn forward<const D: usize>(&self, first: Tensor<D>, second: Tensor<D>) -> Tensor<D> {
        first + second
    }
}

impl<const D: usize> Layer<(Tensor<D>, Tensor<D>)> for Add {
    type Output = Tensor<D>;

    fn forward(&self, (first, second): (Tensor<D>, Tensor<D>)) -> Tensor<D> {
        Add::forward(self, first, second)
    }
}

/// A concatenation along one dimension as a layer.
///
/// Its targets are `_input_0`, `_input_1`, .. in the order of the tensors, and `_output_0`.
///
/// # Shapes
///
/// - input: tensors of one shape but for dimension `dim`
/// - output: that shape, with the sum of the sizes in dimension `dim`
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::{Concat, Wrapper};
///
/// let concat = Wrapper::new(Concat::new(1));
/// let x = Tensor::<4>::ones([1, 4, 8, 8], &Device::flex());
/// assert_eq!(concat.forward(vec![x.clone(), x]).dims(), [1, 8, 8, 8]);
/// ```
#[derive(Module, Debug)]
pub struct Concat {
    /// The dimension.
    pub dim: usize,
}

impl Concat {
    /// The concatenation along dimension `dim`.
    pub fn new(dim: usize) -> Self {
        Self { dim }
    }

    /// The concatenated tensor.
    ///
    /// # Panics
    ///
    /// Without a tensor, and for shapes that do not fit, as [`Tensor::cat`].
    pub fn forward<const D: usize>(&self, tensors: Vec<Tensor<D>>) -> Tensor<D> {
        Tensor::cat(tensors, self.dim)
    }
}

impl<const D: usize> Layer<Vec<Tensor<D>>> for Concat {
    type Output = Tensor<D>;

    fn forward(&self, tensors: Vec<Tensor<D>>) -> Tensor<D> {
        Concat::forward(self, tensors)
    }
}

#[cfg(test)]
mod tests;
