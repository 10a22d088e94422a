//! Laws of every chain.

use std::path::Path;

use burn_compress::prelude::*;
use thiserror::Error;

use crate::built_in::{distillers, pruners, quantizers};
use crate::nets::{NetConfig, Outcome, evaluator};
use crate::rules::RATIO;
use crate::subject::{Built, Chain, Promise, Subject};

/// Optimizer steps of a run.
const STEPS: usize = 6;

/// A chain that does not hold what it has to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{chain}: {reason}")]
pub struct Failure {
    /// The names of its algorithms.
    pub chain: String,
    /// Violated law.
    pub reason: String,
}

/// All chains that do not hold what they have to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} of {tested} chains fail:{}", failures.len(), lines(failures))]
pub struct Failures {
    /// The number of chains that were tested.
    pub tested: usize,
    /// Checks that failed.
    pub failures: Vec<Failure>,
}

fn lines(failures: &[Failure]) -> String {
    let lines = failures.iter().map(|failure| format!("\n- {failure}"));
    lines.collect()
}

type Checked = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Tests an algorithm alone, and fused with each built-in algorithm of the other kinds, pruners
/// before quantizers before distillers. Returns the number of chains.
///
/// # Errors
///
/// All chains that fail, and why.
pub fn conform(subject: &Subject<'_>) -> Result<usize, Failures> {
    let rank = subject.promise.rank();
    let built_in = [pruners(), quantizers(), distillers()];
    let others = built_in.iter().flatten();
    let others: Vec<&Subject<'_>> = others.filter(|o| o.promise.rank() != rank).collect();
    let mut failures: Vec<Failure> = check(&[subject]).err().into_iter().collect();
    for other in &others {
        let mut chain = [subject, *other];
        chain.sort_by_key(|subject| subject.promise.rank());
        failures.extend(check(&chain).err());
    }
    let tested = 1 + others.len();
    match failures.is_empty() {
        true => Ok(tested),
        false => Err(Failures { tested, failures }),
    }
}

