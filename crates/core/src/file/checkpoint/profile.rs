//! Fingerprint of an optimizer and a learning-rate schedule.
//!
//! Burn's optimizers and schedules do not show what they were made with. So they are compared by
//! what they do: a fresh copy of the optimizer makes a few steps of a stand-in for each parameter,
//! four or eight numbers in the parameter's place, with the parameter's path, id and rank and with
//! gradients that differ by many orders of magnitude. The state that it keeps tells its kind, the
//! steps tell its numbers. A schedule is stepped from its beginning through the run.

use burn::grad_clipping::GradientClipping;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer, OptimizerRecord};
use burn::tensor::{DType, Tensor, TensorData};
use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Serialize};

use super::optimizer::entries;
use crate::Error;
use crate::erased::AnyModel;
use crate::run::configuration::Difference;
use crate::run::reads::floats;

/// Fingerprint of the evaluator's training of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// The steps of the run whose learning rates are known, from 1.
    steps: Vec<usize>,
    clipping: Option<String>,
    groups: Vec<Group>,
}

/// Parameters that are trained alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    parameters: Vec<String>,
    /// Names in the optimizer's record.
    state: Vec<String>,
    /// The bits of what each step adds to each number of the stand-in.
    moves: Vec<u32>,
    /// The bits of the learning rates.
    rates: Vec<u64>,
}

/// The ids of parameters by path.
pub(super) type Ids = IndexMap<String, ParamId>;

/// Start and gradient of the numbers of a stand-in. Those with a small gradient start at 0, where
/// small steps are not lost.
const NUMBERS: [(f32, f32); 4] = [(0.7, 1.0), (0.0, 1e-6), (-1.3, -2.0), (0.0, 1e-3)];
/// Factor of the gradients of each step.
const STEPS: [f32; 3] = [1.0, -0.5, 3e4];
const LEARNING_RATE: f64 = 0.1;
/// The most learning rates that are kept.
const RATES: usize = 64;

impl Profile {
    /// Fingerprint of a fresh `optimizer` and a fresh `schedule` on the trained parameters of `model`,
    /// which have the ids `ids`, in a run with these `steps`.
    pub(super) fn of(
        (optimizer, schedule): (ModuleOptimizer, ModuleLrScheduler),
        model: &AnyModel,
        ids: &Ids,
        steps: Vec<usize>,
    ) -> Result<Self, Error> {
        let clipping = optimizer.grad_clipping().map(|clipping| match clipping {
            GradientClipping::Value(limit) => format!("by value, {limit}"),
            GradientClipping::Norm(limit) => format!("by norm, {limit}"),
        });
        let rates = rates(schedule, ids, &steps);
        let mut groups: Vec<Group> = Vec::new();
        let behaviours = behaviours(optimizer, model, ids)?;
        for ((path, (state, moves)), rates) in behaviours.into_iter().zip(rates) {
            let alike = |group: &&mut Group| {
                (&group.state, &group.moves, &group.rates) == (&state, &moves, &rates)
            };
            match groups.iter_mut().find(alike) {
                Some(group) => group.parameters.push(path),
                None => groups.push(Group {
                    parameters: vec![path],
                    state,
                    moves,
                    rates,
                }),
            }
        }
        Ok(Self {
            steps,
            clipping,
            groups,
        })
    }

    /// The steps of a run of `total` whose learning rates are kept.
    pub(super) fn sampled(total: usize) -> Vec<usize> {
        let steps = (1..=RATES.min(total)).map(|at| (at * total).div_ceil(RATES.min(total)));
        let sampled: IndexSet<usize> = total
            .checked_sub(1)
            .map(|_| 1)
            .into_iter()
            .chain(steps)
            .collect();
        sampled.into_iter().collect()
    }

    pub(super) fn steps(&self) -> &[usize] {
        &self.steps
    }

