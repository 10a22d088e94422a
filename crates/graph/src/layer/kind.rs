//! The table of layer types: where their channels are, and what they do with them.
//!
//! A row is found by the short name of the type. Burn's types have rows; a layer type of your own
//! gets one by [`LayerKind::register`], once at the start of the program:
//!
//! ```
//! use burn_compress_graph::layer::{LayerKind, LayerRole, PortChannels, channel_dims};
//!
//! // struct ChannelMixer { weight: Param<Tensor<2>> }, weight [in, out], features last.
//! LayerKind::new("ChannelMixer", LayerRole::Weighted)
//!     .with_param("weight", Some(1), Some(0))
//!     .with_channels(PortChannels::Last)
//!     .register()?;
//! assert_eq!(channel_dims("ChannelMixer", "weight", 2).output, Some(1));
//! # Ok::<(), burn_compress_graph::layer::KindError>(())
//! ```
//!
//! The rows are those of the whole program: the layout of a type does not depend on the model, and
//! of a layer that is not wrapped only the name of the type is known. Coupled channels need no row,
//! the graph finds them in the operations. A row is for
//!
//! - `granularity`;
//! - the output channels that have a score or a scale;
//! - the channels of inputs and outputs;
//! - the search for activations behind a layer.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

/// The dimensions of a parameter that run over the layer's channels; `None` where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelDims {
    /// The dimension of the output channels.
    pub output: Option<usize>,
    /// The dimension of the input channels, of those of one group in a grouped convolution.
    pub input: Option<usize>,
}

impl ChannelDims {
    const fn new(output: usize, input: usize) -> Self {
        Self {
            output: Some(output),
            input: Some(input),
        }
    }
}

/// Effect of a layer on the channels of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerRole {
    /// Mixes them by its weights: a convolution, a linear layer, an embedding.
    Weighted,
    /// Normalizes them.
    Norm,
    /// Changes the positions of each by itself: pooling, interpolation.
    Pool,
    /// Applies a function to each element.
    Activation,
    /// Anything else.
    Other,
}

/// The dimension of an input or output that runs over channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortChannels {
    /// The one behind the batch, `[batch, channels, ..]`.
    Second,
    /// The last one, `[.., channels]`.
    Last,
    /// The second one of four dimensions or more, otherwise the last one.
    ByRank,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerKind {
    name: String,
    role: LayerRole,
    /// Parameters of rank 2 and up.
    params: Vec<(String, ChannelDims)>,
    channels: PortChannels,
    rank: Option<usize>,
}

/// A row of Burn: the type, its role, the channels of its `weight`, those of its inputs and
/// outputs, and the number of dimensions of these.
type Row = (
    &'static str,
    LayerRole,
    Option<ChannelDims>,
    PortChannels,
    Option<usize>,
);

/// `[out, in / groups, kernel..]`
const CONV: Option<ChannelDims> = Some(ChannelDims::new(0, 1));
/// `[in, out / groups, kernel..]`, and `[in, out]`
const TRANSPOSED: Option<ChannelDims> = Some(ChannelDims::new(1, 0));
/// `[n_embedding, d_model]`
const EMBEDDING: Option<ChannelDims> = Some(ChannelDims {
    output: Some(1),
    input: None,
});

/// The layers of Burn and those of this library, in the order of their kinds.
const BUILT_IN: [Row; 16] = {
    use LayerRole::{Norm, Other, Weighted};
    use PortChannels::{ByRank, Last, Second};
    [
        ("Conv1d", Weighted, CONV, Second, Some(3)),
        ("Conv2d", Weighted, CONV, Second, Some(4)),
        ("Conv3d", Weighted, CONV, Second, Some(5)),
        ("ConvTranspose1d", Weighted, TRANSPOSED, Second, Some(3)),
        ("ConvTranspose2d", Weighted, TRANSPOSED, Second, Some(4)),
        ("ConvTranspose3d", Weighted, TRANSPOSED, Second, Some(5)),
        ("Linear", Weighted, TRANSPOSED, Last, None),
        ("Embedding", Weighted, EMBEDDING, Last, None),
        ("BatchNorm", Norm, None, Second, None),
        ("GroupNorm", Norm, None, Second, None),
        ("InstanceNorm", Norm, None, Second, None),
        ("LayerNorm", Norm, None, Last, None),
        ("RmsNorm", Norm, None, Last, None),
        ("MultiHeadAttention", Other, None, Last, None),
        ("Add", Other, None, ByRank, None),
        ("Concat", Other, None, ByRank, None),
    ]
};

