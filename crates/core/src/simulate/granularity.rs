//! The granularity of pruning and quantization: the shape of the blocks that share a decision or a
//! scale.
//!
//! A granularity is written in a configuration as a name or as a list of block sizes:
//!
//! ```text
//! "default"                 the algorithm's own
//! "out_channel"             one block an output channel of a parameter
//! "in_channel"              one block an input channel of a parameter
//! "head"                    one block a head: the output channels that a reshape keeps together
//! "head_dim"                one block an output channel, as many of each head
//! "per_channel"             one block a channel of an input or output
//! [2, -1]                   blocks of 2 by the whole dim; a short list is padded at the front with
//! 1 [[2], "back", -1]         the list [2], padded at the back with -1
//! ```
//!
//! Channel dims depend on the layer: the weight of a linear layer is `[in, out]`, that of a
//! convolution `[out, in / groups, ..]`. [`Axes`] names them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::config::did_you_mean;
use crate::layer::{ChannelDims, LayerKind, PortChannels};
use crate::simulate::block::{BlockError, Grid};
use crate::target::Target;

/// The shape of the blocks that share a decision or a scale.
///
/// # Example
///
/// ```
/// use burn_compress_core::{Axes, Granularity};
///
/// let granularity: Granularity = serde_json::from_str("\"out_channel\"")?;
/// // A linear weight is `[in, out]`: its output channels are the columns.
/// let axes = Axes::Parameter { output: Some(1), input: Some(0) };
/// let grid = granularity.grid(&[12, 16], axes, &Granularity::Default)?;
/// assert_eq!(grid.blocks(), [1, 16]);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(into = "Written")]
pub enum Granularity {
    /// The granularity that the algorithm has by itself.
    #[default]
    Default,
    /// One block for each output channel of a parameter.
    OutChannel,
    /// One block for each input channel of a parameter.
    InChannel,
    /// One block for each head of attention: the output channels of one part, where a reshape splits
    /// them into several, or of one group of a wrapped group norm. The grid has one block for each output channel, as where the parts are, the
    /// forward pass tells.
    Head,
    /// One block for each output channel, of which every head keeps as many: the default of layers
    /// whose output a reshape splits into heads, by its name.
    HeadDim,
    /// One block for each channel of an input or output; [`Axes::of`] finds the dim.
    PerChannel,
    /// Blocks of these sizes, -1 for a whole dim, padded at the front with 1.
    Block(Vec<i64>),
    /// Blocks of these sizes, padded to the rank of the target at `side` with `value`.
    Padded {
        /// The sizes, -1 for a whole dim.
        block: Vec<i64>,
        /// Side at which sizes are added.
        side: PadSide,
        /// The size that is added.
        value: i64,
    },
}

/// The side at which a short list of block sizes is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PadSide {
    /// Before the first size.
    Front,
    /// After the last size.
    Back,
}

/// The dims of a target that carry channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axes {
    /// The target is a parameter, with the dims of its output and input channels, if it has them.
    Parameter {
        /// The dim of the output channels.
        output: Option<usize>,
        /// The dim of the input channels.
        input: Option<usize>,
    },
    /// The target is an input or output of a layer.
    Activation {
        /// The dim of the channels.
        channel: usize,
    },
}

impl Axes {
    /// The dims of `target` with `rank` dims in a layer of type `kind`.
    ///
    /// The channels of an input or output lie along its last dim where the
    /// [table of kinds](LayerKind) has them there, as those of `Linear`, otherwise along dim 1.
    pub fn of(kind: &str, target: &Target, rank: usize) -> Self {
        let kind = LayerKind::of(kind);
        match target {
            Target::Param(name) => kind.dims(name, rank).into(),
            Target::Input(_) | Target::Output(_) => Self::Activation {
                channel: match kind.channels() {
                    PortChannels::Last => rank.saturating_sub(1),
                    PortChannels::Second | PortChannels::ByRank => 1,
                },
            },
        }
    }
}

impl From<ChannelDims> for Axes {
    fn from(dims: ChannelDims) -> Self {
        Self::Parameter {
            output: dims.output,
            input: dims.input,
        }
    }
}

