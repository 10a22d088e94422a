//! Llama: a decoder with rotary positions, gated perceptrons, RMS norms and grouped queries.
//!
//! H. Touvron et al., *LLaMA: Open and Efficient Foundation Language Models*, 2023, arXiv:2302.13971;
//! J. Su et al., *RoFormer: Enhanced Transformer with Rotary Position Embedding*, 2021,
//! arXiv:2104.09864; J. Ainslie et al., *GQA: Training Generalized Multi-Query Transformer Models from
//! Multi-Head Checkpoints*, 2023, arXiv:2305.13245; N. Shazeer, *GLU Variants Improve Transformer*,
//! 2020, arXiv:2002.05202.
//!
//! ```text
//! embed_tokens   table of 49,152 words                                 [n, s] -> [n, s, 576]
//! layers         30 times: norm, attention; norm, perceptron                  -> [n, s, 576]
//! lm_head        norm, product with the table of words                        -> [n, s, 49152]
//! ```
//!
//! The full size is that of SmolLM2-135M, 134,515,008 parameters, with 9 heads of queries for 3 of
//! keys and values. Names are those of `LlamaForCausalLM` in Hugging Face's transformers.

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::activation::{silu, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_compress_core::Wrapper;

use crate::Model;
use crate::attention::{merge_heads, scores, split_heads};
use crate::model::tokens;

/// What is added to the score of a token behind the one that looks.
const BEHIND: f32 = -1e9;

/// Configuration of a [`Llama`].
#[derive(Config, Debug)]
pub struct LlamaConfig {
    /// Number of words.
    pub vocabulary: usize,
    /// Features of a token.
    pub features: usize,
    /// Layers.
    pub depth: usize,
    /// Heads of queries, a multiple of those of keys.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Hidden features of a perceptron.
    pub hidden: usize,
    /// Features of a head, an even number.
    #[config(default = 64)]
    pub head_size: usize,
    /// Base of the wavelengths of rotary positions.
    #[config(default = 10000.0)]
    pub theta: f64,
    /// Whether the table of words gives the logits too.
    #[config(default = true)]
    pub tied: bool,
}

impl LlamaConfig {
    /// SmolLM2-135M.
    pub fn smollm2_135m() -> Self {
        Self::new(49152, 576, 30, 9, 3, 1536).with_theta(100_000.0)
    }

    /// A network with random weights.
    pub fn init(&self, device: &Device) -> Llama {
        let embedding = EmbeddingConfig::new(self.vocabulary, self.features);
        let head = || matrix(self.features, self.vocabulary, device);
        Llama {
            model: Backbone {
                embed_tokens: embedding.init(device).into(),
                layers: (0..self.depth)
                    .map(|_| DecoderLayer::new(self, device))
                    .collect(),
                norm: rms_norm(self.features, device),
            },
            lm_head: (!self.tied).then(head),
        }
    }
}

fn matrix(inputs: usize, outputs: usize, device: &Device) -> Wrapper<Linear> {
    let linear = LinearConfig::new(inputs, outputs).with_bias(false);
    linear.init(device).into()
}

fn rms_norm(features: usize, device: &Device) -> Wrapper<RmsNorm> {
    RmsNormConfig::new(features).init(device).into()
}

/// A language model.
#[derive(Module, Debug)]
pub struct Llama {
    /// All but the logits.
    pub model: Backbone,
    /// Logits, where the table of words does not give them.
    pub lm_head: Option<Wrapper<Linear>>,
}

impl Llama {
    /// Logits of the next token, at each token of a batch of sequences.
    ///
    /// # Shapes
    ///
    /// - tokens: `[batch, tokens]`
    /// - logits: `[batch, tokens, vocabulary]`
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        self.forward_cached(tokens, &mut Cache::new())
    }

    /// As [`forward`](Self::forward) for the tokens behind those that the cache has seen, which it
    /// then has seen as well.
    pub fn forward_cached(&self, tokens: Tensor<2, Int>, cache: &mut Cache) -> Tensor<3> {
        let x = self.model.forward(tokens, cache);
        match &self.lm_head {
            Some(head) => head.forward(x),
            None => x.matmul(self.model.embed_tokens.weight.val().transpose().unsqueeze()),
        }
    }
}

impl Model for Llama {
    type Input = Tensor<2, Int>;
    type Output = Tensor<3>;

    fn run(&self, input: Tensor<2, Int>) -> Tensor<3> {
        self.forward(input)
    }

    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Tensor<2, Int> {
        let [vocabulary, _] = self.model.embed_tokens.weight.dims();
        tokens(batch, size, vocabulary, device)
    }
}

