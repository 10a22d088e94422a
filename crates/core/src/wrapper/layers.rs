//! The layers of `burn::nn` that can be wrapped.

use burn::module::{Param, ParamId, RunningState};
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
use crate::flat::FlatTensor;
use crate::folding::{Host, Norm};

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
}

any_rank! {
    LayerNorm, RmsNorm, GroupNorm, InstanceNorm, Dropout,
    Relu, Relu6, LeakyRelu, PRelu, Elu, Celu, Selu, Gelu, SiLU, Sigmoid, Tanh,
    HardSigmoid, HardSwish, Hardtanh, Softplus,
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
