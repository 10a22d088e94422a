//! Coupled channels, transformers, and what is refused with which remedy.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_compress::prelude::*;
use burn_compress::pruning::OnUnprunable;
use burn_compress_zoo::{Model, ResNetConfig, VisionTransformerConfig, parameters};

use crate::output::show;

// ANCHOR: block
#[derive(Module, Debug)]
struct Net {
    stem: Conv2d,
    conv1: Conv2d,
    norm1: BatchNorm,
    conv2: Conv2d,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let conv = |channels| Conv2dConfig::new(channels, [1, 1]).init(device);
        Self {
            stem: conv([1, 8]),
            conv1: conv([8, 16]),
            norm1: BatchNormConfig::new(16).init(device),
            conv2: conv([16, 8]),
            head: LinearConfig::new(8, 10).init(device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.stem.forward(images);
        let y = relu(self.norm1.forward(self.conv1.forward(x.clone())));
        let x = x + self.conv2.forward(y); // the residual connection
        self.head.forward(x.mean_dim(3).mean_dim(2).flatten(1, 3))
    }
}
// ANCHOR_END: block

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    coupled(&device)?;
    refused(&device)?;
    resnet(&device)?;
    transformer(&device)
}

fn evaluator(device: &Device) -> Evaluator<Net, ()> {
    let images = Tensor::<4>::ones([1, 1, 4, 4], device);
    Evaluator::new().with_dummy_input(DummyInput::new(images, Net::forward))
}

fn coupled(device: &Device) -> Result<(), Error> {
    // ANCHOR: coupled
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let chain = L1NormPruner::new(
        Net::new(device),
        half,
        evaluator(device),
        PrunerConfig::new(),
    )?;
    show("real_networks_plan", chain.plan()?);
    // ANCHOR_END: coupled

    // ANCHOR: skip
    let rules = on(["Conv2d", "Linear"])
        .sparse_ratio(0.5)
        .on_unprunable(OnUnprunable::Skip);
    let chain = L1NormPruner::new(
        Net::new(device),
        rules,
        evaluator(device),
        PrunerConfig::new(),
    )?;
    let skipped: Vec<_> = chain
        .skipped()
        .iter()
        .map(|skipped| skipped.target.to_string())
        .collect();
    assert_eq!(skipped, ["head.weight"]);
    // ANCHOR_END: skip
    Ok(())
}

// ANCHOR: refused_net
#[derive(Module, Debug)]
struct Mixer {
    embed: Linear,
    norm: LayerNorm,
    expand: Linear,
    head: Linear,
}

impl Mixer {
    fn new(device: &Device) -> Self {
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        Self {
            embed: linear(4, 8),
            norm: LayerNormConfig::new(8).init(device),
            expand: linear(8, 12),
            head: linear(3, 2),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.norm.forward(self.embed.forward(x));
        let x = relu(self.expand.forward(x)).reshape([-1, 3, 4]); // numbers that are written down
        self.head.forward(x.mean_dim(2).flatten(1, 2))
    }
}
// ANCHOR_END: refused_net

fn refused(device: &Device) -> Result<(), Error> {
    let evaluator = || {
        let x = Tensor::<2>::ones([2, 4], device);
        Evaluator::<Mixer, ()>::new().with_dummy_input(DummyInput::new(x, Mixer::forward))
    };
    // ANCHOR: refused
    let half = || on(["Linear"]).sparse_ratio(0.5);
    let config = PrunerConfig::new;
    let error = L1NormPruner::new(Mixer::new(device), half(), evaluator(), config()).unwrap_err();
    // ANCHOR_END: refused
    show("real_networks_refused", error);

    // ANCHOR: misspelt
    let rule = on(["Linear"])
        .with_exclude_op_names(["haed"])
        .sparse_ratio(0.5);
    let error = L1NormPruner::new(Mixer::new(device), rule, evaluator(), config()).unwrap_err();
    // ANCHOR_END: misspelt
    show("real_networks_misspelt", error);
    Ok(())
}

fn resnet(device: &Device) -> Result<(), Error> {
    // ANCHOR: resnet
    let resnet = ResNetConfig::resnet18()
        .with_width(16)
        .with_classes(10)
        .init(device);
    let before = parameters(&resnet);
    let evaluator = Evaluator::<_, ()>::new().with_dummy_input(resnet.dummy_input(1, 32, device));
    let rules = ConfigList::from([
        on(["Conv2d"])
            .with_exclude_op_names(["conv1"])
            .sparse_ratio(0.5),
        named(["conv1"]).sparse_ratio(0.5),
    ]);
    let pruner = L1NormPruner::new(resnet, rules, evaluator, PrunerConfig::new())?;
    let small = pruner.compress(Budget::none())?.speedup()?.model;
    assert_eq!(parameters(&small), 177_362);
    // ANCHOR_END: resnet
    println!("ResNet-18 of width 16: {before} -> {}", parameters(&small));
    Ok(())
}

fn transformer(device: &Device) -> Result<(), Error> {
    // ANCHOR: transformer
    let config = VisionTransformerConfig::b16()
        .with_image(16)
        .with_patch(8)
        .with_depth(2);
    let config = config
        .with_heads(4)
        .with_head_size(4)
        .with_hidden(32)
        .with_classes(10);
    let vit = config.init(device);
    let evaluator = Evaluator::<_, ()>::new().with_dummy_input(vit.dummy_input(1, 16, device));
    let rules = ConfigList::from([
        Rule::new()
            .with_op_names_re([".*in_proj"])
            .sparse_ratio(0.5)
            .granularity(Granularity::Head),
        Rule::new().with_op_names_re([".*mlp.0"]).sparse_ratio(0.5),
    ]);
    let pruner = L1NormPruner::new(vit, rules, evaluator, PrunerConfig::new())?;
    let small = pruner.compress(Budget::none())?.speedup()?.model;
    let layer = &small.encoder.layers[0];
    assert_eq!(layer.self_attention.in_proj.weight.dims(), [16, 24]); // 2 of 4 heads of 4, thrice
    assert_eq!(layer.self_attention.out_proj.weight.dims(), [8, 16]);
    assert_eq!(layer.mlp.0.weight.dims(), [16, 16]); // half of 32 hidden units
    // ANCHOR_END: transformer
    Ok(())
}