/// Keys and values of the tokens so far, of each layer `[batch, heads, tokens, size]`.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    layers: Vec<(Tensor<4>, Tensor<4>)>,
}

impl Cache {
    /// A cache that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of tokens that it has seen.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |(key, _)| key.dims()[2])
    }

    /// Whether it has seen nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends keys and values of a layer and gives all of them.
    fn extend(&mut self, layer: usize, key: Tensor<4>, value: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let all = match self.layers.get(layer) {
            Some((keys, values)) => (
                Tensor::cat(vec![keys.clone(), key], 2),
                Tensor::cat(vec![values.clone(), value], 2),
            ),
            None => (key, value),
        };
        match self.layers.get_mut(layer) {
            Some(kept) => *kept = all.clone(),
            None => self.layers.push(all.clone()),
        }
        all
    }
}

/// Table of words, layers and a last norm.
#[derive(Module, Debug)]
pub struct Backbone {
    /// Table of words.
    pub embed_tokens: Wrapper<Embedding>,
    /// Layers.
    pub layers: Vec<DecoderLayer>,
    /// Last norm.
    pub norm: Wrapper<RmsNorm>,
}

impl Backbone {
    /// `[batch, tokens]` to `[batch, tokens, features]`.
    pub fn forward(&self, tokens: Tensor<2, Int>, cache: &mut Cache) -> Tensor<3> {
        let seen = cache.len();
        let mut x = self.embed_tokens.forward(tokens);
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, seen, index, cache);
        }
        self.norm.forward(x)
    }
}

/// Attention and a perceptron, each of the normed input and added to it.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Attention.
    pub self_attn: Attention,
    /// Perceptron.
    pub mlp: Perceptron,
    /// Norm before the attention.
    pub input_layernorm: Wrapper<RmsNorm>,
    /// Norm before the perceptron.
    pub post_attention_layernorm: Wrapper<RmsNorm>,
}

impl DecoderLayer {
    fn new(config: &LlamaConfig, device: &Device) -> Self {
        let (features, hidden) = (config.features, config.hidden);
        let [queries, keys] = [config.heads, config.kv_heads].map(|heads| heads * config.head_size);
        Self {
            self_attn: Attention {
                q_proj: matrix(features, queries, device),
                k_proj: matrix(features, keys, device),
                v_proj: matrix(features, keys, device),
                o_proj: matrix(queries, features, device),
                head_size: config.head_size,
                theta: config.theta,
            },
            mlp: Perceptron {
                gate_proj: matrix(features, hidden, device),
                up_proj: matrix(features, hidden, device),
                down_proj: matrix(hidden, features, device),
            },
            input_layernorm: rms_norm(features, device),
            post_attention_layernorm: rms_norm(features, device),
        }
    }

    fn forward(&self, x: Tensor<3>, seen: usize, index: usize, cache: &mut Cache) -> Tensor<3> {
        let inner = self.input_layernorm.forward(x.clone());
        let x = x + self.self_attn.forward(inner, seen, index, cache);
        let inner = self.post_attention_layernorm.forward(x.clone());
        x + self.mlp.forward(inner)
    }
}

/// `down(silu(gate(x)) * up(x))`.
#[derive(Module, Debug)]
pub struct Perceptron {
    /// What lets features through.
    pub gate_proj: Wrapper<Linear>,
    /// To the hidden features.
    pub up_proj: Wrapper<Linear>,
    /// And back.
    pub down_proj: Wrapper<Linear>,
}

impl Perceptron {
    /// Keeps the shape, `[batch, tokens, features]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = silu(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}

/// Attention of every token to those before it, several heads of queries for one of keys.
#[derive(Module, Debug)]
pub struct Attention {
    /// Queries.
    pub q_proj: Wrapper<Linear>,
    /// Keys.
    pub k_proj: Wrapper<Linear>,
    /// Values.
    pub v_proj: Wrapper<Linear>,
    /// From the heads to the features.
    pub o_proj: Wrapper<Linear>,
    /// Features of a head.
    pub head_size: usize,
    /// Base of the wavelengths of rotary positions.
    pub theta: f64,
}

impl Attention {
    fn forward(&self, x: Tensor<3>, seen: usize, index: usize, cache: &mut Cache) -> Tensor<3> {
        let heads = |layer: &Wrapper<Linear>| split_heads(layer.forward(x.clone()), self.head_size);
        let query = self.rotated(heads(&self.q_proj), seen);
        let key = self.rotated(heads(&self.k_proj), seen);
        let (key, value) = cache.extend(index, key, heads(&self.v_proj));
        let [batch, kv_heads, tokens, size] = key.dims().map(|size| size as i64);
        let [_, _, new, _] = query.dims().map(|size| size as i64);
        // The heads of queries that share a head of keys.
        let query: Tensor<5> = query.reshape([batch, kv_heads, -1, new, size]);
        let scores = scores(query, key.unsqueeze_dim(2));
        let scores = scores + behind(new as usize, tokens as usize, &x.device()).unsqueeze();
        let attended = softmax(scores, 4).matmul(value.unsqueeze_dim(2));
        self.o_proj
            .forward(merge_heads(attended.reshape([batch, -1, new, size])))
    }

