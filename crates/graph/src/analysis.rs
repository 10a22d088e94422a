//! State of the channel analysis: the description of every tensor, and the steps of rules.

use std::collections::{BTreeMap, BTreeSet};

use burn_capture::TensorId;
use burn_ir::TensorIr;

use super::capture::{Captured, place};
use super::facts::{Blocks, Grouped, Macs, Role, SizeRule};
use super::labels::{Axis, Label, Labels, Origin, Whole};
use super::operation::name;
use super::plain_norms::{self, PlainNorm};
use super::split::Split;
use super::value::Value;
use super::{GraphError, rules};
use crate::target::{Target, TargetId, layer_of};

/// Abstract interpretation of a captured graph.
pub(super) struct Analysis<'a> {
    pub captured: &'a Captured,
    pub labels: Labels,
    pub tensors: BTreeMap<TensorId, Value>,
    pub params: Vec<Value>,
    pub roles: Vec<Vec<Role>>,
    pub statistics: BTreeSet<usize>,
    pub grouped: Vec<Grouped>,
    /// Weights of depthwise convolutions, with the number of groups.
    pub depthwise: BTreeMap<usize, usize>,
    pub blocks: Vec<Blocks>,
    /// The parts of slices that cannot keep the same share.
    pub unequal_slices: Vec<Blocks>,
    pub sizes: Vec<SizeRule>,
    /// The wrapped multi-head attentions that compute with the sizes of their weights.
    pub attentions: BTreeSet<String>,
    /// Labels whose channels enter statistics that run over channels: what is zero there counts.
    pub counted: BTreeSet<usize>,
    pub macs: Vec<Macs>,
    /// The tensors that reshapes have taken apart.
    pub taken_apart: Vec<TensorId>,
    /// The slices of labelled dimensions: the position of the operation, the dimension, and the labels
    /// of one line along it.
    pub slices: Vec<(usize, usize, Vec<Label>)>,
    /// Tensors padded with minus infinity, with the tensors before the padding.
    pub padded: BTreeMap<TensorId, TensorIr>,
    /// Names of operations with a rule of the user that was applied.
    pub ruled: BTreeSet<String>,
    /// The plain norms by the operations that they are made of.
    pub plain_norms: BTreeMap<usize, PlainNorm>,
    /// Remedies of reasons, where one is known to help.
    pub remedies: BTreeMap<String, String>,
    pub inputs: BTreeSet<TensorId>,
    pub op: usize,
}

impl<'a> Analysis<'a> {
    /// Labels the parameters and follows the labels through every operation.
    ///
    /// `whole` lists parameter dimensions whose channels are to be whole parts, once a reshape takes
    /// them apart.
    ///
    /// A part whose labels are joined is a channel of its own, and its tensor is labelled along the
    /// parts. Where that is found only after an operation has read the tensor, all is done again with
    /// what is joined by then.
    pub fn run(captured: &'a Captured, whole: &[Origin]) -> Result<Self, GraphError> {
        let mut classes = Vec::new();
        loop {
            let analysis = Self::pass(captured, whole, &classes)?;
            if !analysis.joined_late() {
                return Ok(analysis);
            }
            classes = analysis.labels.into_classes();
        }
    }

    fn pass(
        captured: &'a Captured,
        whole: &[Origin],
        classes: &[usize],
    ) -> Result<Self, GraphError> {
        let mut analysis = Self {
            captured,
            labels: Labels::default(),
            tensors: BTreeMap::new(),
            params: Vec::new(),
            roles: Vec::new(),
            statistics: BTreeSet::new(),
            grouped: Vec::new(),
            depthwise: BTreeMap::new(),
            blocks: Vec::new(),
            unequal_slices: Vec::new(),
            sizes: Vec::new(),
            attentions: BTreeSet::new(),
            counted: BTreeSet::new(),
            macs: Vec::new(),
            taken_apart: Vec::new(),
            slices: Vec::new(),
            padded: BTreeMap::new(),
            ruled: BTreeSet::new(),
            plain_norms: plain_norms::find(captured),
            remedies: BTreeMap::new(),
            inputs: captured.inputs.iter().copied().collect(),
            op: 0,
        };
        analysis.label_params();
        analysis.protect_recurrent();
        analysis.labels.join_classes(classes);
        for &(param, dim) in whole {
            let axis = analysis.params[param].axes[dim].clone();
            for atom in axis.iter().flat_map(|axis| axis.labels.iter().flatten()) {
                analysis.labels.want_whole(*atom);
            }
        }
        for (index, op) in captured.graph.operations.iter().enumerate() {
            analysis.op = index;
            rules::apply(&mut analysis, op)?;
        }
        let unused = |name: &&str| !analysis.ruled.contains(*name);
        if let Some(name) = captured.rules.names().find(unused) {
            return Err(GraphError::UnusedRule {
                operation: name.to_string(),
            });
        }
        analysis.op = captured.graph.operations.len();
        analysis.protect_checked();
        analysis.protect_outputs();
        analysis.hide_unused();
        Ok(analysis)
    }

