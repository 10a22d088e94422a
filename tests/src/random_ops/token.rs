//! Blocks over sequences.

use burn::module::Module;
use burn::nn::{
    BiGru, BiGruConfig, BiLstm, BiLstmConfig, Gru, GruConfig, LayerNorm, LayerNormConfig, Linear,
    LinearConfig, Lstm, LstmConfig, RmsNorm, RmsNormConfig,
};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use burn_compress::Wrapper;

use super::{Cell, GateSpec, Heads, TokenNorm, TokenSpec};
use crate::random_net::{Act, activate};

/// A block over a sequence.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // Networks are a few blocks.
pub enum TokenBlock {
    /// Attention.
    Attention(Attention),
    /// Two linear layers.
    Mlp(Mlp),
    /// A recurrent layer.
    Recurrent(Recurrent),
    /// A layer that is used twice.
    Shared(Shared),
    /// Features that are laid out several times.
    Repeat(Repeat),
}

/// What is in front of a block.
#[derive(Module, Debug)]
pub enum Front {
    /// A layer norm.
    Layer(Wrapper<LayerNorm>),
    /// A root mean square norm.
    Rms(Wrapper<RmsNorm>),
}

/// Softmax attention of one's own.
#[derive(Module, Debug)]
pub struct Attention {
    norm: Option<Front>,
    query: Wrapper<Linear>,
    key: Option<Wrapper<Linear>>,
    value: Option<Wrapper<Linear>>,
    out: Wrapper<Linear>,
    #[module(skip)]
    layout: Layout,
}

#[derive(Clone, Copy, Debug)]
struct Layout {
    heads: Heads,
    key_heads: usize,
    queries: usize,
    size: usize,
    rotary: bool,
    residual: bool,
}

/// Two linear layers, gated or not.
#[derive(Module, Debug)]
pub struct Mlp {
    norm: Option<Front>,
    first: Wrapper<Linear>,
    gate: Option<Wrapper<Linear>>,
    act: Option<Act>,
    second: Wrapper<Linear>,
    #[module(skip)]
    halves: bool,
    #[module(skip)]
    residual: bool,
}

/// A recurrent layer.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // Networks are a few blocks.
pub enum Recurrent {
    /// Long short-term memory.
    Lstm(Wrapper<Lstm>),
    /// Gated recurrent unit.
    Gru(Wrapper<Gru>),
    /// Long short-term memory in both directions.
    BiLstm(Wrapper<BiLstm>),
    /// Gated recurrent unit in both directions.
    BiGru(Wrapper<BiGru>),
}

/// A linear layer that is used twice.
#[derive(Module, Debug)]
pub struct Shared {
    layer: Wrapper<Linear>,
    act: Option<Act>,
}

/// Features that are laid out several times.
#[derive(Module, Debug)]
pub struct Repeat {
    layer: Wrapper<Linear>,
    #[module(skip)]
    times: usize,
}

impl Front {
    fn new(norm: TokenNorm, width: usize, device: &Device) -> Option<Self> {
        match norm {
            TokenNorm::None => None,
            TokenNorm::Layer => Some(Self::Layer(LayerNormConfig::new(width).init(device).into())),
            TokenNorm::Rms => Some(Self::Rms(RmsNormConfig::new(width).init(device).into())),
        }
    }
}

fn front(norm: &Option<Front>, x: Tensor<3>) -> Tensor<3> {
    match norm {
        None => x,
        Some(Front::Layer(norm)) => norm.forward(x),
        Some(Front::Rms(norm)) => norm.forward(x),
    }
}

