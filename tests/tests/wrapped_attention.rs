//! Burn's multi-head attention in a wrapper: the residual width, the features of heads and whole heads
//! can be cut, and the number of heads follows.

use burn::module::Module;
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_compress::prelude::*;
use burn_compress::speedup::load_small;
use burn_compress_tests::chains::assert_says;
use tempfile::TempDir;

const WIDTH: usize = 8;
const HEADS: usize = 4;

/// `[batch, tokens] -> [batch, tokens, 3]`
#[derive(Module, Debug)]
struct Block {
    embedding: Embedding,
    norm: Wrapper<LayerNorm>,
    attention: Wrapper<MultiHeadAttention>,
    head: Linear,
}

impl Block {
    fn new(device: &Device) -> Self {
        device.seed(4);
        let attention = MultiHeadAttentionConfig::new(WIDTH, HEADS).with_dropout(0.0);
        Self {
            embedding: EmbeddingConfig::new(11, WIDTH).init(device),
            norm: LayerNormConfig::new(WIDTH).init(device).into(),
            attention: attention.init(device).into(),
            head: LinearConfig::new(WIDTH, 3).init(device),
        }
    }

    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [batch, places] = tokens.dims();
        let causal = Tensor::<3, Bool>::tril_mask([batch, places, places], 0, &tokens.device());
        let x = self.embedding.forward(tokens);
        let input = AttentionInput::self_attn(self.norm.forward(x.clone()));
        let y = self.attention.forward(input.mask_attn(causal)).context;
        self.head.forward(x + y)
    }

    fn by_burn(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let x = self.embedding.forward(tokens);
        let input = MhaInput::self_attn(self.norm.forward(x.clone()));
        self.head.forward(x + self.attention.forward(input).context)
    }
}

fn tokens() -> Tensor<2, Int> {
    Tensor::from_data([[1, 5, 3, 2, 0], [4, 10, 9, 7, 1]], &Device::flex())
}

fn prune<M: Module + 'static>(
    model: M,
    forward: fn(&M, Tensor<2, Int>) -> Tensor<3>,
    rules: &str,
) -> Result<Compressor<M, ()>, Error> {
    let dummy = DummyInput::new(tokens(), forward);
    let evaluator = Evaluator::new().with_dummy_input(dummy);
    let rules = ConfigList::from_json(rules).unwrap();
    L1NormPruner::new(model, &rules, evaluator, PrunerConfig::new())
}

/// Prunes, cuts, saves and loads, compared on other tokens; returns the small model.
fn cut(rules: &str) -> Block {
    let device = Device::flex();
    let model = Block::new(&device);
    let chain = prune(model.clone(), Block::forward, rules).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let other = Tensor::<2, Int>::from_data([[2, 8, 8, 6, 5, 0], [0, 3, 9, 5, 1, 1]], &device);
    let simulated = compressed.model().forward(other.clone());
    let small = compressed.speedup().unwrap();
    assert!(small.report.uncut.is_empty(), "{:?}", small.report.uncut);
    let found = small.model.forward(other.clone());
    let largest = simulated.clone().abs().max().into_scalar::<f32>();
    let error = (simulated - found.clone()).abs().max().into_scalar::<f32>() / largest;
    assert!(error < 1e-6, "{error}");
    println!("largest relative error {error:e}");
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("small.bin");
    small.save(&path).unwrap();
    let (again, _) = load_small(model, &path).unwrap();
    again
        .forward(other)
        .into_data()
        .assert_eq(&found.into_data(), true);
    small.model
}

#[test]
fn the_residual_width() {
    let small = cut(
        r#"[{"op_names": ["embedding", "attention.output"], "target_names": ["weight"],
             "sparse_ratio": 0.5}]"#,
    );
    assert_eq!(small.attention.query.weight.dims(), [WIDTH / 2, WIDTH]);
    assert_eq!(small.attention.output.weight.dims(), [WIDTH, WIDTH / 2]);
    let sizes = (small.attention.d_model, small.attention.n_heads);
    assert_eq!(sizes, (WIDTH / 2, HEADS));
}

const FEATURES: &str = r#"[{"op_names": ["attention.query", "attention.key", "attention.value"],
    "target_names": ["weight"], "sparse_ratio": 0.5}]"#;

#[test]
fn features_of_heads() {
    let small = cut(FEATURES).attention;
    assert_eq!(small.query.weight.dims(), [WIDTH, WIDTH / 2]);
    assert_eq!(small.output.weight.dims(), [WIDTH / 2, WIDTH]);
    // Scores are divided by the root of what they were divided by before.
    assert_eq!((small.n_heads, small.d_k), (HEADS, WIDTH / HEADS));
}

#[test]
fn whole_heads() {
    let small = cut(&FEATURES.replace("0.5", r#"0.5, "granularity": "head""#)).attention;
    assert_eq!(small.value.weight.dims(), [WIDTH, WIDTH / 2]);
    assert_eq!(small.output.weight.dims(), [WIDTH / 2, WIDTH]);
    assert_eq!((small.n_heads, small.d_model), (HEADS / 2, WIDTH));
}

#[test]
fn heads_and_the_residual_width() {
    let small = cut(
        r#"[{"op_names": ["attention.query", "attention.key", "attention.value"],
             "target_names": ["weight"], "sparse_ratio": 0.25, "granularity": "head"},
            {"op_names": ["embedding", "attention.output"], "target_names": ["weight"],
             "sparse_ratio": 0.5}]"#,
    );
    let attention = &small.attention;
    assert_eq!(attention.key.weight.dims(), [WIDTH / 2, 6]);
    assert_eq!((attention.n_heads, attention.d_model), (3, WIDTH / 2));
}

/// Burn's own input has no width but the layer's.
#[test]
fn the_input_of_burn_names_the_change() {
    let rules = r#"[{"op_names": ["embedding", "attention.output"], "target_names": ["weight"],
        "sparse_ratio": 0.5}]"#;
    let error = prune(Block::new(&Device::flex()), Block::by_burn, rules).unwrap_err();
    assert_says(
        &error,
        &[
            "the `MultiHeadAttention` `attention` requires",
            "call it with an `AttentionInput`",
        ],
    );
}

#[derive(Module, Debug)]
struct Encoder {
    embedding: Embedding,
    layers: TransformerEncoder,
}

/// Burn's encoder holds plain layers, which only a type of the user's own can wrap.
#[test]
fn the_encoder_of_burn_names_its_type() {
    let device = Device::flex();
    let layers = TransformerEncoderConfig::new(WIDTH, 16, HEADS, 1).with_dropout(0.0);
    let model = Encoder {
        embedding: EmbeddingConfig::new(11, WIDTH).init(&device),
        layers: layers.init(&device),
    };
    let forward = |model: &Encoder, tokens: Tensor<2, Int>| {
        let input = TransformerEncoderInput::new(model.embedding.forward(tokens));
        model.layers.forward(input)
    };
    let rules = r#"[{"op_names": ["embedding"], "sparse_ratio": 0.5}]"#;
    let error = prune(model, forward, rules).unwrap_err();
    println!("{error}");
    assert_says(
        &error,
        &["in a type of your own in place of Burn's `TransformerEncoderLayer`"],
    );
}