    /// Every difference from `saved`.
    pub(super) fn differences(&self, saved: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        if self.clipping != saved.clipping {
            let setting = "gradient clipping".to_string();
            found.push(difference(
                None,
                setting,
                saved.clipping.clone(),
                self.clipping.clone(),
            ));
        }
        let (there, here) = (saved.by_parameter(), self.by_parameter());
        let paths: IndexSet<&String> = there.keys().chain(here.keys()).copied().collect();
        // What all parameters have in common is one difference.
        let mut alike: IndexMap<(String, String, String), Vec<&String>> = IndexMap::new();
        for &path in &paths {
            let differing = match (there.get(path), here.get(path)) {
                (Some(saved), Some(now)) => saved.differing(now, &self.steps),
                (saved, now) => {
                    let trained = |group: Option<&&Group>| group.is_some().to_string();
                    vec![("trained".to_string(), trained(saved), trained(now))]
                }
            };
            for one in differing {
                alike.entry(one).or_default().push(path);
            }
        }
        for ((setting, saved, now), of) in alike {
            let all = of.len() == paths.len();
            let targets = of.into_iter().map(|path| Some(path.clone()));
            let targets = if all { vec![None] } else { targets.collect() };
            for target in targets {
                let (saved, now) = (Some(saved.clone()), Some(now.clone()));
                found.push(difference(target, setting.clone(), saved, now));
            }
        }
        found
    }

    /// The parameters whose optimizer state is of another kind than that of `saved`.
    pub(super) fn is_other_kind(&self, saved: &Self) -> bool {
        let (there, here) = (saved.by_parameter(), self.by_parameter());
        let other = |(path, group): (&&String, &&Group)| {
            here.get(*path).is_some_and(|now| now.state != group.state)
        };
        there.iter().any(other)
    }

    fn by_parameter(&self) -> IndexMap<&String, &Group> {
        let groups = self.groups.iter();
        groups
            .flat_map(|group| group.parameters.iter().map(move |path| (path, group)))
            .collect()
    }
}

impl Group {
    /// Differences, with the values here and in `now`.
    fn differing(&self, now: &Self, steps: &[usize]) -> Vec<(String, String, String)> {
        let mut found = Vec::new();
        if self.state != now.state {
            let text = |state: &[String]| match state.is_empty() {
                true => "none".to_string(),
                false => state.join(" "),
            };
            let setting = "state of the optimizer".to_string();
            found.push((setting, text(&self.state), text(&now.state)));
        }
        let moves = self.moves.iter().zip(&now.moves);
        let moves = moves.map(|(&saved, &now)| (f32::from_bits(saved), f32::from_bits(now)));
        let other = moves
            .into_iter()
            .find(|&(saved, now)| !is_close(saved, now));
        if let Some((saved, now)) = other {
            let setting = "step that the optimizer makes of a test parameter".to_string();
            found.push((setting, saved.to_string(), now.to_string()));
        }
        let rates = steps.iter().zip(self.rates.iter().zip(&now.rates));
        let mut rates = rates
            .map(|(step, (&there, &here))| (step, f64::from_bits(there), f64::from_bits(here)));
        // The functions behind a schedule may round otherwise on another machine.
        let other = rates.find(|(_, there, here)| {
            let larger = there.abs().max(here.abs());
            (there - here).abs() > 1e-12 * larger || there.is_nan() != here.is_nan()
        });
        if let Some((step, there, here)) = other {
            let setting = format!("learning rate of step {step}");
            found.push((setting, there.to_string(), here.to_string()));
        }
        found
    }
}

fn difference(
    target: Option<String>,
    setting: String,
    saved: Option<String>,
    now: Option<String>,
) -> Difference {
    Difference {
        algorithm: "evaluator".to_string(),
        target,
        setting,
        saved,
        now,
    }
}

/// Whether two steps are equal but for what devices round differently.
fn is_close(one: f32, other: f32) -> bool {
    let slack = 2e-7 + 1e-5 * one.abs().max(other.abs());
    one == other || (one - other).abs() <= slack || (one.is_nan() && other.is_nan())
}

/// The learning rates of each parameter in these steps.
fn rates(mut schedule: ModuleLrScheduler, ids: &Ids, steps: &[usize]) -> Vec<Vec<u64>> {
    let mut rates = vec![Vec::new(); ids.len()];
    for step in 1..=steps.last().copied().unwrap_or(0) {
        let rate = schedule.step();
        if steps.contains(&step) {
            for ((path, &id), rates) in ids.iter().zip(&mut rates) {
                rates.push(rate.lr_from_param(id, Some(path)).to_bits());
            }
        }
    }
    rates
}

type Behaviour = (Vec<String>, Vec<u32>);

