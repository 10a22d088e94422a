//! Attention as users write it: heads split by a reshape, merged by another.

use std::collections::BTreeSet;

use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::activation::softmax;

use super::*;

const WIDTH: usize = 8;

#[derive(Module, Debug)]
struct Attention {
    embedding: Embedding,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
}

fn linear(inputs: usize, outputs: usize) -> Linear {
    LinearConfig::new(inputs, outputs).init(&device())
}

/// Queries of 8 features, keys and values of `shared`.
fn attention(shared: usize) -> Attention {
    Attention {
        embedding: EmbeddingConfig::new(10, WIDTH).init(&device()),
        query: linear(WIDTH, 8),
        key: linear(WIDTH, shared),
        value: linear(WIDTH, shared),
        output: linear(8, 3),
    }
}

fn tokens() -> Tensor<2, Int> {
    Tensor::<1, Int>::arange(0..6, &device()).reshape([2, 3])
}

fn dummy<F>(forward: F) -> DummyInput<Attention>
where
    F: Fn(&Attention, Tensor<3>) -> Tensor<3> + Send + Sync + 'static,
{
    DummyInput::new(tokens(), move |model: &Attention, x: Tensor<2, Int>| {
        model
            .output
            .forward(forward(model, model.embedding.forward(x)))
    })
}

/// `[b, s, heads * size] -> [b, heads, s, size]`
fn split(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [b, s, c] = x.dims();
    x.reshape([b, s, heads, c / heads]).swap_dims(1, 2)
}

fn merge(x: Tensor<4>) -> Tensor<3> {
    let [b, h, s, d] = x.dims();
    x.swap_dims(1, 2).reshape([b, s, h * d])
}

