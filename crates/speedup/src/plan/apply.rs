//! A plan carried out on a plain model.

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::module::Module;
use burn_compress_core::erased::AnyModel;
use burn_compress_core::graph::{ChannelGraph, ChannelId, ParamSlice, SlicePlan, capture};
use burn_compress_core::layer::{LayerInfo, layers};
use burn_compress_core::{
    Calibration, Certainty, Compressed, DummyInput, History, Mask, Masks, TargetId, simulated,
};
use indexmap::IndexMap;

use super::CutPlan;
use crate::decision::heads;
use crate::slice::float_shapes;
use crate::sparsity::Removal;
use crate::{ModelSpeedup, Speedup, SpeedupError};

/// The channels that slices of parameters leave out.
fn channels_of(graph: &ChannelGraph, slices: &SlicePlan) -> BTreeSet<ChannelId> {
    let mut gone = BTreeSet::new();
    for (path, slice) in &slices.params {
        for (&dim, keep) in &slice.keep {
            let keep: BTreeSet<usize> = keep.iter().copied().collect();
            let channels = graph.param_channels(path, dim).unwrap_or_default();
            let channels = channels.iter().enumerate();
            gone.extend(
                channels
                    .filter(|(at, _)| !keep.contains(at))
                    .map(|(_, c)| *c),
            );
        }
    }
    gone
}

impl CutPlan {
    /// Cuts the channels of the plan out of a plain model and verifies the result: the small model
    /// computes what `model` does with these channels set to zero.
    ///
    /// The plan is checked first against the model's shapes and against its channels, found with
    /// `dummy_input`. Equal plans of equal models give equal small models, byte for byte. Masks of
    /// single values are no part of a plan.
    ///
    /// # Errors
    ///
    /// - A plan of another model, or of this one before it was cut;
    /// - one without kept indices, as those of a chain are before its run;
    /// - one whose indices or counts do not go together, for instance since it was edited by hand;
    /// - a model that carries masks or quantization: [`ModelSpeedup`] cuts these;
    /// - those of [`ModelSpeedup::speedup_model`].
    pub fn apply<M: Module + 'static>(
        &self,
        model: M,
        dummy_input: &DummyInput<M>,
    ) -> Result<Speedup<M>, SpeedupError> {
        let dummy_input = AnyModel::dummy_input(dummy_input);
        let small = self.apply_any(AnyModel::new(model), &dummy_input)?;
        Ok(small.into_typed())
    }

    fn apply_any(
        &self,
        model: AnyModel,
        dummy_input: &DummyInput<AnyModel>,
    ) -> Result<Speedup<AnyModel>, SpeedupError> {
        self.check_model(&float_shapes(&model))?;
        let slices = self.slices.as_ref().ok_or(SpeedupError::Undecided {
            groups: (self.groups.iter())
                .filter(|group| group.certainty != Certainty::Decided)
                .count(),
        })?;
        let (masks, calibration) = simulated(&model)?;
        if let Some(target) = masks.keys().chain(calibration.keys()).next() {
            let target = target.to_string();
            return Err(SpeedupError::NotPlain { target });
        }
        let plain = Compressed::from_parts(model, &masks, &calibration, History::default())?;
        let model = plain.into_model();
        let captured = capture(&model, dummy_input)?;
        let mut graph = ChannelGraph::analyze(&captured)?;
        let gone = masks_of(&graph, &channels_of(&graph, slices))?;
        let heads = heads(&graph, &layers(&model), &gone)?;
        if !heads.is_empty() {
            graph = ChannelGraph::analyze_heads(&captured, &heads)?;
        }
        let graph = Arc::new(graph);
        let removed = self.check_channels(&graph, slices)?;
        self.check_counts(&graph, &layers(&model), slices, &removed)?;
        let masks = masks_of(&graph, &removed)?;
        let (none, history) = (Calibration::new(), History::default());
        let compressed = Compressed::from_parts(model, &masks, &none, history)?;
        let small = ModelSpeedup::new(compressed, dummy_input.clone())
            .with_graph(graph)?
            .speedup_model()?;
        match difference(slices, &small.plan) {
            None => Ok(small),
            Some((path, reason)) => Err(contradicts(&path, reason)),
        }
    }

    /// Rejects a model with other parameters.
    fn check_model(&self, shapes: &IndexMap<String, Vec<usize>>) -> Result<(), SpeedupError> {
        let other = |reason: String| Err(SpeedupError::OtherModel { reason });
        if let Some(path) = self.shapes.keys().find(|path| !shapes.contains_key(*path)) {
            return other(format!("the model has no `{path}`"));
        }
        if let Some(path) = shapes.keys().find(|path| !self.shapes.contains_key(*path)) {
            return other(format!("the plan knows no `{path}`"));
        }
        let mut differing = shapes
            .iter()
            .filter(|(path, shape)| self.shapes[*path] != **shape);
        let Some((path, found)) = differing.next() else {
            return Ok(());
        };
        let expected = &self.shapes[path];
        let after = |path: &String| {
            let slice = self
                .slices
                .as_ref()
                .and_then(|slices| slices.params.get(path));
            slice.map_or(&self.shapes[path], |slice| &slice.shape)
        };
        match shapes.iter().all(|(path, shape)| after(path) == shape) {
            true => Err(SpeedupError::AlreadyCut {
                path: path.clone(),
                expected: expected.clone(),
                found: found.clone(),
            }),
            false => other(format!(
                "`{path}` is {found:?}, the plan is made for {expected:?}"
            )),
        }
    }

    /// The channels that go; an error unless they are what the plan keeps from everywhere.
    fn check_channels(
        &self,
        graph: &ChannelGraph,
        slices: &SlicePlan,
    ) -> Result<BTreeSet<ChannelId>, SpeedupError> {
        let mut removed = BTreeSet::new();
        for (path, slice) in &slices.params {
            for (&dim, keep) in &slice.keep {
                let along = graph.param_channels(path, dim);
                let along = along
                    .ok_or_else(|| contradicts(path, format!("dimension {dim} has no channels")))?;
                if keep.is_empty() || !keep.is_sorted_by(|a, b| a < b) {
                    return Err(contradicts(
                        path,
                        "its kept indices do not increase".to_string(),
                    ));
                }
                if let Some(bad) = keep.iter().find(|&&index| index >= along.len()) {
                    let reason = format!("index {bad} is outside of 0..{}", along.len());
                    return Err(contradicts(path, reason));
                }
                let gone = (0..along.len()).filter(|index| keep.binary_search(index).is_err());
                removed.extend(gone.map(|index| along[index]));
            }
        }
        let own = graph.slice_plan(&removed)?;
        if let Some((path, reason)) = difference(slices, &own) {
            return Err(contradicts(&path, reason));
        }
        Ok(removed)
    }

    /// Rejects numbers that do not follow from the kept indices. Those that depend on the size of the
    /// inputs may be of another dummy input.
    fn check_counts(
        &self,
        graph: &ChannelGraph,
        layers: &[LayerInfo],
        slices: &SlicePlan,
        removed: &BTreeSet<ChannelId>,
    ) -> Result<(), SpeedupError> {
        let removal = Removal {
            slices,
            left: &Masks::new(),
            goals: &IndexMap::new(),
        };
        let counts = [
            ("parameters", self.params, removal.params(layers)),
            ("bytes", self.bytes, removal.bytes(&self.shapes)),
        ];
        for (what, planned, own) in counts {
            if planned != own {
                return Err(contradicts(
                    what,
                    format!("{planned:?} in place of {own:?}"),
                ));
            }
        }
        let groups = graph.groups();
        if groups.len() != self.groups.len() {
            let (planned, own) = (self.groups.len(), groups.len());
            return Err(contradicts(
                "groups",
                format!("{planned} in place of {own}"),
            ));
        }
        for (planned, group) in self.groups.iter().zip(groups) {
            let stays = |at: &usize| !removed.contains(&group.channels[*at]);
            let keep: Vec<usize> = (0..group.channels.len()).filter(stays).collect();
            let gone = group.channels.len() - keep.len();
            let same = planned.channels == group.channels.len()
                && planned.removed == gone
                && planned.keep.as_ref() == Some(&keep);
            if !same {
                let name = group.members.first().map_or("", |member| &member.param);
                let reason = "its group keeps other channels than its parameters".to_string();
                return Err(contradicts(name, reason));
            }
        }
        Ok(())
    }
}

