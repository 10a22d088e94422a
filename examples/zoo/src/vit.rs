//! ViT-B/16: a transformer over patches of an image.
//!
//! A. Dosovitskiy et al., *An Image is Worth 16x16 Words: Transformers for Image Recognition at
//! Scale*, 2020, arXiv:2010.11929.
//!
//! ```text
//! conv_proj   conv 16x16 stride 16       [n, 3, 224, 224] -> [n, 768, 14, 14] -> [n, 196, 768]
//! encoder     class token in front, positions added                           -> [n, 197, 768]
//!             12 layers of attention and perceptron, layer norm               -> [n, 197, 768]
//! heads       linear of the class token                                       -> [n, 1000]
//! ```
//!
//! 86,567,656 parameters, names of torchvision, where query, key and value are one matrix.
//! Deviation: no dropout.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Tensor};
use burn_compress_core::Wrapper;

use crate::attention::{attention, merge_heads, split_heads};
use crate::layers::linear;
use crate::model::images;
use crate::{Model, TorchNames};

/// Configuration of a [`VisionTransformer`].
#[derive(Config, Debug, PartialEq)]
pub struct VisionTransformerConfig {
    /// Pixels a side of the images.
    #[config(default = 224)]
    pub image: usize,
    /// Pixels a side of a patch, which divide those of an image.
    #[config(default = 16)]
    pub patch: usize,
    /// Layers.
    #[config(default = 12)]
    pub depth: usize,
    /// Heads of every layer.
    #[config(default = 12)]
    pub heads: usize,
    /// Features of a head.
    #[config(default = 64)]
    pub head_size: usize,
    /// Hidden features of a perceptron.
    #[config(default = 3072)]
    pub hidden: usize,
    /// Number of classes.
    #[config(default = 1000)]
    pub classes: usize,
}

impl VisionTransformerConfig {
    /// ViT-B/16.
    pub fn b16() -> Self {
        Self::new()
    }

    /// A network with random weights.
    pub fn init(&self, device: &Device) -> VisionTransformer {
        let features = self.heads * self.head_size;
        let patches = (self.image / self.patch).pow(2);
        let conv = Conv2dConfig::new([3, features], [self.patch; 2]).with_stride([self.patch; 2]);
        let random = Initializer::Normal {
            mean: 0.0,
            std: 0.02,
        };
        VisionTransformer {
            class_token: random.init([1, 1, features], device),
            conv_proj: conv.init(device).into(),
            encoder: Encoder {
                pos_embedding: random.init([1, patches + 1, features], device),
                layers: (0..self.depth)
                    .map(|_| EncoderLayer::new(self, device))
                    .collect(),
                ln: layer_norm(features, device),
            },
            heads: linear(features, self.classes, device),
        }
    }
}

fn layer_norm(features: usize, device: &Device) -> Wrapper<LayerNorm> {
    let norm = LayerNormConfig::new(features).with_epsilon(1e-6);
    norm.init(device).into()
}

/// A transformer over patches.
#[derive(Module, Debug)]
pub struct VisionTransformer {
    /// What stands in front of the patches, `[1, 1, features]`.
    pub class_token: Param<Tensor<3>>,
    /// Convolution over the patches.
    pub conv_proj: Wrapper<Conv2d>,
    /// Layers.
    pub encoder: Encoder,
    /// Classifier.
    pub heads: Wrapper<Linear>,
}

impl VisionTransformer {
    /// Logits of a batch of images of the configured size.
    ///
    /// # Shapes
    ///
    /// - images: `[batch, 3, height, width]`
    /// - logits: `[batch, classes]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let patches: Tensor<3> = self.conv_proj.forward(images).flatten(2, 3);
        let patches = patches.swap_dims(1, 2);
        let batch = patches.dims()[0] as i64;
        let class = self.class_token.val().expand([batch, -1, -1]);
        let x = self.encoder.forward(Tensor::cat(vec![class, patches], 1));
        self.heads.forward(x.narrow(1, 0, 1).squeeze_dim(1))
    }
}

impl Model for VisionTransformer {
    type Input = Tensor<4>;
    type Output = Tensor<2>;

    fn run(&self, input: Tensor<4>) -> Tensor<2> {
        self.forward(input)
    }

    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Tensor<4> {
        images(batch, size, device)
    }

    /// Layers are numbered fields in torchvision, the projection of the inputs is no layer, and a
    /// perceptron is a list with its activation and its dropout.
    fn torch_names(&self) -> TorchNames {
        let mut names = TorchNames::new().with("heads.", "heads.head.");
        for layer in 0..self.encoder.layers.len() {
            let path = format!("encoder.layers.{layer}");
            let torch = format!("encoder.layers.encoder_layer_{layer}");
            names = names
                .with(
                    format!("{path}.self_attention.in_proj."),
                    format!("{torch}.self_attention.in_proj_"),
                )
                .with(format!("{path}.mlp.1."), format!("{torch}.mlp.3."))
                .with(format!("{path}."), format!("{torch}."));
        }
        names
    }
}

/// Positions, layers and a last norm.
#[derive(Module, Debug)]
pub struct Encoder {
    /// What is added at each position, `[1, tokens, features]`.
    pub pos_embedding: Param<Tensor<3>>,
    /// Layers.
    pub layers: Vec<EncoderLayer>,
    /// Last norm.
    pub ln: Wrapper<LayerNorm>,
}

impl Encoder {
    /// Keeps the shape, `[batch, tokens, features]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x + self.pos_embedding.val();
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x));
        self.ln.forward(x)
    }
}

/// Attention and a perceptron, each added to its input.
///
/// ```text
/// x = x + self_attention(ln_1(x))
/// x + mlp(ln_2(x))
/// ```
#[derive(Module, Debug)]
pub struct EncoderLayer {
    /// Norm before the attention.
    pub ln_1: Wrapper<LayerNorm>,
    /// Attention.
    pub self_attention: SelfAttention,
    /// Norm before the perceptron.
    pub ln_2: Wrapper<LayerNorm>,
    /// Perceptron, with GELU between its layers.
    pub mlp: (Wrapper<Linear>, Wrapper<Linear>),
}

impl EncoderLayer {
    fn new(config: &VisionTransformerConfig, device: &Device) -> Self {
        let features = config.heads * config.head_size;
        Self {
            ln_1: layer_norm(features, device),
            self_attention: SelfAttention {
                in_proj: linear(features, 3 * features, device),
                out_proj: linear(features, features, device),
                head_size: config.head_size,
            },
            ln_2: layer_norm(features, device),
            mlp: (
                linear(features, config.hidden, device),
                linear(config.hidden, features, device),
            ),
        }
    }

    /// Keeps the shape, `[batch, tokens, features]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.self_attention.forward(self.ln_1.forward(x));
        let (expand, project) = &self.mlp;
        let inner = project.forward(gelu(expand.forward(self.ln_2.forward(x.clone()))));
        x + inner
    }
}

/// Attention of all tokens to all tokens.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// To queries, keys and values beside each other.
    pub in_proj: Wrapper<Linear>,
    /// From the heads to the features.
    pub out_proj: Wrapper<Linear>,
    /// Features of a head.
    pub head_size: usize,
}

impl SelfAttention {
    /// Keeps the shape, `[batch, tokens, features]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let parts = self.in_proj.forward(x).chunk(3, 2).into_iter();
        let heads: Vec<_> = parts
            .map(|part| split_heads(part, self.head_size))
            .collect();
        let [query, key, value] = [0, 1, 2].map(|part: usize| heads[part].clone());
        self.out_proj
            .forward(merge_heads(attention(query, key, value)))
    }
}
