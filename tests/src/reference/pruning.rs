//! What the pruning families share: the targets of a configuration, their scores and goals.

use indexmap::IndexMap;

use super::adapter::core::config::ConfigList;
use super::adapter::core::layer::{channel_dims, layers};
use super::adapter::core::target::{Target, TargetId};
use super::adapter::pruning::mask::{MaskConfig, MaskTarget, generate};
use super::adapter::pruning::metrics::{Importance, L1Norm, L2Norm, Level};
use super::adapter::pruning::{Axes, Blocks, Granularity, PruningSettings};
use super::case::{Array, Case, CaseError, Result};
use super::config::{self, DefaultBlock};
use super::model::RefModel;
use super::targets;

/// The score of a data-free pruner.
///
/// # Errors
///
/// When the library has no such pruner.
pub fn importance(case: &Case, pruner: &str) -> Result<Box<dyn Importance>> {
    match pruner {
        "LevelPruner" => Ok(Box::new(Level)),
        "L1NormPruner" => Ok(Box::new(L1Norm)),
        "L2NormPruner" => Ok(Box::new(L2Norm)),
        other => case.not_covered(format!("{other} is not part of the library yet")),
    }
}

/// The configuration of a pruner.
///
/// # Errors
///
/// When the library refuses it.
pub fn configuration(
    rules: &serde_json::Value,
    model: &RefModel,
    default: &Granularity,
) -> Result<ConfigList<PruningSettings>> {
    let default = match default {
        Granularity::OutChannel => DefaultBlock::OutChannel,
        _ => DefaultBlock::Other,
    };
    config::translate(rules, model, default)
}

/// One target of a pruner.
#[derive(Debug, Clone)]
pub struct PruneTarget {
    /// Layer and target.
    pub id: TargetId,
    /// What is to be removed.
    pub settings: PruningSettings,
    /// The blocks that are scored; absent for inputs and outputs whose shape is not known.
    pub blocks: Option<Blocks>,
}

/// The targets that a configuration selects in a network.
///
/// # Errors
///
/// When the library refuses the configuration.
pub fn select(
    config: &ConfigList<PruningSettings>,
    model: &RefModel,
    default: &Granularity,
    activation_shapes: &IndexMap<TargetId, Vec<usize>>,
) -> Result<Vec<PruneTarget>> {
    let failed = |error: &dyn std::fmt::Display| CaseError::Failed(error.to_string());
    let selected =
        PruningSettings::select(config, &layers(model)).map_err(|error| failed(&error))?;
    selected
        .into_iter()
        .map(|selected| {
            let id = selected.id();
            let granularity = selected.settings.granularity.clone().unwrap_or_default();
            let blocks = match selected.target.param_name() {
                // What follows another target has no blocks of its own.
                Some(name) if selected.settings.align.is_some() => {
                    let shape = &selected.layer.param(name).expect("it was selected").shape;
                    Some(Blocks::elements(shape).map_err(|error| failed(&error))?)
                }
                Some(name) => {
                    let shape = &selected.layer.param(name).expect("it was selected").shape;
                    let axes = Axes::from(channel_dims(&selected.layer.kind, name, shape.len()));
                    let blocks = granularity.resolve(shape, axes, default);
                    Some(blocks.map_err(|error| failed(&error))?)
                }
                None => match activation_shapes.get(&id) {
                    Some(shape) => {
                        let axes = Axes::Activation { channel: 1 };
                        let default = Granularity::PerChannel;
                        let blocks = granularity.resolve(shape, axes, &default);
                        Some(blocks.map_err(|error| failed(&error))?)
                    }
                    None => None,
                },
            };
            Ok(PruneTarget { id, settings: selected.settings, blocks })
        })
        .collect()
}

/// The scores of a target's blocks from its values in Burn's layout.
pub fn scores(target: &PruneTarget, importance: &dyn Importance, values: &Array) -> Option<Array> {
    let blocks = target.blocks.as_ref()?;
    Some(Array::float(blocks.grid(), importance.score(&values.values, blocks)))
}

/// A parameter in Burn's layout.
///
/// # Errors
///
/// When the case has no such parameter.
pub fn value(case: &Case, model: &RefModel, id: &TargetId, prefix: &str) -> Result<Array> {
    let array = case.array(&format!("{prefix}{}", targets::name(model, id)))?;
    Ok(targets::convert(model, id, array))
}

/// The masks of all targets from the scores of the active ones.
///
/// # Errors
///
/// When the library refuses to generate them.
pub fn masks(
    targets: &[PruneTarget],
    scores: &IndexMap<TargetId, Array>,
    model: &RefModel,
) -> Result<IndexMap<String, Array>> {
    let mut inputs = Vec::new();
    for target in targets {
        let blocks = target.blocks.clone().ok_or_else(|| {
            CaseError::Failed(format!("the shape of `{}` is not known", target.id))
        })?;
        let mut input = MaskTarget::new(target.id.clone(), blocks, target.settings.clone());
        if let Some(scores) = scores.get(&target.id)
            && target.settings.is_active()
        {
            input = input.with_scores(scores.values.clone());
        }
        if let Some(align) = &target.settings.align {
            let layer = align.module_name.clone().unwrap_or_else(|| target.id.layer.clone());
            let source = TargetId::new(layer, align.target_name.clone());
            input = input.with_align(source, align.dims.clone());
        }
        inputs.push(input);
    }
    let config = MaskConfig::new().with_keep_at_least_one(false);
    let generated = generate(&inputs, config).map_err(|e| CaseError::Failed(e.to_string()))?;
    let masks = generated.into_iter().map(|(id, mask)| {
        let (values, shape) = match id.target {
            Target::Param(_) => (mask.expand(), mask.blocks().shape().to_vec()),
            _ => mask.expand_broadcast(),
        };
        let array = targets::convert(model, &id, &Array::float(shape, values));
        (targets::name(model, &id), array)
    });
    Ok(masks.collect())
}

/// Fraction of zeros.
pub fn sparsity(mask: &Array) -> f64 {
    let zeros = mask.values.iter().filter(|value| **value == 0.0).count();
    zeros as f64 / mask.values.len() as f64
}

