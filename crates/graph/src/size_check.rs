//! Sizes that follow a cut: what a forward pass has to compute of its own numbers.
//!
//! A reshape takes channels apart by numbers that stand in the user's code, and a slice cuts them at
//! such numbers. From the labels it is known what these have to become when channels are removed:
//! `[2, 4, 12] -> [2, 4, 3, 4]` must give `[2, 4, 3, 3]` where every head loses one of its features,
//! and not `[2, 4, 2, 4]`, which would have as many elements once a third of them is gone.

use std::collections::{BTreeMap, BTreeSet};

use burn_capture::TensorId;
use burn_ir::{BaseOperationIr, OperationIr};

use super::analysis::Analysis;
use super::channel_set::ChannelSet;
use super::labels::{ChannelId, Label};

/// A size or range of one operation that follows a cut.
#[derive(Debug, Clone)]
pub(super) struct SizeCheck {
    /// The position of the operation in the forward pass.
    pub at: usize,
    found: Found,
}

#[derive(Debug, Clone)]
enum Found {
    /// The shape of an input that a reshape has taken apart.
    Input { input: usize, sizes: Vec<Extent> },
    /// The range of a slice along a dimension.
    Range {
        dim: usize,
        start: usize,
        end: usize,
        line: Vec<Option<ChannelId>>,
    },
}

/// A size and how it follows.
#[derive(Debug, Clone)]
enum Extent {
    Fixed(usize),
    Channels(Vec<Option<ChannelId>>),
}

impl Extent {
    fn before(&self) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Channels(channels) => channels.len(),
        }
    }

    fn after(&self, removed: &ChannelSet) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Channels(channels) => removed.kept(channels),
        }
    }
}

/// What a pass with fewer channels has in place of what it has to.
pub(super) struct Wrong {
    pub written: String,
    pub found: String,
    pub expected: String,
}

impl SizeCheck {
    /// What has to follow in the forward pass of an analysis, whose operations are `operations`.
    pub fn all(analysis: &Analysis, operations: &[OperationIr]) -> Vec<Self> {
        let apart: BTreeSet<TensorId> = analysis.taken_apart.iter().copied().collect();
        let mut sliced: BTreeMap<TensorId, Vec<_>> = BTreeMap::new();
        for slice in &analysis.slices {
            let op = &analysis.captured.graph.operations[slice.0];
            if let Some(out) = op.outputs().next() {
                sliced.entry(out.id).or_default().push(slice);
            }
        }
        let mut checks = Vec::new();
        for (at, op) in operations.iter().enumerate() {
            if is_reshape(op) {
                continue;
            }
            for (input, tensor) in op.inputs().enumerate() {
                if apart.contains(&tensor.id) {
                    let sizes = extents(analysis, tensor.id);
                    let found = Found::Input { input, sizes };
                    checks.push(Self { at, found });
                }
            }
            let Some((slice, out)) = as_slice(op) else {
                continue;
            };
            for (_, dim, labels) in sliced.get(&out).into_iter().flatten() {
                let (range, _) = slice[*dim].to_range_and_step(labels.len());
                let found = Found::Range {
                    dim: *dim,
                    start: range.start,
                    end: range.end,
                    line: channels(analysis, labels),
                };
                checks.push(Self { at, found });
            }
        }
        checks
    }

    /// What is wrong with the operation in the place of the one that is checked, in a pass without the
    /// channels `removed`.
    ///
    /// An input of another rank is no reshape of the same numbers: a linear layer merges the leading
    /// dimensions of its input or keeps them.
    pub fn failure(&self, op: &OperationIr, removed: &ChannelSet) -> Option<Wrong> {
        match &self.found {
            Found::Input { input, sizes } => {
                let found = op.inputs().nth(*input)?.shape.to_vec();
                let expected: Vec<usize> = sizes.iter().map(|size| size.after(removed)).collect();
                let wrong = found.len() == expected.len() && found != expected;
                let written: Vec<usize> = sizes.iter().map(Extent::before).collect();
                wrong.then(|| Wrong {
                    written: format!("the reshape to {written:?}"),
                    found: format!("{found:?}"),
                    expected: format!("{expected:?}"),
                })
            }
            Found::Range {
                dim,
                start,
                end,
                line,
            } => {
                let (slice, _) = as_slice(op)?;
                let found = slice.get(*dim)?.to_range_and_step(removed.kept(line)).0;
                let first = removed.kept(&line[..*start]);
                let expected = first..first + removed.kept(&line[*start..*end]);
                (found != expected).then(|| Wrong {
                    written: format!(
                        "the slice {:?} of {} along dimension {dim}",
                        start..end,
                        line.len()
                    ),
                    found: format!("{found:?}"),
                    expected: format!("{expected:?}"),
                })
            }
        }
    }
}

fn channels(analysis: &Analysis, labels: &[Label]) -> Vec<Option<ChannelId>> {
    let channel = |label: &Label| label.map(|atom| analysis.labels.channel(atom));
    labels.iter().map(channel).collect()
}

/// The sizes of a tensor's dimensions, each with what it follows.
fn extents(analysis: &Analysis, tensor: TensorId) -> Vec<Extent> {
    let Some(value) = analysis.tensors.get(&tensor) else {
        return Vec::new();
    };
    let along = |(dim, &size): (usize, &usize)| {
        let axis = value.axes[dim].as_ref().map(|axis| &axis.labels[..]);
        // All parts keep equally many, so that the first stands for all.
        let split = value.split_at(dim).filter(|split| split.last() == dim);
        match axis.or(split.map(|split| &split.axis.labels[..size])) {
            Some(labels) => Extent::Channels(channels(analysis, labels)),
            None => Extent::Fixed(size),
        }
    };
    value.shape.iter().enumerate().map(along).collect()
}

fn as_slice(op: &OperationIr) -> Option<(&[burn::tensor::Slice], TensorId)> {
    match op {
        OperationIr::BaseFloat(BaseOperationIr::Slice(op))
        | OperationIr::BaseInt(BaseOperationIr::Slice(op))
        | OperationIr::BaseBool(BaseOperationIr::Slice(op)) => Some((&op.ranges, op.out.id)),
        _ => None,
    }
}

pub(super) fn is_reshape(op: &OperationIr) -> bool {
    use BaseOperationIr::Reshape;
    matches!(
        op,
        OperationIr::BaseFloat(Reshape(_))
            | OperationIr::BaseInt(Reshape(_))
            | OperationIr::BaseBool(Reshape(_))
    )
}
