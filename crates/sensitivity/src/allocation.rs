//! Sparsities that meet a size at the least estimated loss.

use burn_compress_core::Error;
use burn_compress_core::config::{ConfigList, Rule};
use burn_compress_pruning::{PruningRule, PruningSettings};
use serde::{Deserialize, Serialize};

use crate::cost::Costs;
use crate::error::SensitivityError;
use crate::result::{Sensitivity, UnitSensitivity};

/// The size that a model shall have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SizeBudget {
    /// A number of parameters, without running statistics.
    Parameters(u64),
    /// A fraction of the parameters of the model, above 0 and up to 1.
    ParameterRatio(f64),
    /// A number of multiply-accumulates for one element of the batch.
    Macs(u64),
    /// A fraction of the multiply-accumulates of the model, above 0 and up to 1.
    MacsRatio(f64),
}

/// The sparsity of each unit that meets a budget.
///
/// The loss is estimated by adding up what each unit has cost alone. Between measured numbers of
/// channels, the largest convex function below the measured losses is taken, a line of straight
/// pieces. From no sparsity at all, a few channels at a time go where the loss grows least for what
/// the model becomes smaller:
///
/// ```text
/// unit = argmin over u of (loss(u, k(u) + step(u)) - loss(u, k(u))) / (size(k) - size(k with that step))
/// ```
///
/// until the budget is met. A step is one channel; with `round_to`, or where several parts have to lose
/// equally many, as heads do, it is as many, and in wide layers up to a 128th of the channels. For a size that is a sum over the units this is the least loss of all allocations of such
/// steps, up to the last step; for a product of sizes, as that of two convolutions behind each other,
/// it is a greedy choice. Losses add up only roughly, all the less the more is removed.
///
/// The sensitivity of single layers is from Li et al., *Pruning Filters for Efficient ConvNets*, arXiv
/// 1608.08710, section 3.2; the steps by gain and cost are those of Fox, *Discrete Optimization via
/// Marginal Analysis*, Management Science 13 (3), 1966.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allocation {
    /// The units that lose channels.
    pub units: Vec<AllocatedUnit>,
    /// Parameters of the small model.
    ///
    /// Where a concatenation joins layers, the scores decide how many channels each of them loses. The
    /// count is that of equal shares then, which a DenseNet can miss by a tenth.
    pub parameters: u64,
    /// Multiply-accumulates of the small model for one element of the batch, as far as that.
    pub macs: u64,
    /// How much the loss is estimated to grow, before any training.
    pub increase: f64,
    settings: PruningSettings,
}

/// A unit that loses channels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllocatedUnit {
    /// Its layers.
    pub layers: Vec<String>,
    /// The number of channels.
    pub channels: usize,
    /// The number of those that go.
    pub removed: usize,
    /// The `sparse_ratio` that removes so many.
    pub sparse_ratio: f64,
}

impl Allocation {
    /// The rules of a pruner, one for each unit that loses channels.
    pub fn rules(&self) -> ConfigList<PruningSettings> {
        let rules = self.units.iter().map(|unit| {
            let rule = Rule::new().with_op_names(unit.layers.clone());
            let rule = rule.with_settings(self.settings.clone());
            rule.sparse_ratio(unit.sparse_ratio)
        });
        ConfigList::new(rules.collect())
    }
}

/// What the removal of channels of one unit costs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Curve {
    channels: usize,
    /// Channels that are removed at once.
    step: usize,
    /// Corners of the convex curve: removed channels and the increase of the loss.
    hull: Vec<(usize, f64)>,
}

/// A unit has at least as many steps, where it has the channels.
const STEPS: usize = 128;

impl Curve {
    fn new(unit: &UnitSensitivity, result: &Sensitivity) -> Self {
        let multiple = lcm(result.settings.round_to.unwrap_or(1), unit.parts);
        let points = unit.points.iter();
        let points = points.filter_map(|point| {
            let increase = result.increase(&point.measured)?;
            Some((point.removed, increase))
        });
        let steps = (unit.channels / multiple / STEPS).max(1);
        Self {
            channels: unit.channels,
            step: steps * multiple,
            hull: hull([(0, 0.0)].into_iter().chain(points).collect()),
        }
    }

