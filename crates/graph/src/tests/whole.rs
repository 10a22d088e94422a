//! A model with a bit of everything.

use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig};
use burn::nn::{
    Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, Relu,
};

use super::*;

#[derive(Module, Debug)]
struct Block {
    conv1: Conv2d,
    bn1: BatchNorm,
    act: Relu,
    dw: Conv2d,
    bn2: BatchNorm,
    down: Option<Conv2d>,
}

impl Block {
    fn new(inputs: usize, outputs: usize) -> Self {
        Self {
            conv1: conv(inputs, outputs, 1),
            bn1: norm(outputs),
            act: Relu::new(),
            dw: conv(outputs, outputs, outputs),
            bn2: norm(outputs),
            down: (inputs != outputs).then(|| conv(inputs, outputs, 1)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let skip = match &self.down {
            Some(down) => down.forward(x.clone()),
            None => x.clone(),
        };
        let x = self.act.forward(self.bn1.forward(self.conv1.forward(x)));
        self.act
            .forward(self.bn2.forward(self.dw.forward(x)) + skip)
    }
}

#[derive(Module, Debug)]
struct Whole {
    stem: Conv2d,
    bn: BatchNorm,
    blocks: Vec<Block>,
    branch_a: Conv2d,
    branch_b: Conv2d,
    pool: AvgPool2d,
    embedding: Embedding,
    norm: LayerNorm,
    attention: MultiHeadAttention,
    fc1: Linear,
    fc2: Linear,
}

fn whole() -> (Whole, DummyInput<Whole>) {
    let model = Whole {
        stem: conv(3, 8, 1),
        bn: norm(8),
        blocks: vec![Block::new(8, 8), Block::new(8, 12)],
        branch_a: conv(12, 6, 1),
        branch_b: conv(12, 4, 1),
        pool: AvgPool2dConfig::new([3, 3]).with_strides([3, 3]).init(),
        embedding: EmbeddingConfig::new(20, 16).init(&device()),
        norm: LayerNormConfig::new(16).init(&device()),
        attention: MultiHeadAttentionConfig::new(16, 4)
            .with_dropout(0.0)
            .init(&device()),
        fc1: LinearConfig::new(40, 16).init(&device()),
        fc2: LinearConfig::new(32, 5).init(&device()),
    };
    let tokens = Tensor::<1, Int>::arange(0..12, &device()).reshape([2, 6]);
    let dummy = DummyInput::new(
        (images(3), tokens),
        |model: &Whole, (x, tokens): (Tensor<4>, Tensor<2, Int>)| {
            let x = model.blocks[0]
                .act
                .forward(model.bn.forward(model.stem.forward(x)));
            let x = model.blocks.iter().fold(x, |x, block| block.forward(x));
            let x = vec![model.branch_a.forward(x.clone()), model.branch_b.forward(x)];
            let x: Tensor<2> = model.pool.forward(Tensor::cat(x, 1)).flatten(1, 3);
            let x = model.fc1.forward(x);
            let t = model.norm.forward(model.embedding.forward(tokens));
            let t = model.attention.forward(MhaInput::self_attn(t)).context;
            let t: Tensor<2> = t.mean_dim(1).squeeze_dim(1);
            model.fc2.forward(Tensor::cat(vec![x, t], 1))
        },
    );
    (model, dummy)
}

#[test]
fn every_part_finds_its_group() {
    let (model, dummy) = whole();
    let graph = analyze(&model, &dummy);
    let free: Vec<String> = lines(&graph)
        .into_iter()
        .filter(|line| !line.contains("protected"))
        .collect();
    assert_eq!(
        free,
        [
            "8 channels of stem.weight[0] stem.bias[0] bn.gamma[0] bn.beta[0] \
             blocks.0.conv1.weight[0] blocks.0.conv1.bias[0] blocks.0.bn1.gamma[0] \
             blocks.0.bn1.beta[0] blocks.0.dw.weight[0] blocks.0.dw.bias[0] \
             blocks.0.bn2.gamma[0] blocks.0.bn2.beta[0] \
             -> blocks.0.conv1.weight[1] blocks.1.conv1.weight[1] blocks.1.down.weight[1]",
            "12 channels of blocks.1.conv1.weight[0] blocks.1.conv1.bias[0] \
             blocks.1.bn1.gamma[0] blocks.1.bn1.beta[0] blocks.1.dw.weight[0] \
             blocks.1.dw.bias[0] blocks.1.bn2.gamma[0] blocks.1.bn2.beta[0] \
             blocks.1.down.weight[0] blocks.1.down.bias[0] \
             -> branch_a.weight[1] branch_b.weight[1]",
            "6 channels of branch_a.weight[0] branch_a.bias[0] -> fc1.weight[0]",
            "4 channels of branch_b.weight[0] branch_b.bias[0] -> fc1.weight[0]",
            "16 channels of attention.output.weight[1] attention.output.bias[0] -> fc2.weight[0]",
            "16 channels of fc1.weight[1] fc1.bias[0] -> fc2.weight[0]",
        ]
    );
}

#[test]
fn everything_that_is_free_is_cut_exactly() {
    let (model, dummy) = whole();
    let graph = analyze(&model, &dummy);
    let free = (0..graph.groups().len()).filter(|&group| graph.groups()[group].protected.is_none());
    let removed: BTreeSet<ChannelId> = free
        .flat_map(|group| pick(&graph, group, &[0, 2]))
        .collect();
    assert_eq!(removed.len(), 12);
    assert_exact(&model, &dummy, &removed, |model, plan| {
        for slice in &plan.sizes {
            let block = if slice.layer == "blocks.0.dw" { 0 } else { 1 };
            model.blocks[block].dw.groups = slice.after;
        }
    });
}
