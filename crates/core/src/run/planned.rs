//! Planned masks of the algorithms of a chain.

use burn::module::Module;
use indexmap::IndexMap;

use crate::Error;
use crate::run::any_chain::AnyChain;
use crate::run::compressor::Compressor;
use crate::run::planned_mask::{Certainty, PlannedMask};
use crate::simulate::attach;
use crate::target::TargetId;

impl<M: Module + 'static, I: 'static> Compressor<M, I> {
    /// The masks that the run would leave if no score were better than another: those in force,
    /// replaced by what the algorithms [plan](crate::Algorithm::planned_masks), in the order of
    /// their targets' claims.
    ///
    /// # Errors
    ///
    /// Any error of an algorithm.
    pub fn planned_masks(&self) -> Result<Vec<PlannedMask>, Error> {
        self.inner.planned_masks()
    }

    /// The sparsity that the algorithms are [asked](crate::Algorithm::goals) for, by target.
    ///
    /// # Errors
    ///
    /// Any error of an algorithm.
    pub fn goals(&self) -> Result<IndexMap<TargetId, f64>, Error> {
        self.inner.goals()
    }
}

impl AnyChain {
    /// The masks that the run would leave if no score were better than another: those in force,
    /// replaced by what the algorithms [plan](crate::Algorithm::planned_masks), in the order of
    /// their targets' claims.
    pub(crate) fn planned_masks(&self) -> Result<Vec<PlannedMask>, Error> {
        let masks = attach::masks(&self.spaces);
        let in_force = masks.iter().map(|(target, mask)| {
            let planned = PlannedMask {
                target: target.clone(),
                mask: mask.clone(),
                certainty: Certainty::Decided,
            };
            (target.clone(), planned)
        });
        let mut masks: IndexMap<TargetId, PlannedMask> = in_force.collect();
        for algorithm in &self.algorithms {
            let planned = algorithm.planned_masks();
            let planned = planned.map_err(Error::met_by(algorithm.name()))?;
            masks.extend(planned.into_iter().map(|mask| (mask.target.clone(), mask)));
        }
        Ok(masks.into_values().collect())
    }

    /// The sparsity that the algorithms are [asked](crate::Algorithm::goals) for, by target.
    pub(crate) fn goals(&self) -> Result<IndexMap<TargetId, f64>, Error> {
        let mut goals = IndexMap::new();
        for algorithm in &self.algorithms {
            let found = algorithm.goals();
            goals.extend(found.map_err(Error::met_by(algorithm.name()))?);
        }
        Ok(goals)
    }
}
