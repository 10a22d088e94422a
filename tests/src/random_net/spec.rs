//! Descriptions of networks, as they are drawn and printed.

use serde::{Deserialize, Serialize};

/// A network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetSpec {
    /// Where all values come from.
    pub seed: u64,
    /// Channels of the images.
    pub inputs: usize,
    /// The blocks in order.
    pub blocks: Vec<BlockSpec>,
    /// What follows them.
    pub head: HeadSpec,
}

/// What the convolutions of a block share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Style {
    /// Whether they have a bias.
    pub bias: bool,
    /// Whether a batch norm follows each.
    pub norm: bool,
    /// What follows then.
    pub act: ActSpec,
}

/// An activation function with `f(0) = 0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActSpec {
    /// None at all.
    None,
    /// ReLU.
    Relu,
    /// GELU.
    Gelu,
    /// SiLU.
    Silu,
    /// Leaky ReLU.
    LeakyRelu,
    /// Hyperbolic tangent.
    Tanh,
}

/// A part of a network, `[batch, channels, height, width]` to the same with other sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BlockSpec {
    /// A convolution.
    Conv {
        /// Its output channels.
        width: usize,
        /// Its kernel, 1 or 3.
        kernel: usize,
        /// Its stride, 1 or 2.
        stride: usize,
        /// Its surroundings.
        style: Style,
    },
    /// `act(x + f(x))` with two convolutions in `f`.
    Residual {
        /// Channels between the convolutions.
        hidden: usize,
        /// Surroundings of the convolutions.
        style: Style,
    },
    /// `act(g(x) + f(x))` with two convolutions in `f` and one in `g`.
    Projected {
        /// Channels between the convolutions of `f`.
        hidden: usize,
        /// Output channels.
        width: usize,
        /// Stride of the block.
        stride: usize,
        /// Surroundings of the convolutions.
        style: Style,
    },
    /// `cat(f(x), g(x))` with one convolution each.
    Concat {
        /// Channels of the first branch.
        left: usize,
        /// Channels of the second branch, 0 for `x` itself.
        right: usize,
        /// Surroundings of the convolutions.
        style: Style,
    },
    /// A depthwise convolution and a pointwise one.
    Separable {
        /// Output channels.
        width: usize,
        /// Surroundings of the convolutions.
        style: Style,
    },
    /// A grouped convolution, with the largest number of groups up to `groups` that fits.
    Grouped {
        /// Largest number of groups.
        groups: usize,
        /// Output channels of a group.
        per_group: usize,
        /// Its surroundings.
        style: Style,
    },
    /// A pooling with stride 2.
    Pool {
        /// Whether it takes the maximum, not the mean.
        max: bool,
        /// Whether its windows are 3 wide and reach over the border, not 2.
        overlap: bool,
    },
    /// Squeeze and excitation: `x * sigmoid(f(mean(x)))`.
    Gate {
        /// Channels inside of `f`.
        hidden: usize,
        /// Surroundings of its first convolution.
        style: Style,
    },
}

/// From feature maps to logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadSpec {
    /// Whether the feature maps are flattened, not averaged.
    pub flatten: bool,
    /// Features of a hidden linear layer, 0 for none.
    pub hidden: usize,
    /// What follows the hidden layer.
    pub act: ActSpec,
    /// Whether the linear layers have a bias.
    pub bias: bool,
    /// Number of logits.
    pub classes: usize,
}
