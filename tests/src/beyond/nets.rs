//! The networks that run the cases: a few wrapped layers with given parameters.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, Relu};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor};
use burn_compress::{DummyInput, Evaluator, Wrapper};

use super::case::{Case, Numbers};
use crate::reference::case::Result;

/// Linear layers with rectifiers between them.
#[derive(Module, Debug)]
pub struct Chain {
    /// The layers.
    pub layers: Vec<Wrapper<Linear>>,
}

impl Chain {
    /// Output of the last layer.
    ///
    /// # Shapes
    ///
    /// - x: `[batch, features]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mut x = x;
        for (at, layer) in self.layers.iter().enumerate() {
            if at > 0 {
                x = burn::tensor::activation::relu(x);
            }
            x = layer.forward(x);
        }
        x
    }
}

/// A linear layer with these parameters.
///
/// # Errors
///
/// When the weight is no matrix or the bias no vector.
pub fn linear(weight: &Numbers, bias: Option<&Numbers>, device: &Device) -> Result<Linear> {
    let weight: Tensor<2> = weight.tensor(device)?;
    let [inputs, outputs] = weight.dims();
    let mut linear = LinearConfig::new(inputs, outputs)
        .with_bias(bias.is_some())
        .init(device);
    linear.weight = Param::from_tensor(weight);
    linear.bias = match bias {
        Some(bias) => Some(Param::from_tensor(bias.tensor::<1>(device)?)),
        None => None,
    };
    Ok(linear)
}

/// A convolution with this weight, and without a bias.
///
/// # Errors
///
/// When the weight has another rank than 4.
pub fn conv(weight: &Numbers, device: &Device) -> Result<Conv2d> {
    let weight: Tensor<4> = weight.tensor(device)?;
    let [outputs, inputs, height, width] = weight.dims();
    let mut conv = Conv2dConfig::new([inputs, outputs], [height, width])
        .with_bias(false)
        .init(device);
    conv.weight = Param::from_tensor(weight);
    Ok(conv)
}

/// One layer with an activation behind it: linear or a convolution.
#[derive(Module, Debug)]
pub struct Single {
    /// The linear layer.
    pub linear: Option<Wrapper<Linear>>,
    /// The convolution.
    pub conv: Option<Wrapper<Conv2d>>,
    /// What follows.
    pub relu: Wrapper<Relu>,
}

impl Single {
    /// A network with this weight: a matrix is that of a linear layer, a tensor of rank 4 that of a
    /// convolution.
    ///
    /// # Errors
    ///
    /// When the weight has another rank.
    pub fn new(case: &Case, weight: &Numbers, device: &Device) -> Result<Self> {
        let (mut linear, mut conv) = (None, None);
        match weight.shape.len() {
            2 => linear = Some(Wrapper::new(self::linear(weight, None, device)?)),
            4 => conv = Some(Wrapper::new(self::conv(weight, device)?)),
            _ => {
                let shape = &weight.shape;
                return Err(case.error(format!("no layer has a weight of shape {shape:?}")));
            }
        }
        Ok(Self {
            linear,
            conv,
            relu: Wrapper::new(Relu::new()),
        })
    }

    /// Output behind the activation, `[batch, features]`.
    ///
    /// # Shapes
    ///
    /// - x: `[batch, channels, height, width]` for a convolution, `[batch, 1, positions, features]`
    ///   for a linear layer
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = match (&self.linear, &self.conv) {
            (Some(layer), _) => self.relu.forward(layer.forward(x)),
            (_, Some(layer)) => self.relu.forward(layer.forward(x)),
            _ => x,
        };
        x.flatten(1, 3)
    }

    /// The weight as it is simulated, flat.
    pub fn weight(&self) -> Tensor<1> {
        match (&self.linear, &self.conv) {
            (Some(layer), _) => layer.weight.val().flatten(0, 1),
            (_, Some(layer)) => layer.weight.val().flatten(0, 3),
            _ => Tensor::empty([0], &Device::flex()),
        }
    }

    /// Path of the layer.
    pub fn path(&self) -> &'static str {
        match self.linear {
            Some(_) => "linear",
            None => "conv",
        }
    }

    /// An input of the right shape.
    pub fn dummy_input(&self) -> DummyInput<Self> {
        let device = Device::flex();
        let shape = match (&self.linear, &self.conv) {
            (_, Some(layer)) => {
                let [_, inputs, height, width] = layer.weight.dims();
                [1, inputs, height, width]
            }
            (Some(layer), None) => [1, 1, 1, layer.weight.dims()[0]],
            (None, None) => [1; 4],
        };
        let x = Tensor::<4>::ones(shape, &device);
        DummyInput::new(x, |net: &Self, x| net.forward(x))
    }
}

/// An evaluator that takes these batches in turn and whose optimizer moves nothing that matters.
pub fn evaluator<M: Module + 'static, I: Clone + Send + Sync + 'static>(
    batches: Vec<I>,
    loss: impl Fn(&M, &I) -> Tensor<1> + Send + Sync + 'static,
) -> Evaluator<M, I> {
    Evaluator::new()
        .with_data(move |_epoch| batches.clone())
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(1e-30)
        .with_loss(loss)
}