    /// Whether every part of what a reshape took apart has become one channel, and they are several.
    fn joined_late(&self) -> bool {
        let taken_apart = self.blocks.iter().filter(|rule| rule.taken_apart);
        let class = |label: &Label| label.map(|atom| self.labels.find(atom));
        let mut rules = taken_apart.map(|rule| {
            let whole = |part: &[Label]| part.iter().all(|label| class(label) == class(&part[0]));
            let first: BTreeSet<_> = rule.parts().map(|part| class(&part[0])).collect();
            rule.parts().all(whole) && first.len() > 1
        });
        rules.any(|joined| joined)
    }

    /// Of the parameter dimensions `whole`, those that no reshape has taken apart.
    pub fn never_split(&self, whole: &[Origin]) -> Vec<Origin> {
        let is_joined = |&(param, dim): &Origin| {
            let axis = self.params[param].axes[dim].as_ref();
            let mut atoms = axis
                .into_iter()
                .flat_map(|axis| axis.labels.iter().flatten());
            atoms.any(|&atom| self.labels.whole(atom) == Some(Whole::Joined))
        };
        let left = whole.iter().filter(|origin| !is_joined(origin));
        left.copied().collect()
    }

    fn label_params(&mut self) {
        for (index, param) in self.captured.params.iter().enumerate() {
            let mut value = Value::plain(param.shape.clone(), false);
            for (dim, &size) in param.shape.iter().enumerate() {
                // The only entry of a dimension cannot be removed.
                if size > 1 {
                    let labels = (0..size).map(|_| Some(self.labels.fresh())).collect();
                    value.axes[dim] = Some(Axis {
                        labels,
                        value: vec![Some(0.0); size],
                        origins: vec![(index, dim)],
                        nonzero_since: None,
                    });
                }
            }
            self.roles.push(vec![Role::default(); param.shape.len()]);
            self.tensors.insert(param.tensor, value.clone());
            self.params.push(value);
        }
    }

    /// The hidden units of recurrent layers that are not wrapped.
    fn protect_recurrent(&mut self) {
        let ports = self.captured.ports.iter();
        let wrapped: BTreeSet<&str> = ports.map(|(port, _)| port.layer.as_str()).collect();
        for (param, value) in self.captured.params.iter().zip(self.params.clone()) {
            let Some((layer, kind)) = &param.recurrent else {
                continue;
            };
            let (false, Some(Some(units))) = (wrapped.contains(&**layer), value.axes.last()) else {
                continue;
            };
            let reason = format!("`d_hidden` of `{layer}` is a constant of the plain `{kind}`");
            let remedy =
                format!("make the field `{layer}` a `Wrapper<{kind}>`, or exclude the layer");
            self.remedies.insert(reason.clone(), remedy);
            self.protect(units, &reason);
        }
    }

    fn protect_checked(&mut self) {
        for (param, value) in self.captured.params.iter().zip(self.params.clone()) {
            let layer = &param.holder_path;
            let (Some(kind), false) = (param.checked_by, self.attentions.contains(layer)) else {
                continue;
            };
            let place = place(param.kinds.get(2));
            let remedy = format!(
                "make the field `{layer}` a `Wrapper<{kind}>`{place} and call it with an \
                 `AttentionInput`, or exclude the layer"
            );
            // The number of heads and their size are numbers of the layer as well.
            let reasons = [
                format!("is a width that the `{kind}` `{layer}` requires"),
                format!("is a feature of a head, of which the `{kind}` `{layer}` holds the size"),
            ];
            for (axis, reason) in value.axes.iter().zip(reasons) {
                if let Some(axis) = axis {
                    self.remedies.insert(reason.clone(), remedy.clone());
                    self.protect(axis, &reason);
                }
            }
        }
    }

    fn protect_outputs(&mut self) {
        for id in &self.captured.outputs {
            if let Some(value) = self.tensors.get(id).cloned() {
                for axis in value.labelled() {
                    self.protect(axis, "reaches the model's output");
                }
            }
        }
    }