impl Granularity {
    /// The grid of blocks on a target of `shape`.
    ///
    /// [`Granularity::Default`] stands for `default`; as the default it is one block an element.
    ///
    /// # Errors
    ///
    /// [`BlockError`], when
    ///
    /// - the target lacks the channel dim of the granularity;
    /// - the blocks do not tile the target.
    pub fn grid(
        &self,
        shape: &[usize],
        axes: Axes,
        default: &Granularity,
    ) -> Result<Grid, BlockError> {
        let (output, input, channel) = match axes {
            Axes::Parameter { output, input } => (output, input, None),
            Axes::Activation { channel } => (None, None, Some(channel)),
        };
        let along = |dim: Option<usize>, granularity, needs| match dim {
            Some(dim) if dim < shape.len() => Grid::along(shape, dim),
            _ => Err(BlockError::Granularity { granularity, needs }),
        };
        match self {
            Self::Default if *default == Self::Default => Grid::tile(shape, &[]),
            Self::Default => default.grid(shape, axes, &Self::Default),
            Self::OutChannel => along(
                output,
                "out_channel",
                "a parameter with an output-channel dim",
            ),
            Self::InChannel => along(input, "in_channel", "a parameter with an input-channel dim"),
            Self::Head => along(output, "head", "a parameter with an output-channel dim"),
            Self::HeadDim => along(output, "head_dim", "a parameter with an output-channel dim"),
            Self::PerChannel => along(
                channel,
                "per_channel",
                "an input or output with a channel dim",
            ),
            Self::Block(block) => Grid::tile(shape, block),
            Self::Padded { block, side, value } => {
                let missing = shape.len().saturating_sub(block.len());
                let padding = std::iter::repeat_n(*value, missing);
                let sizes = block.iter().copied();
                let block: Vec<i64> = match side {
                    PadSide::Front => padding.chain(sizes).collect(),
                    PadSide::Back => sizes.chain(padding).collect(),
                };
                Grid::tile(shape, &block)
            }
        }
    }
}

impl fmt::Display for Granularity {
    /// As it stands in a configuration, names without quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match serde_json::to_value(self) {
            Ok(Value::String(name)) => f.write_str(&name),
            Ok(other) => write!(f, "{other}"),
            Err(_) => Err(fmt::Error),
        }
    }
}

/// A granularity as it stands in a configuration.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Name(Name),
    Block(Vec<i64>),
    Padded(Vec<i64>, PadSide, i64),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    Default,
    OutChannel,
    InChannel,
    Head,
    HeadDim,
    PerChannel,
}

impl<'de> Deserialize<'de> for Granularity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const NAMES: [&str; 6] = [
            "default",
            "out_channel",
            "in_channel",
            "head",
            "head_dim",
            "per_channel",
        ];
        let value = Value::deserialize(deserializer)?;
        Written::deserialize(&value).map(Self::from).map_err(|_| {
            let (found, guess) = match &value {
                Value::String(name) => (format!("`{name}`"), did_you_mean(name, NAMES)),
                other => (other.to_string(), String::new()),
            };
            de::Error::custom(format!(
                "unknown granularity {found}: use \"default\", \"out_channel\", \"in_channel\", \
                 \"head\", \"head_dim\", \"per_channel\", a list of block sizes, or [sizes, \"front\" or \"back\", \
                 padding]{guess}"
            ))
        })
    }
}

impl From<Written> for Granularity {
    fn from(written: Written) -> Self {
        match written {
            Written::Name(Name::Default) => Self::Default,
            Written::Name(Name::OutChannel) => Self::OutChannel,
            Written::Name(Name::InChannel) => Self::InChannel,
            Written::Name(Name::Head) => Self::Head,
            Written::Name(Name::HeadDim) => Self::HeadDim,
            Written::Name(Name::PerChannel) => Self::PerChannel,
            Written::Block(block) => Self::Block(block),
            Written::Padded(block, side, value) => Self::Padded { block, side, value },
        }
    }
}