/// The state that the optimizer keeps of each parameter, and the steps that it makes of it.
fn behaviours(
    optimizer: ModuleOptimizer,
    model: &AnyModel,
    ids: &Ids,
) -> Result<IndexMap<String, Behaviour>, Error> {
    // An optimizer that has stepped before knows the parameters by their ids.
    let mut optimizer = optimizer.load_record(OptimizerRecord::default());
    let mut stand_in = StandIn {
        path: Vec::new(),
        ids,
        gradients: STEPS.map(|_| GradientsParams::new()),
    };
    // A snapshot, since running statistics are shared between clones.
    let mut model = model.valid().map(&mut stand_in);
    let mut values = values(&model, ids)?;
    let mut found: IndexMap<String, Behaviour> = IndexMap::new();
    for gradients in stand_in.gradients {
        model = optimizer.step(LEARNING_RATE, model, gradients);
        let after = self::values(&model, ids)?;
        for (path, after) in &after {
            let before = values.get(path).into_iter().flatten();
            let moves = after.iter().zip(before).map(|(a, b)| (a - b).to_bits());
            found.entry(path.clone()).or_default().1.extend(moves);
        }
        values = after;
    }
    let record = optimizer.to_record().into_bytes();
    let record = record.map_err(|error| Error::Device(error.to_string()))?;
    let mut kept = entries(record).map_err(Error::Device)?;
    for (path, (state, _)) in &mut found {
        if let Some(entry) = kept.remove(&ids[path].val()) {
            *state = entry.names();
        }
    }
    Ok(found)
}

/// Puts stand-ins in the place of trained parameters.
struct StandIn<'a> {
    path: Vec<String>,
    ids: &'a Ids,
    gradients: [GradientsParams; STEPS.len()],
}

impl ModuleMapper for StandIn<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(&id) = self.ids.get(&self.path.join(".")) else {
            return param;
        };
        let device = param.lazy_device().without_autodiff();
        let mut shape = [1; D];
        if let Some(last) = shape.last_mut() {
            *last = NUMBERS.len();
        }
        let rows = if D > 1 { 2 } else { 1 };
        if D > 1 {
            shape[D - 2] = rows;
        }
        let tensor = |number: &dyn Fn(&(f32, f32)) -> f32| {
            let row = |row: usize| {
                NUMBERS
                    .iter()
                    .map(move |n| number(n) * (1.0 + 0.1 * row as f32))
            };
            let values: Vec<f32> = (0..rows).flat_map(row).collect();
            Tensor::<D>::from_data(TensorData::new(values, shape), (&device, DType::F32))
        };
        for (gradients, factor) in self.gradients.iter_mut().zip(STEPS) {
            gradients.register(id, tensor(&|&(_, gradient)| gradient * factor));
        }
        let start = Tensor::from_inner(tensor(&|&(start, _)| start));
        Param::initialized(id, start.require_grad())
    }
}

/// The numbers of the stand-ins; the device is read once.
fn values(model: &AnyModel, ids: &Ids) -> Result<IndexMap<String, Vec<f32>>, Error> {
    let mut collector = Collector {
        path: Vec::new(),
        ids,
        found: Vec::new(),
    };
    model.visit(&mut collector);
    let Some(device) = collector.found.first().map(|(_, values)| values.device()) else {
        return Ok(IndexMap::new());
    };
    let (paths, tensors): (Vec<String>, Vec<Tensor<1>>) = collector.found.into_iter().unzip();
    let sizes: Vec<usize> = tensors.iter().map(|tensor| tensor.dims()[0]).collect();
    let tensors = tensors.into_iter().map(|tensor| tensor.to_device(&device));
    let mut numbers = floats(Tensor::cat(tensors.collect(), 0))?.into_iter();
    let by_path = paths.into_iter().zip(sizes);
    Ok(by_path
        .map(|(path, size)| (path, numbers.by_ref().take(size).collect()))
        .collect())
}

struct Collector<'a> {
    path: Vec<String>,
    ids: &'a Ids,
    found: Vec<(String, Tensor<1>)>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        if self.ids.contains_key(&path) {
            let values = param.base().detach().without_autodiff();
            let size = values.shape().num_elements();
            self.found.push((path, values.reshape([size])));
        }
    }
}

/// The ids of the parameters of `model` that are trained, by path.
pub(super) fn trained(model: &AnyModel) -> Ids {
    let mut trained = Trained::default();
    model.visit(&mut trained);
    trained.ids
}

#[derive(Default)]
struct Trained {
    path: Vec<String>,
    ids: Ids,
}

impl ModuleVisitor for Trained {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.base().is_require_grad() {
            self.ids.insert(self.path.join("."), param.id);
        }
    }
}

#[cfg(test)]
mod tests;
