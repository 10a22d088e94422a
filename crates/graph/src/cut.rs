//! A cut of the captured forward pass itself, without the model's type.
//!
//! A model whose code holds the number of its channels cannot run with fewer of them: the plain
//! depthwise convolution of somebody's crate, a reshape to a literal number. Its captured operations
//! can. From the labels it is known how large every tensor is without the removed channels, and the
//! numbers of the operations follow from that:
//!
//! ```text
//! depthwise convolution   groups  = channels that are left
//! slice a..b              a' = kept channels before a, b' = a' + those between a and b
//! reshape, expand         the sizes of the result
//! ```
//!
//! All other constants stay, as they do in the masked model: a sum divided by a literal 64 is divided
//! by 64 where channels of it are zero, and where they are gone.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Slice;
use burn_capture::TensorId;
use burn_ir::{
    BaseOperationIr as Base, IrVisitorMut, ModuleOperationIr as Module, OperationIr, TensorIr,
};

use super::analysis::Analysis;
use super::labels::ChannelId;
use super::operation::{Operation, name};
use super::{Captured, ChannelGraph, GraphError, SlicePlan};

impl Captured {
    /// The forward pass without the channels `removed` of `graph`, which is of this capture, and what
    /// is left of the parameters.
    ///
    /// The result is for programs that carry the operations out. It computes what the model computes
    /// while all parameters of the removed channels are masked.
    ///
    /// # Errors
    ///
    /// Those of [`ChannelGraph::slice_plan`], and [`GraphError::NotCut`] for an operation whose
    /// numbers are known to its layer alone: a wrapped norm over channels, a recurrent layer, an
    /// operation of the user.
    pub fn without(
        &self,
        graph: &ChannelGraph,
        removed: &BTreeSet<ChannelId>,
    ) -> Result<(Self, SlicePlan), GraphError> {
        let plan = graph.slice_plan(removed)?;
        let heads = Analysis::origins_at(self, &graph.heads);
        let analysis = Analysis::run(self, &heads)?;
        let sizes = Sizes::new(&analysis, &plan, removed);
        let mut cut = self.clone();
        for op in &mut cut.graph.operations {
            sizes.cut(op)?;
        }
        for param in &mut cut.params {
            if let Some(slice) = plan.params.get(&param.path) {
                param.shape = slice.shape.clone();
            }
        }
        Ok((cut, plan))
    }
}

/// The sizes of all tensors without the removed channels.
struct Sizes {
    /// The tensors that become smaller.
    shapes: BTreeMap<TensorId, Vec<usize>>,
    /// Along each dimension of a tensor whether each index stays, where some do not.
    stays: BTreeMap<(TensorId, usize), Vec<bool>>,
    /// Groups of depthwise convolutions, by weight.
    groups: BTreeMap<TensorId, usize>,
}

impl Sizes {
    fn new(analysis: &Analysis, plan: &SlicePlan, removed: &BTreeSet<ChannelId>) -> Self {
        let mut sizes = Self {
            shapes: BTreeMap::new(),
            stays: BTreeMap::new(),
            groups: BTreeMap::new(),
        };
        let operations = &analysis.captured.graph.operations;
        for tensor in operations.iter().flat_map(|op| op.nodes()) {
            sizes.add(analysis, tensor, removed);
        }
        for (index, param) in analysis.captured.params.iter().enumerate() {
            let Some(slice) = plan.params.get(&param.path) else {
                continue;
            };
            sizes.shapes.insert(param.tensor, slice.shape.clone());
            if let Some(&groups) = analysis.depthwise.get(&index) {
                let filters = param.shape[0] / groups;
                let groups = slice.shape[0] / filters;
                sizes.groups.insert(param.tensor, groups);
            }
        }
        sizes
    }

