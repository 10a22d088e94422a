//! From channels that go to a plan.

use std::collections::BTreeSet;

use burn_compress_core::graph::{ChannelGraph, ChannelGroup, ChannelId, GroupMember};
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{Calibration, Certainty, TargetId};
use indexmap::IndexMap;

use super::{CutPlan, FixedChannels, GroupPlan, LayerPlan, ParamDim};
use crate::SpeedupError;
use crate::change::Change;
use crate::decision::Decision;
use crate::sparsity::Removal;
use crate::state::reindex_state;
use crate::uncut::uncut;

/// Parts of a plan.
pub(crate) struct Planned<'a> {
    pub graph: &'a ChannelGraph,
    pub layers: &'a [LayerInfo],
    /// The shapes of all parameters and running statistics.
    pub shapes: &'a IndexMap<String, Vec<usize>>,
    pub decision: &'a Decision,
    /// The sparsity that was asked for, by target.
    pub goals: &'a IndexMap<TargetId, f64>,
    /// Certainty of the masks; `Decided` for targets that are not in it.
    pub certainty: &'a IndexMap<TargetId, Certainty>,
}

impl Planned<'_> {
    /// The plan.
    pub fn plan(&self) -> Result<CutPlan, SpeedupError> {
        let (graph, decision) = (self.graph, self.decision);
        let slices = graph.slice_plan(&decision.removed)?;
        let none = Calibration::new();
        let left = reindex_state(&slices, self.shapes, &decision.masks, &none)?.masks;
        let removal = Removal {
            slices: &slices,
            left: &left,
            goals: self.goals,
        };
        let change = |of: &dyn Fn(&BTreeSet<ChannelId>) -> u64| Change {
            dense: of(&BTreeSet::new()),
            small: of(&decision.removed),
        };
        let groups = graph.groups().iter();
        let mut plan = CutPlan {
            shapes: self.shapes.clone(),
            groups: groups.clone().map(|group| self.group(group)).collect(),
            layers: self.layers(&removal),
            slices: None,
            params: removal.params(self.layers),
            macs: change(&|removed| graph.macs_after(removed)),
            bytes: removal.bytes(self.shapes),
            activation_bytes: change(&|removed| graph.peak_activation_bytes(removed)),
            batch: graph.batch(),
            fixed: groups.flat_map(|group| self.fixed(group)).collect(),
            uncut: uncut(graph, self.layers, decision, &left, &slices),
            skipped: Vec::new(),
        };
        if plan.certainty() == Certainty::Decided {
            plan.slices = Some(slices);
        } else {
            plan.groups.iter_mut().for_each(forget_undecided);
        }
        Ok(plan)
    }

    fn group(&self, group: &ChannelGroup) -> GroupPlan {
        let stays = |at: &usize| !self.decision.removed.contains(&group.channels[*at]);
        let keep: Vec<usize> = (0..group.channels.len()).filter(stays).collect();
        let members = group.members.iter().map(|member| &member.param);
        let certainty = members.map(|param| self.certainty_of(param));
        GroupPlan {
            channels: group.channels.len(),
            removed: group.channels.len() - keep.len(),
            keep: Some(keep),
            certainty: certainty.fold(Certainty::Decided, Certainty::and),
            members: group.members.iter().map(param_dim).collect(),
            consumers: group.consumers.iter().map(param_dim).collect(),
        }
    }

    fn certainty_of(&self, param: &str) -> Certainty {
        let target = param.parse::<TargetId>().ok();
        let known = target.and_then(|target| self.certainty.get(&target));
        known.cloned().unwrap_or_default()
    }

    fn layers(&self, removal: &Removal<'_>) -> Vec<LayerPlan> {
        let plan = |layer: &LayerInfo| {
            let loss = removal.of(layer)?;
            Some(LayerPlan {
                kind: layer.kind.clone(),
                before: loss.before,
                after: loss.after,
                asked: loss.asked,
                reached: loss.reached,
                certainty: self
                    .certainty
                    .get(&loss.target)
                    .cloned()
                    .unwrap_or_default(),
                target: loss.target,
            })
        };
        self.layers.iter().filter_map(plan).collect()
    }

    /// The channels of a group that must stay, by reason.
    fn fixed(&self, group: &ChannelGroup) -> Vec<FixedChannels> {
        let mut reasons: IndexMap<&str, usize> = IndexMap::new();
        for &channel in &group.channels {
            if let Some(reason) = self.graph.protected(channel) {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        let at = group.members.first().map(param_dim);
        let fixed = reasons.into_iter().filter_map(|(reason, channels)| {
            Some(FixedChannels {
                at: at.clone()?,
                channels,
                of: group.channels.len(),
                reason: reason.to_string(),
            })
        });
        fixed.collect()
    }
}

fn param_dim(member: &GroupMember) -> ParamDim {
    ParamDim {
        param: member.param.clone(),
        dim: member.dim,
    }
}

/// A group that the run decides about has no kept positions yet.
fn forget_undecided(group: &mut GroupPlan) {
    if group.certainty != Certainty::Decided {
        group.keep = None;
    }
}
