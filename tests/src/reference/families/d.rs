//! Family D: schedules. Goals and masks after every optimizer step.

use burn::tensor::Device;
use burn_compress::Budget;
use burn_compress::pruning::{PruningSettings, Schedule};
use indexmap::IndexMap;

use crate::reference::adapter::{self, Chain};
use crate::reference::array::Array;
use crate::reference::case::{Case, Result};
use crate::reference::check::Checks;
use crate::reference::families::a::compare_masks;
use crate::reference::model::RefModel;
use crate::reference::{drive, pruning, targets};

/// Runs a case.
///
/// # Errors
///
/// When the case cannot be run, or names a schedule or pruner that the library does not have.
pub fn run(case: &Case) -> Result<Checks> {
    let Some((schedule, pruner)) = case.file.algorithm.split_once('+') else {
        return match case.file.algorithm.as_str() {
            "MovementPruner" => movement(case),
            name => case.not_covered(format!("{name} is not part of the library yet")),
        };
    };
    let importance = pruning::importance(case, pruner)?;
    let rule = schedule_of(case, schedule)?;
    let mut checks = Checks::new(case);
    let model = RefModel::build(case.model()?, &Device::flex().autodiff())?
        .load(|layer, name| case.tensors.get(&format!("param/{layer}.{name}")).cloned())?;
    let default = importance.default_granularity();
    let config = pruning::configuration(&case.file.config_list, &model, &default)?;
    let selected = pruning::select(&config, &model, &default)?;

    // Gradients of zero keep the parameters where they are.
    let zero = |array: Array| Array::float(array.shape, vec![0.0; array.values.len()]);
    let still: IndexMap<String, Array> = model
        .parameters()
        .into_iter()
        .map(|(name, array)| (name, zero(array)))
        .collect();
    let steps: usize = case.argument("max_steps")?;
    let evaluator = drive::evaluator(steps, 1.0, move |model, _| {
        drive::loss_with_gradients(model, &still)
    });
    let chain = Chain::from_model(model, evaluator);
    let chain = adapter::one_shot(case, chain, pruner, &case.file.config_list)?;
    let (interval, times) = (rule.interval(), rule.times());
    let mut chain = adapter::schedule(case, chain, schedule, interval, times)?;

    let mut goals: IndexMap<String, Vec<f32>> = IndexMap::new();
    let mut sparsity: IndexMap<String, Vec<f32>> = IndexMap::new();
    let mut masks: IndexMap<String, Array> = IndexMap::new();
    let mut triggers = Vec::new();
    for step in 1..=steps {
        chain
            .advance(&Budget::steps(steps), Some(step))
            .map_err(|error| case.error(format!("step {step}: {error}")))?;
        let now = targets::masks(chain.model(), &chain.masks());
        if rule.at(step).is_some() {
            triggers.push(step);
        } else if now != masks {
            checks.fail(format!("the masks moved after step {step}"));
        }
        masks = now;
        for target in &selected {
            let name = targets::name(chain.model(), &target.id);
            let goal = target.settings.scaled(rule.progress(step));
            for (key, goal) in scheduled(&goal).into_iter().filter(|_| goal.is_active()) {
                goals
                    .entry(format!("{name}.{key}"))
                    .or_default()
                    .push(goal as f32);
            }
            let removed = masks.get(&name).map_or(0.0, pruning::sparsity);
            sparsity.entry(name).or_default().push(removed as f32);
        }
    }

    checks.equal("trigger_steps", triggers, case.expected("trigger_steps")?);
    for (name, course) in goals {
        checks.array(
            case,
            &format!("goal/{name}"),
            &Array::float([steps], course),
        );
    }
    for (name, course) in sparsity {
        checks.array(
            case,
            &format!("sparsity/{name}"),
            &Array::float([steps], course),
        );
    }
    compare_masks(case, &mut checks, "final_mask/", &masks);
    Ok(checks)
}

/// Runs a case of the schedule that a movement pruner has in itself.
///
/// The file gives the goals alone. The masks are compared with what a goal means: of `n` output
/// channels, the integer part of `n * goal` is removed.
fn movement(case: &Case) -> Result<Checks> {
    let mut checks = Checks::new(case);
    let model = RefModel::build(case.model()?, &Device::flex().autodiff())?;
    let default = pruning::out_channels();
    let rules = &case.file.config_list;
    let config = pruning::configuration(rules, &model, &default)?;
    let mut selected = pruning::select(&config, &model, &default)?;
    selected.retain(|target| target.settings.is_active());
    let still: IndexMap<String, Array> = model.parameters();
    let steps: usize = case.argument("max_steps")?;
    // The parameters are zero, and so are these gradients.
    let evaluator = drive::evaluator(steps, 1.0, move |model, _| {
        drive::loss_with_gradients(model, &still)
    });
    let mut chain = adapter::movement(case, Chain::from_model(model, evaluator), rules)?;
    let schedule = adapter::movement_config(case)?;
    let expected: Vec<f64> = case.expected("goal_after_step")?;
    checks.equal("goals", expected.len(), steps);
    let mut course = Vec::new();
    for step in 1..=steps {
        chain
            .advance(&Budget::steps(steps), Some(step))
            .map_err(|error| case.error(format!("step {step}: {error}")))?;
        let masks = targets::masks(chain.model(), &chain.masks());
        let mut goals = Vec::new();
        for target in &selected {
            let goal = target.settings.scaled(schedule.progress(step)).sparse_ratio;
            let goal = goal.unwrap_or_default();
            let name = targets::name(chain.model(), &target.id);
            checks.number(&format!("goal {name} {step}"), goal, expected[step - 1]);
            let channels = target.blocks.as_ref().map_or(1, |blocks| blocks.count()) as f64;
            let removed = masks.get(&name).map_or(0.0, pruning::sparsity);
            checks.equal(
                &format!("removed {name} {step}"),
                (removed * channels).round() as usize,
                (channels * expected[step - 1]) as usize,
            );
            goals.push(goal as f32);
        }
        course.extend(goals.first().copied());
    }
    checks.array(case, "goal/sparse_ratio", &Array::float([steps], course));
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
    goals
        .into_iter()
        .filter_map(|(key, goal)| Some((key, goal?)))
        .collect()
}
