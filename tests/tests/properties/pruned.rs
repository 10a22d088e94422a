//! Networks that were pruned, and quantized as well.

use burn::module::Module;
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor};
use burn_compress::layer::layers;
use burn_compress::prelude::*;
use burn_compress::speedup::verify::{TOLERANCE, rounding_boundary};
use burn_compress_tests::random_net::{Net, NetSpec};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

use crate::comparison::outputs;
use crate::groups::{Group, graph, groups, output_dim};

pub fn ratios() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(0.0..=0.95, 1..=6)
}

pub fn evaluator(spec: &NetSpec, device: &Device) -> Evaluator<Net, Tensor<4>> {
    Evaluator::new().with_dummy_input(spec.dummy_input(device))
}

/// The convolutions and linear layers.
pub fn weighted(net: &Net) -> Vec<String> {
    let found = layers(net).into_iter();
    found
        .filter(|layer| output_dim(layer).is_some())
        .map(|layer| layer.path)
        .collect()
}

pub fn pruning_config(groups: &[Group]) -> Result<ConfigList<PruningSettings>, TestCaseError> {
    let rules: Vec<Value> = groups
        .iter()
        .map(|group| json!({"op_names": group.layers, "sparse_ratio": group.ratio}))
        .collect();
    Ok(ConfigList::from_json(&Value::from(rules).to_string())?)
}

/// A network whose coupled channels were pruned.
pub struct Pruned {
    pub dense: Net,
    pub groups: Vec<Group>,
    pub compressed: Compressed<Net>,
    /// How many batch norms were folded.
    pub folded: usize,
}

pub fn prune_coupled(
    spec: &NetSpec,
    ratios: &[f64],
    with_linear: bool,
    l2: bool,
    device: &Device,
) -> Result<Option<Pruned>, TestCaseError> {
    let dense = spec.build(device);
    let groups = groups(&graph(spec, &dense, device)?, &dense, with_linear, ratios);
    if groups.is_empty() {
        return Ok(None);
    }
    let (config, evaluator) = (pruning_config(&groups)?, evaluator(spec, device));
    let options = PrunerConfig::new();
    let pruner = match l2 {
        true => L2NormPruner::new(dense.clone(), &config, evaluator, options)?,
        false => L1NormPruner::new(dense.clone(), &config, evaluator, options)?,
    };
    Ok(Some(Pruned {
        dense,
        groups,
        compressed: pruner.compress(Budget::none())?,
        folded: 0,
    }))
}

/// How everything is quantized to 8 bits.
#[derive(Clone, Copy, Debug)]
pub struct Quantized {
    /// Whether zero points are used.
    pub affine: bool,
    /// Whether each channel has a scale.
    pub per_channel: bool,
    /// Whether batch norms are folded into the convolutions before them.
    pub folds: bool,
}

/// Any way of quantizing.
pub fn quantized(folds: bool) -> impl Strategy<Value = Quantized> {
    let any = (any::<bool>(), prop::bool::weighted(0.75));
    any.prop_map(move |(affine, per_channel)| Quantized {
        affine,
        per_channel,
        folds,
    })
}

/// Trains two steps with masks and 8-bit quantization of everything.
pub fn prune_and_quantize(
    spec: &NetSpec,
    ratios: &[f64],
    quantized: Quantized,
    device: &Device,
) -> Result<Option<Pruned>, TestCaseError> {
    let dense = spec.build(device);
    let groups = groups(&graph(spec, &dense, device)?, &dense, true, ratios);
    if groups.is_empty() {
        return Ok(None);
    }
    let batches: Vec<_> = (10..12)
        .map(|stream| spec.images(stream, 4, device))
        .collect();
    let evaluator = evaluator(spec, device)
        .with_data(move |_epoch| batches.clone())
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(1e-4)
        .with_loss(|net: &Net, images: &Tensor<4>| net.forward(images.clone()).square().mean());
    let scheme = if quantized.affine {
        "affine"
    } else {
        "symmetric"
    };
    let (port, weight) = if quantized.per_channel {
        ("per_channel", "out_channel")
    } else {
        ("default", "default")
    };
    let rules = json!([{
        "op_names": weighted(&dense),
        "quant_dtype": "int8",
        "quant_scheme": scheme,
        "fuse": quantized.folds,
        "target_names": ["_input_0", "weight", "_output_0"],
        "target_settings": {
            "_input_0": {"granularity": port},
            "weight": {"granularity": weight},
            "_output_0": {"granularity": port},
        },
    }]);
    let quantize = ConfigList::from_json(&rules.to_string())?;
    let pruner = L1NormPruner::new(
        dense.clone(),
        &pruning_config(&groups)?,
        evaluator,
        PrunerConfig::new(),
    )?;
    let mut quantizer = QatQuantizer::from_compressor(pruner, &quantize, QatConfig::new())?;
    let folded = quantizer.chain().foldings().len();
    quantizer.advance(&Budget::steps(2), None)?;
    let images = spec.images(5, 8, device);
    let simulated = outputs(&quantizer.model().valid(), &images);
    let compressed = quantizer.finish()?;
    // Nothing but the order of additions changes where a norm is folded for good.
    let left = outputs(compressed.model(), &images);
    match folded {
        0 => prop_assert_eq!(simulated, left),
        _ => {
            rounding_boundary(&simulated, &left, TOLERANCE)?;
        }
    }
    Ok(Some(Pruned {
        dense,
        groups,
        compressed,
        folded,
    }))
}
