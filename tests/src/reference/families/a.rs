//! Family A: scores and masks of parameters.

use burn::module::Module;
use burn::tensor::Device;
use indexmap::IndexMap;

use crate::reference::case::{Array, Case, Result};
use crate::reference::check::Checks;
use crate::reference::model::RefModel;
use crate::reference::pruning;
use crate::reference::targets;

/// Runs a case.
///
/// # Errors
///
/// When the case cannot be run, or names a pruner that the library does not have.
pub fn run(case: &Case) -> Result<Checks> {
    let importance = pruning::importance(case, &case.file.algorithm)?;
    let mut checks = Checks::new(case);
    let model = RefModel::build(case.model()?, &Device::flex())?
        .load(|layer, name| case.tensors.get(&format!("param/{layer}.{name}")).cloned())?
        .valid();
    let default = importance.default_granularity();
    let config = pruning::configuration(&case.file.config_list, &model, &default)?;

    // An aligned output takes its shape from the file, the batch included.
    let mut shapes = IndexMap::new();
    for (name, mask) in case.below("mask/") {
        let id = targets::parse(&model, name)?;
        if !id.target.is_param() {
            shapes.insert(id, mask.shape.clone());
        }
    }
    let selected = pruning::select(&config, &model, &default, &shapes)?;

    let mut scores = IndexMap::new();
    for target in selected.iter().filter(|target| target.settings.is_active()) {
        let value = pruning::value(case, &model, &target.id, "param/")?;
        if let Some(score) = pruning::scores(target, importance.as_ref(), &value) {
            let metric = targets::convert(&model, &target.id, &score);
            checks.array(case, &format!("metric/{}", targets::name(&model, &target.id)), &metric);
            scores.insert(target.id.clone(), score);
        }
    }
    let masks = pruning::masks(&selected, &scores, &model)?;
    compare_masks(case, &mut checks, "mask/", &masks);
    let sparsity: IndexMap<String, f64> = case.expected("sparsity")?;
    for (name, expected) in sparsity {
        match masks.get(&name) {
            Some(mask) => {
                checks.number(&format!("sparsity {name}"), pruning::sparsity(mask), expected);
            }
            None => checks.fail(format!("sparsity {name}: there is no such mask")),
        }
    }
    Ok(checks)
}

/// Compares all masks below a prefix. A mask that the case does not expect must keep everything.
pub fn compare_masks(
    case: &Case,
    checks: &mut Checks,
    prefix: &str,
    masks: &IndexMap<String, Array>,
) {
    for (name, mask) in masks {
        let expected = format!("{prefix}{name}");
        if case.tensors.contains_key(&expected) {
            checks.array(case, &expected, mask);
        } else if mask.values.contains(&0.0) {
            checks.fail(format!("{expected}: a mask that the case does not expect"));
        }
    }
}
