//! The layers of `burn::nn` that can be wrapped.

use burn::nn::activation::{
    Celu, Elu, Gelu, HardSigmoid, HardSwish, Hardtanh, LeakyRelu, PRelu, Relu, Relu6, Selu, SiLU,
    Sigmoid, Softplus, Tanh,
};
use burn::nn::attention::{MhaInput, MhaOutput, MultiHeadAttention};
use burn::nn::conv::{Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d};
use burn::nn::pool::{
    AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d, AvgPool1d, AvgPool2d, MaxPool1d,
    MaxPool2d,
};
use burn::nn::{
    BatchNorm, Dropout, Embedding, GroupNorm, InstanceNorm, LayerNorm, Linear, RmsNorm,
};
use burn::tensor::{Int, Tensor};

use super::Layer;

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

fixed_rank! {
    Conv1d: 3, Conv2d: 4, Conv3d: 5,
    ConvTranspose1d: 3, ConvTranspose2d: 4, ConvTranspose3d: 5,
    AvgPool1d: 3, AvgPool2d: 4, MaxPool1d: 3, MaxPool2d: 4,
    AdaptiveAvgPool1d: 3, AdaptiveAvgPool2d: 4, AdaptiveAvgPool3d: 5,
}

any_rank! {
    Linear, BatchNorm, LayerNorm, RmsNorm, GroupNorm, InstanceNorm, Dropout,
    Relu, Relu6, LeakyRelu, PRelu, Elu, Celu, Selu, Gelu, SiLU, Sigmoid, Tanh,
    HardSigmoid, HardSwish, Hardtanh, Softplus,
}

impl Layer<Tensor<2, Int>> for Embedding {
    type Output = Tensor<3>;

    fn forward(&self, input: Tensor<2, Int>) -> Self::Output {
        Embedding::forward(self, input)
    }
}

impl Layer<MhaInput> for MultiHeadAttention {
    type Output = MhaOutput;

    fn forward(&self, input: MhaInput) -> Self::Output {
        MultiHeadAttention::forward(self, input)
    }
}

/// Query, key and value as inputs 0, 1 and 2.
impl Layer<(Tensor<3>, Tensor<3>, Tensor<3>)> for MultiHeadAttention {
    type Output = MhaOutput;

    fn forward(&self, (query, key, value): (Tensor<3>, Tensor<3>, Tensor<3>)) -> Self::Output {
        MultiHeadAttention::forward(self, MhaInput::new(query, key, value))
    }
}
