//! What can be known before the training: contradictions, and values that cannot be scored.

use burn::module::Module;
use burn_compress_core::{TargetId, parameters};
use indexmap::IndexSet;

use super::{Single, Units};
use crate::mask::check_dims;
use crate::metrics::Importance;
use crate::{Blocks, PruningError};

/// A score of 0 for every block, whatever the values are.
struct Zeros;

impl Importance for Zeros {
    fn score(&self, _data: &[f32], blocks: &Blocks) -> Vec<f32> {
        vec![0.0; blocks.count()]
    }
}

impl Units {
    /// Generates masks of zeros as scores, to find settings that contradict each other before the
    /// training. Nothing is written.
    ///
    /// Inputs and outputs whose shape only a pass tells are left out, with all that follows them;
    /// their alignments are checked against the source alone.
    pub(super) fn rehearse(&self) -> Result<(), PruningError> {
        let unknown = self.without_shape();
        let is_unknown = |single: &&Single| unknown.contains(&single.id);
        for single in self.single.iter().filter(is_unknown) {
            self.check_source(single)?;
        }
        let known = self.single.iter().filter(|single| !is_unknown(single));
        let known: Vec<&Single> = known.collect();
        // The scores need no values.
        let data = self.sources.iter().map(|path| (path.clone(), Vec::new()));
        let keep = self.options.keep_at_least_one;
        let masks = self.masks_of(&known, &data.collect(), &Zeros, 1.0, keep)?;
        self.coupled
            .iter()
            .try_for_each(|group| group.check(&masks[&group.key]))
    }

    /// The inputs and outputs whose shape is not known, and what follows them.
    fn without_shape(&self) -> IndexSet<TargetId> {
        let lacks = self.single.iter().filter(|single| single.shape().is_none());
        let mut unknown: IndexSet<TargetId> = lacks.map(|single| single.id.clone()).collect();
        while !unknown.is_empty() {
            let before = unknown.len();
            let follows = |single: &&Single| single.source().is_some_and(|s| unknown.contains(s));
            let more = self.single.iter().filter(follows);
            let more: Vec<TargetId> = more.map(|single| single.id.clone()).collect();
            unknown.extend(more);
            if unknown.len() == before {
                break;
            }
        }
        unknown
    }

    /// Refuses an alignment to what this pruner does not prune, or to dims that the source has not.
    fn check_source(&self, single: &Single) -> Result<(), PruningError> {
        let Some((source, dims)) = &single.align else {
            return Ok(());
        };
        let at = |error: PruningError| error.at(&single.id);
        let shape = match self.groups.get(source) {
            Some(&group) => {
                let mut members = self.coupled[group].written.iter();
                let member = members.find(|member| member.id == *source);
                member.map(|member| member.shape.clone())
            }
            None => {
                let found = self.single.iter().find(|single| single.id == *source);
                let from = source.to_string();
                let found = found.ok_or_else(|| at(PruningError::AlignSource { from }))?;
                found.shape()
            }
        };
        match shape {
            Some(shape) => check_dims(source, dims, &shape).map_err(at),
            None => Ok(()),
        }
    }

    /// Refuses parameters to be scored that hold values that are not finite, all of them at once.
    pub(super) fn check_values<M: Module>(&self, model: &M) -> Result<(), PruningError> {
        let mut errors = Vec::new();
        for (path, weight) in parameters(model, &self.sources) {
            let values = weight.to_vec()?;
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                let (what, value) = ("value", values[at]);
                errors.push(PruningError::NotFinite { what, at, value }.at(path));
            }
        }
        PruningError::all(errors)
    }
}