    /// Heads turned by an angle for each position: `x cos + turn(x) sin`, where `turn` gives the
    /// second half of the features, negative, and then the first.
    fn rotated(&self, x: Tensor<4>, seen: usize) -> Tensor<4> {
        let [_, _, tokens, size] = x.dims();
        let half = size / 2;
        let frequency = |at: usize| self.theta.powf(-2.0 * (at % half) as f64 / size as f64);
        let positions = (seen..seen + tokens).map(|position| position as f64);
        let angles =
            positions.flat_map(|position| (0..size).map(move |at| position * frequency(at)));
        let angles: Vec<f64> = angles.collect();
        let table = |function: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|&angle| function(angle) as f32).collect();
            Tensor::<4>::from_data(TensorData::new(values, [1, 1, tokens, size]), &x.device())
        };
        let first = x.clone().narrow(3, 0, half);
        let second = x.clone().narrow(3, half, half);
        let turned = Tensor::cat(vec![second.neg(), first], 3);
        x.clone() * table(f64::cos) + turned * table(f64::sin)
    }
}

/// Low scores for tokens behind the one that looks, `[new, tokens]`; the new ones are the last.
fn behind(new: usize, tokens: usize, device: &Device) -> Tensor<2> {
    let rows = (tokens - new..tokens)
        .flat_map(|row| (0..tokens).map(move |column| if column > row { BEHIND } else { 0.0 }));
    let values: Vec<f32> = rows.collect();
    Tensor::from_data(TensorData::new(values, [new, tokens]), device)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tolerance;

    use super::*;

    fn tiny() -> LlamaConfig {
        LlamaConfig::new(16, 8, 2, 4, 2, 12).with_head_size(4)
    }

    #[test]
    fn a_cache_gives_the_logits_of_the_whole_sequence() {
        let device = Device::flex();
        let model = tiny().init(&device);
        let tokens = model.random_input(2, 5, &device);
        let whole = model.forward(tokens.clone());
        let mut cache = Cache::new();
        let parts = [0..3, 3..4, 4..5]
            .map(|part| model.forward_cached(tokens.clone().slice_dim(1, part), &mut cache));
        assert_eq!(cache.len(), 5);
        let parts = Tensor::cat(parts.into(), 1).into_data();
        parts.assert_approx_eq::<f32>(&whole.into_data(), Tolerance::default());
    }

    #[test]
    fn a_token_does_not_see_what_is_behind_it() {
        let device = Device::flex();
        let model = tiny().with_tied(false).init(&device);
        let tokens = model.random_input(1, 4, &device);
        let last = tokens.clone().slice_dim(1, 3..4);
        let other = Tensor::cat(
            vec![
                tokens.clone().narrow(1, 0, 3),
                (last + 1).remainder_scalar(16),
            ],
            1,
        );
        let [a, b] = [tokens, other].map(|tokens| model.forward(tokens).narrow(1, 0, 3));
        a.into_data().assert_eq(&b.into_data(), true);
    }

    #[test]
    fn positions_turn_heads() {
        let device = Device::flex();
        let attention = &tiny().init(&device).model.layers[0].self_attn;
        // Size 4 at position 1: angles of 1 and 0.01 for both pairs (0, 2) and (1, 3).
        let x = Tensor::<1>::from_floats([1.0, 0.0, 0.0, 1.0], &device).reshape([1, 1, 1, 4]);
        let turned = attention.rotated(x, 1).into_data();
        let values = turned.try_to_vec::<f32>().unwrap();
        let expected = [1f32.cos(), -0.01f32.sin(), 1f32.sin(), 0.01f32.cos()];
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{values:?}");
        }
    }
}
