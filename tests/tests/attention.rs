//! Attention as users write it, pruned by features of heads and by whole heads: the masked model equals
//! its cut one, saved and loaded, bit for bit, or an error names the line that does not follow before
//! anything is trained.

use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use burn_compress::prelude::*;
use burn_compress::pruning::PruningError;

const WIDTH: usize = 8;
const HEADS: usize = 4;
const SIZE: usize = 4;

fn linear(inputs: usize, outputs: usize) -> Linear {
    LinearConfig::new(inputs, outputs).init(&Device::flex())
}

fn embedding() -> Embedding {
    EmbeddingConfig::new(20, WIDTH).init(&Device::flex())
}

/// Three sentences of five tokens.
fn tokens(first: i64) -> Tensor<2, Int> {
    let tokens: Vec<i64> = (0..15).map(|i| (first + 7 * i) % 20).collect();
    Tensor::from_data(TensorData::new(tokens, [3, 5]), &Device::flex())
}

type Forward<M> = fn(&M, Tensor<2, Int>) -> Tensor<3>;

fn chain<M: Module + 'static>(
    model: &M,
    forward: Forward<M>,
    rules: &str,
) -> Result<Compressor<M, ()>, Error> {
    let dummy = DummyInput::new(tokens(1), forward);
    let evaluator = Evaluator::new().with_dummy_input(dummy);
    let rules = ConfigList::from_json(rules).unwrap();
    L1NormPruner::new(model.clone(), &rules, evaluator, PrunerConfig::new())
}

fn values(tensor: Tensor<3>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Prunes, cuts, saves and loads; returns the small model.
fn cut<M: Module + 'static>(model: &M, forward: Forward<M>, rules: &str) -> M {
    let chain = chain(model, forward, rules).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let masked = compressed.masked_model();
    let small = compressed.speedup().unwrap();
    assert!(small.report.uncut.is_empty(), "{:?}", small.report.uncut);
    assert!(small.report.macs.small < small.report.macs.dense);
    for first in [1, 4] {
        let simulated = values(forward(&masked, tokens(first)));
        let found = values(forward(&small.model, tokens(first)));
        let largest = simulated.iter().fold(0f32, |max, x| max.max(x.abs()));
        for (x, y) in simulated.iter().zip(&found) {
            assert!((x - y).abs() <= 1e-6 * largest, "{x} {y}");
        }
    }
    let unique = std::thread::current().name().unwrap().replace("::", "_");
    let path = std::env::temp_dir().join(format!("attention_{unique}_{}", std::process::id()));
    small.save(&path).unwrap();
    let loaded = Small::load(model.clone(), &path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let outputs = [&small.model, &loaded.model].map(|model| values(forward(model, tokens(2))));
    assert_eq!(outputs[0], outputs[1]);
    small.model
}

/// The reasons and remedies of what cannot be pruned, a line a target.
fn refused<M: Module + 'static>(model: &M, forward: Forward<M>, rules: &str) -> Vec<String> {
    let error = chain(model, forward, rules).map(|chain| chain.algorithms());
    let error = error.unwrap_err();
    let Some(PruningError::Unprunable { obstacles }) = error.downcast_ref() else {
        panic!("{error}");
    };
    obstacles
        .iter()
        .map(|obstacle| obstacle.to_string())
        .collect()
}

const FEATURES: &str = r#"[{"op_names": ["query", "key", "value"], "sparse_ratio": 0.5}]"#;
const WHOLE: &str =
    r#"[{"op_names": ["query", "key", "value"], "sparse_ratio": 0.5, "granularity": "head"}]"#;

#[derive(Module, Debug)]
struct Attention {
    embedding: Embedding,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
}

impl Attention {
    /// As many heads of keys and values as given.
    fn new(shared: usize) -> Self {
        Self {
            embedding: embedding(),
            query: linear(WIDTH, HEADS * SIZE),
            key: linear(WIDTH, shared * SIZE),
            value: linear(WIDTH, shared * SIZE),
            output: linear(HEADS * SIZE, WIDTH),
        }
    }
}

/// `[b, s, heads * size] -> [b, heads, s, size]`
fn heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [b, s, c] = x.dims();
    x.reshape([b, s, heads, c / heads]).swap_dims(1, 2)
}

/// As [`heads`], of features of a size.
fn heads_of(x: Tensor<3>, size: usize) -> Tensor<4> {
    let [b, s, c] = x.dims();
    x.reshape([b, s, c / size, size]).swap_dims(1, 2)
}

