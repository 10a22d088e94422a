//! The network as a whole: built from its description, run, counted.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::{DummyInput, Wrapper};

use super::block::Block;
use super::fill::Fill;
use super::unit::{Act, Cost, activate};
use super::{NetSpec, SIZE};
use crate::random::Random;

/// The network of a description.
#[derive(Module, Debug)]
pub struct Net {
    /// The blocks.
    pub blocks: Vec<Block>,
    /// The hidden linear layer.
    pub hidden: Option<Wrapper<Linear>>,
    /// What follows it.
    pub act: Option<Act>,
    /// From features to logits.
    pub classifier: Wrapper<Linear>,
    #[module(skip)]
    flatten: bool,
}

impl NetSpec {
    /// Builds the network with values that depend on the seed alone.
    pub fn build(&self, device: &Device) -> Net {
        let (mut channels, mut size) = (self.inputs, SIZE);
        let mut blocks = Vec::new();
        for &spec in &self.blocks {
            let (block, width, places) = Block::new(spec, channels, size, device);
            (channels, size) = (width, places);
            blocks.push(block);
        }
        let head = &self.head;
        let mut features = if head.flatten {
            channels * size * size
        } else {
            channels
        };
        let linear = |from: usize, to: usize| {
            LinearConfig::new(from, to)
                .with_bias(head.bias)
                .init(device)
                .into()
        };
        let hidden = (head.hidden > 0).then(|| linear(features, head.hidden));
        if hidden.is_some() {
            features = head.hidden;
        }
        let net = Net {
            blocks,
            act: hidden.as_ref().and_then(|_| Act::new(head.act)),
            hidden,
            classifier: linear(features, head.classes),
            flatten: head.flatten,
        };
        net.map(&mut Fill::new(self.seed))
    }

    /// Images of this network, `[count, inputs, 8, 8]`; other images for another `stream`.
    pub fn images(&self, stream: u64, count: usize, device: &Device) -> Tensor<4> {
        let shape = [count, self.inputs, SIZE, SIZE];
        let mut random = Random::new(self.seed ^ stream.wrapping_mul(0xA076_1D64_78BD_642F));
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| random.signed(0.0, 1.7))
            .collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// Three images as dummy input.
    pub fn dummy_input(&self, device: &Device) -> DummyInput<Net> {
        DummyInput::new(self.images(0, 3, device), |net: &Net, x| net.forward(x))
    }
}

impl Net {
    /// Logits `[batch, classes]` of images `[batch, inputs, 8, 8]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.count(images, &mut Cost::default())
    }

    /// What the network costs, counted from the shapes of its parameters while `images` run.
    pub fn cost(&self, images: Tensor<4>) -> Cost {
        let mut cost = Cost::default();
        self.count(images, &mut cost);
        cost
    }

    fn count(&self, images: Tensor<4>, cost: &mut Cost) -> Tensor<2> {
        let x = self
            .blocks
            .iter()
            .fold(images, |x, block| block.forward(x, cost));
        let mut x: Tensor<2> = match self.flatten {
            true => x.flatten(1, 3),
            false => x.mean_dim(3).mean_dim(2).flatten(1, 3),
        };
        let mut linear = |layer: &Wrapper<Linear>, x| {
            cost.add(&layer.weight.dims(), 1);
            if let Some(bias) = &layer.bias {
                cost.add(&bias.dims(), 0);
            }
            layer.forward(x)
        };
        if let Some(hidden) = &self.hidden {
            x = activate(&self.act, linear(hidden, x));
        }
        linear(&self.classifier, x)
    }
}
