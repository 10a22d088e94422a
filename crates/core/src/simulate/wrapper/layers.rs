//! The layers of `burn::nn` that can be wrapped.

use burn::module::{Param, ParamId, RunningState};
use burn::nn::activation::{
    Celu, Elu, GLU, Gelu, HardShrink, HardSigmoid, HardSwish, Hardtanh, LeakyRelu, LogSigmoid,
    Mish, PRelu, RRelu, Relu, Relu6, Selu, Shrink, SiLU, Sigmoid, SoftShrink, Softplus, Softsign,
    SwiGlu, Tanh, Tanhshrink, Threshold, ThresholdedRelu,
};
use burn::nn::conv::{Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d};
use burn::nn::interpolate::{Interpolate1d, Interpolate2d};
use burn::nn::pool::{
    AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d, AvgPool1d, AvgPool2d, MaxPool1d,
    MaxPool2d,
};
use burn::nn::{
    BatchNorm, Dropout, Embedding, GaussianNoise, Identity, Linear, LocalResponseNorm,
    PixelShuffle, PixelUnshuffle, PositionalEncoding, RotaryEncoding, Unfold4d,
};
use burn::tensor::{Int, Tensor};

use super::{Layer, norm_bias};
use crate::simulate::flat::{FlatTensor, in_dtype};
use crate::simulate::folding::Host;
use crate::simulate::reading::Norm;

/// Layers whose input and output have one rank each.
macro_rules! fixed_rank {
    ($($layer:ident: $rank:literal),+ $(,)?) => {$(
        impl Layer<Tensor<$rank>> for $layer {
            type Output = Tensor<$rank>;

            fn forward(&self, input: Tensor<$rank>) -> Self::Output {
                $layer::forward(self, input)
            }
        }
    )+};
}

/// Layers that take any rank and keep it.
macro_rules! any_rank {
    ($($layer:ident),+ $(,)?) => {$(
        impl<const D: usize> Layer<Tensor<D>> for $layer {
            type Output = Tensor<D>;

            fn forward(&self, input: Tensor<D>) -> Self::Output {
                $layer::forward(self, input)
            }
        }
    )+};
}

/// Convolutions, which a norm can be folded into.
macro_rules! convolution {
    ($($layer:ident: $rank:literal),+ $(,)?) => {$(
        impl Layer<Tensor<$rank>> for $layer {
            type Output = Tensor<$rank>;

            fn forward(&self, input: Tensor<$rank>) -> Self::Output {
                $layer::forward(self, input)
            }

            fn host(&self) -> Option<Box<dyn Host>> {
                Some(Box::new(self.clone()))
            }
        }

        impl Host for $layer {
            fn forward(&self, input: FlatTensor, bias: Tensor<1>) -> FlatTensor {
                let mut layer = self.clone();
                layer.bias = Some(Param::initialized(ParamId::from(0), bias));
                let shape: [usize; $rank] = std::array::from_fn(|dim| input.shape[dim]);
                FlatTensor::new($layer::forward(&layer, input.values.reshape(shape)))
            }

            fn bias(&self) -> Option<&Param<Tensor<1>>> {
                self.bias.as_ref()
            }
        }
    )+};
}

convolution! {
    Conv1d: 3, Conv2d: 4, Conv3d: 5,
}

fixed_rank! {
    ConvTranspose1d: 3, ConvTranspose2d: 4, ConvTranspose3d: 5,
    AvgPool1d: 3, AvgPool2d: 4, MaxPool1d: 3, MaxPool2d: 4,
    AdaptiveAvgPool1d: 3, AdaptiveAvgPool2d: 4, AdaptiveAvgPool3d: 5,
    Interpolate1d: 3, Interpolate2d: 4, PixelShuffle: 4, PixelUnshuffle: 4,
    PositionalEncoding: 3,
}

any_rank! {
    LocalResponseNorm, Dropout, GaussianNoise, Identity, RotaryEncoding,
    Relu, Relu6, LeakyRelu, PRelu, RRelu, Elu, Celu, Selu, Gelu, SiLU, Mish,
    Sigmoid, LogSigmoid, Tanh, Tanhshrink, Softplus, Softsign, HardSigmoid, HardSwish, Hardtanh,
    Shrink, HardShrink, SoftShrink, Threshold, ThresholdedRelu, GLU, SwiGlu,
}

impl<const D: usize> Layer<Tensor<D>> for Linear {
    type Output = Tensor<D>;

    fn forward(&self, input: Tensor<D>) -> Self::Output {
        Linear::forward(self, input)
    }

    fn host(&self) -> Option<Box<dyn Host>> {
        Some(Box::new(self.clone()))
    }
}

impl Host for Linear {
    fn forward(&self, input: FlatTensor, bias: Tensor<1>) -> FlatTensor {
        let mut layer = self.clone();
        layer.bias = Some(Param::initialized(ParamId::from(0), bias));
        let mut shape = input.shape;
        let features = shape.pop().unwrap_or(1);
        let rows: usize = shape.iter().product();
        let output = Linear::forward(&layer, input.values.reshape([rows, features]));
        shape.push(output.dims()[1]);
        FlatTensor {
            shape,
            ..FlatTensor::new(output)
        }
    }

