//! BERT: a transformer over tokens that see each other in both directions, with a classifier.
//!
//! J. Devlin, M.-W. Chang, K. Lee and K. Toutanova, *BERT: Pre-training of Deep Bidirectional
//! Transformers for Language Understanding*, 2018, arXiv:1810.04805.
//!
//! ```text
//! embeddings   words, positions and token types, layer norm     [n, s] -> [n, s, 768]
//! encoder      12 layers of attention and perceptron                   -> [n, s, 768]
//! pooler       linear and tanh of the first token                      -> [n, 768]
//! classifier   linear                                                  -> [n, 2]
//! ```
//!
//! The base version with 30,522 words and two classes has 109,483,778 parameters. Names are those of
//! `BertForSequenceClassification` in Hugging Face's transformers. Deviations: no dropout, all tokens
//! are of the first type, and none are left out.

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::activation::{gelu, tanh};
use burn::tensor::{Device, Int, Tensor};
use burn_compress_core::Wrapper;

use crate::attention::{attention, merge_heads, split_heads};
use crate::layers::linear;
use crate::model::tokens;
use crate::{Model, TorchNames};

/// Configuration of a [`Bert`].
#[derive(Config, Debug, PartialEq)]
pub struct BertConfig {
    /// Number of words.
    #[config(default = 30522)]
    pub vocabulary: usize,
    /// The most tokens.
    #[config(default = 512)]
    pub positions: usize,
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
    #[config(default = 2)]
    pub classes: usize,
}

impl BertConfig {
    /// BERT-base.
    pub fn base() -> Self {
        Self::new()
    }

    /// A network with random weights.
    pub fn init(&self, device: &Device) -> Bert {
        let features = self.heads * self.head_size;
        let embedding = |count| EmbeddingConfig::new(count, features).init(device).into();
        Bert {
            bert: Backbone {
                embeddings: Embeddings {
                    words: embedding(self.vocabulary),
                    positions: embedding(self.positions),
                    types: embedding(2),
                    norm: layer_norm(features, device),
                },
                layers: (0..self.depth)
                    .map(|_| EncoderLayer::new(self, device))
                    .collect(),
                pooler: linear(features, features, device),
            },
            classifier: linear(features, self.classes, device),
        }
    }
}

fn layer_norm(features: usize, device: &Device) -> Wrapper<LayerNorm> {
    let norm = LayerNormConfig::new(features).with_epsilon(1e-12);
    norm.init(device).into()
}

/// A classifier of sequences.
#[derive(Module, Debug)]
pub struct Bert {
    /// All but the classifier.
    pub bert: Backbone,
    /// Classifier.
    pub classifier: Wrapper<Linear>,
}

impl Bert {
    /// Logits of a batch of sequences.
    ///
    /// # Shapes
    ///
    /// - tokens: `[batch, tokens]`
    /// - logits: `[batch, classes]`
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<2> {
        self.classifier.forward(self.bert.forward(tokens))
    }
}

impl Model for Bert {
    type Input = Tensor<2, Int>;
    type Output = Tensor<2>;

    fn run(&self, input: Tensor<2, Int>) -> Tensor<2> {
        self.forward(input)
    }

    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Tensor<2, Int> {
        let [vocabulary, _] = self.bert.embeddings.words.weight.dims();
        tokens(batch, size, vocabulary, device)
    }

