use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Gelu, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Distribution, Tensor};

const WIDTH: usize = 8;
const HEADS: usize = 2;
const TOKENS: usize = 4;

/// Encoder block of a [`Vit`].
#[derive(Module, Debug)]
pub struct Encoder {
    norm1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    gelu: Gelu,
    fc2: Linear,
}

/// Vision transformer.
///
/// Dosovitskiy et al., 2020, "An Image is Worth 16x16 Words".
#[derive(Module, Debug)]
pub struct Vit {
    patch: Conv2d,
    position: Param<Tensor<3>>,
    blocks: Vec<Encoder>,
    norm: LayerNorm,
    head: Linear,
}

impl Encoder {
    fn new(device: &Device) -> Self {
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        let norm = || LayerNormConfig::new(WIDTH).init(device);
        Self {
            norm1: norm(),
            query: linear(WIDTH, WIDTH),
            key: linear(WIDTH, WIDTH),
            value: linear(WIDTH, WIDTH),
            out: linear(WIDTH, WIDTH),
            norm2: norm(),
            fc1: linear(WIDTH, 2 * WIDTH),
            gelu: Gelu::new(),
            fc2: linear(2 * WIDTH, WIDTH),
        }
    }

    fn attend(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, width] = x.dims();
        let size = width / HEADS;
        let heads = |x: Tensor<3>| x.reshape([batch, tokens, HEADS, size]).swap_dims(1, 2);
        let query = heads(self.query.forward(x.clone()));
        let key = heads(self.key.forward(x.clone()));
        let value = heads(self.value.forward(x));
        let weights = query.matmul(key.transpose()) / (size as f64).sqrt();
        let mixed = softmax(weights, 3).matmul(value);
        self.out
            .forward(mixed.swap_dims(1, 2).reshape([batch, tokens, width]))
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.attend(self.norm1.forward(x));
        let hidden = self
            .gelu
            .forward(self.fc1.forward(self.norm2.forward(x.clone())));
        x + self.fc2.forward(hidden)
    }
}

impl Vit {
    /// Two blocks of 8 channels over 4 patches.
    pub fn new(device: &Device) -> Self {
        let position = Tensor::random([1, TOKENS, WIDTH], Distribution::Default, device);
        Self {
            patch: Conv2dConfig::new([1, WIDTH], [2, 2])
                .with_stride([2, 2])
                .init(device),
            position: Param::from_tensor(position),
            blocks: (0..2).map(|_| Encoder::new(device)).collect(),
            norm: LayerNormConfig::new(WIDTH).init(device),
            head: LinearConfig::new(WIDTH, 3).init(device),
        }
    }

    /// Logits `[batch, 3]` of images `[batch, 1, 4, 4]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x: Tensor<3> = self.patch.forward(images).flatten(2, 3);
        let mut x = x.swap_dims(1, 2) + self.position.val();
        for block in &self.blocks {
            x = block.forward(x);
        }
        let x: Tensor<2> = self.norm.forward(x).mean_dim(1).squeeze_dim(1);
        self.head.forward(x)
    }
}