impl From<Granularity> for Written {
    fn from(granularity: Granularity) -> Self {
        match granularity {
            Granularity::Default => Self::Name(Name::Default),
            Granularity::OutChannel => Self::Name(Name::OutChannel),
            Granularity::InChannel => Self::Name(Name::InChannel),
            Granularity::Head => Self::Name(Name::Head),
            Granularity::HeadDim => Self::Name(Name::HeadDim),
            Granularity::PerChannel => Self::Name(Name::PerChannel),
            Granularity::Block(block) => Self::Block(block),
            Granularity::Padded { block, side, value } => Self::Padded(block, side, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const CONV: Axes = Axes::Parameter {
        output: Some(0),
        input: Some(1),
    };

    #[rstest]
    #[case("\"default\"", Granularity::Default)]
    #[case("\"out_channel\"", Granularity::OutChannel)]
    #[case("\"in_channel\"", Granularity::InChannel)]
    #[case("\"head\"", Granularity::Head)]
    #[case("\"head_dim\"", Granularity::HeadDim)]
    #[case("\"per_channel\"", Granularity::PerChannel)]
    #[case("[2,-1]", Granularity::Block(vec![2, -1]))]
    #[case("[[2],\"back\",-1]", Granularity::Padded { block: vec![2], side: PadSide::Back, value: -1 })]
    fn it_is_written_and_read(#[case] text: &str, #[case] granularity: Granularity) {
        assert_eq!(
            serde_json::from_str::<Granularity>(text).unwrap(),
            granularity
        );
        assert_eq!(serde_json::to_string(&granularity).unwrap(), text);
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = serde_json::from_str::<Granularity>("\"row\"").unwrap_err();
        assert!(error.to_string().contains("\"out_channel\""), "{error}");
    }

    #[rstest]
    #[case("\"out_chanel\"", "unknown granularity `out_chanel`:")]
    #[case("\"out_chanel\"", "did you mean `out_channel`?")]
    #[case("[[2],\"middle\",-1]", "[[2],\"middle\",-1]")]
    #[case("4", "unknown granularity 4:")]
    fn what_was_found_is_in_the_error(#[case] text: &str, #[case] expected: &str) {
        let error = serde_json::from_str::<Granularity>(text).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[rstest]
    #[case(Granularity::Default, &[8, 1, 1, 1])]
    #[case(Granularity::OutChannel, &[8, 1, 1, 1])]
    #[case(Granularity::InChannel, &[1, 4, 1, 1])]
    #[case(Granularity::Head, &[8, 1, 1, 1])]
    #[case(Granularity::HeadDim, &[8, 1, 1, 1])]
    #[case(Granularity::Block(vec![3]), &[8, 4, 3, 1])]
    #[case(Granularity::Block(vec![2, 1, -1, -1]), &[4, 4, 1, 1])]
    #[case(Granularity::Padded { block: vec![2], side: PadSide::Back, value: -1 }, &[4, 1, 1, 1])]
    #[case(Granularity::Padded { block: vec![3], side: PadSide::Front, value: -1 }, &[1, 1, 1, 1])]
    fn it_resolves_on_a_convolution(#[case] granularity: Granularity, #[case] grid: &[usize]) {
        let found = granularity
            .grid(&[8, 4, 3, 3], CONV, &Granularity::OutChannel)
            .unwrap();
        assert_eq!(found.blocks(), grid);
    }

    #[test]
    fn default_of_default_is_one_block_an_element() {
        let grid = Granularity::Default.grid(&[2, 3], CONV, &Granularity::Default);
        assert_eq!(grid.unwrap().blocks(), [2, 3]);
    }

    #[test]
    fn channels_of_an_activation_are_not_those_of_a_parameter() {
        let activation = Axes::Activation { channel: 1 };
        let grid = Granularity::PerChannel
            .grid(&[2, 4, 5], activation, &Granularity::Default)
            .unwrap();
        assert_eq!(grid.blocks(), [1, 4, 1]);
        for (granularity, axes) in [
            (Granularity::OutChannel, activation),
            (
                Granularity::InChannel,
                Axes::Parameter {
                    output: Some(0),
                    input: None,
                },
            ),
            (Granularity::PerChannel, CONV),
        ] {
            assert!(matches!(
                granularity.grid(&[2, 4, 5], axes, &Granularity::Default),
                Err(BlockError::Granularity { .. })
            ));
        }
    }

    #[rstest]
    #[case("Conv1d", 3, 1)]
    #[case("Linear", 2, 1)]
    #[case("Linear", 3, 2)]
    #[case("LayerNorm", 3, 2)]
    #[case("Unknown", 3, 1)]
    fn channels_of_outputs_lie_where_the_table_of_kinds_has_them(
        #[case] kind: &str,
        #[case] rank: usize,
        #[case] channel: usize,
    ) {
        let found = Axes::of(kind, &Target::Output(0), rank);
        assert_eq!(found, Axes::Activation { channel });
    }

    #[test]
    fn it_is_shown_as_it_is_written() {
        assert_eq!(Granularity::InChannel.to_string(), "in_channel");
        assert_eq!(Granularity::Block(vec![4, -1]).to_string(), "[4,-1]");
    }
}