/// The activation functions of Burn.
const ACTIVATIONS: [&str; 26] = [
    "Celu",
    "Elu",
    "GLU",
    "Gelu",
    "HardShrink",
    "HardSigmoid",
    "HardSwish",
    "Hardtanh",
    "LeakyRelu",
    "LogSigmoid",
    "Mish",
    "PRelu",
    "RRelu",
    "Relu",
    "Relu6",
    "Selu",
    "Shrink",
    "SiLU",
    "Sigmoid",
    "SoftShrink",
    "Softplus",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
    "ThresholdedRelu",
];

/// The rows of users, by name.
static REGISTERED: RwLock<BTreeMap<String, LayerKind>> = RwLock::new(BTreeMap::new());

/// A row that cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KindError {
    /// The type is one of Burn's or of this library.
    #[error(
        "`{name}` is a layer of Burn or of this library, whose row cannot be changed: give your type \
         another name"
    )]
    OfBurn {
        /// The name.
        name: String,
    },
    /// Another row was registered under the name.
    #[error(
        "`{name}` is registered with another row: types of one name share a row, so give one of them \
         another name"
    )]
    Taken {
        /// The name.
        name: String,
    },
}

impl LayerKind {
    /// A row of the type called `name`, without its path and its parameters: `Conv2d`.
    ///
    /// Its inputs and outputs are those of [`PortChannels::ByRank`].
    pub fn new(name: impl Into<String>, role: LayerRole) -> Self {
        Self {
            name: name.into(),
            role,
            params: Vec::new(),
            channels: PortChannels::ByRank,
            rank: None,
        }
    }

    /// Sets the dimensions of the output and input channels in a parameter of rank 2 or more.
    ///
    /// A vector runs over the output channels. A parameter without a row is taken for
    /// `[out, in, ..]`. A dimension that a parameter does not have holds no channels.
    pub fn with_param(
        mut self,
        name: impl Into<String>,
        output: Option<usize>,
        input: Option<usize>,
    ) -> Self {
        self.params
            .push((name.into(), ChannelDims { output, input }));
        self
    }

    /// Sets where the channels of inputs and outputs are.
    pub fn with_channels(mut self, channels: PortChannels) -> Self {
        self.channels = channels;
        self
    }

    /// Sets the number of dimensions of inputs and outputs, where it is always the same.
    pub fn with_rank(mut self, rank: usize) -> Self {
        self.rank = Some(rank);
        self
    }

    /// Adds the row to the table. Adding it once more changes nothing.
    ///
    /// # Errors
    ///
    /// [`KindError::OfBurn`] for a layer of Burn, and [`KindError::Taken`] where another row has
    /// the name.
    pub fn register(self) -> Result<(), KindError> {
        let name = self.name.clone();
        if of_burn(&name).is_some() {
            return Err(KindError::OfBurn { name });
        }
        let mut rows = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
        match rows.get(&name) {
            Some(known) if *known != self => Err(KindError::Taken { name }),
            _ => {
                rows.insert(name, self);
                Ok(())
            }
        }
    }

    /// The row of the type called `name`.
    ///
    /// For a type without one the name decides: `Conv..` has its channels behind the batch,
    /// `..Norm` is a normalization, `..Pool..` and `..Interpol..` mix positions.
    pub fn of(name: &str) -> Self {
        let registered = || {
            let rows = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
            rows.get(name).cloned()
        };
        let known = of_burn(name).or_else(registered);
        known.unwrap_or_else(|| by_name(name))
    }