fn attend(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<3> {
    let mixed = softmax(query.matmul(key.transpose()) / (SIZE as f64).sqrt(), 3).matmul(value);
    let [b, h, s, d] = mixed.dims();
    mixed.swap_dims(1, 2).reshape([b, s, h * d])
}

/// The number of heads is fixed, their size comes from the weights.
fn by_features(model: &Attention, tokens: Tensor<2, Int>) -> Tensor<3> {
    let x = model.embedding.forward(tokens);
    let split = |layer: &Linear| heads(layer.forward(x.clone()), HEADS);
    let mixed = attend(split(&model.query), split(&model.key), split(&model.value));
    model.output.forward(mixed)
}

/// The size of a head is fixed, their number comes from the weights.
fn by_heads(model: &Attention, tokens: Tensor<2, Int>) -> Tensor<3> {
    let x = model.embedding.forward(tokens);
    let split = |layer: &Linear| heads_of(layer.forward(x.clone()), SIZE);
    let mixed = attend(split(&model.query), split(&model.key), split(&model.value));
    model.output.forward(mixed)
}

/// The values are taken apart by the size that the queries' weights give.
fn by_one_size(model: &Attention, tokens: Tensor<2, Int>) -> Tensor<3> {
    let x = model.embedding.forward(tokens);
    let size = model.query.weight.dims()[1] / HEADS;
    let split = |layer: &Linear| heads_of(layer.forward(x.clone()), size);
    let mixed = attend(split(&model.query), split(&model.key), split(&model.value));
    model.output.forward(mixed)
}

/// Everything is written down.
fn by_constants(model: &Attention, tokens: Tensor<2, Int>) -> Tensor<3> {
    let x = model.embedding.forward(tokens);
    let [b, s, _] = x.dims();
    let split = |layer: &Linear| {
        let x: Tensor<4> = layer.forward(x.clone()).reshape([b, s, HEADS, SIZE]);
        x.swap_dims(1, 2)
    };
    let mixed = attend(split(&model.query), split(&model.key), split(&model.value));
    model.output.forward(mixed)
}

#[test]
fn features_of_heads() {
    let model = Attention::new(HEADS);
    let small = cut(&model, by_features, FEATURES);
    assert_eq!(small.query.weight.dims(), [WIDTH, HEADS * 2]);
    assert_eq!(small.key.weight.dims(), [WIDTH, HEADS * 2]);
    assert_eq!(small.output.weight.dims(), [HEADS * 2, WIDTH]);
    // By its name.
    let rules = FEATURES.replace("0.5", r#"0.5, "granularity": "head_dim""#);
    let named = cut(&model, by_features, &rules);
    assert_eq!(named.value.weight.dims(), [WIDTH, HEADS * 2]);
}

#[test]
fn values_alone() {
    let rules = r#"[{"op_names": ["value"], "sparse_ratio": 0.25}]"#;
    let small = cut(&Attention::new(HEADS), by_features, rules);
    assert_eq!(small.query.weight.dims(), [WIDTH, HEADS * SIZE]);
    assert_eq!(small.value.weight.dims(), [WIDTH, HEADS * 3]);
}

#[test]
fn whole_heads() {
    let small = cut(&Attention::new(HEADS), by_heads, WHOLE);
    assert_eq!(small.query.weight.dims(), [WIDTH, 2 * SIZE]);
    assert_eq!(small.value.weight.dims(), [WIDTH, 2 * SIZE]);
    assert_eq!(small.output.weight.dims(), [2 * SIZE, WIDTH]);
}

/// Where the size of a head is a constant, the only head cannot go, as the only channel cannot.
#[test]
fn the_only_head_stays() {
    let model = Attention {
        query: linear(WIDTH, SIZE),
        key: linear(WIDTH, SIZE),
        value: linear(WIDTH, SIZE),
        output: linear(SIZE, WIDTH),
        ..Attention::new(1)
    };
    assert_eq!(
        refused(&model, by_heads, WHOLE)[0],
        "`query.weight` (Linear): no reshape splits its output into parts: it has no heads; use \
         another `granularity`, or exclude the layer"
    );
}

/// Burn multiplies a single row by another way where one head is left.
#[test]
fn all_heads_but_one_of_a_single_place() {
    let model = Attention::new(HEADS);
    let rules = WHOLE.replace("0.5", "0.75");
    let first = |model: &Attention, tokens: Tensor<2, Int>| by_heads(model, tokens.narrow(1, 0, 1));
    let small = cut(&model, first, &rules);
    assert_eq!(small.query.weight.dims(), [WIDTH, SIZE]);
}

#[test]
fn numbers_that_do_not_follow() {
    let model = Attention::new(HEADS);
    let take = "take sizes from tensors (`x.dims()`) in the forward pass where they are written down, \
                or -1 in a reshape, or exclude the layer";
    // The size of a head is fixed and would have to follow.
    assert_eq!(
        refused(&model, by_heads, FEATURES)[0],
        format!(
            "`query.weight` (Linear): the reshape to [3, 5, 4, 4] behind `query` gives [3, 5, 2, 4] with \
             fewer channels, where [3, 5, 4, 2] would follow; {take}"
        )
    );
    // The number of heads is.
    assert_eq!(
        refused(&model, by_features, WHOLE)[0],
        format!(
            "`query.weight` (Linear): the reshape to [3, 5, 4, 4] behind `query` gives [3, 5, 4, 2] with \
             fewer channels, where [3, 5, 2, 4] would follow; {take}"
        )
    );
    for rules in [FEATURES, WHOLE] {
        let lines = refused(&model, by_constants, rules);
        assert_eq!(lines.len(), 3);
        let begin = "`query.weight` (Linear): the forward pass fails with fewer channels at `reshape` to \
                     [3, 5, 4, 4] behind `query`:";
        assert!(lines[0].starts_with(begin), "{}", lines[0]);
        assert!(lines[0].ends_with(take), "{}", lines[0]);
    }
}

/// One size serves features that lose equally many, and no others.
#[test]
fn a_size_that_two_groups_share() {
    let model = Attention::new(HEADS);
    assert!(chain(&model, by_one_size, FEATURES).is_ok());
    let rules = r#"[{"op_names": ["query", "key"], "sparse_ratio": 0.5},
        {"op_names": ["value"], "sparse_ratio": 0.25}]"#;
    let lines = refused(&model, by_one_size, rules);
    assert_eq!(lines.len(), 3);
    assert!(
        lines[2].starts_with("`value.weight` (Linear): "),
        "{}",
        lines[2]
    );
    assert!(lines[2].contains("reshape"), "{}", lines[2]);
}

#[test]
fn heads_of_a_layer_that_has_none() {
    for granularity in ["head", "head_dim"] {
        let rules = format!(
            r#"[{{"op_names": ["output", "query"], "sparse_ratio": 0.5, "granularity": "{granularity}"}}]"#
        );
        let lines = refused(&Attention::new(HEADS), by_heads, &rules);
        assert_eq!(
            lines.last().unwrap(),
            "`output.weight` (Linear): no reshape splits its output into parts: it has no heads; use \
             another `granularity`, or exclude the layer"
        );
    }
}

/// Each key and value serves two queries.
fn grouped_query(model: &Attention, tokens: Tensor<2, Int>) -> Tensor<3> {
    let x = model.embedding.forward(tokens);
    let split = |layer: &Linear| heads_of(layer.forward(x.clone()), SIZE);
    let repeat = |x: Tensor<4>| {
        let [b, h, s, d] = x.dims();
        let x: Tensor<5> = x.unsqueeze_dim(2);
        x.expand([b, h, 2, s, d]).reshape([b, 2 * h, s, d])
    };
    let (key, value) = (repeat(split(&model.key)), repeat(split(&model.value)));
    model
        .output
        .forward(attend(split(&model.query), key, value))
}

fn grouped_query_by_features(model: &Attention, tokens: Tensor<2, Int>) -> Tensor<3> {
    let x = model.embedding.forward(tokens);
    let repeat = |layer: &Linear| {
        let x = heads(layer.forward(x.clone()), HEADS / 2);
        let [b, h, s, d] = x.dims();
        let x: Tensor<5> = x.unsqueeze_dim(2);
        x.repeat_dim(2, 2).reshape([b, 2 * h, s, d])
    };
    let query = heads(model.query.forward(x.clone()), HEADS);
    model
        .output
        .forward(attend(query, repeat(&model.key), repeat(&model.value)))
}

#[test]
fn grouped_queries() {
    let model = Attention::new(HEADS / 2);
    let small = cut(&model, grouped_query, WHOLE);
    assert_eq!(small.query.weight.dims(), [WIDTH, 2 * SIZE]);
    assert_eq!(small.key.weight.dims(), [WIDTH, SIZE]);
    let small = cut(&model, grouped_query_by_features, FEATURES);
    assert_eq!(small.query.weight.dims(), [WIDTH, HEADS * 2]);
    assert_eq!(small.value.weight.dims(), [WIDTH, 2 * 2]);
}

#[derive(Module, Debug)]
struct Fused {
    embedding: Embedding,
    all: Linear,
    output: Linear,
}

fn fused(model: &Fused, tokens: Tensor<2, Int>) -> Tensor<3> {
    let x = model.all.forward(model.embedding.forward(tokens));
    let [b, s, c] = x.dims();
    let x = x
        .reshape([b, s, 3, HEADS, c / (3 * HEADS)])
        .permute([2, 0, 3, 1, 4]);
    let part = |i: usize| -> Tensor<4> { x.clone().narrow(0, i, 1).squeeze_dim(0) };
    model.output.forward(attend(part(0), part(1), part(2)))
}

fn chunked(model: &Fused, tokens: Tensor<2, Int>) -> Tensor<3> {
    let x = model.all.forward(model.embedding.forward(tokens));
    let parts = x.chunk(3, 2).into_iter().map(|x| heads_of(x, SIZE));
    let [query, key, value] = parts.collect::<Vec<_>>().try_into().unwrap();
    model.output.forward(attend(query, key, value))
}

#[test]
fn queries_keys_and_values_of_one_layer() {
    let model = Fused {
        embedding: embedding(),
        all: linear(WIDTH, 3 * HEADS * SIZE),
        output: linear(HEADS * SIZE, WIDTH),
    };
    let rules = r#"[{"op_names": ["all"], "sparse_ratio": 0.5}]"#;
    let small = cut(&model, fused, rules);
    assert_eq!(small.all.weight.dims(), [WIDTH, 3 * HEADS * 2]);
    let rules = r#"[{"op_names": ["all"], "sparse_ratio": 0.5, "granularity": "head"}]"#;
    let small = cut(&model, chunked, rules);
    assert_eq!(small.all.weight.dims(), [WIDTH, 3 * 2 * SIZE]);
}

#[derive(Module, Debug)]
struct Cross {
    embedding: Embedding,
    own: Attention,
    cross: Attention,
    memory: Linear,
}

/// A decoder layer: attention to itself, then to a memory of another width.
fn cross(model: &Cross, tokens: Tensor<2, Int>) -> Tensor<3> {
    let x = model.embedding.forward(tokens.clone());
    let memory = model
        .memory
        .forward(model.embedding.forward(tokens.flip([1]).narrow(1, 0, 4)));
    let layer = |part: &Attention, x: Tensor<3>, memory: Tensor<3>| {
        let query = heads(part.query.forward(x), HEADS);
        let key = heads(part.key.forward(memory.clone()), HEADS);
        let value = heads(part.value.forward(memory), HEADS);
        part.output.forward(attend(query, key, value))
    };
    let x = x.clone() + layer(&model.own, x.clone(), x);
    x.clone() + layer(&model.cross, x, memory)
}

#[test]
fn attention_to_another_sequence() {
    let attention = || Attention::new(HEADS);
    let model = Cross {
        embedding: embedding(),
        own: attention(),
        cross: attention(),
        memory: linear(WIDTH, WIDTH),
    };
    let rules = r#"[
        {"op_names_re": ["(own|cross)\\.(query|key|value)"], "sparse_ratio": 0.5},
        {"op_names": ["memory"], "sparse_ratio": 0.25}
    ]"#;
    let small = cut(&model, cross, rules);
    assert_eq!(small.cross.key.weight.dims(), [6, HEADS * 2]);
}

