//! A decision before the training that finds settings which contradict each other.

use burn_compress_core::TargetId;
use indexmap::IndexSet;

use super::independent::IndependentTarget;
use super::pruning_groups::PruningGroups;
use crate::PruningError;
use crate::importance::{Scale, Scores};
use crate::mask::check_dims;
use crate::sources::ScoredTarget;

/// Generates masks with scores of zero, to find settings that contradict each other before the
/// training. Nothing is written.
///
/// Inputs and outputs whose shape is unknown before a pass are left out, with all that follows them;
/// their alignments are checked against the source alone.
pub(super) fn dry_run(groups: &PruningGroups, scored: &[ScoredTarget]) -> Result<(), PruningError> {
    let unknown = without_shape(groups);
    let is_unknown = |target: &&IndependentTarget| unknown.contains(&target.id);
    for target in groups.independent.iter().filter(is_unknown) {
        check_source(groups, target)?;
    }
    let known = groups
        .independent
        .iter()
        .filter(|target| !is_unknown(target));
    let known: Vec<&IndependentTarget> = known.collect();
    let zeros = |target: &ScoredTarget| {
        let zeros = vec![0.0; target.blocks().count()];
        (target.id().to_string(), zeros)
    };
    let scores = Scores {
        scale: Scale::Layer,
        by_path: scored.iter().map(zeros).collect(),
    };
    let masks = groups.masks(&known, &scores, 1.0)?;
    let mut coupled = groups.coupled.iter();
    coupled.try_for_each(|group| group.check(&masks[&group.key]))
}

/// The inputs and outputs whose shape is not known, and what follows them.
pub(super) fn without_shape(groups: &PruningGroups) -> IndexSet<TargetId> {
    let lacks = groups
        .independent
        .iter()
        .filter(|target| target.shape().is_none());
    let mut unknown: IndexSet<TargetId> = lacks.map(|target| target.id.clone()).collect();
    while !unknown.is_empty() {
        let before = unknown.len();
        let follows =
            |target: &&IndependentTarget| target.source().is_some_and(|s| unknown.contains(s));
        let more = groups.independent.iter().filter(follows);
        let more: Vec<TargetId> = more.map(|target| target.id.clone()).collect();
        unknown.extend(more);
        if unknown.len() == before {
            break;
        }
    }
    unknown
}

/// Rejects an alignment to what this pruner does not prune, or to dims that the source has not.
fn check_source(groups: &PruningGroups, target: &IndependentTarget) -> Result<(), PruningError> {
    let Some((source, dims)) = &target.align else {
        return Ok(());
    };
    let at = |error: PruningError| error.at(&target.id);
    let shape = match groups.groups.get(source) {
        Some(&group) => {
            let mut members = groups.coupled[group].written.iter();
            let member = members.find(|member| member.id == *source);
            member.map(|member| member.shape.clone())
        }
        None => {
            let found = groups
                .independent
                .iter()
                .find(|target| target.id == *source);
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