impl TokenBlock {
    /// The block for `width` features, with what comes out of it.
    pub(super) fn new(spec: TokenSpec, width: usize, device: &Device) -> (Self, usize) {
        let linear =
            |from: usize, to: usize| Wrapper::new(LinearConfig::new(from, to).init(device));
        match spec {
            TokenSpec::Attention {
                heads,
                key_heads,
                queries,
                size,
                fused,
                rotary,
                norm,
                residual,
            } => {
                // A fused layer has as many heads of each; rotation needs pairs and whole heads.
                let queries = if fused { 1 } else { queries };
                let rotary = rotary && heads == Heads::BySize && size.is_multiple_of(2);
                let keys = key_heads * size;
                let all = keys * queries;
                let block = Attention {
                    norm: Front::new(norm, width, device),
                    query: linear(width, if fused { 3 * all } else { all }),
                    key: (!fused).then(|| linear(width, keys)),
                    value: (!fused).then(|| linear(width, keys)),
                    out: linear(all, width),
                    layout: Layout {
                        heads,
                        key_heads,
                        queries,
                        size,
                        rotary,
                        residual,
                    },
                };
                (Self::Attention(block), width)
            }
            TokenSpec::Mlp {
                hidden,
                act,
                gate,
                norm,
                residual,
            } => {
                let halves = gate == GateSpec::Halves;
                let block = Mlp {
                    norm: Front::new(norm, width, device),
                    first: linear(width, if halves { 2 * hidden } else { hidden }),
                    gate: (gate == GateSpec::Layer).then(|| linear(width, hidden)),
                    act: Act::new(act),
                    second: linear(hidden, width),
                    halves,
                    residual,
                };
                (Self::Mlp(block), width)
            }
            TokenSpec::Recurrent { cell, hidden } => {
                let (block, width) = match cell {
                    Cell::Lstm => {
                        let layer = LstmConfig::new(width, hidden, true).init(device);
                        (Recurrent::Lstm(layer.into()), hidden)
                    }
                    Cell::Gru => {
                        let layer = GruConfig::new(width, hidden, true).init(device);
                        (Recurrent::Gru(layer.into()), hidden)
                    }
                    Cell::BiLstm => {
                        let layer = BiLstmConfig::new(width, hidden, true).init(device);
                        (Recurrent::BiLstm(layer.into()), 2 * hidden)
                    }
                    Cell::BiGru => {
                        let layer = BiGruConfig::new(width, hidden, true).init(device);
                        (Recurrent::BiGru(layer.into()), 2 * hidden)
                    }
                };
                (Self::Recurrent(block), width)
            }
            TokenSpec::Shared { act } => {
                let block = Shared {
                    layer: linear(width, width),
                    act: Act::new(act),
                };
                (Self::Shared(block), width)
            }
            TokenSpec::Repeat { times, width: to } => {
                let block = Repeat {
                    layer: linear(width * times, to),
                    times,
                };
                (Self::Repeat(block), to)
            }
        }
    }

    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Attention(block) => block.forward(x),
            Self::Mlp(block) => block.forward(x),
            Self::Recurrent(Recurrent::Lstm(layer)) => layer.forward(x).0,
            Self::Recurrent(Recurrent::Gru(layer)) => layer.forward(x),
            Self::Recurrent(Recurrent::BiLstm(layer)) => layer.forward(x).0,
            Self::Recurrent(Recurrent::BiGru(layer)) => layer.forward(x).0,
            Self::Shared(block) => {
                let once = activate(&block.act, block.layer.forward(x));
                activate(&block.act, block.layer.forward(once))
            }
            Self::Repeat(block) => block.layer.forward(x.repeat_dim(2, block.times)),
        }
    }
}

impl Attention {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let layout = self.layout;
        let input = front(&self.norm, x.clone());
        let [query, key, value] = match (&self.key, &self.value) {
            (Some(key), Some(value)) => {
                let input = || input.clone();
                [
                    self.query.forward(input()),
                    key.forward(input()),
                    value.forward(input()),
                ]
            }
            _ => {
                let parts = self.query.forward(input).chunk(3, 2);
                [0, 1, 2].map(|part| parts[part].clone())
            }
        };
        let query = self.heads(query, layout.key_heads * layout.queries);
        let key = self.repeated(self.heads(key, layout.key_heads));
        let value = self.repeated(self.heads(value, layout.key_heads));
        let (query, key) = match layout.rotary {
            true => (rotated(query), rotated(key)),
            false => (query, key),
        };
        let scale = (layout.size as f64).sqrt();
        let weights = softmax(query.matmul(key.swap_dims(2, 3)) / scale, 3);
        let mixed = weights.matmul(value).swap_dims(1, 2);
        let [batch, places, heads, size] = mixed.dims();
        let out = self
            .out
            .forward(mixed.reshape([batch, places, heads * size]));
        match layout.residual {
            true => out + x,
            false => out,
        }
    }

    /// `[batch, heads, places, size]`
    fn heads(&self, x: Tensor<3>, count: usize) -> Tensor<4> {
        let [batch, places, width] = x.dims();
        let shape = match self.layout.heads {
            Heads::BySize => [batch, places, width / self.layout.size, self.layout.size],
            Heads::ByCount => [batch, places, count, width / count],
        };
        x.reshape(shape).swap_dims(1, 2)
    }

    /// Each head of the keys for all of its queries.
    fn repeated(&self, x: Tensor<4>) -> Tensor<4> {
        let queries = self.layout.queries;
        if queries == 1 {
            return x;
        }
        let [batch, heads, places, size] = x.dims();
        x.unsqueeze_dim::<5>(2)
            .expand([batch, heads, queries, places, size])
            .reshape([batch, heads * queries, places, size])
    }
}

/// Pairs of features turned by an angle that grows with their place.
fn rotated(x: Tensor<4>) -> Tensor<4> {
    let [.., places, size] = x.dims();
    let half = size / 2;
    let angles: Vec<f32> = (0..places * size)
        .map(|i| (i / size) as f32 / 10f32.powf((i % half) as f32 / half as f32))
        .collect();
    // In the precision of the features, so that the network computes in double precision as well.
    let angles = Tensor::<1>::from_floats(&angles[..], &x.device()).cast(x.dtype());
    let angles = angles.reshape([1, 1, places, size]);
    let (left, right) = (
        x.clone().narrow(3, 0, half),
        x.clone().narrow(3, half, half),
    );
    let turned = Tensor::cat(vec![-right, left], 3);
    x * angles.clone().cos() + turned * angles.sin()
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let input = front(&self.norm, x.clone());
        let hidden = self.first.forward(input.clone());
        let hidden = match (&self.gate, self.halves) {
            (Some(gate), _) => activate(&self.act, hidden) * gate.forward(input),
            (None, true) => {
                let halves = hidden.chunk(2, 2);
                activate(&self.act, halves[0].clone()) * halves[1].clone()
            }
            (None, false) => activate(&self.act, hidden),
        };
        let out = self.second.forward(hidden);
        match self.residual {
            true => out + x,
            false => out,
        }
    }
}
