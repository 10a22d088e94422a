//! A network that is pruned and quantized for onnxruntime, and leaves as an ONNX file.

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::optim::AdamConfig;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_compress::prelude::*;

use crate::output::show;
use crate::own_network::{Batch, Net, stripes, trained};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let model = trained(&device);
    // ANCHOR: refused
    let example = stripes(4, 0, &device).images;
    let dummy_input = DummyInput::new(example.clone(), Net::forward);
    let error = Deployment::onnxruntime()
        .rules(&model, &dummy_input)
        .unwrap_err();
    // ANCHOR_END: refused
    show("deployment_refused", error);

    let model = Pooled::new(model);
    // ANCHOR: rules
    let dummy_input = DummyInput::new(example, Pooled::forward);
    let int8 = Deployment::onnxruntime().rules(&model, &dummy_input)?;
    // ANCHOR_END: rules
    show("deployment_rules", int8.to_toml()?);

    // ANCHOR: run
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let evaluator = evaluator(dummy_input.clone(), &device);
    let chain = TaylorPruner::new(model, half, evaluator, TaylorConfig::new(10))?;
    let chain = QatQuantizer::from_compressor(chain, int8, QatConfig::new())?;
    let small = chain.compress(Budget::steps(40))?.speedup()?;
    // ANCHOR_END: run
    export(&small.model, &dummy_input)
}

// ANCHOR: pooled
/// The network with its mean over positions as a layer.
#[derive(Module, Debug)]
struct Pooled {
    net: Net,
    pool: Wrapper<AdaptiveAvgPool2d>,
}

impl Pooled {
    fn new(net: Net) -> Self {
        let pool = AdaptiveAvgPool2dConfig::new([1, 1]).init();
        Self {
            net,
            pool: pool.into(),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let net = &self.net;
        let x = relu(net.norm1.forward(net.conv1.forward(images)));
        let x = relu(net.norm2.forward(net.conv2.forward(x)));
        net.head.forward(self.pool.forward(x).flatten(1, 3))
    }
}
// ANCHOR_END: pooled

fn evaluator(dummy_input: DummyInput<Pooled>, device: &Device) -> Evaluator<Pooled, Batch> {
    let device = device.clone();
    Evaluator::new()
        .with_dummy_input(dummy_input)
        .with_data(move |epoch| {
            (0..40)
                .map(|at| stripes(32, 1000 * (epoch + 1) + at, &device))
                .collect::<Vec<_>>()
        })
        .with_loss(|model: &Pooled, batch: &Batch| {
            let loss = CrossEntropyLossConfig::new().init(&batch.labels.device());
            loss.forward(model.forward(batch.images.clone()), batch.labels.clone())
        })
        .with_optimizer(AdamConfig::new().init())
        .with_learning_rate(1e-3)
}

#[cfg(feature = "onnx")]
fn export(small: &Pooled, dummy_input: &DummyInput<Pooled>) -> Result<(), Error> {
    use burn_compress::export::OnnxTarget;
    // ANCHOR: export
    let config = OnnxConfig::new()
        .with_target(OnnxTarget::OnnxRuntime)
        .with_input_names(["images"])
        .with_output_names(["logits"]);
    let file = export_onnx(small, dummy_input, &config).map_err(Error::other)?;
    println!("{}", file.report());

    let path = std::env::temp_dir().join(format!("stripes-{}.onnx", std::process::id()));
    file.save(&path).map_err(Error::other)?;
    // ANCHOR_END: export
    let report = file.report().to_string();
    let table: Vec<_> = report
        .lines()
        .filter(|line| line.starts_with(['┌', '│', '╞', '└']))
        .collect();
    show("deployment_report", table.join("\n"));
    Ok(std::fs::remove_file(&path)?)
}

#[cfg(not(feature = "onnx"))]
fn export(_: &Pooled, _: &DummyInput<Pooled>) -> Result<(), Error> {
    println!("without the feature `onnx`: no file");
    Ok(())
}
