//! What the pruning families share: the targets of a configuration, their scores and goals.

use burn_compress::Axes;
use burn_compress::config::{ConfigList, Selected};
use burn_compress::layer::layers;
use burn_compress::pruning::Importance;
use burn_compress::pruning::scores::{Fpgm, L1Norm, L2Norm, Level};
use burn_compress::pruning::{Blocks, Granularity, PruningSettings};
use burn_compress::target::TargetId;

use super::array::Array;
use super::case::{Case, CaseError, Result};
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
        "FPGMPruner" => Ok(Box::new(Fpgm)),
        other => case.not_covered(format!("{other} is not part of the library yet")),
    }
}

/// What a block is for pruners that train a value for each: an output channel.
pub const fn out_channels() -> Granularity {
    Granularity::OutChannel
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
    /// The blocks that are scored; what follows another target is not.
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
) -> Result<Vec<PruneTarget>> {
    let failed = |error: &dyn std::fmt::Display| CaseError::Failed(error.to_string());
    let selected =
        PruningSettings::select(config, &layers(model)).map_err(|error| failed(&error))?;
    let target = |selected: Selected<PruningSettings>| {
        let id = selected.id();
        let param = selected
            .target
            .param_name()
            .and_then(|name| selected.layer.param(name));
        let blocks = match param.filter(|_| selected.settings.is_active()) {
            Some(param) => {
                let granularity = selected.settings.granularity.clone().unwrap_or_default();
                let rank = param.shape.len();
                let axes = Axes::of(&selected.layer.kind, &selected.target, rank);
                let blocks = Blocks::of(&granularity, &param.shape, axes, default);
                Some(blocks.map_err(|error| failed(&error))?)
            }
            None => None,
        };
        Ok(PruneTarget {
            id,
            settings: selected.settings,
            blocks,
        })
    };
    selected.into_iter().map(target).collect()
}

/// The scores of a target's blocks from its values in Burn's layout.
pub fn scores(target: &PruneTarget, importance: &dyn Importance, values: &Array) -> Option<Array> {
    let blocks = target.blocks.as_ref()?;
    Some(Array::float(
        blocks.grid(),
        importance.score(&values.values, blocks),
    ))
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

/// The scores of a target of the case in PyTorch's layout, absent for a target without any.
///
/// # Errors
///
/// When the case has no such parameter.
pub fn scores_of(
    case: &Case,
    model: &RefModel,
    target: &PruneTarget,
    importance: &dyn Importance,
) -> Result<Option<Array>> {
    if target.blocks.is_none() {
        return Ok(None);
    }
    let value = value(case, model, &target.id, "param/")?;
    let scores = scores(target, importance, &value);
    Ok(scores.map(|scores| targets::convert(model, &target.id, &scores)))
}

/// Fraction of zeros.
pub fn sparsity(mask: &Array) -> f64 {
    let zeros = mask.values.iter().filter(|value| **value == 0.0).count();
    zeros as f64 / mask.values.len() as f64
}
