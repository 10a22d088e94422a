//! Differences between the configuration of a chain and that of a checkpoint.

use indexmap::IndexSet;

use super::At;
use super::header::Header;
use super::params::Params;
use super::profile::Profile;
use crate::Error;
use crate::run::any_chain::AnyChain;
use crate::run::configuration::{Difference, lines};
use crate::target::{Mode, TargetId};

/// The parts of a checkpoint that an accepted change makes useless.
#[derive(Default)]
pub(super) struct Changes {
    /// Targets that are quantized otherwise and begin anew.
    pub targets: IndexSet<TargetId>,
    /// Targets of quantizers with other settings, which say when the quantization acts.
    pub enabled: IndexSet<TargetId>,
    /// Whether the optimizer keeps another state.
    pub optimizer: bool,
    /// Whether anything is another one.
    pub any: bool,
}

impl Changes {
    /// Compares the chain with the one that wrote `header`; without `params`, a `Learner` trains.
    ///
    /// # Errors
    ///
    /// [`Error::Changed`] with all differences, unless they are accepted.
    pub fn of(
        chain: &AnyChain,
        header: &Header,
        params: Option<&Params>,
        accept: bool,
        at: At<'_>,
    ) -> Result<Self, Error> {
        let by_algorithm = header.differences(chain)?;
        let mut changes = Self::default();
        let quantizers = chain
            .algorithms
            .iter()
            .zip(&header.algorithms)
            .zip(&by_algorithm)
            .filter(|((algorithm, _), _)| algorithm.mode() == Mode::Quantization);
        for ((_, saved), differences) in quantizers {
            if differences.iter().any(|one| one.target.is_none()) {
                let targets = saved.configuration.targets();
                changes.enabled.extend(targets.cloned());
            }
            let targets = differences.iter().filter_map(|one| one.target.as_ref());
            let targets = targets.filter_map(|target| target.parse().ok());
            changes.targets.extend(targets);
        }
        let mut all: Vec<Difference> = by_algorithm.into_iter().flatten().collect();
        if let Some(params) = params {
            let (training, other_kind) = training(chain, header, params)?;
            changes.optimizer = other_kind;
            all.extend(training);
        }
        changes.any = !all.is_empty();
        match changes.any {
            false => Ok(changes),
            true if accept => {
                let (origin, changes_made) = (at.origin(), lines(&all));
                chain.warn(format!("{origin} is resumed with changes:{changes_made}"));
                Ok(changes)
            }
            true => Err(Error::Changed {
                origin: at.origin(),
                differences: all,
                call: at.accepting(),
            }),
        }
    }
}

/// The differences of the evaluator's optimizer and learning rates, and whether the state of the
/// optimizer is of another kind.
fn training(
    chain: &AnyChain,
    header: &Header,
    params: &Params,
) -> Result<(Vec<Difference>, bool), Error> {
    let parts = chain.evaluator.trains_with();
    match (&header.profile, parts) {
        (None, None) => Ok((Vec::new(), false)),
        (Some(saved), Some(parts)) => {
            let steps = saved.steps().to_vec();
            let now = Profile::of(parts, &chain.model, &params.trained, steps)?;
            Ok((now.differences(saved), now.is_other_kind(saved)))
        }
        (saved, now) => {
            let text = |is_set: bool| is_set.then(|| "set".to_string());
            let difference = Difference {
                algorithm: "evaluator".to_string(),
                target: None,
                setting: "optimizer and learning rate".to_string(),
                saved: text(saved.is_some()),
                now: text(now.is_some()),
            };
            Ok((vec![difference], true))
        }
    }
}
