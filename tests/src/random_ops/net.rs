//! The network as a whole: built from its description, run.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::{DummyInput, Wrapper};

use super::image::ImageBlock;
use super::token::TokenBlock;
use super::{Heads, OpsSpec, TokenSpec};
use crate::random::Random;
use crate::random_net::{Fill, SIZE};

/// The network of a description.
#[derive(Module, Debug)]
pub struct OpsNet {
    images: Vec<ImageBlock>,
    embed: Option<Wrapper<Linear>>,
    tokens: Vec<TokenBlock>,
    classifier: Wrapper<Linear>,
}

impl OpsSpec {
    /// Builds the network with values that depend on the seed alone.
    pub fn build(&self, device: &Device) -> OpsNet {
        let (mut channels, mut size) = (self.inputs, SIZE);
        let mut images = Vec::new();
        for &spec in &self.images {
            let (block, width, places) = ImageBlock::new(spec, channels, size, device);
            (channels, size) = (width, places);
            images.push(block);
        }
        let linear =
            |from: usize, to: usize| Wrapper::new(LinearConfig::new(from, to).init(device));
        let mut embed = None;
        let mut tokens = Vec::new();
        if !self.tokens.is_empty() {
            embed = Some(linear(channels, self.width));
            channels = self.width;
        }
        for &spec in &self.tokens {
            let (block, width) = TokenBlock::new(spec, channels, device);
            channels = width;
            tokens.push(block);
        }
        let net = OpsNet {
            images,
            embed,
            tokens,
            classifier: linear(channels, self.classes),
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
    pub fn dummy_input(&self, device: &Device) -> DummyInput<OpsNet> {
        DummyInput::new(self.images(0, 3, device), |net: &OpsNet, x| net.forward(x))
    }

    /// Whether a layer is recurrent.
    pub fn is_recurrent(&self) -> bool {
        let is_recurrent = |spec: &TokenSpec| matches!(spec, TokenSpec::Recurrent { .. });
        self.tokens.iter().any(is_recurrent)
    }

    /// The layers whose whole heads can go, because the size of a head is a constant.
    pub fn whole_heads(&self) -> Vec<String> {
        let mut layers = Vec::new();
        for (index, spec) in self.tokens.iter().enumerate() {
            if let TokenSpec::Attention {
                heads: Heads::BySize,
                fused,
                ..
            } = spec
            {
                let names: &[&str] = match fused {
                    true => &["query"],
                    false => &["query", "key", "value"],
                };
                layers.extend(
                    names
                        .iter()
                        .map(|name| format!("tokens.{index}.Attention.{name}")),
                );
            }
        }
        layers
    }
}

impl OpsNet {
    /// Logits `[batch, classes]` of images `[batch, inputs, 8, 8]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.images.iter().fold(images, |x, block| block.forward(x));
        let Some(embed) = &self.embed else {
            let mean: Tensor<2> = x.mean_dim(3).mean_dim(2).flatten(1, 3);
            return self.classifier.forward(mean);
        };
        let places: Tensor<3> = x.flatten(2, 3);
        let x = embed.forward(places.swap_dims(1, 2));
        let x = self.tokens.iter().fold(x, |x, block| block.forward(x));
        self.classifier.forward(x.mean_dim(1).squeeze_dim::<2>(1))
    }
}
