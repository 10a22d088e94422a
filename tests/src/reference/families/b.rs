//! Family B: Taylor pruning, alone and driven by a schedule.
//!
//! The files prescribe the raw parameters and gradients of every step. The loss of a step is
//! therefore `sum(parameter * gradient)`, and plain gradient descent leads from the parameters of
//! one step to those of the next.

use burn::tensor::Device;
use burn_compress::pruning::Importance;
use burn_compress::pruning::scores::Taylor;
use burn_compress::{Budget, Compressor};
use indexmap::IndexMap;
use serde::Deserialize;

use crate::reference::adapter;
use crate::reference::array::Array;
use crate::reference::case::{Case, Result};
use crate::reference::check::Checks;
use crate::reference::families::a::compare_masks;
use crate::reference::families::d::schedule_of;
use crate::reference::model::RefModel;
use crate::reference::{drive, pruning, targets};

/// One generation of masks.
#[derive(Debug, Deserialize)]
struct Round {
    after_step: usize,
    current_ratio: IndexMap<String, f64>,
}

/// Runs a case.
///
/// # Errors
///
/// When the case cannot be run, or names a schedule that the library does not have.
pub fn run(case: &Case) -> Result<Checks> {
    let schedule = match case.file.algorithm.split_once('+') {
        None if case.file.algorithm == "TaylorPruner" => None,
        Some((schedule, "TaylorPruner")) => Some(schedule),
        _ => {
            let name = &case.file.algorithm;
            return case.not_covered(format!("{name} is not part of the library yet"));
        }
    };
    let device = Device::flex().autodiff();
    let mut checks = Checks::new(case);
    let steps: usize = case.expected("steps")?;
    let rounds: Vec<Round> = case.expected("rounds")?;
    let training_steps: usize = case.argument("training_steps")?;
    let parameters = drive::course(case, "param", steps)?;
    let gradients = drive::course(case, "grad", steps)?;

    let model = RefModel::build(case.model()?, &device)?
        .load(|layer, name| parameters[0].get(&format!("{layer}.{name}")).cloned())?;
    let collected_targets = score_targets(case, &model, training_steps)?;
    let course = gradients.clone();
    let evaluator = drive::evaluator(steps, case.argument("sgd_lr")?, move |model, step| {
        drive::loss_with_gradients(model, &course[*step])
    });
    let chain = Compressor::from_model(model, evaluator);
    let rules = &case.file.config_list;
    let mut chain = adapter::taylor(case, chain, rules, training_steps)?;
    let interval = match schedule {
        Some(schedule) => {
            let interval: usize = case.argument("interval_steps")?;
            let times = case.argument("total_times")?;
            chain = adapter::schedule(case, chain, schedule, interval, times)?;
            interval
        }
        None => steps,
    };

    let mut last: IndexMap<String, Array> = IndexMap::new();
    let mut generation = 0;
    for step in 1..=steps {
        chain
            .advance(&Budget::steps(steps), Some(step))
            .map_err(|error| case.error(format!("step {step}: {error}")))?;
        let masks = targets::masks(chain.model(), &chain.masks());
        match rounds
            .get(generation)
            .filter(|round| round.after_step == step)
        {
            Some(round) => {
                compare_masks(
                    case,
                    &mut checks,
                    &format!("round{generation}/mask/"),
                    &masks,
                );
                compare_scores(
                    case,
                    &mut checks,
                    generation,
                    training_steps,
                    &collected_targets,
                    &gradients[generation * interval..generation * interval + training_steps],
                    &parameters[generation * interval..],
                )?;
                compare_goals(case, &mut checks, schedule, &collected_targets, round)?;
                generation += 1;
                last = masks;
            }
            // What happens after the last generation of the file is not prescribed.
            None if generation == rounds.len() => {}
            None => {
                for (name, mask) in &masks {
                    let moved = match last.get(name) {
                        Some(before) => before != mask,
                        None => mask.values.contains(&0.0),
                    };
                    if moved {
                        checks.fail(format!("{name}: the mask moved after step {step}"));
                    }
                }
            }
        }
        // The run must be the prescribed one, or the masks prove nothing.
        if step < steps {
            let now = chain.model().parameters();
            for name in parameters[step].keys() {
                checks.array(case, &format!("step{step}/param/{name}"), &now[name]);
            }
        }
    }
    checks.equal("generations", generation, rounds.len());
    Ok(checks)
}

/// The targets that are scored, in Burn's layout.
fn score_targets(
    case: &Case,
    model: &RefModel,
    training_steps: usize,
) -> Result<(Vec<pruning::PruneTarget>, Taylor, IndexMap<String, String>)> {
    let taylor = Taylor::new(training_steps).map_err(|error| case.error(error))?;
    let default = taylor.default_granularity();
    let config = pruning::configuration(&case.file.config_list, model, &default)?;
    let mut selected = pruning::select(&config, model, &default)?;
    selected.retain(|target| target.settings.is_active());
    let names = selected
        .iter()
        .map(|target| (target.id.to_string(), targets::name(model, &target.id)))
        .collect();
    Ok((selected, taylor, names))
}

/// The score of every block from the values that the file gives for the steps of one generation.
fn compare_scores(
    case: &Case,
    checks: &mut Checks,
    generation: usize,
    training_steps: usize,
    (selected, taylor, names): &(Vec<pruning::PruneTarget>, Taylor, IndexMap<String, String>),
    gradients: &[IndexMap<String, Array>],
    parameters: &[IndexMap<String, Array>],
) -> Result<()> {
    let model = RefModel::build(case.model()?, &Device::flex())?;
    for target in selected {
        let name = &names[&target.id.to_string()];
        let mut collected: Vec<f32> = Vec::new();
        for step in 0..training_steps {
            let value = targets::convert(&model, &target.id, &parameters[step][name]);
            let gradient = targets::convert(&model, &target.id, &gradients[step][name]);
            collected.resize(value.values.len(), 0.0);
            let products = value
                .values
                .iter()
                .zip(&gradient.values)
                .map(|(w, g)| (w * g).powi(2));
            collected
                .iter_mut()
                .zip(products)
                .for_each(|(sum, product)| *sum += product);
        }
        let collected = Array::float([collected.len()], collected);
        if let Some(scores) = pruning::scores(target, taylor, &collected) {
            let metric = targets::convert(&model, &target.id, &scores);
            checks.array(case, &format!("round{generation}/metric/{name}"), &metric);
        }
    }
    Ok(())
}

/// The goals that were in force at a generation.
fn compare_goals(
    case: &Case,
    checks: &mut Checks,
    schedule: Option<&str>,
    (selected, _, names): &(Vec<pruning::PruneTarget>, Taylor, IndexMap<String, String>),
    round: &Round,
) -> Result<()> {
    let factor = match schedule {
        Some(schedule) => schedule_of(case, schedule)?.progress(round.after_step),
        None => 1.0,
    };
    for target in selected {
        let name = &names[&target.id.to_string()];
        let goal = target
            .settings
            .scaled(factor)
            .sparse_ratio
            .unwrap_or_default();
        let step = round.after_step;
        match round.current_ratio.get(name) {
            Some(expected) => checks.number(&format!("goal {name} {step}"), goal, *expected),
            None => checks.fail(format!("goal {name} {step}: the case does not expect it")),
        }
    }
    Ok(())
}
