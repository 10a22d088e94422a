//! Family D: schedules. Goals and masks after every optimizer step.

use burn::module::Module;
use burn::tensor::Device;
use indexmap::IndexMap;

use crate::reference::adapter::pruning::{PruningSettings, Schedule};
use crate::reference::case::{Array, Case, Result};
use crate::reference::check::Checks;
use crate::reference::families::a::compare_masks;
use crate::reference::model::RefModel;
use crate::reference::pruning;
use crate::reference::targets;

/// Runs a case.
///
/// # Errors
///
/// When the case cannot be run, or names a schedule or pruner that the library does not have.
pub fn run(case: &Case) -> Result<Checks> {
    let Some((schedule, pruner)) = case.file.algorithm.split_once('+') else {
        let name = &case.file.algorithm;
        return case.not_covered(format!("{name} is not part of the library yet"));
    };
    let importance = pruning::importance(case, pruner)?;
    let schedule = schedule_of(case, schedule)?;
    let mut checks = Checks::new(case);
    let model = RefModel::build(case.model()?, &Device::flex())?
        .load(|layer, name| case.tensors.get(&format!("param/{layer}.{name}")).cloned())?
        .valid();
    let default = importance.default_granularity();
    let config = pruning::configuration(&case.file.config_list, &model, &default)?;
    let selected = pruning::select(&config, &model, &default, &IndexMap::new())?;
    let mut scores = IndexMap::new();
    for target in selected.iter().filter(|target| target.settings.is_active()) {
        let value = pruning::value(case, &model, &target.id, "param/")?;
        if let Some(score) = pruning::scores(target, importance.as_ref(), &value) {
            scores.insert(target.id.clone(), score);
        }
    }

    let steps: usize = case.argument("max_steps")?;
    let mut goals: IndexMap<String, Vec<f32>> = IndexMap::new();
    let mut sparsity: IndexMap<String, Vec<f32>> = IndexMap::new();
    let mut masks: IndexMap<String, Array> = IndexMap::new();
    let mut triggers = Vec::new();
    for step in 1..=steps {
        let mut now = selected.clone();
        for target in &mut now {
            target.settings = target.settings.scaled(schedule.progress(step));
            if target.settings.is_active() {
                let name = targets::name(&model, &target.id);
                for (key, goal) in scheduled(&target.settings) {
                    goals.entry(format!("{name}.{key}")).or_default().push(goal as f32);
                }
            }
        }
        if schedule.at(step).is_some() {
            triggers.push(step);
            masks = pruning::masks(&now, &scores, &model)?;
        }
        for target in &selected {
            let name = targets::name(&model, &target.id);
            let now = masks.get(&name).map_or(0.0, pruning::sparsity);
            sparsity.entry(name).or_default().push(now as f32);
        }
    }

    checks.equal("trigger_steps", triggers, case.expected("trigger_steps")?);
    for (name, course) in goals {
        checks.array(case, &format!("goal/{name}"), &Array::float([steps], course));
    }
    for (name, course) in sparsity {
        checks.array(case, &format!("sparsity/{name}"), &Array::float([steps], course));
    }
    compare_masks(case, &mut checks, "final_mask/", &masks);
    Ok(checks)
}

/// The schedule of a case.
///
/// # Errors
///
/// When the library does not have it.
pub fn schedule_of(case: &Case, name: &str) -> Result<Schedule> {
    let interval = case.argument("interval_steps")?;
    let times = case.argument("total_times")?;
    let schedule = match name {
        "AGPPruner" => Schedule::agp(interval, times),
        "LinearPruner" => Schedule::linear(interval, times),
        other => return case.not_covered(format!("{other} is not part of the library yet")),
    };
    schedule.map_err(|error| case.error(error))
}

/// The goals of a target that a schedule moves, by key.
fn scheduled(settings: &PruningSettings) -> Vec<(&'static str, f64)> {
    let goals = [
        ("sparse_ratio", settings.sparse_ratio),
        ("sparse_threshold", settings.sparse_threshold),
        ("max_sparse_ratio", settings.max_sparse_ratio),
        ("min_sparse_ratio", settings.min_sparse_ratio),
    ];
    goals.into_iter().filter_map(|(key, goal)| Some((key, goal?))).collect()
}