    fn hide_unused(&mut self) {
        let read = self.captured.read();
        for (param, value) in self.captured.params.iter().zip(self.params.clone()) {
            if !read.contains(&param.tensor) {
                for axis in value.axes.iter().flatten() {
                    self.hide(axis, "is not used by the forward pass");
                }
            }
        }
    }

    /// Description of a tensor along its dimensions; its shape alone if no rule has described it.
    ///
    /// Labels that depend on several dimensions are protected and left out: a rule that follows them
    /// asks for the [`split_value`](Self::split_value).
    pub fn value(&mut self, tensor: &TensorIr) -> Value {
        let mut value = self.split_value(tensor);
        for split in std::mem::take(&mut value.splits) {
            let why = format!(
                "is taken apart to {:?} and read by `{}`",
                value.shape,
                self.op_name()
            );
            self.protect(&split.axis, &why);
        }
        value
    }

    /// As [`value`](Self::value), for a rule that runs over `dim` alone: labels that depend on it and
    /// on others are joined along the others.
    pub fn value_at(&mut self, tensor: &TensorIr, dim: usize) -> Value {
        let mut value = self.split_value(tensor);
        self.narrow(&mut value, |split, other| {
            other == dim || split.place(dim).is_none()
        });
        for split in std::mem::take(&mut value.splits) {
            let why = format!(
                "is taken apart to {:?} and read by `{}`",
                value.shape,
                self.op_name()
            );
            self.protect(&split.axis, &why);
            // The pixels of the only channel belong together as those of others do.
            let mut atoms = split.axis.labels.iter().flatten();
            if let Some(&first) = atoms.next() {
                atoms.for_each(|&atom| self.labels.join(first, atom));
            }
        }
        value
    }

    /// What is known about a tensor, with labels that depend on several dimensions.
    pub fn split_value(&self, tensor: &TensorIr) -> Value {
        match self.tensors.get(&tensor.id) {
            Some(value) if value.splits.is_empty() => value.clone(),
            Some(value) => {
                let mut value = value.clone();
                let splits = std::mem::take(&mut value.splits);
                let simplified = splits
                    .into_iter()
                    .map(|split| split.simplified(&self.labels));
                simplified.for_each(|split| add_labels(&mut value, split));
                value
            }
            None => {
                let inputs = &self.captured.inputs;
                // Without declared inputs a constant may be one.
                let data = inputs.is_empty() || inputs.contains(&tensor.id);
                Value::plain(tensor.shape.to_vec(), data)
            }
        }
    }

    /// Joins labels along the dimensions of a split for which `keep` is false; labels that depend on
    /// none of the others are protected.
    pub fn narrow(&mut self, value: &mut Value, keep: impl Fn(&Split, usize) -> bool) {
        let why = format!(
            "is taken apart to {:?} and read by `{}`",
            value.shape,
            self.op_name()
        );
        let in_norm = self.plain_norms.contains_key(&self.op);
        for mut split in std::mem::take(&mut value.splits) {
            let kept: Vec<bool> = split.dims.iter().map(|&dim| keep(&split, dim)).collect();
            // The parts of a plain norm are its own business.
            let protect = !kept.contains(&true) || (in_norm && kept.contains(&false));
            if protect {
                self.protect(&split.axis, &why);
                continue;
            }
            let reason = self.labels.reason(why.clone());
            for at in (0..kept.len()).rev().filter(|&at| !kept[at]) {
                split = split.join_along(&mut self.labels, at, reason);
            }
            add_labels(value, split.simplified(&self.labels));
        }
    }

    /// Notes that every part of a split keeps equally many of its labels.
    pub fn keep_equal(&mut self, split: &Split, why: String) {
        self.keep_share(split, &[split.sizes[split.sizes.len() - 1]], why);
    }

    /// Notes that of the last dimension of a split, cut into pieces of these lengths, every piece of
    /// every part keeps the same share of its labels.
    pub fn keep_share(&mut self, split: &Split, lengths: &[usize], why: String) {
        let lengths: Vec<usize> = lengths
            .iter()
            .copied()
            .filter(|&length| length > 0)
            .collect();
        let layer = self.op_name();
        self.blocks.push(Blocks {
            layer,
            sizes: lengths.repeat(split.parts()),
            labels: split.axis.labels.clone(),
            why,
            taken_apart: false,
            slice: None,
        });
    }

    /// Notes that the last dimension of a split is sliced.
    pub fn note_slice(&mut self, split: &Split) {
        let line = split.sizes[split.sizes.len() - 1];
        let labels = split.axis.labels[..line].to_vec();
        self.slices.push((self.op, split.last(), labels));
    }

