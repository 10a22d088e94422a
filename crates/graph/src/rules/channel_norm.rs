//! Norms whose statistics run over the channels that are kept, as a wrapper computes them.
//!
//! ```text
//! y = (x - mean) / sqrt(variance + eps) * gamma + beta    layer norm, group norm, instance norm
//! y = x / sqrt(mean(x^2) + eps) * gamma                   RMS norm
//! ```
//!
//! A channel whose `gamma` and `beta` are masked takes no part in the statistics of the others and
//! comes out as zero, whatever goes in. A channel that is zero and not masked does take part:
//! therefore it is not enough that nobody reads it behind the norm.

use burn_ir::{CustomOpIr, TensorIr};

use super::super::GraphError;
use super::super::analysis::Analysis;
use super::super::builtin;
use super::super::facts::{Blocks, Count, SizeRule};
use super::super::labels::{Axis, Label, Whole};
use super::super::operation::number;
use super::super::value::Value;
use super::reduce;

/// Joins the channels of the input with those of `gamma` and `beta`; they go on in the output.
pub(super) fn apply(a: &mut Analysis, op: &CustomOpIr) -> Result<(), GraphError> {
    let norm = Norm::read(a, op)?;
    norm.join(a);
    let axes = norm.axes();
    let channels = axes[norm.dim].clone();
    a.set(norm.out, axes, true);
    if let Some(channels) = channels {
        norm.note(a, channels);
    }
    Ok(())
}

/// A recorded norm.
struct Norm<'a> {
    id: &'a str,
    /// The wrapped layer, or what is known of it.
    layer: String,
    input: &'a TensorIr,
    out: &'a TensorIr,
    x: Value,
    /// The dimension of the channels.
    dim: usize,
    gamma: Option<Axis>,
    beta: Option<Axis>,
    has_gamma: bool,
    has_beta: bool,
    /// The number of groups of a group norm.
    groups: Option<usize>,
}

impl<'a> Norm<'a> {
    fn read(a: &mut Analysis, op: &'a CustomOpIr) -> Result<Self, GraphError> {
        let tensors: Vec<&TensorIr> = op.inputs.iter().chain(&op.outputs).collect();
        let ([input, vectors @ ..], [out]) = (&op.inputs[..], &op.outputs[..]) else {
            return Err(a.shape_error(&tensors));
        };
        let last = matches!(op.id.as_str(), builtin::LAYER_NORM | builtin::RMS_NORM);
        let dim = if last {
            input.shape.to_vec().len().saturating_sub(1)
        } else {
            1
        };
        let x = a.value_at(input, dim);
        let channels = x.shape.get(dim).copied().unwrap_or_default();
        let groups = (op.id == builtin::GROUP_NORM).then_some(&op.scalars[..]);
        let groups = groups.map(|scalars| scalars.first().map_or(0.0, |&g| number(g)) as usize);
        let fits = |tensor: &TensorIr| tensor.shape.to_vec() == [channels];
        let divides = groups.is_none_or(|groups| groups > 0 && channels.is_multiple_of(groups));
        if channels == 0 || vectors.len() > 2 || !vectors.iter().all(fits) || !divides {
            return Err(a.shape_error(&tensors));
        }
        let mut vector = |at: usize| vectors.get(at).map(|tensor| a.value(tensor));
        let (gamma, beta) = (vector(0), vector(1));
        let layer = a.returned_by(out);
        let layer = layer.or_else(|| gamma.as_ref().map(|gamma| a.layer(gamma)));
        let axis = |value: &Option<Value>| value.as_ref()?.axes.first().cloned().flatten();
        Ok(Self {
            id: &op.id,
            layer: layer.unwrap_or_else(|| a.op_name()),
            input,
            out,
            x,
            dim,
            has_gamma: gamma.is_some(),
            has_beta: beta.is_some(),
            gamma: axis(&gamma),
            beta: axis(&beta),
            groups,
        })
    }