fn contradicts(what: &str, reason: String) -> SpeedupError {
    SpeedupError::Contradiction {
        what: what.to_string(),
        reason,
    }
}

/// The first parameter, layer or port that two plans treat differently.
fn difference(planned: &SlicePlan, own: &SlicePlan) -> Option<(String, String)> {
    for path in own.params.keys().chain(planned.params.keys()) {
        let (planned, own) = (planned.params.get(path), own.params.get(path));
        if planned != own {
            let shape = |slice: Option<&ParamSlice>| match slice {
                Some(slice) => format!("left as {:?}", slice.shape),
                None => "left whole".to_string(),
            };
            let reason = match (planned, own) {
                (Some(a), Some(b)) if a.shape == b.shape => {
                    "it keeps other indices than what is coupled with it".to_string()
                }
                (a, b) => format!("{} in place of {}", shape(a), shape(b)),
            };
            return Some((path.clone(), reason));
        }
    }
    let other = |what: &str| {
        Some((
            what.to_string(),
            "they are not those of the cut".to_string(),
        ))
    };
    if planned.sizes != own.sizes {
        return other("the numbers of layers");
    }
    if planned.ports != own.ports || planned.ambiguous_ports != own.ambiguous_ports {
        return other("the inputs and outputs of layers");
    }
    None
}

/// Masks that make the channels zero: of everything that makes them.
fn masks_of(graph: &ChannelGraph, removed: &BTreeSet<ChannelId>) -> Result<Masks, SpeedupError> {
    let mut gone: IndexMap<&str, Vec<(usize, usize)>> = IndexMap::new();
    for group in graph.groups() {
        for member in &group.members {
            let positions = group.channels.iter().zip(member.positions.iter());
            let masked = positions.filter(|(channel, _)| removed.contains(channel));
            let at = masked.flat_map(|(_, indices)| indices);
            let at: Vec<(usize, usize)> = at.map(|&index| (member.dim, index)).collect();
            if !at.is_empty() {
                gone.entry(&member.param).or_default().extend(at);
            }
        }
    }
    let mut masks = Masks::new();
    for node in graph.params() {
        let Some(at) = gone.get(node.path.as_str()) else {
            continue;
        };
        let target: TargetId = (node.path.parse()).map_err(|_| SpeedupError::UnknownParameter {
            path: node.path.clone(),
        })?;
        masks.insert(target, mask(&node.shape, at)?);
    }
    Ok(masks)
}

/// A mask without these indices of these dimensions.
fn mask(shape: &[usize], gone: &[(usize, usize)]) -> Result<Mask, SpeedupError> {
    let mut extent = vec![1; shape.len()];
    for &(dim, _) in gone {
        extent[dim] = shape[dim];
    }
    let mut values = vec![1.0; extent.iter().product()];
    for &(dim, index) in gone {
        let inner: usize = extent[dim + 1..].iter().product();
        for block in values.chunks_mut(extent[dim] * inner) {
            block[index * inner..][..inner].fill(0.0);
        }
    }
    Ok(Mask::new(values, extent)?.expand(shape)?)
}
