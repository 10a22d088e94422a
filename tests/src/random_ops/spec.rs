//! Descriptions of networks over all operations that a cut is followed through.

use serde::{Deserialize, Serialize};

use crate::random_net::{ActSpec, BlockSpec, Style};

/// A network: blocks over images, then blocks over the places of the image as a sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpsSpec {
    /// Where all values come from.
    pub seed: u64,
    /// Channels of the images.
    pub inputs: usize,
    /// The blocks over `[batch, channels, height, width]`.
    pub images: Vec<ImageSpec>,
    /// Features of the sequence, where there is one.
    pub width: usize,
    /// The blocks over `[batch, places, features]`; none ends the network with a mean over places.
    pub tokens: Vec<TokenSpec>,
    /// Number of logits.
    pub classes: usize,
}

/// A block over images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ImageSpec {
    /// A convolutional block.
    Block(BlockSpec),
    /// A convolution to `groups * per_group` channels, which then change places across the groups.
    Shuffle {
        /// Number of groups.
        groups: usize,
        /// Channels of a group.
        per_group: usize,
        /// Surroundings of the convolution.
        style: Style,
    },
    /// A convolution to `4 * width` channels, and a pixel shuffle to twice the size.
    Enlarge {
        /// Output channels.
        width: usize,
        /// Surroundings of the convolution.
        style: Style,
    },
    /// A pixel unshuffle to half the size, and a convolution.
    Shrink {
        /// Output channels.
        width: usize,
        /// Surroundings of the convolution.
        style: Style,
    },
    /// A convolution with a norm over channels behind it.
    Normalized {
        /// The norm.
        norm: ImageNorm,
        /// Number of groups of a group norm.
        groups: usize,
        /// Output channels of a group.
        per_group: usize,
        /// What follows.
        act: ActSpec,
    },
    /// Squeeze and excitation by linear layers.
    Excite {
        /// Features of the hidden layer.
        hidden: usize,
    },
    /// The channels in two parts of different sizes, a convolution over each, and both again.
    Parts {
        /// Output channels of the two convolutions.
        widths: [usize; 2],
        /// Surroundings of the convolutions.
        style: Style,
    },
}

/// A norm over the channels of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageNorm {
    /// Over the channels of a group and all places.
    Group,
    /// Over the places of each channel.
    Instance,
    /// Over the channels of each place.
    Layer,
}

/// What is in front of a block of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenNorm {
    /// Nothing.
    None,
    /// A layer norm.
    Layer,
    /// A root mean square norm.
    Rms,
}

/// How the heads of an attention are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heads {
    /// A constant size, so that their number follows from the weights: whole heads can go.
    BySize,
    /// A constant number, so that their size follows from the weights.
    ByCount,
}

/// A block over a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenSpec {
    /// Softmax attention.
    Attention {
        /// How heads are found.
        heads: Heads,
        /// Number of heads of the keys and values.
        key_heads: usize,
        /// Heads of the queries for each head of the keys.
        queries: usize,
        /// Features of a head.
        size: usize,
        /// Whether one layer makes queries, keys and values.
        fused: bool,
        /// Whether queries and keys are rotated by their place; even sizes and whole heads only.
        rotary: bool,
        /// What is in front.
        norm: TokenNorm,
        /// Whether the input is added.
        residual: bool,
    },
    /// Two linear layers.
    Mlp {
        /// Features between them.
        hidden: usize,
        /// What follows the first.
        act: ActSpec,
        /// How the first is gated.
        gate: GateSpec,
        /// What is in front.
        norm: TokenNorm,
        /// Whether the input is added.
        residual: bool,
    },
    /// A recurrent layer.
    Recurrent {
        /// Its type.
        cell: Cell,
        /// Its hidden features.
        hidden: usize,
    },
    /// One linear layer, used twice.
    Shared {
        /// What follows it each time.
        act: ActSpec,
    },
    /// The features laid out several times, and a linear layer.
    Repeat {
        /// How often.
        times: usize,
        /// Output features.
        width: usize,
    },
}

/// A gated linear unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateSpec {
    /// None.
    None,
    /// One layer of twice the width, in two halves.
    Halves,
    /// A second layer.
    Layer,
}

/// A recurrent layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// Long short-term memory.
    Lstm,
    /// Gated recurrent unit.
    Gru,
    /// Long short-term memory in both directions.
    BiLstm,
    /// Gated recurrent unit in both directions.
    BiGru,
}