/// Scores of a fixed scale, so that nothing depends on the size of a head.
fn attend(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<3> {
    merge(softmax(query.matmul(key.transpose()) * 0.5, 3).matmul(value))
}

fn whole_heads(paths: &[&str]) -> BTreeSet<(String, usize)> {
    paths.iter().map(|path| (path.to_string(), 1)).collect()
}

fn analyze_heads<M: Module>(model: &M, dummy: &DummyInput<M>, paths: &[&str]) -> ChannelGraph {
    let captured = capture(model, dummy).unwrap();
    ChannelGraph::analyze_heads(&captured, &whole_heads(paths)).unwrap()
}

const PARTS: [&str; 2] = [
    "8 channels of query.weight[1] query.bias[0] key.weight[1] key.bias[0], in 2 equal blocks",
    "8 channels of value.weight[1] value.bias[0] -> output.weight[0], in 2 equal blocks",
];

#[test]
fn features_of_heads_are_coupled_head_by_head() {
    let model = attention(8);
    let dummy = dummy(|model, x| {
        let heads = |layer: &Linear| split(layer.forward(x.clone()), 2);
        attend(heads(&model.query), heads(&model.key), heads(&model.value))
    });
    let graph = analyze(&model, &dummy);
    assert_eq!(lines(&graph)[1..3], PARTS);
    let mut removed = pick(&graph, 1, &[0, 6]);
    removed.extend(pick(&graph, 2, &[1, 2, 4, 7]));
    assert_exact(&model, &dummy, &removed, |_, _| {});
    assert!(graph.slice_plan(&pick(&graph, 1, &[0])).is_err());
}

#[test]
fn whole_heads_couple_queries_keys_and_values() {
    let model = attention(8);
    // The size of a head is fixed, their number follows.
    let dummy = dummy(|model, x| {
        let heads = |layer: &Linear| {
            let x = layer.forward(x.clone());
            let count = x.dims()[2] / 2;
            split(x, count)
        };
        attend(heads(&model.query), heads(&model.key), heads(&model.value))
    });
    let graph = analyze_heads(&model, &dummy, &["query.weight", "value.weight"]);
    assert_eq!(
        lines(&graph)[1],
        "4 channels of query.weight[1] query.bias[0] key.weight[1] key.bias[0] value.weight[1] \
         value.bias[0] -> output.weight[0]"
    );
    let group = &graph.groups()[1];
    assert_eq!(group.members[0].positions, [[0, 1], [2, 3], [4, 5], [6, 7]]);
    let removed = pick(&graph, 1, &[0, 2]);
    let plan = graph.slice_plan(&removed).unwrap();
    assert_eq!(plan.params["query.weight"].keep[&1], [2, 3, 6, 7]);
    // Every product of three tokens with three loses two of four heads of two features.
    assert_eq!(
        graph.macs() - graph.macs_after(&removed),
        3 * 8 * 12 + 2 * 9 * 4 + 3 * 4 * 3
    );
    let masked = map(map(model.valid(), Randomize), Mask(&graph, &removed));
    let small = map(masked.valid(), Cut(&plan));
    let (masked, cut) = (dummy.run(&masked, &device()), dummy.run(&small, &device()));
    masked[0].assert_approx_eq::<f32>(&cut[0], burn::tensor::Tolerance::relative(1e-6));
}

#[test]
fn heads_that_no_reshape_splits() {
    let model = attention(8);
    let dummy = dummy(|model, x| model.query.forward(x));
    let captured = capture(&model, &dummy).unwrap();
    let error = ChannelGraph::analyze_heads(&captured, &whole_heads(&["query.weight"]));
    assert_eq!(
        error.unwrap_err().to_string(),
        "no reshape takes the output of `query.weight` apart, so that there are no heads to remove: \
         use another granularity"
    );
}

#[test]
fn a_batch_that_is_merged_with_the_heads() {
    let model = attention(8);
    let dummy = dummy(|model, x| {
        let heads = |layer: &Linear| {
            let x = split(layer.forward(x.clone()), 2);
            let [b, h, s, d] = x.dims();
            x.reshape([b * h, s, d])
        };
        let (query, key) = (heads(&model.query), heads(&model.key));
        let scores = softmax(query.matmul(key.transpose()), 2);
        let mixed = scores.matmul(heads(&model.value));
        let [bh, s, d] = mixed.dims();
        merge(mixed.reshape([bh / 2, 2, s, d]))
    });
    let graph = analyze(&model, &dummy);
    assert_eq!(lines(&graph)[1..3], PARTS);
    let mut removed = pick(&graph, 1, &[3, 4]);
    removed.extend(pick(&graph, 2, &[0, 1, 4, 6]));
    assert_exact(&model, &dummy, &removed, |_, _| {});
}

/// Each key serves two queries.
fn repeated(x: Tensor<4>, expand: bool) -> Tensor<4> {
    let [b, h, s, d] = x.dims();
    let x: Tensor<5> = x.unsqueeze_dim(2);
    let x = match expand {
        true => x.expand([b, h, 2, s, d]),
        false => x.repeat_dim(2, 2),
    };
    x.reshape([b, 2 * h, s, d])
}

#[test]
fn keys_that_several_queries_share() {
    for expand in [true, false] {
        let model = attention(4);
        let dummy = dummy(move |model, x| {
            let query = split(model.query.forward(x.clone()), 4);
            let key = repeated(split(model.key.forward(x.clone()), 2), expand);
            let value = repeated(split(model.value.forward(x), 2), expand);
            attend(query, key, value)
        });
        let graph = analyze(&model, &dummy);
        assert_eq!(
            lines(&graph)[1..3],
            [
                "4 channels of query.weight[1] query.bias[0] key.weight[1] key.bias[0], in 2 equal \
                 blocks",
                "4 channels of value.weight[1] value.bias[0] -> output.weight[0], in 2 equal blocks",
            ]
        );
        let query = &graph.groups()[1].members[0];
        assert_eq!(query.positions, [[0, 2], [1, 3], [4, 6], [5, 7]]);
        let mut removed = pick(&graph, 1, &[0, 3]);
        removed.extend(pick(&graph, 2, &[1, 2]));
        assert_exact(&model, &dummy, &removed, |_, _| {});
        // Whole heads: two keys, each with its two queries.
        let graph = analyze_heads(&model, &dummy, &["query.weight", "key.weight"]);
        let positions: Vec<_> = graph.groups()[1]
            .members
            .iter()
            .map(|m| &m.positions)
            .collect();
        assert_eq!(*positions[0], [[0, 1, 2, 3], [4, 5, 6, 7]]);
        assert_eq!(*positions[2], [[0, 1], [2, 3]]);
    }
}

#[derive(Module, Debug)]
struct Fused {
    embedding: Embedding,
    all: Linear,
    output: Linear,
}

#[test]
fn queries_keys_and_values_of_one_layer() {
    let model = Fused {
        embedding: EmbeddingConfig::new(10, WIDTH).init(&device()),
        all: linear(WIDTH, 24),
        output: linear(8, 3),
    };
    for chunked in [false, true] {
        let forward = move |model: &Fused, x: Tensor<2, Int>| {
            let x = model.all.forward(model.embedding.forward(x));
            let [b, s, c] = x.dims();
            let parts: Vec<Tensor<4>> = match chunked {
                true => x.chunk(3, 2).into_iter().map(|x| split(x, 2)).collect(),
                false => {
                    let x = x.reshape([b, s, 3, 2, c / 6]).permute([2, 0, 3, 1, 4]);
                    (0..3)
                        .map(|i| x.clone().narrow(0, i, 1).squeeze_dim(0))
                        .collect()
                }
            };
            let [query, key, value] = parts.try_into().unwrap();
            model.output.forward(attend(query, key, value))
        };
        let dummy = DummyInput::new(tokens(), forward);
        let graph = analyze(&model, &dummy);
        // Queries with their keys, and values: two heads of each.
        assert_eq!(
            lines(&graph)[1],
            "16 channels of all.weight[1] all.bias[0] -> output.weight[0], in 4 equal blocks"
        );
        let positions = &graph.groups()[1].members[0].positions;
        assert_eq!(positions[0], [0, 8]);
        assert_eq!(positions[15], [23]);
        let removed = pick(&graph, 1, &[0, 5, 10, 15]);
        assert_exact(&model, &dummy, &removed, |_, _| {});
        let graph = analyze_heads(&model, &dummy, &["all.weight"]);
        let positions = &graph.groups()[1].members[0].positions;
        assert_eq!(positions[0], [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]);
        assert_eq!(positions.len(), 2);
    }
}

/// Rotates pairs of features by tables of a fixed size.
fn rotate(x: Tensor<4>) -> Tensor<4> {
    let [_, _, s, d] = x.dims();
    let angles = Tensor::<1, Int>::arange(0..12, &x.device())
        .float()
        .reshape([1, 1, 3, 4]);
    assert_eq!((s, d), (3, 4));
    let low = x.clone().narrow(3, 0, d / 2);
    let high = x.clone().narrow(3, d / 2, d / 2);
    let turned = Tensor::cat(vec![-high, low], 3);
    x * angles.clone().cos() + turned * angles.sin()
}

#[test]
fn rotated_features_stay_and_whole_heads_go() {
    let model = attention(8);
    let dummy = dummy(|model, x| {
        let heads = |layer: &Linear| {
            let [b, s, _] = x.dims();
            let x = layer
                .forward(x.clone())
                .reshape([b as i32, s as i32, -1, 4]);
            x.swap_dims(1, 2)
        };
        let (query, key) = (rotate(heads(&model.query)), rotate(heads(&model.key)));
        attend(query, key, heads(&model.value))
    });
    let graph = analyze(&model, &dummy);
    assert_eq!(
        graph.groups()[1].protected.as_deref(),
        Some("is combined with a size that cannot change in `mul` at [2, 2, 3, 4]")
    );
    assert_eq!(graph.groups()[2].protected, None);
    let heads = ["query.weight", "key.weight", "value.weight"];
    let graph = analyze_heads(&model, &dummy, &heads);
    assert_eq!(
        lines(&graph)[1],
        "2 channels of query.weight[1] query.bias[0] key.weight[1] key.bias[0] value.weight[1] \
         value.bias[0] -> output.weight[0]"
    );
    assert_eq!(graph.groups()[1].protected, None);
}

#[derive(Module, Debug)]
struct Biased {
    attention: Attention,
    bias: Param<Tensor<3>>,
    scale: Param<Tensor<1>>,
}

#[test]
fn a_bias_of_every_head_and_a_scale_of_every_feature() {
    let model = Biased {
        attention: attention(8),
        bias: Param::from_tensor(Tensor::ones([2, 3, 3], &device())),
        scale: Param::from_tensor(Tensor::ones([4], &device())),
    };
    let dummy = DummyInput::new(tokens(), |model: &Biased, x: Tensor<2, Int>| {
        let Attention {
            embedding,
            query,
            key,
            value,
            output,
        } = &model.attention;
        let x = embedding.forward(x);
        let heads = |layer: &Linear| {
            let [b, s, _] = x.dims();
            let x = layer.forward(x.clone()).reshape([
                b as i32,
                s as i32,
                -1,
                model.scale.dims()[0] as i32,
            ]);
            x.swap_dims(1, 2)
        };
        let query = heads(query) * model.scale.val().unsqueeze();
        let scores = query.matmul(heads(key).transpose()) + model.bias.val().unsqueeze();
        let value = split(value.forward(x.clone()), 2);
        output.forward(merge(softmax(scores, 3).matmul(value)))
    });
    let graph = analyze(&model, &dummy);
    // The scale has one entry for the features of all heads.
    assert_eq!(
        lines(&graph)[1],
        "4 channels of attention.query.weight[1] attention.query.bias[0] attention.key.weight[1] \
         attention.key.bias[0] scale[0]"
    );
    let mut removed = pick(&graph, 1, &[1]);
    let value = graph.group_of("attention.value", "weight", 1).unwrap();
    removed.extend(pick(&graph, value, &[0, 5]));
    assert_exact(&model, &dummy, &removed, |_, _| {});
    let heads = [
        "attention.query.weight",
        "attention.key.weight",
        "attention.value.weight",
    ];
    let graph = analyze_heads(&model, &dummy, &heads);
    assert!(lines(&graph)[1].contains("bias[0]"), "{graph}");
    assert_eq!(graph.groups()[1].channels.len(), 2);
}

#[test]
fn attention_as_one_operation() {
    use burn::tensor::module::attention;
    use burn::tensor::ops::AttentionModuleOptions;
    let model = super::attention::attention(8);
    for scale in [None, Some(0.5)] {
        let options = AttentionModuleOptions {
            scale,
            ..Default::default()
        };
        let dummy = dummy(move |model, x| {
            let heads = |layer: &Linear| split(layer.forward(x.clone()), 2);
            let (query, key, value) = (&model.query, &model.key, &model.value);
            merge(attention(
                heads(query),
                heads(key),
                heads(value),
                None,
                None,
                options,
            ))
        });
        let graph = analyze(&model, &dummy);
        let query = graph.group_of("query", "weight", 1).unwrap();
        let mut removed = match scale {
            // The default scale is the root of the number of features.
            None => {
                let reason = graph.groups()[query].protected.as_deref();
                assert_eq!(reason, Some("is read by `attention`"));
                BTreeSet::new()
            }
            Some(_) => pick(&graph, query, &[0, 7]),
        };
        let value = graph.group_of("value", "weight", 1).unwrap();
        removed.extend(pick(&graph, value, &[1, 2, 4, 5]));
        assert_exact(&model, &dummy, &removed, |_, _| {});
        let heads = ["query.weight", "key.weight", "value.weight"];
        let graph = analyze_heads(&model, &dummy, &heads);
        assert_eq!(
            lines(&graph)[1],
            "2 channels of query.weight[1] query.bias[0] key.weight[1] key.bias[0] value.weight[1] \
             value.bias[0] -> output.weight[0]"
        );
    }
}
