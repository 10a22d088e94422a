//! Family C: pruners that train a value for each block, step by step.
//!
//! Each case holds one layer. The loss of a step is `sum(output * upstream)` with a given batch and
//! a given upstream gradient; parameters and trained values start as the file says and must then
//! follow its course: what the layer computes with, its output, all gradients, the values after
//! their own optimizer's step, masks, losses and goals.

use std::sync::{Arc, Mutex};

use burn::optim::GradientsParams;
use burn::tensor::Device;
use burn_compress::target::{Mode, TargetId};
use burn_compress::{Algorithm, BoxError, Budget, Learnable, Run, TrainedBy, gradients};
use indexmap::{IndexMap, IndexSet};
use serde::Deserialize;

use crate::reference::activation::Activation;
use crate::reference::adapter::{self, Chain};
use crate::reference::array::Array;
use crate::reference::case::{Case, Result};
use crate::reference::check::Checks;
use crate::reference::drive::{self, Step};
use crate::reference::model::RefModel;
use crate::reference::{pruning, targets};

/// What a step is expected to come to.
#[derive(Debug, Deserialize)]
struct Expected {
    step: usize,
    raw_loss: f64,
    total_loss: f64,
    /// The goals after the step, by PyTorch's name of the target.
    goal: IndexMap<String, f64>,
}

/// The optimizer of the trained values.
#[derive(Debug, Deserialize)]
struct Adam {
    lr: f64,
}

/// What the forward and the backward pass of a step showed, under the names of the file.
type Seen = Arc<Mutex<IndexMap<String, Array>>>;

/// Runs a case.
///
/// # Errors
///
/// When the case cannot be run, or names a pruner that the library does not have.
pub fn run(case: &Case) -> Result<Checks> {
    // The file calls the values of the two pruners differently.
    let part = match case.file.algorithm.as_str() {
        "SlimPruner" => "factor",
        "MovementPruner" => "score",
        other => return case.not_covered(format!("{other} is not part of the library yet")),
    };
    let device = Device::flex().autodiff();
    let mut checks = Checks::new(case);
    let expected: Vec<Expected> = case.expected("steps")?;
    let steps = expected.len();
    let rules = &case.file.config_list;
    let layer = match case.model()?.layers.as_slice() {
        [only] => only.name.clone(),
        _ => return Err(case.error("expected one layer")),
    };

    let start = |name: &str, param: &str| {
        let name = (name == layer).then(|| format!("step0/param/{param}"))?;
        case.tensors.get(&name).cloned()
    };
    let model = RefModel::build(case.model()?, &device)?.load(start)?;
    let default = pruning::out_channels();
    let config = pruning::configuration(rules, &model, &default)?;
    let mut selected = pruning::select(&config, &model, &default)?;
    selected.retain(|target| target.settings.is_active());

    let seen = Seen::default();
    let chain = Chain::from_model(
        model,
        evaluator(case, &device, &layer, steps, seen.clone())?,
    );
    let training_steps = match part {
        "factor" => Some(case.argument("training_steps")?),
        _ => None,
    };
    let mut chain = match training_steps {
        Some(training_steps) => {
            let scale = case.argument("regular_scale")?;
            adapter::slim(case, chain, rules, training_steps, scale)?
        }
        None => adapter::movement(case, chain, rules)?,
    };
    let learnables = chain.chain().learnables();
    chain.chain().push(Probe {
        part,
        layer: layer.clone(),
        learnables: learnables.clone(),
        seen: seen.clone(),
    });
    let adam: Adam = case.expected("adam")?;
    for learnable in &learnables {
        let TrainedBy::Adam { learning_rate } = learnable.trained_by() else {
            return Err(case.error("the values have no optimizer of their own"));
        };
        checks.number("learning rate", learning_rate, adam.lr);
    }

    for step in 0..steps {
        for (name, value) in chain.model().parameters() {
            if let Some(name) = name.strip_prefix(&format!("{layer}.")) {
                let name = format!("step{step}/param/{name}");
                if case.tensors.contains_key(&name) {
                    checks.array(case, &name, &value);
                }
            }
        }
        compare_values(case, &mut checks, &chain, &learnables, step, part)?;
        chain
            .advance(&Budget::steps(steps), Some(step + 1))
            .map_err(|error| case.error(format!("step {step}: {error}")))?;
        let shown = std::mem::take(&mut *seen.lock().expect("no step panicked"));
        for (name, value) in shown {
            let name = format!("step{step}/{name}");
            if case.tensors.contains_key(&name) {
                checks.array(case, &name, &value);
            }
        }
        compare_values(
            case,
            &mut checks,
            &chain,
            &learnables,
            step,
            &format!("after_{part}"),
        )?;
        compare_masks(case, &mut checks, &chain, &layer, step);
        for target in &selected {
            let factor = match part {
                "factor" => 1.0,
                _ => adapter::movement_config(case)?.progress(step + 1),
            };
            let settings = target.settings.scaled(factor);
            let goal = settings.sparse_ratio.or(settings.sparse_threshold);
            let name = targets::name(chain.model(), &target.id);
            let goals = &expected[step].goal;
            match (
                goal,
                goals.get(name.trim_start_matches(&format!("{layer}."))),
            ) {
                (Some(goal), Some(expected)) => {
                    checks.number(&format!("goal {name} {step}"), goal, *expected);
                }
                other => checks.fail(format!("goal {name} {step}: {other:?}")),
            }
        }
    }
    for expected in &expected {
        let step = expected.step;
        let Some(record) = chain.history().steps.get(step) else {
            checks.fail(format!("step {step} is not in the history"));
            continue;
        };
        checks.number(
            &format!("raw loss {step}"),
            record.task_loss,
            expected.raw_loss,
        );
        checks.number(
            &format!("total loss {step}"),
            record.loss,
            expected.total_loss,
        );
    }
    Ok(checks)
}