/// The table of tokens is the classifier too.
fn tied(model: &Attention, tokens: Tensor<2, Int>) -> Tensor<3> {
    let x = by_features(model, tokens);
    x.matmul(model.embedding.weight.val().transpose().unsqueeze())
}

#[test]
fn a_tied_embedding() {
    let small = cut(&Attention::new(HEADS), tied, FEATURES);
    assert_eq!(small.query.weight.dims(), [WIDTH, HEADS * 2]);
    // Its features are those of the projection: read, made and read again.
    let rules = r#"[{"op_names": ["embedding", "output"], "sparse_ratio": 0.5}]"#;
    let small = cut(&Attention::new(HEADS), tied, rules);
    assert_eq!(small.embedding.weight.dims(), [20, WIDTH / 2]);
    assert_eq!(small.query.weight.dims(), [WIDTH / 2, HEADS * SIZE]);
}

/// One layer of attention, twice.
fn shared(model: &Attention, tokens: Tensor<2, Int>) -> Tensor<3> {
    let x = model.embedding.forward(tokens);
    let layer = |x: Tensor<3>| {
        let split = |layer: &Linear| heads_of(layer.forward(x.clone()), SIZE);
        let mixed = attend(split(&model.query), split(&model.key), split(&model.value));
        model.output.forward(mixed)
    };
    layer(layer(x))
}