    /// The most channels that may go.
    fn most(&self) -> usize {
        self.hull.last().map_or(0, |&(removed, _)| removed)
    }

    /// The increase of the loss without `removed` channels.
    fn increase(&self, removed: usize) -> f64 {
        let after = self.hull.partition_point(|&(corner, _)| corner < removed);
        match (
            after.checked_sub(1).map(|before| self.hull[before]),
            self.hull.get(after),
        ) {
            (Some((from, low)), Some(&(to, high))) => {
                let along = (removed - from) as f64 / (to - from) as f64;
                low + (high - low) * along
            }
            (_, corner) => corner.map_or(0.0, |&(_, increase)| increase),
        }
    }

    /// The next number of channels to remove, none where all that may go are gone.
    fn next(&self, removed: usize) -> Option<usize> {
        // What stays is a multiple of the step's, so the first step takes what is over.
        let over = (self.channels - removed) % self.step;
        let step = if over == 0 { self.step } else { over };
        (removed + step <= self.most()).then_some(removed + step)
    }
}

/// The corners of the largest convex function below the points, from the first to the last.
fn hull(mut points: Vec<(usize, f64)>) -> Vec<(usize, f64)> {
    points.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    // Nothing removed costs nothing, whatever else was measured there.
    points.dedup_by_key(|point| point.0);
    let mut hull: Vec<(usize, f64)> = Vec::new();
    for point in points {
        while let [.., a, b] = hull[..] {
            let slope =
                |from: (usize, f64), to: (usize, f64)| (to.1 - from.1) / (to.0 - from.0) as f64;
            if slope(a, b) < slope(b, point) {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    hull
}

/// What is counted, and how much of it may be left.
struct Goal<'a> {
    costs: &'a Costs,
    is_macs: bool,
    most: f64,
}

impl Goal<'_> {
    fn count(&self, kept: &[f64]) -> f64 {
        match self.is_macs {
            true => self.costs.macs(kept),
            false => self.costs.parameters(kept),
        }
    }
}

impl Sensitivity {
    /// The rules with which a pruner meets `budget` at the least estimated loss, see
    /// [`allocate`](Self::allocate).
    ///
    /// # Errors
    ///
    /// Those of [`allocate`](Self::allocate).
    pub fn rules_for(&self, budget: SizeBudget) -> Result<ConfigList<PruningSettings>, Error> {
        Ok(self.allocate(budget)?.rules())
    }

    /// The sparsity of each unit that meets `budget` at the least estimated loss; see
    /// [`Allocation`] for how it is found.
    ///
    /// # Errors
    ///
    /// - a result that is not complete, of layers that were pruned alone, or without pruning;
    /// - a budget of nothing, or of more than the model has;
    /// - one that the largest measured sparsities do not reach.
    pub fn allocate(&self, budget: SizeBudget) -> Result<Allocation, Error> {
        Ok(allocate(self, budget)?)
    }
}

fn allocate(result: &Sensitivity, budget: SizeBudget) -> Result<Allocation, SensitivityError> {
    let none = |reason| Err(SensitivityError::NoRules { reason });
    if result.units.is_empty() {
        return none("no layer was pruned, set some with `with_pruning`");
    }
    if !result.is_complete() {
        return none("it is not complete, resume the analysis");
    }
    let Some(costs) = &result.costs else {
        return none(
            "its layers were pruned alone, which no cut follows; measure `with_coupled(true)`",
        );
    };
    let goal = goal(result, costs, budget)?;
    let curves: Vec<Curve> = result
        .units
        .iter()
        .map(|unit| Curve::new(unit, result))
        .collect();
    let removed = descend(&curves, &goal)?;
    let kept = kept(&curves, &removed);
    let units = result
        .units
        .iter()
        .zip(&removed)
        .filter(|(_, removed)| **removed > 0);
    let increases = curves.iter().zip(&removed);
    Ok(Allocation {
        units: units
            .map(|(unit, &removed)| AllocatedUnit {
                layers: unit.layers.clone(),
                channels: unit.channels,
                removed,
                // Each part loses its own integer part.
                sparse_ratio: ratio(removed / unit.parts, unit.channels / unit.parts),
            })
            .collect(),
        parameters: costs.parameters(&kept).round() as u64,
        macs: costs.macs(&kept).round() as u64,
        increase: increases
            .map(|(curve, &removed)| curve.increase(removed))
            .sum(),
        settings: result.settings.clone(),
    })
}

fn goal<'a>(
    result: &Sensitivity,
    costs: &'a Costs,
    budget: SizeBudget,
) -> Result<Goal<'a>, SensitivityError> {
    let whole = vec![1.0; result.units.len()];
    let (is_macs, all) = match budget {
        SizeBudget::Macs(_) | SizeBudget::MacsRatio(_) => (true, costs.macs(&whole)),
        _ => (false, costs.parameters(&whole)),
    };
    let most = match budget {
        SizeBudget::Parameters(most) | SizeBudget::Macs(most) => most as f64,
        SizeBudget::ParameterRatio(ratio) | SizeBudget::MacsRatio(ratio) => all * ratio,
    };
    let wrong = |reason| {
        let found = format!("{budget:?}");
        Err(SensitivityError::Budget { found, reason })
    };
    if most.is_nan() || most <= 0.0 {
        return wrong("nothing would be left, give it more than 0");
    }
    // A size that the model has already would be met by no rule at all.
    if most >= all {
        return wrong("the model is no larger as it is, give it less");
    }
    Ok(Goal {
        costs,
        is_macs,
        most,
    })
}