    /// Role of the layer.
    pub fn role(&self) -> LayerRole {
        self.role
    }

    /// Channel dimension of inputs and outputs.
    pub fn channels(&self) -> PortChannels {
        self.channels
    }

    /// Number of dimensions of inputs and outputs, where the type fixes it.
    pub fn rank(&self) -> Option<usize> {
        self.rank
    }

    /// Channel dimensions of the parameter `param` with `rank` dimensions.
    pub fn dims(&self, param: &str, rank: usize) -> ChannelDims {
        let (output, input) = match rank {
            0 => (None, None),
            1 => (Some(0), None),
            _ => {
                let row = self.params.iter().find(|(name, _)| name == param);
                let dims = row.map_or(ChannelDims::new(0, 1), |(_, dims)| *dims);
                let there = |dim: &usize| *dim < rank;
                (dims.output.filter(there), dims.input.filter(there))
            }
        };
        ChannelDims { output, input }
    }

    /// The dimension of the channels in an input or output with `rank` dimensions.
    pub fn port_dim(&self, rank: usize) -> usize {
        let last = rank.saturating_sub(1);
        match self.channels {
            PortChannels::Second => last.min(1),
            PortChannels::ByRank if rank >= 4 => 1,
            PortChannels::ByRank | PortChannels::Last => last,
        }
    }
}

/// The row of a layer of Burn.
fn of_burn(name: &str) -> Option<LayerKind> {
    if ACTIVATIONS.contains(&name) {
        return Some(LayerKind::new(name, LayerRole::Activation));
    }
    let row = BUILT_IN.iter().find(|row| row.0 == name)?;
    let &(name, role, weight, channels, rank) = row;
    let params = weight.map(|dims| ("weight".to_string(), dims));
    Some(LayerKind {
        name: name.to_string(),
        role,
        params: params.into_iter().collect(),
        channels,
        rank,
    })
}

/// Row of a type that has none, from its name.
fn by_name(name: &str) -> LayerKind {
    let pool = name.contains("Pool");
    let role = match () {
        () if name.ends_with("Norm") => LayerRole::Norm,
        () if pool || name.contains("Interpol") => LayerRole::Pool,
        () => LayerRole::Other,
    };
    let kind = LayerKind::new(name, role);
    let kind = match name.starts_with("ConvTranspose") {
        true => kind.with_param("weight", Some(1), Some(0)),
        false => kind,
    };
    match name.starts_with("Conv") || pool {
        true => kind.with_channels(PortChannels::Second),
        false => kind,
    }
}

/// Channel dimensions of a parameter, in Burn's layouts.
///
/// | parameter                     | layout                      | output | input |
/// |-------------------------------|-----------------------------|--------|-------|
/// | `Conv1d`/`2d`/`3d` weight     | `[out, in / groups, k, ..]` | 0      | 1     |
/// | `ConvTranspose*` weight       | `[in, out / groups, k, ..]` | 1      | 0     |
/// | `Linear` weight               | `[in, out]`                 | 1      | 0     |
/// | `Embedding` weight            | `[n_embedding, d_model]`    | 1      | none  |
/// | any vector: bias, gamma, beta | `[out]`                     | 0      | none  |
/// | of a type with a row          | as [registered](LayerKind)  |        |       |
/// | anything else, rank 2 and up  | `[out, in, ..]` is assumed  | 0      | 1     |
pub fn channel_dims(kind: &str, param: &str, rank: usize) -> ChannelDims {
    LayerKind::of(kind).dims(param, rank)
}

/// The dimension of the channels in an input or output of a layer: the last one for layers that put
/// features last, `[.., channels]`, otherwise that of images, `[batch, channels, ..]`.
///
/// A layer that leaves both open, an activation function for example, is taken for one of images
/// if its input or output has four dimensions or more.
pub fn port_channel_dim(kind: &str, rank: usize) -> usize {
    LayerKind::of(kind).port_dim(rank)
}