    fn bias(&self) -> Option<&Param<Tensor<1>>> {
        self.bias.as_ref()
    }
}

impl<const D: usize> Layer<Tensor<D>> for BatchNorm {
    type Output = Tensor<D>;

    fn forward(&self, input: Tensor<D>) -> Self::Output {
        BatchNorm::forward(self, input)
    }

    fn simulate(&self, input: Tensor<D>) -> Self::Output {
        let output = BatchNorm::forward(self, input);
        let steps = norm_bias::steps(self);
        let (Some(steps), Some(norm)) = (steps, Layer::<Tensor<D>>::norm(self)) else {
            return output;
        };
        let device = output.device().without_autodiff();
        let difference = norm_bias::difference(&norm, steps, &device);
        let mut shape = [1; D];
        shape[1] = difference.dims()[0];
        let difference = in_dtype(difference, output.dtype()).reshape(shape);
        output + difference
    }

    fn norm(&self) -> Option<Norm> {
        let gamma = self.gamma.val();
        let device = gamma.device();
        let statistic = |state: &RunningState<Tensor<1>>| state.value_sync().to_device(&device);
        Some(Norm {
            gamma: Some(gamma.clone()),
            beta: Some(self.beta.val()),
            // An update waits beside its value until it is asked for.
            mean: statistic(&self.running_mean).detach(),
            variance: statistic(&self.running_var).detach(),
            epsilon: self.epsilon,
        })
    }

    fn takes_batch_statistics(&self) -> bool {
        self.training.is_enabled()
    }
}

impl Layer<Tensor<2, Int>> for Embedding {
    type Output = Tensor<3>;

    fn forward(&self, input: Tensor<2, Int>) -> Self::Output {
        Embedding::forward(self, input)
    }
}

impl Layer<Tensor<4>> for Unfold4d {
    type Output = Tensor<3>;

    fn forward(&self, input: Tensor<4>) -> Self::Output {
        Unfold4d::forward(self, input)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::interpolate::Interpolate2dConfig;
    use burn::nn::{PixelShuffleConfig, PositionalEncodingConfig, SwiGluConfig, Unfold4dConfig};
    use burn::tensor::Device;
    use rstest::rstest;

    use crate::{Activation, Compressor, Evaluator, Layer, Mask, Masks, Target, TargetId, Wrapper};

    use super::*;

    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 5) % 7) as f32 - 3.0).collect()
    }

    fn input<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        let values = values(shape.iter().product());
        Tensor::<1>::from_floats(&values[..], &Device::flex()).reshape(shape)
    }

    /// With its output masked away, a wrapped layer gives zeros in the shape of its own output.
    #[rstest]
    #[case::mish(Mish::new(), [2, 4, 4, 4], [2, 4, 4, 4])]
    #[case::halves(GLU::new(1), [2, 4, 4, 4], [2, 2, 4, 4])]
    #[case::gated(SwiGluConfig::new(4, 6).init(&Device::flex()), [2, 4, 4, 4], [2, 4, 4, 6])]
    #[case::identity(Identity::new(), [2, 4, 4, 4], [2, 4, 4, 4])]
    #[case::shuffle(PixelShuffleConfig::new(2).init(), [2, 4, 4, 4], [2, 1, 8, 8])]
    #[case::resize(
        Interpolate2dConfig::new().with_output_size(Some([3, 5])).init(),
        [2, 4, 4, 4],
        [2, 4, 3, 5]
    )]
    #[case::windows(Unfold4dConfig::new([2, 2]).init(), [2, 4, 4, 4], [2, 16, 9])]
    #[case::positions(
        PositionalEncodingConfig::new(4).with_max_sequence_size(6).init(&Device::flex()),
        [2, 6, 4],
        [2, 6, 4]
    )]
    fn layers_are_themselves_in_a_wrapper<L, const I: usize, const O: usize>(
        #[case] layer: L,
        #[case] shape: [usize; I],
        #[case] expected: [usize; O],
    ) where
        L: Layer<Tensor<I>, Output = Tensor<O>> + burn::module::ModuleDisplay + 'static,
        Tensor<I>: Activation,
        Tensor<O>: Activation,
    {
        let wrapper = Wrapper::new(layer.clone());
        let alone = layer.forward(input(shape));
        assert_eq!(alone.dims(), expected);
        let same = wrapper.forward(input(shape));
        same.into_data().assert_eq(&alone.into_data(), true);

        let mut chain = Compressor::<_, ()>::from_model(wrapper, Evaluator::new());
        let mask = Mask::new(vec![0.0], [1; O]).unwrap();
        let id = TargetId::new("", Target::Output(0));
        chain.update_masks(&Masks::from([(id, mask)])).unwrap();
        let masked = chain.model().forward(input(shape));
        assert_eq!(masked.dims(), expected);
        assert_eq!(masked.abs().sum().into_scalar::<f32>(), 0.0);
    }
}