/// Runs the layer on the given batches and notes what it computes with.
fn evaluator(
    case: &Case,
    device: &Device,
    layer: &str,
    steps: usize,
    seen: Seen,
) -> Result<burn_compress::Evaluator<RefModel, Step>> {
    let mut batches = Vec::new();
    for step in 0..steps {
        let x = Activation::from_array(case.array(&format!("step{step}/x"))?, device)?;
        batches.push((x, case.array(&format!("step{step}/upstream"))?.clone()));
    }
    let simulated = case.below("step0/simulated/");
    let simulated: Vec<String> = simulated
        .into_iter()
        .map(|(name, _)| name.to_owned())
        .collect();
    let layer = layer.to_owned();
    let loss = move |model: &RefModel, step: &Step| {
        let (x, upstream) = &batches[*step];
        let output = model.forward(x.clone());
        let mut seen = seen.lock().expect("no step panicked");
        seen.insert("out".to_owned(), output.array());
        for name in &simulated {
            let id = targets::id(model, &layer, name).expect("the file names parameters");
            let value = model.layers()[&layer].simulated(&id.target.to_string());
            let value = value.expect("the layer has the parameters that the file names");
            seen.insert(
                format!("simulated/{name}"),
                targets::convert(model, &id, &value),
            );
        }
        output.weighted_sum(upstream).expect("the shapes agree")
    };
    Ok(drive::evaluator(steps, case.argument("sgd_lr")?, loss))
}

/// Compares the trained values with `step{t}/PART/TARGET`.
fn compare_values(
    case: &Case,
    checks: &mut Checks,
    chain: &Chain,
    learnables: &[Arc<Learnable>],
    step: usize,
    part: &str,
) -> Result<()> {
    for learnable in learnables {
        let values = learnable.values().map_err(|error| case.error(error))?;
        let array = Array::float(learnable.shape(), values);
        let (name, array) = named(chain.model(), learnable, &array)?;
        checks.array(case, &format!("step{step}/{part}/{name}"), &array);
    }
    Ok(())
}

/// What belongs to a learnable under PyTorch's name of its target in the layer.
fn named(model: &RefModel, learnable: &Learnable, array: &Array) -> Result<(String, Array)> {
    let (layer, target) = learnable.name().rsplit_once('.').unwrap_or_default();
    let id = TargetId::new(layer, target.into());
    let name = targets::name(model, &id);
    let name = name.rsplit('.').next().unwrap_or_default().to_owned();
    Ok((name, targets::convert(model, &id, array)))
}

/// Compares the masks after a step; before the first decision everything is kept.
fn compare_masks(case: &Case, checks: &mut Checks, chain: &Chain, layer: &str, step: usize) {
    let masks = targets::masks(chain.model(), &chain.masks());
    let prefix = format!("step{step}/mask/");
    let expected = case.below(&prefix);
    for (name, array) in &expected {
        let kept = Array::float(array.shape.clone(), vec![1.0; array.values.len()]);
        let mask = masks.get(&format!("{layer}.{name}")).unwrap_or(&kept);
        checks.array(case, &format!("{prefix}{name}"), mask);
    }
    for (name, mask) in &masks {
        let known = expected
            .iter()
            .any(|(known, _)| *name == format!("{layer}.{known}"));
        if !known && mask.values.contains(&0.0) {
            checks.fail(format!("{name}: a mask that the case does not expect"));
        }
    }
}

/// Notes the gradients of every step.
struct Probe {
    part: &'static str,
    layer: String,
    learnables: Vec<Arc<Learnable>>,
    seen: Seen,
}

impl Probe {
    fn note(&self, grads: &GradientsParams, model: &RefModel) -> Result<()> {
        let mut seen = self.seen.lock().expect("no step panicked");
        for learnable in &self.learnables {
            let Some(gradient) = learnable.gradient() else {
                continue;
            };
            let values = Array::from_tensor(gradient.without_autodiff()).values;
            let array = Array::float(learnable.shape(), values);
            let (name, array) = named(model, learnable, &array)?;
            seen.insert(format!("grad_{}/{name}", self.part), array);
        }
        let ids = model.parameters().into_keys();
        let ids = ids.map(|name| targets::parse(model, &name));
        for id in ids.collect::<Result<Vec<TargetId>>>()? {
            if id.layer != self.layer {
                continue;
            }
            let path = id.to_string();
            let found = gradients(model, grads, &IndexSet::from([path.clone()]));
            let name = targets::name(model, &id);
            let name = name.rsplit('.').next().unwrap_or_default().to_owned();
            if let Some(gradient) = found.get(&path) {
                let array = targets::convert(model, &id, &targets::flat(gradient)?);
                seen.insert(format!("grad/{name}"), array);
            }
        }
        Ok(())
    }
}

impl Algorithm<RefModel, Step> for Probe {
    fn name(&self) -> &'static str {
        "Probe"
    }

    fn mode(&self) -> Mode {
        Mode::Pruning
    }

    fn gradients(
        &mut self,
        grads: &GradientsParams,
        run: Run<'_, RefModel>,
    ) -> std::result::Result<(), BoxError> {
        Ok(self.note(grads, run.model)?)
    }
}
