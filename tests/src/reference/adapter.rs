//! The one place that names the compressors' API.
//!
//! The families describe what a compressor is to do in terms of the files; here this becomes calls
//! of the library. Every compressor is fused onto a chain, so that all of them are built alike.

use burn::module::Module;
use burn::tensor::Device;
use burn_compress::graph::SlicePlan;
use burn_compress::target::Target;
use burn_compress::{distillation, pruning, quantization, speedup};
use serde_json::Value;

use super::activation::Activation;
use super::array::Array;
use super::case::{Case, Result};
use super::config::DefaultBlock;
use super::drive::Step;
use super::model::RefModel;

/// Compressors fused over a network of a case.
pub type Chain = burn_compress::Compressor<RefModel, Step>;

/// Fuses a pruner that needs no gradients, `LevelPruner` for example.
///
/// Targets are independent and a target may lose everything, as in NNI.
///
/// # Errors
///
/// When the library has no such pruner or refuses the configuration.
pub fn one_shot(case: &Case, chain: Chain, pruner: &str, rules: &Value) -> Result<Chain> {
    let importance = super::pruning::importance(case, pruner)?;
    let default = importance.default_granularity();
    let config = super::pruning::configuration(rules, chain.model(), &default)?;
    let fused = match pruner {
        "LevelPruner" => pruning::LevelPruner::from_compressor(chain, &config, LIKE_NNI),
        "L1NormPruner" => pruning::L1NormPruner::from_compressor(chain, &config, LIKE_NNI),
        "L2NormPruner" => pruning::L2NormPruner::from_compressor(chain, &config, LIKE_NNI),
        "FPGMPruner" => pruning::FpgmPruner::from_compressor(chain, &config, LIKE_NNI),
        other => return case.not_covered(format!("{other} is not part of the library yet")),
    };
    fused.map_err(|error| case.error(error))
}

/// No coupled channels beyond those of the configuration, and no block that is spared.
const LIKE_NNI: pruning::PrunerConfig = pruning::PrunerConfig {
    coupled: false,
    keep_at_least_one: false,
    cut_of: pruning::CutOf::Model,
};

/// Fuses a first-order Taylor pruner that collects gradients for `steps` steps.
///
/// # Errors
///
/// When the library refuses the configuration.
pub fn taylor(case: &Case, chain: Chain, rules: &Value, steps: usize) -> Result<Chain> {
    let default = pruning::Granularity::OutChannel;
    let config = super::pruning::configuration(rules, chain.model(), &default)?;
    let options = pruning::TaylorConfig::new(steps).with_pruner(LIKE_NNI);
    pruning::TaylorPruner::from_compressor(chain, &config, options)
        .map_err(|error| case.error(error))
}

/// Fuses a pruner that trains a factor for each block and decides after `steps` steps.
///
/// The factors are trained to the end of the run, as in NNI.
///
/// # Errors
///
/// When the library refuses the configuration.
pub fn slim(
    case: &Case,
    chain: Chain,
    rules: &Value,
    steps: usize,
    regular_scale: f64,
) -> Result<Chain> {
    let default = super::pruning::out_channels();
    let config = super::pruning::configuration(rules, chain.model(), &default)?;
    let options = pruning::SlimConfig::new(steps)
        .with_regular_scale(regular_scale)
        .with_train_after_masks(true)
        .with_pruner(LIKE_NNI);
    pruning::SlimPruner::from_compressor(chain, &config, options).map_err(|error| case.error(error))
}

/// Fuses a movement pruner.
///
/// # Errors
///
/// When the library refuses the configuration.
pub fn movement(case: &Case, chain: Chain, rules: &Value) -> Result<Chain> {
    let default = super::pruning::out_channels();
    let config = super::pruning::configuration(rules, chain.model(), &default)?;
    pruning::MovementPruner::from_compressor(chain, &config, movement_config(case)?)
        .map_err(|error| case.error(error))
}

/// When the movement pruner of a case prunes, and how hard.
///
/// # Errors
///
/// When the case does not say it.
pub fn movement_config(case: &Case) -> Result<pruning::MovementConfig> {
    let warmup = case.argument("warmup_step")?;
    let cooldown = case.argument("cooldown_begin_step")?;
    let config = pruning::MovementConfig::new(warmup, cooldown)
        .with_train_after_masks(true)
        .with_pruner(LIKE_NNI);
    Ok(match case.file.arguments.get("regular_scale") {
        Some(_) => config.with_regular_scale(case.argument("regular_scale")?),
        None => config,
    })
}

/// Lets a schedule drive the newest pruner of the chain.
///
/// # Errors
///
/// When the library has no such schedule or refuses it.
pub fn schedule(
    case: &Case,
    chain: Chain,
    name: &str,
    interval: usize,
    times: usize,
) -> Result<Chain> {
    let fused = match name {
        "AGPPruner" => pruning::AgpPruner::new(chain, pruning::AgpConfig::new(interval, times)),
        "LinearPruner" => {
            pruning::LinearPruner::new(chain, pruning::LinearConfig::new(interval, times))
        }
        other => return case.not_covered(format!("{other} is not part of the library yet")),
    };
    fused.map_err(|error| case.error(error))
}

