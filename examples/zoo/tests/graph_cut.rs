//! A network of plain layers, which no wrapper makes follow a cut, pruned by half: its captured forward
//! pass is cut and leaves as ONNX.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu6;
use burn::tensor::module::adaptive_avg_pool2d;
use burn::tensor::{Device, Distribution, Tensor};
use burn_compress::graph::ForwardOutputs;
use burn_compress::prelude::*;
use burn_compress::pruning::CutOf;
use burn_compress_export::{OnnxConfig, export_graph_cut};
use burn_compress_testkit::onnx::{OnnxRuntime, RunOptions, other_argmax, relative_error};
use burn_compress_zoo::{MobileNetV2Config, Model, randomize_statistics};

const SIZE: usize = 64;
const LAST: usize = 1280;

/// A convolution and its norm.
#[derive(Module, Debug)]
struct Layer {
    conv: Conv2d,
    norm: BatchNorm,
}

impl Layer {
    fn new(channels: [usize; 2], kernel: usize, stride: usize, groups: usize) -> Self {
        let pad = kernel / 2;
        let conv = Conv2dConfig::new(channels, [kernel, kernel])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_groups(groups)
            .with_bias(false);
        Self {
            conv: conv.init(&Device::flex()),
            norm: BatchNormConfig::new(channels[1]).init(&Device::flex()),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }
}

#[derive(Module, Debug)]
struct Block {
    expand: Option<Layer>,
    depthwise: Layer,
    project: Layer,
    residual: bool,
}

/// MobileNetV2 as a crate without wrappers has it, with numbers in its code.
#[derive(Module, Debug)]
struct Plain {
    stem: Layer,
    blocks: Vec<Block>,
    last: Layer,
    classifier: Linear,
}

impl Plain {
    fn new() -> Self {
        let mut channels = 32;
        let mut blocks = Vec::new();
        let stages = [
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ];
        for (expansion, outputs, depth, stride) in stages {
            for block in 0..depth {
                let (stride, hidden) = (if block == 0 { stride } else { 1 }, channels * expansion);
                blocks.push(Block {
                    expand: (expansion > 1).then(|| Layer::new([channels, hidden], 1, 1, 1)),
                    depthwise: Layer::new([hidden, hidden], 3, stride, hidden),
                    project: Layer::new([hidden, outputs], 1, 1, 1),
                    residual: stride == 1 && channels == outputs,
                });
                channels = outputs;
            }
        }
        Self {
            stem: Layer::new([3, 32], 3, 2, 1),
            blocks,
            last: Layer::new([channels, LAST], 1, 1, 1),
            classifier: LinearConfig::new(LAST, 1000).init(&Device::flex()),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = relu6(self.stem.forward(images));
        for block in &self.blocks {
            let mut inner = x.clone();
            if let Some(expand) = &block.expand {
                inner = relu6(expand.forward(inner));
            }
            let inner = block.project.forward(relu6(block.depthwise.forward(inner)));
            x = if block.residual { x + inner } else { inner };
        }
        let x = adaptive_avg_pool2d(relu6(self.last.forward(x)), [1, 1]);
        self.classifier.forward(x.reshape([-1, LAST as i32]))
    }
}

fn images(batch: usize) -> Tensor<4> {
    let shape = [batch, 3, SIZE, SIZE];
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
}

fn pruned(model: Plain, config: PrunerConfig) -> Result<Compressed<Plain>, Error> {
    let dummy_input = DummyInput::new(images(1), Plain::forward);
    let evaluator = Evaluator::<_, ()>::new().with_dummy_input(dummy_input);
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    L1NormPruner::new(model, half, evaluator, config)?.compress(Budget::none())
}

#[test]
fn plain_depthwise_convolutions_are_cut_in_the_captured_graph() {
    Device::flex().seed(7);
    let model = randomize_statistics(Plain::new().valid(), 1);
    let refused = pruned(model.clone(), PrunerConfig::new()).unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains("`groups` of the depthwise convolution"),
        "{text}"
    );
    assert!(
        text.contains("set `cut_of` of the `PrunerConfig` to `graph`"),
        "{text}"
    );

    let graph = PrunerConfig::new().with_cut_of(CutOf::Graph);
    let compressed = pruned(model, graph).unwrap();
    let masked = compressed.masked_model();
    let dummy_input = compressed.dummy_input().unwrap().clone();
    let speedup = ModelSpeedup::new(compressed, dummy_input);
    let text = speedup.speedup_model().unwrap_err().to_string();
    assert!(text.contains("ModelSpeedup::cut_graph"), "{text}");

    let cut = speedup.cut_graph().unwrap();
    // The same network with wrappers, cut by its type.
    let wrapped = MobileNetV2Config::new().init(&Device::flex());
    let dummy_input = wrapped.dummy_input(1, SIZE, &Device::flex());
    let evaluator = Evaluator::<_, ()>::new().with_dummy_input(dummy_input);
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let chain = L1NormPruner::new(wrapped, half, evaluator, PrunerConfig::new()).unwrap();
    let small = chain.compress(Budget::none()).unwrap().speedup().unwrap();
    assert_eq!(cut.macs(), small.report.macs);

    let file = export_graph_cut(&cut, &OnnxConfig::new()).unwrap();
    assert_eq!(file.report().operators["Conv"], 52);
    let Some(runtime) = OnnxRuntime::find() else {
        return;
    };
    for batch in [1, 5] {
        let input = images(batch);
        let expected = masked.forward(input.clone()).data();
        let run = runtime.run(
            file.bytes(),
            &[vec![input.into_data()]],
            &RunOptions::default(),
        );
        let found = &run.unwrap().outputs[0][0];
        let error = relative_error(&expected[0], found);
        eprintln!(
            "batch {batch}: {error:.1e} of the largest output, {:?}",
            cut.macs()
        );
        assert!(error <= 1e-5, "{error:e}");
        assert_eq!(other_argmax(&expected[0], found), 0);
    }
}
