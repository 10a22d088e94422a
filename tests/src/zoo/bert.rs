use burn::module::Module;
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Int, Tensor};

const WIDTH: usize = 8;
const WORDS: usize = 16;

/// Token and position embeddings, Burn's transformer encoder, pooler and classifier.
///
/// Devlin et al., 2018, "BERT: Pre-training of Deep Bidirectional Transformers for Language
/// Understanding".
#[derive(Module, Debug)]
pub struct Bert {
    tokens: Embedding,
    positions: Embedding,
    norm: LayerNorm,
    encoder: TransformerEncoder,
    pooler: Linear,
    head: Linear,
}

impl Bert {
    /// Two layers of 8 channels and 2 heads over 16 words.
    pub fn new(device: &Device) -> Self {
        Self {
            tokens: EmbeddingConfig::new(WORDS, WIDTH).init(device),
            positions: EmbeddingConfig::new(8, WIDTH).init(device),
            norm: LayerNormConfig::new(WIDTH).init(device),
            encoder: TransformerEncoderConfig::new(WIDTH, 2 * WIDTH, 2, 2)
                .with_dropout(0.0)
                .init(device),
            pooler: LinearConfig::new(WIDTH, WIDTH).init(device),
            head: LinearConfig::new(WIDTH, 3).init(device),
        }
    }

    /// Logits `[batch, 3]` of tokens `[batch, length]`, at most 8 each.
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let [batch, length] = tokens.dims();
        let positions = Tensor::arange(0..length as i64, &tokens.device());
        let positions = positions.reshape([1, length]).repeat_dim(0, batch);
        let x = self.tokens.forward(tokens) + self.positions.forward(positions);
        let x = self.norm.forward(x);
        let x = self.encoder.forward(TransformerEncoderInput::new(x));
        let first: Tensor<2> = x.narrow(1, 0, 1).squeeze_dim(1);
        self.head.forward(tanh(self.pooler.forward(first)))
    }
}