#[test]
fn a_layer_that_is_called_twice() {
    let small = cut(&Attention::new(HEADS), shared, WHOLE);
    assert_eq!(small.query.weight.dims(), [WIDTH, 2 * SIZE]);
}

/// Rotates pairs of features by tables of a fixed size.
fn rotate(x: Tensor<4>) -> Tensor<4> {
    let angles = Tensor::<1, Int>::arange(0..20, &x.device()).float() * 0.1;
    let angles = angles.reshape([1, 1, 5, SIZE]);
    let half = x.dims()[3] / 2;
    let (low, high) = (
        x.clone().narrow(3, 0, half),
        x.clone().narrow(3, half, half),
    );
    let turned = Tensor::cat(vec![-high, low], 3);
    x * angles.clone().cos() + turned * angles.sin()
}

fn rotary(model: &Attention, tokens: Tensor<2, Int>) -> Tensor<3> {
    let x = model.embedding.forward(tokens);
    let split = |layer: &Linear| heads_of(layer.forward(x.clone()), SIZE);
    let (query, key) = (rotate(split(&model.query)), rotate(split(&model.key)));
    model
        .output
        .forward(attend(query, key, split(&model.value)))
}

#[test]
fn rotary_positions() {
    let model = Attention::new(HEADS);
    let small = cut(&model, rotary, WHOLE);
    assert_eq!(small.key.weight.dims(), [WIDTH, 2 * SIZE]);
    let rules =
        r#"[{"op_names": ["query", "key"], "sparse_ratio": 0.5, "granularity": "head_dim"}]"#;
    assert_eq!(
        refused(&model, rotary, rules)[0],
        "`query.weight` (Linear): its channels cannot be removed: is combined with a size that cannot change in \
         `mul` at [3, 4, 5, 4]; exclude the layer"
    );
}

