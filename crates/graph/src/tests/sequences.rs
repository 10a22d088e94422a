//! Tokens, embeddings, attention, and models with several inputs.

use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::{
    Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, RmsNorm,
    RmsNormConfig,
};
use burn::tensor::activation::{relu, softmax};

use super::*;

fn tokens() -> Tensor<2, Int> {
    Tensor::<1, Int>::arange(0..8, &device()).reshape([2, 4])
}

#[derive(Module, Debug)]
struct TwoInputs {
    conv: Conv2d,
    embedding: Embedding,
    up: Linear,
    down: Linear,
    head: Linear,
}

#[test]
fn two_inputs_meet_in_a_concatenation() {
    let model = TwoInputs {
        conv: conv(3, 4, 1),
        embedding: EmbeddingConfig::new(10, 6).init(&device()),
        up: LinearConfig::new(6, 5).init(&device()),
        down: LinearConfig::new(5, 3).with_bias(false).init(&device()),
        head: LinearConfig::new(7, 2).init(&device()),
    };
    let dummy = DummyInput::new(
        (images(3), tokens()),
        |model: &TwoInputs, (x, tokens): (Tensor<4>, Tensor<2, Int>)| {
            let x: Tensor<2> = relu(model.conv.forward(x))
                .mean_dim(3)
                .mean_dim(2)
                .flatten(1, 3);
            let t = model.embedding.forward(tokens);
            let t = model.down.forward(relu(model.up.forward(t)));
            let t: Tensor<2> = t.mean_dim(1).squeeze_dim(1);
            model.head.forward(Tensor::cat(vec![x, t], 1))
        },
    );
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[..4],
        [
            "4 channels of conv.weight[0] conv.bias[0] -> head.weight[0]",
            "6 channels of embedding.weight[1] -> up.weight[0]",
            "5 channels of up.weight[1] up.bias[0] -> down.weight[0]",
            "3 channels of down.weight[1] -> head.weight[0]",
        ]
    );
    assert_eq!(graph.groups()[3].consumers[0].positions, [[4], [5], [6]]);
    assert_eq!(graph.param_channels("embedding.weight", 0), None);
    let removed = (0..4)
        .flat_map(|group| pick(&graph, group, &[0, 2]))
        .collect();
    assert_exact(&model, &dummy, &removed, |_, _| {});
}

#[derive(Module, Debug)]
struct SelfAttention {
    embedding: Embedding,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    head: Linear,
}

#[test]
fn one_head_of_attention_is_followed_through_both_products() {
    let linear = |bias| LinearConfig::new(6, 4).with_bias(bias).init(&device());
    let model = SelfAttention {
        embedding: EmbeddingConfig::new(10, 6).init(&device()),
        query: linear(true),
        key: linear(true),
        value: linear(true),
        output: LinearConfig::new(4, 6).init(&device()),
        head: LinearConfig::new(6, 2).init(&device()),
    };
    let dummy = DummyInput::new(tokens(), |model: &SelfAttention, x: Tensor<2, Int>| {
        let x = model.embedding.forward(x);
        let [q, k, v] = [&model.query, &model.key, &model.value].map(|l| l.forward(x.clone()));
        let scores = softmax(q.matmul(k.swap_dims(1, 2)) * 0.5, 2);
        model
            .head
            .forward(x + model.output.forward(scores.matmul(v)))
    });
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[..3],
        [
            "6 channels of embedding.weight[1] output.weight[1] output.bias[0] \
             -> query.weight[0] key.weight[0] value.weight[0] head.weight[0]",
            "4 channels of query.weight[1] query.bias[0] key.weight[1] key.bias[0]",
            "4 channels of value.weight[1] value.bias[0] -> output.weight[0]",
        ]
    );
    let removed = (0..3)
        .flat_map(|group| pick(&graph, group, &[1, 3]))
        .collect();
    assert_exact(&model, &dummy, &removed, |_, _| {});
    // Both products: 4 tokens * 4 features * 4 tokens.
    let macs = graph.macs_by_operation(&BTreeSet::new());
    let products = macs
        .iter()
        .filter(|op| op.layer == "matmul")
        .map(|op| op.macs);
    assert_eq!(products.collect::<Vec<_>>(), [64, 64]);
}

#[derive(Module, Debug)]
struct Encoder {
    embedding: Embedding,
    norm: LayerNorm,
    attention: MultiHeadAttention,
    rms: RmsNorm,
    wide: Linear,
    narrow: Linear,
}

#[test]
fn an_encoder_prunes_its_feed_forward_part_and_keeps_what_is_normalized() {
    let model = Encoder {
        embedding: EmbeddingConfig::new(10, 8).init(&device()),
        norm: LayerNormConfig::new(8).init(&device()),
        attention: MultiHeadAttentionConfig::new(8, 2)
            .with_dropout(0.0)
            .init(&device()),
        rms: RmsNormConfig::new(8).init(&device()),
        wide: LinearConfig::new(8, 12).init(&device()),
        narrow: LinearConfig::new(12, 8).init(&device()),
    };
    let dummy = DummyInput::new(tokens(), |model: &Encoder, x: Tensor<2, Int>| {
        let x = model.norm.forward(model.embedding.forward(x));
        let x = x.clone() + model.attention.forward(MhaInput::self_attn(x)).context;
        let y = model.rms.forward(x.clone());
        x + model.narrow.forward(relu(model.wide.forward(y)))
    });
    let graph = analyze(&model, &dummy);
    let free: Vec<String> = lines(&graph)
        .into_iter()
        .filter(|line| !line.contains("protected"))
        .collect();
    assert_eq!(
        free,
        ["12 channels of wide.weight[1] wide.bias[0] -> narrow.weight[0]"]
    );
    let normalized = graph.param_channels("norm.gamma", 0).unwrap()[0];
    assert_eq!(
        graph.protected(normalized),
        Some("the plain `LayerNorm` `norm` takes its statistics over them")
    );
    let wide = graph.group_of("wide", "weight", 1).unwrap();
    assert_exact(&model, &dummy, &pick(&graph, wide, &[0, 5, 11]), |_, _| {});
}