    fn join(&self, a: &mut Analysis) {
        let x = self.x.axes[self.dim].as_ref();
        // A norm over the model's input or another fixed size keeps all its channels.
        let why = a.fixed_by(self.input);
        for vector in [&self.gamma, &self.beta].into_iter().flatten() {
            a.join(x, Some(vector), &why);
        }
        if self.groups.is_some() && !self.has_gamma {
            let why = format!(
                "`{}` has no `gamma` and `beta` that tell which channels are masked",
                self.layer
            );
            let remedy = "make the norm affine (`with_affine(true)`), or exclude the layer";
            a.remedies.insert(why.clone(), remedy.to_string());
            if let Some(x) = x {
                a.protect(x, &why);
            }
        }
        if self.is_last() {
            return;
        }
        let why = format!("`{}` runs over them", a.op_name());
        for axis in self.x.axes.iter().skip(2).flatten() {
            a.protect(axis, &why);
        }
    }

    /// Whether the channels are the last dimension and the statistics run over nothing else.
    fn is_last(&self) -> bool {
        matches!(self.id, builtin::LAYER_NORM | builtin::RMS_NORM)
    }

    fn axes(&self) -> Vec<Option<Axis>> {
        let mut axes = self.x.axes.clone();
        for (dim, axis) in axes.iter_mut().enumerate() {
            *axis = match axis.take() {
                _ if dim > 1 && !self.is_last() => None,
                Some(axis) if self.has_beta => Some(axis.map(reduce::lost)),
                Some(axis) => Some(axis.map(reduce::zero)),
                None => None,
            };
        }
        axes[self.dim] = self.channels();
        axes
    }

    /// The channels of the output, zero where `gamma` and `beta` are masked.
    fn channels(&self) -> Option<Axis> {
        let Some(gamma) = &self.gamma else {
            // Each channel by itself: the same number everywhere has no deviation.
            return self.x.axes[self.dim]
                .as_ref()
                .map(|x| match self.has_gamma {
                    true => x.map(reduce::lost),
                    false => x.map(|value| value.is_finite().then_some(0.0)),
                });
        };
        let masked = |i: usize| {
            let beta = self.beta.as_ref().and_then(|beta| beta.value[i]);
            gamma.value[i] == Some(0.0) && (!self.has_beta || beta == Some(0.0))
        };
        let origins = [Some(gamma), self.beta.as_ref()];
        Some(Axis {
            value: (0..gamma.labels.len())
                .map(|i| masked(i).then_some(0.0))
                .collect(),
            origins: (origins.into_iter().flatten())
                .flat_map(|axis| axis.origins.clone())
                .collect(),
            nonzero_since: None,
            ..gamma.clone()
        })
    }

    /// The groups of a group norm keep equally many channels, or go as a whole where that is asked for.
    fn group(&self, a: &mut Analysis, groups: usize, labels: &[Label]) {
        let layer = self.layer.clone();
        a.follow_size(SizeRule {
            layer: layer.clone(),
            field: "num_groups",
            labels: labels.to_vec(),
            count: Count::Parts(groups),
        });
        let parts = || labels.chunks(labels.len() / groups);
        let state = |a: &Analysis, label: &Label| label.and_then(|atom| a.labels.whole(atom));
        if labels
            .iter()
            .any(|label| state(a, label) == Some(Whole::Wanted))
        {
            let why = format!("is in a group of `{layer}` that stays");
            for part in parts() {
                let axis = |labels: &[Label]| Axis::new(labels.to_vec(), vec![None; labels.len()]);
                let first = vec![part[0]; part.len()];
                a.join(axis(&first).as_ref(), axis(part).as_ref(), &why);
            }
        }
        let class = |label: &Label| label.map(|atom| a.labels.find(atom));
        let whole = parts().all(|part| part.iter().all(|label| class(label) == class(&part[0])));
        if !whole {
            a.blocks.push(Blocks {
                taken_apart: true,
                ..Blocks::equal(layer, groups, labels.to_vec())
            });
            return;
        }
        for &atom in labels.iter().flatten() {
            if a.labels.whole(atom).is_some() {
                a.labels.set_whole(atom);
            }
        }
    }

    /// Notes what else depends on the channels: statistics, equal groups, and numbers of the layer.
    fn note(&self, a: &mut Analysis, channels: Axis) {
        if self.id != builtin::INSTANCE_NORM {
            a.counted.extend(channels.labels.iter().flatten());
        }
        let labels = channels.labels;
        if let Some(groups) = self.groups {
            self.group(a, groups, &labels);
        }
        if matches!(self.id, builtin::GROUP_NORM | builtin::INSTANCE_NORM) {
            a.follow_size(SizeRule {
                layer: self.layer.clone(),
                field: "num_channels",
                labels,
                count: Count::Channels,
            });
        }
    }
}