/// The channels to remove from each unit.
fn descend(curves: &[Curve], goal: &Goal<'_>) -> Result<Vec<usize>, SensitivityError> {
    let mut removed = vec![0; curves.len()];
    let mut now = goal.count(&kept(curves, &removed));
    while now > goal.most {
        let mut best: Option<(f64, usize, usize, f64)> = None;
        for (unit, curve) in curves.iter().enumerate() {
            let Some(next) = curve.next(removed[unit]) else {
                continue;
            };
            let mut tried = removed.clone();
            tried[unit] = next;
            let after = goal.count(&kept(curves, &tried));
            let cost = curve.increase(next) - curve.increase(removed[unit]);
            let rate = cost / (now - after);
            if now > after && best.is_none_or(|(least, ..)| rate < least) {
                best = Some((rate, unit, next, after));
            }
        }
        let Some((_, unit, next, after)) = best else {
            return Err(SensitivityError::Unreachable {
                asked: goal.most.round() as u64,
                what: if goal.is_macs { "MACs" } else { "parameters" },
                least: now.round() as u64,
            });
        };
        (removed[unit], now) = (next, after);
    }
    Ok(removed)
}

fn kept(curves: &[Curve], removed: &[usize]) -> Vec<f64> {
    let pairs = curves.iter().zip(removed);
    pairs
        .map(|(curve, &removed)| (curve.channels - removed) as f64 / curve.channels.max(1) as f64)
        .collect()
}

/// The least common multiple, of numbers from 1 on.
fn lcm(a: usize, b: usize) -> usize {
    let (a, b) = (a.max(1), b.max(1));
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// A ratio of which the integer part of `channels * ratio` is `removed`, of four digits if there is
/// one.
fn ratio(removed: usize, channels: usize) -> f64 {
    let removes = |ratio: f64| (channels as f64 * ratio) as usize == removed;
    let short = (1e4 * removed as f64 / channels as f64).ceil() / 1e4;
    match removes(short) && short < 1.0 {
        true => short,
        // In the middle of those that do.
        false => (removed as f64 + 0.5) / channels as f64,
    }
}

#[cfg(test)]
mod tests;