/// Tests one chain, to which the algorithms are added in this order.
///
/// # Errors
///
/// The first thing that does not hold.
pub fn check(subjects: &[&Subject<'_>]) -> Result<(), Failure> {
    let names: Vec<&str> = subjects.iter().map(|subject| subject.name()).collect();
    let failure = |reason: String| Failure {
        chain: names.join(" + "),
        reason,
    };
    let folder = tempfile::tempdir().map_err(|error| failure(error.to_string()))?;
    let file = folder.path().join("checkpoint");
    holds(subjects, &file).map_err(|error| failure(error.to_string()))
}

fn holds(subjects: &[&Subject<'_>], file: &Path) -> Checked {
    let budget = Budget::steps(STEPS);
    let compressed = build(subjects)?.compress(budget.clone())?;
    let outcome = Outcome::of(&compressed);
    for subject in subjects {
        promised(subject.promise, &outcome)?;
    }
    let steps = &outcome.history.steps;
    if steps.len() != STEPS || steps.iter().any(|record| !record.loss.is_finite()) {
        return Err(format!("{} steps of {STEPS} have a finite loss", steps.len()).into());
    }

    let mut stopped = build(subjects)?;
    stopped.advance(&budget, Some(STEPS / 2))?;
    stopped.save_checkpoint(file)?;
    let resumed = build(subjects)?.resume(file)?.compress(budget)?;
    let difference = Outcome::of(&resumed).difference(&outcome);
    if !difference.is_empty() {
        return Err(format!("resumed, it differs in {difference:?}").into());
    }
    if build(&subjects[1..])?.resume(file).is_ok() {
        return Err("a chain without its first algorithm takes its checkpoint".into());
    }

    let channels = |subject: &&Subject<'_>| subject.promise == Promise::Masks { channels: true };
    if subjects.iter().any(channels) {
        let small = compressed.speedup()?;
        let width = small.model.block.conv1.weight.dims()[0];
        if width != 4 {
            return Err(format!("{width} of 8 channels are left, not 4").into());
        }
    }
    Ok(())
}

fn build(subjects: &[&Subject<'_>]) -> Built {
    let chain: Chain = Compressor::from_model(NetConfig::default().init(1), evaluator(STEPS));
    let add = |mut chain: Chain, subject: &&Subject<'_>| {
        let folded = chain.chain().foldings().len();
        let mut chain = (subject.add)(chain)?;
        let folded = chain.chain().foldings().len() - folded;
        match subject.promise {
            Promise::Scales { folded_norms, .. } if folded != folded_norms => {
                Err(format!("{folded} batch norms are folded, not {folded_norms}").into())
            }
            _ => Ok(chain),
        }
    };
    subjects.iter().try_fold(chain, add)
}

fn promised(promise: Promise, outcome: &Outcome) -> Checked {
    match promise {
        Promise::Masks { channels } => masked(channels, outcome),
        Promise::Scales { targets, .. } => quantized(targets, outcome),
        Promise::Loss => {
            let steps = &outcome.history.steps;
            match steps.iter().any(|record| record.loss == record.task_loss) {
                true => Err("the teacher has no part in the loss".into()),
                false => Ok(()),
            }
        }
    }
}

/// Half of each convolution is masked, to the nearest block.
fn masked(channels: bool, outcome: &Outcome) -> Checked {
    let selected = |id: &TargetId| {
        let weight = id.target == Target::Param("weight".into());
        weight && !["plain", "head"].contains(&id.layer.as_str())
    };
    let masks = outcome.masks.iter().filter(|(id, _)| selected(id));
    let masks: Vec<_> = masks.collect();
    if masks.len() != 4 {
        return Err(format!("4 convolutions are to be pruned, not {}", masks.len()).into());
    }
    for (id, mask) in masks {
        let removed = mask.values().iter().filter(|&&value| value == 0.0).count();
        let block = match channels {
            true => mask.values().len() / mask.shape()[0],
            false => 1,
        };
        let goal = RATIO * mask.values().len() as f64;
        if (removed as f64 - goal).abs() > block as f64 {
            return Err(format!("{removed} elements of `{id}` are gone, not {goal}").into());
        }
    }
    Ok(())
}

/// So many targets have scales that can be used.
fn quantized(targets: usize, outcome: &Outcome) -> Checked {
    let usable = outcome.calibration.values().filter(|entry| {
        let scale = entry.scale.as_deref().unwrap_or_default();
        let usable = scale.iter().all(|&scale| scale.is_finite() && scale > 0.0);
        entry.enabled && usable && !scale.is_empty()
    });
    match usable.count() {
        usable if usable == targets => Ok(()),
        usable => Err(format!("{usable} of {targets} targets are quantized").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{half_of_the_channels, int8};

    fn reason(subject: &Subject<'_>) -> String {
        check(&[subject]).unwrap_err().reason
    }

    #[test]
    fn an_algorithm_that_does_nothing_fails() {
        assert_eq!(
            reason(&Subject::pruner("Nothing", Ok)),
            "4 convolutions are to be pruned, not 0"
        );
        assert_eq!(
            reason(&Subject::quantizer("Nothing", 8, Ok)),
            "0 of 8 targets are quantized"
        );
        assert_eq!(
            reason(&Subject::distiller("Nothing", Ok)),
            "the teacher has no part in the loss"
        );
    }

    #[test]
    fn a_chain_that_is_built_otherwise_the_second_time_fails() {
        let count = std::cell::Cell::new(0);
        let pruner = Subject::pruner("Fickle", |chain| {
            count.set(count.get() + 1);
            let rules = half_of_the_channels();
            Ok(match count.get() % 2 {
                0 => L2NormPruner::from_compressor(chain, &rules, PrunerConfig::new())?,
                _ => L1NormPruner::from_compressor(chain, &rules, PrunerConfig::new())?,
            })
        });
        assert!(
            reason(&pruner).contains("L2NormPruner"),
            "{}",
            reason(&pruner)
        );
    }

    #[test]
    fn a_checkpoint_needs_all_algorithms() {
        let pruner = Subject::pruner("L1NormPruner", |chain| {
            let rules = half_of_the_channels();
            Ok(L1NormPruner::from_compressor(
                chain,
                &rules,
                PrunerConfig::new(),
            )?)
        });
        let quantizer = Subject::quantizer("QatQuantizer", 8, |chain| {
            Ok(QatQuantizer::from_compressor(
                chain,
                int8(),
                QatConfig::new(),
            )?)
        });
        assert_eq!(check(&[&pruner, &quantizer]), Ok(()));
    }
}