/// Fuses quantization-aware training that rounds from `start_step` on.
///
/// # Errors
///
/// When the library refuses the configuration.
pub fn qat(case: &Case, chain: Chain, rules: &Value, start_step: usize) -> Result<Chain> {
    let config = super::config::translate(rules, chain.model(), DefaultBlock::Other)?;
    let options = quantization::QatConfig::new().with_start_step(start_step);
    quantization::QatQuantizer::from_compressor(chain, &config, options)
        .map_err(|error| case.error(error))
}

/// Fuses post-training quantization that calibrates on `batches` batches.
///
/// # Errors
///
/// When the library refuses the configuration.
pub fn ptq(case: &Case, chain: Chain, rules: &Value, batches: usize) -> Result<Chain> {
    let config = super::config::translate(rules, chain.model(), DefaultBlock::Other)?;
    let options = quantization::PtqConfig::new().with_batches(batches);
    quantization::PtqQuantizer::from_compressor(chain, &config, options)
        .map_err(|error| case.error(error))
}

/// Fuses a dynamic layer-wise distiller; `predict` runs the teacher on the batch of a step.
///
/// # Errors
///
/// When the library refuses the configuration.
pub fn distil<O>(
    case: &Case,
    chain: Chain,
    rules: &Value,
    teacher: &RefModel,
    predict: impl Fn(&RefModel, &Step) -> O + Send + 'static,
    origin_lambda: f64,
) -> Result<Chain> {
    let config = super::config::translate(rules, chain.model(), DefaultBlock::Other)?;
    let options = distillation::DistillConfig::new(origin_lambda);
    distillation::DynamicLayerwiseDistiller::from_compressor(
        chain, &config, teacher, predict, options,
    )
    .map_err(|error| case.error(error))
}

/// Fuses an adaptive layer-wise distiller; `predict` runs the teacher on the batch of a step.
///
/// # Errors
///
/// When the library refuses the configuration.
pub fn adapt<O>(
    case: &Case,
    chain: Chain,
    rules: &Value,
    teacher: &RefModel,
    predict: impl Fn(&RefModel, &Step) -> O + Send + 'static,
    origin_lambda: f64,
) -> Result<Chain> {
    let config = super::config::translate(rules, chain.model(), DefaultBlock::Other)?;
    let options = distillation::AdaptiveConfig::new().with_origin_loss_lambda(origin_lambda);
    distillation::Adaptive1dLayerwiseDistiller::from_compressor(
        chain, &config, teacher, predict, options,
    )
    .map_err(|error| case.error(error))
}

/// A network without its masked channels.
#[derive(Debug)]
pub struct Small {
    /// The network, with the quantization that it had.
    pub model: RefModel,
    /// The network without simulation.
    pub plain: RefModel,
    /// Masks of what is left.
    pub masks: burn_compress::Masks,
    /// Scales and zero points of what is left.
    pub calibration: burn_compress::Calibration,
    /// Surviving input and output channels of each layer.
    pub kept: indexmap::IndexMap<String, (Vec<usize>, Vec<usize>)>,
}

/// Removes the masked channels.
///
/// Channels that some layers mask and others keep get their weights back, as in NNI.
///
/// # Errors
///
/// When the library refuses.
pub fn speedup(
    case: &Case,
    compressed: burn_compress::Compressed<RefModel>,
    input: &Array,
) -> Result<Small> {
    let device = Device::flex();
    let dummy = match Activation::from_array(input, &device)? {
        Activation::Rank2(x) => burn_compress::DummyInput::new(x, |model: &RefModel, x| {
            model.forward(Activation::Rank2(x)).flat_rows()
        }),
        Activation::Rank3(x) => burn_compress::DummyInput::new(x, |model: &RefModel, x| {
            model.forward(Activation::Rank3(x)).flat_rows()
        }),
        Activation::Rank4(x) => burn_compress::DummyInput::new(x, |model: &RefModel, x| {
            model.forward(Activation::Rank4(x)).flat_rows()
        }),
    };
    let full = compressed.unwrap_model();
    let small = speedup::ModelSpeedup::new(compressed, dummy)
        .with_partial_channels(speedup::PartialChannels::Lift)
        .speedup_model()
        .map_err(|error| case.error(error))?;
    let plain =
        Chain::from_model(small.model.clone(), burn_compress::Evaluator::new()).unwrap_model();
    Ok(Small {
        model: small.model,
        plain: plain.valid(),
        masks: small.state.masks,
        calibration: small.state.calibration,
        kept: kept_channels(&full, &small.plan),
    })
}

/// Surviving input and output channels of each layer: those that the plan keeps, or all.
fn kept_channels(
    model: &RefModel,
    plan: &SlicePlan,
) -> indexmap::IndexMap<String, (Vec<usize>, Vec<usize>)> {
    let kept = |layer: &str, target: Target, size: usize| -> Vec<usize> {
        let id = burn_compress::TargetId::new(layer, target);
        let port = plan.ports.iter().find(|port| port.target == id);
        port.map_or_else(|| (0..size).collect(), |port| port.keep.clone())
    };
    let layers = model.layers().iter();
    let kept = layers.filter_map(|(name, layer)| {
        let (inputs, outputs) = layer.channels()?;
        let inputs = kept(name, Target::Input(0), inputs);
        let outputs = kept(name, Target::Output(0), outputs);
        Some((name.clone(), (inputs, outputs)))
    });
    kept.collect()
}
