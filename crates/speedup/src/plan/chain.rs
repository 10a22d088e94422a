//! The plan of a chain, before its run.

use burn::module::Module;
use burn_compress_core::erased::AnyModel;
use burn_compress_core::graph::ChannelGraph;
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{Certainty, Compressor, Error, MaskMethod, Masks, PlannedMask, TargetId};
use indexmap::IndexMap;

use super::{CutPlan, Planned};
use crate::decision::{Decision, heads};
use crate::partial::PartialChannels;
use crate::slice::float_shapes;

/// The plan of a chain of compressors.
pub trait PlanExt {
    /// Plan of the cut after the run of this chain, from the rules alone: nothing is trained and no
    /// mask is made.
    ///
    /// How many channels of a group go follows from its ratio. Which ones, the scores decide; their
    /// indices are absent. Where the scores decide the number too (thresholds, global groups, layers
    /// that a concatenation joins), the plan says so and assumes scores that are spread evenly.
    ///
    /// # Errors
    ///
    /// A chain without a dummy input, a graph that cannot be captured, and a layer of which nothing
    /// would be left.
    fn plan(&self) -> Result<CutPlan, Error>;
}

impl<M: Module + 'static, I: 'static> PlanExt for Compressor<M, I> {
    fn plan(&self) -> Result<CutPlan, Error> {
        let mut graph = self.graph("the plan")?;
        let planned_masks = self.planned_masks()?;
        let masks = planned_masks
            .iter()
            .map(|p| (p.target.clone(), p.mask.clone()));
        let heads = heads(&graph, self.layers(), &masks.collect())?;
        if !heads.is_empty() {
            graph = self.graph_of_heads("the plan", &heads)?;
        }
        let shapes = float_shapes(&AnyModel::new(self.model().clone()));
        let plan = plan(
            &graph,
            self.layers(),
            &shapes,
            planned_masks,
            &self.goals()?,
        )?;
        Ok(plan.with_skipped(self.skipped()))
    }
}

fn plan(
    graph: &ChannelGraph,
    layers: &[LayerInfo],
    shapes: &IndexMap<String, Vec<usize>>,
    planned_masks: Vec<PlannedMask>,
    goals: &IndexMap<TargetId, f64>,
) -> Result<CutPlan, Error> {
    let (mut masks, mut certainty) = (Masks::new(), IndexMap::<TargetId, Certainty>::new());
    for planned in planned_masks {
        certainty.insert(planned.target.clone(), planned.certainty);
        masks.insert(planned.target, planned.mask);
    }
    masks.retain(|_, mask| mask.removed() > 0 || mask.method() == MaskMethod::Add);
    let planned = Planned {
        graph,
        layers,
        shapes,
        decision: &Decision::new(graph, layers, masks, PartialChannels::Keep)?,
        goals,
        certainty: &certainty,
    };
    Ok(planned.plan()?)
}