#[derive(Module, Debug)]
struct Window {
    attention: Attention,
    bias: Param<Tensor<3>>,
}

/// A bias of every head and pair of places.
fn window(model: &Window, tokens: Tensor<2, Int>) -> Tensor<3> {
    let part = &model.attention;
    let x = part.embedding.forward(tokens);
    let split = |layer: &Linear| heads(layer.forward(x.clone()), HEADS);
    let scores = split(&part.query).matmul(split(&part.key).transpose());
    let scores = softmax(scores + model.bias.val().unsqueeze(), 3);
    let mixed = scores.matmul(split(&part.value));
    let [b, h, s, d] = mixed.dims();
    part.output
        .forward(mixed.swap_dims(1, 2).reshape([b, s, h * d]))
}

#[test]
fn a_bias_of_relative_positions() {
    let bias = Tensor::random([HEADS, 5, 5], Distribution::Default, &Device::flex());
    let model = Window {
        attention: Attention::new(HEADS),
        bias: Param::from_tensor(bias),
    };
    let rules = r#"[{"op_names_re": ["attention\\.(query|key|value)"], "sparse_ratio": 0.5}]"#;
    let small = cut(&model, window, rules);
    assert_eq!(small.attention.query.weight.dims(), [WIDTH, HEADS * 2]);
}

/// Keys and values of an earlier call come first.
fn cached(model: &Attention, tokens: Tensor<2, Int>) -> Tensor<3> {
    let x = model.embedding.forward(tokens);
    let split = |layer: &Linear, x: Tensor<3>| heads_of(layer.forward(x), SIZE);
    let (past, new) = (x.clone().narrow(1, 0, 3), x.clone().narrow(1, 3, 2));
    let append = |layer: &Linear| {
        let cache = split(layer, past.clone());
        Tensor::cat(vec![cache, split(layer, new.clone())], 2)
    };
    let query = split(&model.query, new.clone());
    model
        .output
        .forward(attend(query, append(&model.key), append(&model.value)))
}

#[test]
fn a_cache_of_keys_and_values() {
    let small = cut(&Attention::new(HEADS), cached, WHOLE);
    assert_eq!(small.value.weight.dims(), [WIDTH, 2 * SIZE]);
}
