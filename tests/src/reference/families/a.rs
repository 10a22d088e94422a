//! Family A: scores and masks of parameters.

use burn::module::Module;
use burn::tensor::Device;
use burn_compress::{Budget, Evaluator};
use indexmap::IndexMap;

use crate::reference::activation::Activation;
use crate::reference::adapter::{self, Chain};
use crate::reference::array::Array;
use crate::reference::case::{Case, Result};
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

    for target in pruning::select(&config, &model, &default)? {
        let name = targets::name(&model, &target.id);
        if let Some(score) = pruning::scores_of(case, &model, &target, importance.as_ref())? {
            checks.array(case, &format!("metric/{name}"), &score);
        }
    }

    let chain = Chain::from_model(model, Evaluator::new());
    let chain = adapter::one_shot(case, chain, &case.file.algorithm, &case.file.config_list)?;
    // An aligned output has a shape once a forward pass has reached its layer.
    for (name, mask) in case.below("mask/") {
        let id = targets::parse(chain.model(), name)?;
        if !id.target.is_param() {
            let zeros = Array::float(mask.shape.clone(), vec![0.0; mask.values.len()]);
            let x = Activation::from_array(&zeros, &Device::flex())?;
            chain.model().layers()[&id.layer].forward(x);
        }
    }
    let model = chain.model().clone();
    let compressed = chain
        .compress(Budget::none())
        .map_err(|error| case.error(error))?;
    let masks = targets::masks(&model, &compressed.masks());
    compare_masks(case, &mut checks, "mask/", &masks);
    let sparsity: IndexMap<String, f64> = case.expected("sparsity")?;
    for (name, expected) in sparsity {
        match masks.get(&name) {
            Some(mask) => {
                checks.number(
                    &format!("sparsity {name}"),
                    pruning::sparsity(mask),
                    expected,
                );
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