    /// Describes an operation's output.
    pub fn set(&mut self, out: &TensorIr, axes: Vec<Option<Axis>>, data: bool) {
        self.set_split(out, axes, Vec::new(), data);
    }

    /// Describes an operation's output that has labels along several dimensions.
    ///
    /// Where an input depends on the model's inputs, the parameters behind the axes make its channels.
    pub fn set_split(
        &mut self,
        out: &TensorIr,
        mut axes: Vec<Option<Axis>>,
        mut splits: Vec<Split>,
        data: bool,
    ) {
        self.keep_apart(out, &mut axes, &mut splits);
        let along = splits.iter_mut().map(|split| &mut split.axis);
        for axis in axes.iter_mut().flatten().chain(along) {
            let labelled = axis.labels.iter().zip(&axis.value);
            let zero = labelled
                .filter(|(label, _)| label.is_some())
                .all(|(_, value)| *value == Some(0.0));
            axis.nonzero_since = match zero {
                true => None,
                false => axis.nonzero_since.or(Some(self.op)),
            };
            if data {
                for (param, dim) in std::mem::take(&mut axis.origins) {
                    self.roles[param][dim].producer = true;
                }
            }
        }
        let shape = out.shape.to_vec();
        debug_assert_eq!(shape.len(), axes.len());
        let mut value = Value {
            shape,
            axes,
            splits: Vec::new(),
            data,
        };
        splits
            .into_iter()
            .for_each(|split| add_labels(&mut value, split));
        self.tensors.insert(out.id, value);
    }

    /// Protects and leaves out labels that share a dimension with others.
    fn keep_apart(&mut self, out: &TensorIr, axes: &mut [Option<Axis>], splits: &mut Vec<Split>) {
        let mut taken = vec![false; axes.len()];
        let mut clash = Vec::new();
        splits.retain(|split| {
            let free = split
                .dims
                .iter()
                .all(|&dim| !taken[dim] && axes[dim].is_none());
            match free {
                true => split.dims.iter().for_each(|&dim| taken[dim] = true),
                false => clash.push(split.clone()),
            }
            free
        });
        for split in clash {
            let why = format!(
                "meets other channels along the same dimension of {:?} in `{}`",
                out.shape.to_vec(),
                self.op_name()
            );
            self.protect(&split.axis, &why);
            for dim in split.dims {
                if let Some(axis) = axes[dim].take() {
                    self.protect(&axis, &why);
                }
            }
        }
    }

    /// Describes an output without labels.
    pub fn set_plain(&mut self, out: &TensorIr, data: bool) {
        self.set(out, vec![None; out.shape.to_vec().len()], data);
    }

    /// The wrapped layer that returns a tensor.
    pub fn returned_by(&self, tensor: &TensorIr) -> Option<String> {
        let returns = |(target, id): &&(TargetId, TensorId)| {
            *id == tensor.id && matches!(target.target, Target::Output(_))
        };
        let port = self.captured.ports.iter().find(returns);
        port.map(|(target, _)| target.layer.clone())
    }

    /// Notes that `field` of `layer` counts channels along an axis, or parts of them.
    ///
    /// A layer that is called several times has one number, so that the channels of its calls go
    /// together.
    pub fn follow_size(&mut self, rule: SizeRule) {
        let same = |known: &&SizeRule| known.layer == rule.layer && known.field == rule.field;
        if let Some(known) = self.sizes.iter().find(same) {
            let why = format!("`{}` of `{}` is one number", rule.field, rule.layer);
            let axis = |labels: &Vec<Label>| Axis::new(labels.clone(), vec![None; labels.len()]);
            let (known, new) = (axis(&known.labels), axis(&rule.labels));
            return self.join(known.as_ref(), new.as_ref(), &why);
        }
        self.sizes.push(rule);
    }

    /// The name of the operation under analysis.
    pub fn op_name(&self) -> String {
        name(&self.captured.graph.operations[self.op])
    }

    /// The name of the layer whose parameters a tensor is made of, the operation's if none.
    pub fn layer(&self, value: &Value) -> String {
        let origin = value.labelled().find_map(|a| a.origins.first());
        match origin.map(|&(param, _)| layer_of(&self.captured.params[param].path)) {
            // The model itself is the layer.
            None | Some("") => self.op_name(),
            Some(layer) => layer.to_string(),
        }
    }
}

/// Adds labels to a value; those along one dimension are an axis.
fn add_labels(value: &mut Value, split: Split) {
    match split.dims[..] {
        [dim] => value.axes[dim] = Some(split.axis),
        _ => value.splits.push(split),
    }
}