    /// The reference nests more deeply, and calls a layer `self` and norms `LayerNorm`.
    fn torch_names(&self) -> TorchNames {
        let mut names = TorchNames::new();
        let embeddings = [
            ("words", "word_embeddings"),
            ("positions", "position_embeddings"),
            ("types", "token_type_embeddings"),
            ("norm", "LayerNorm"),
        ];
        for (path, torch) in embeddings {
            names = names.with(
                format!("bert.embeddings.{path}."),
                format!("bert.embeddings.{torch}."),
            );
        }
        let layers = [
            ("query", "attention.self.query"),
            ("key", "attention.self.key"),
            ("value", "attention.self.value"),
            ("output", "attention.output.dense"),
            ("attention_norm", "attention.output.LayerNorm"),
            ("expand", "intermediate.dense"),
            ("project", "output.dense"),
            ("norm", "output.LayerNorm"),
        ];
        for layer in 0..self.bert.layers.len() {
            for (path, torch) in layers {
                names = names.with(
                    format!("bert.layers.{layer}.{path}."),
                    format!("bert.encoder.layer.{layer}.{torch}."),
                );
            }
        }
        names.with("bert.pooler.", "bert.pooler.dense.")
    }
}

/// Embeddings, layers and what is made of the first token.
#[derive(Module, Debug)]
pub struct Backbone {
    /// Features of the tokens.
    pub embeddings: Embeddings,
    /// Layers.
    pub layers: Vec<EncoderLayer>,
    /// Linear layer of the first token.
    pub pooler: Wrapper<Linear>,
}

impl Backbone {
    /// `[batch, tokens]` to `[batch, features]`.
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let x = self.embeddings.forward(tokens);
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x));
        tanh(self.pooler.forward(x.narrow(1, 0, 1).squeeze_dim(1)))
    }
}

/// Features of tokens: sums of three tables, normed.
#[derive(Module, Debug)]
pub struct Embeddings {
    /// Of words.
    pub words: Wrapper<Embedding>,
    /// Of positions.
    pub positions: Wrapper<Embedding>,
    /// Of the types of tokens.
    pub types: Wrapper<Embedding>,
    /// Norm of the sum.
    pub norm: Wrapper<LayerNorm>,
}

impl Embeddings {
    /// `[batch, tokens]` to `[batch, tokens, features]`.
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [_, length] = tokens.dims();
        let positions = Tensor::<1, Int>::arange(0..length as i64, &tokens.device());
        let positions = self.positions.forward(positions.unsqueeze());
        let types = self.types.forward(tokens.zeros_like());
        self.norm
            .forward(self.words.forward(tokens) + types + positions)
    }
}

/// Attention and a perceptron, each added to its input and normed.
///
/// ```text
/// x = attention_norm(x + output(attention(query(x), key(x), value(x))))
/// norm(x + project(gelu(expand(x))))
/// ```
#[derive(Module, Debug)]
pub struct EncoderLayer {
    /// Queries.
    pub query: Wrapper<Linear>,
    /// Keys.
    pub key: Wrapper<Linear>,
    /// Values.
    pub value: Wrapper<Linear>,
    /// From the heads to the features.
    pub output: Wrapper<Linear>,
    /// Norm behind the attention.
    pub attention_norm: Wrapper<LayerNorm>,
    /// To the hidden features.
    pub expand: Wrapper<Linear>,
    /// And back.
    pub project: Wrapper<Linear>,
    /// Norm behind the perceptron.
    pub norm: Wrapper<LayerNorm>,
    /// Features of a head.
    pub head_size: usize,
}

impl EncoderLayer {
    fn new(config: &BertConfig, device: &Device) -> Self {
        let features = config.heads * config.head_size;
        let square = || linear(features, features, device);
        Self {
            query: square(),
            key: square(),
            value: square(),
            output: square(),
            attention_norm: layer_norm(features, device),
            expand: linear(features, config.hidden, device),
            project: linear(config.hidden, features, device),
            norm: layer_norm(features, device),
            head_size: config.head_size,
        }
    }

    /// Keeps the shape, `[batch, tokens, features]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let heads = |layer: &Wrapper<Linear>| split_heads(layer.forward(x.clone()), self.head_size);
        let attended = attention(heads(&self.query), heads(&self.key), heads(&self.value));
        let attended = self.output.forward(merge_heads(attended));
        let x = self.attention_norm.forward(x + attended);
        let inner = self.project.forward(gelu(self.expand.forward(x.clone())));
        self.norm.forward(x + inner)
    }
}