    fn add(&mut self, analysis: &Analysis, tensor: &TensorIr, removed: &BTreeSet<ChannelId>) {
        if self.shapes.contains_key(&tensor.id) {
            return;
        }
        let value = analysis.split_value(tensor);
        let mut shape = value.shape.clone();
        for (dim, size) in shape.iter_mut().enumerate() {
            let axis = value.axes[dim].as_ref().map(|axis| &axis.labels[..]);
            // All parts keep equally many, so that the first stands for all.
            let split = value.split_at(dim).filter(|split| split.last() == dim);
            let Some(labels) = axis.or(split.map(|split| &split.axis.labels[..*size])) else {
                continue;
            };
            let gone = |atom: usize| removed.contains(&analysis.labels.channel(atom));
            let stays: Vec<bool> = labels
                .iter()
                .map(|label| !label.is_some_and(gone))
                .collect();
            let left = stays.iter().filter(|&&stays| stays).count();
            if left < *size {
                *size = left;
                self.stays.insert((tensor.id, dim), stays);
            }
        }
        if shape != value.shape {
            self.shapes.insert(tensor.id, shape);
        }
    }

    /// Brings the numbers of an operation to the sizes that are left.
    fn cut(&self, op: &mut OperationIr) -> Result<(), GraphError> {
        let before = Operation::of(op);
        let changes = |tensor: &TensorIr| self.shapes.contains_key(&tensor.id);
        if matches!(op, OperationIr::Custom(_)) && op.nodes().into_iter().any(changes) {
            let operation = name(op);
            return Err(GraphError::NotCut { operation });
        }
        self.cut_ranges(op)?;
        self.cut_groups(op);
        op.visit_mut(&mut Reshape(&self.shapes));
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        let after = Operation::of(op);
        // What the labels do not explain must not become another function.
        let reshaped = name(op) == "reshape";
        if reshaped && elements(&after.inputs[0]) != elements(&after.outputs[0]) {
            let found = format!("{:?} -> {:?}", before.inputs[0], before.outputs[0]);
            let operation = format!("reshape {found}");
            return Err(GraphError::NotCut { operation });
        }
        Ok(())
    }

    fn cut_ranges(&self, op: &mut OperationIr) -> Result<(), GraphError> {
        let operation = name(op);
        let (OperationIr::BaseFloat(base)
        | OperationIr::BaseInt(base)
        | OperationIr::BaseBool(base)) = op
        else {
            return Ok(());
        };
        let (tensor, ranges) = match base {
            Base::Slice(op) => (&op.tensor, &mut op.ranges),
            Base::SliceAssign(op) => (&op.tensor, &mut op.ranges),
            _ => return Ok(()),
        };
        for (dim, range) in ranges.iter_mut().enumerate() {
            let Some(stays) = self.stays.get(&(tensor.id, dim)) else {
                continue;
            };
            let (found, step) = range.to_range_and_step(stays.len());
            let kept = |part: &[bool]| part.iter().filter(|&&stays| stays).count();
            if step.unsigned_abs() != 1 && kept(stays) < stays.len() {
                return Err(GraphError::NotCut { operation });
            }
            let start = kept(&stays[..found.start]);
            let end = start + kept(&stays[found]);
            *range = Slice::new(start as isize, Some(end as isize), step);
        }
        Ok(())
    }

    fn cut_groups(&self, op: &mut OperationIr) {
        let OperationIr::Module(module) = op else {
            return;
        };
        let (weight, groups) = match module {
            Module::Conv1d(op) => (&op.weight, &mut op.options.groups),
            Module::Conv2d(op) => (&op.weight, &mut op.options.groups),
            Module::Conv3d(op) => (&op.weight, &mut op.options.groups),
            Module::ConvTranspose1d(op) => (&op.weight, &mut op.options.groups),
            Module::ConvTranspose2d(op) => (&op.weight, &mut op.options.groups),
            Module::ConvTranspose3d(op) => (&op.weight, &mut op.options.groups),
            _ => return,
        };
        if let Some(&left) = self.groups.get(&weight.id) {
            *groups = left;
        }
    }
}

/// Gives every tensor the shape that is left of it.
struct Reshape<'a>(&'a BTreeMap<TensorId, Vec<usize>>);

impl IrVisitorMut for Reshape<'_> {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        if let Some(shape) = self.0.get(&tensor.id) {
            tensor.shape = shape.clone().into();
        }
    }
}
