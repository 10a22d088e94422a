//! What the analysis finds beside labels: uses of dimensions, parts that lose equally many, numbers
//! that follow, counts, groups.

use super::labels::{ChannelId, Label};
use super::split::Split;
use super::value::Value;

/// Use of a parameter's dimension in the forward pass.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Role {
    /// Source of channels: masking the entry makes the channel zero.
    pub producer: bool,
    /// Reader of channels, as the input of a contraction.
    pub consumer: bool,
}

/// A convolution whose channels are split into groups.
#[derive(Debug)]
pub(super) struct Grouped {
    pub weight: usize,
    pub groups: usize,
    pub input: Vec<Label>,
    pub output: Vec<Label>,
}

/// Labels that are split into parts, each of which must keep the same share.
#[derive(Debug)]
pub(super) struct Blocks {
    pub layer: String,
    /// The number of labels of each part.
    pub sizes: Vec<usize>,
    /// The labels, part by part.
    pub labels: Vec<Label>,
    /// Why they must stay where no choice of channels keeps the same share.
    pub why: String,
    /// Whether parts that are one channel each may go as a whole; the tensor has lost its labels
    /// along them otherwise.
    pub taken_apart: bool,
    /// The lengths of the pieces before, in and behind a slice, if it is one that asks for the parts.
    /// Where they cannot keep the same share, its bounds may be sizes that follow all the same.
    pub slice: Option<[usize; 3]>,
}

impl Blocks {
    /// `count` parts of equal size.
    pub fn equal(layer: String, count: usize, labels: Vec<Label>) -> Self {
        let why = format!("is split into {count} blocks by `{layer}`");
        Self {
            layer,
            sizes: vec![labels.len() / count.max(1); count],
            labels,
            why,
            taken_apart: false,
            slice: None,
        }
    }

    /// The labels of each piece of a slice, line by line.
    pub fn pieces(&self) -> impl Iterator<Item = &[Label]> {
        let lengths = self.slice.unwrap_or_default();
        let line = lengths.iter().sum::<usize>().max(1);
        self.labels.chunks(line).flat_map(move |line| {
            let mut rest = line;
            lengths.map(|length| {
                let (piece, others) = rest.split_at(length.min(rest.len()));
                rest = others;
                piece
            })
        })
    }

    /// The labels of each part.
    pub fn parts(&self) -> impl Iterator<Item = &[Label]> {
        let mut rest = &self.labels[..];
        self.sizes.iter().map(move |&size| {
            let (part, others) = rest.split_at(size);
            rest = others;
            part
        })
    }
}

/// A number that a layer holds and that follows the channels along a dimension.
#[derive(Debug)]
pub(super) struct SizeRule {
    pub layer: String,
    pub field: &'static str,
    pub labels: Vec<Label>,
    pub count: Count,
}

/// Meaning of a number that a layer holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    /// The channels.
    Channels,
    /// Of so many parts of equal size those that keep a channel.
    Parts(usize),
}

/// Multiply-accumulates of one operation: the product of the sizes, divided by `divisor`.
#[derive(Debug)]
pub(super) struct Macs {
    pub layer: String,
    pub sizes: Vec<Size>,
    pub divisor: u64,
}

/// A factor of a count, with the labels of the dimension it is the size of.
#[derive(Debug)]
pub(super) struct Size {
    pub size: u64,
    pub labels: Option<Vec<Label>>,
}

impl Size {
    pub fn fixed(size: usize) -> Self {
        Self {
            size: size as u64,
            labels: None,
        }
    }

    /// All dimensions of a split.
    pub fn of_split(split: &Split) -> Self {
        Self {
            size: split.axis.labels.len() as u64,
            labels: Some(split.axis.labels.clone()),
        }
    }

    /// The dimension `dim` of a tensor.
    pub fn of(value: &Value, dim: usize) -> Self {
        Self {
            size: value.shape[dim] as u64,
            labels: value.axes[dim].as_ref().map(|axis| axis.labels.clone()),
        }
    }
}

/// A group under construction: parameters by position.
pub(super) struct Found {
    pub channels: Vec<ChannelId>,
    pub members: Vec<(usize, usize)>,
    pub consumers: Vec<(usize, usize)>,
}
