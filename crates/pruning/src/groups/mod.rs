//! Pruning groups, the units of a decision: a target with blocks of its own, or the channels that the
//! graph couples over several parameters.

mod build;
mod coupled;
mod decision;
mod dry_run;
mod goals;
mod independent;
mod member;
mod plan;
mod planned;
mod port_shapes;
mod prunable;
mod pruning_groups;
mod selected;
mod trial;

pub(crate) use build::build;
pub(crate) use pruning_groups::PruningGroups;

#[cfg(test)]
mod tests;
