//! The wrapper around a layer.

mod attention;
mod functional;
mod layers;
mod norm_bias;
mod norms;
pub(crate) mod port;
mod recurrent;

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use burn::module::{
    Content, DisplaySettings, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor, Param,
};
use burn::tensor::Tensor;

pub use attention::AttentionInput;
pub use functional::{Add, Concat};
pub(crate) use port::Ports;
pub use port::{Activation, Port};

use crate::layer::announce_wrapper;
use crate::module::moves_with;
use crate::simulate::flat::FlatTensor;
use crate::simulate::folding::{self, Call, Folding, Host, Part};
use crate::simulate::once;
use crate::simulate::reading::{self, Norm};
use crate::simulate::simulation::Simulation;
use crate::simulate::walk;

/// A layer that can stand in a [`Wrapper`].
///
/// Implemented for the layers of `burn::nn`. A layer of your own takes part with these few lines:
///
/// ```
/// use burn::module::Module;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::{Layer, Wrapper};
///
/// #[derive(Module, Debug)]
/// struct Square;
///
/// impl<const D: usize> Layer<Tensor<D>> for Square {
///     type Output = Tensor<D>;
///
///     fn forward(&self, input: Tensor<D>) -> Tensor<D> {
///         input.clone() * input
///     }
/// }
///
/// let square = Wrapper::new(Square);
/// let output = square.forward(Tensor::<1>::from_floats([3.0], &Device::flex()));
/// assert_eq!(output.into_scalar::<f32>(), 9.0);
/// ```
pub trait Layer<I>: Module {
    /// Output of the layer.
    type Output;

    /// Runs the layer.
    fn forward(&self, input: I) -> Self::Output;

    /// Runs the layer as the model without its masked channels would, whose outputs are zero here.
    ///
    /// This is what a [`Wrapper`] calls. It is the layer's own forward pass unless masked channels
    /// take part in the outputs of others, as in a mean over channels.
    fn simulate(&self, input: I) -> Self::Output {
        self.forward(input)
    }

    /// The layer as one that a norm can be folded into, if it is such a layer.
    fn host(&self) -> Option<Box<dyn Host>> {
        None
    }

    /// Parameters and statistics of the layer, if it is a batch norm.
    fn norm(&self) -> Option<Norm> {
        None
    }

    /// Whether the layer, if it is a batch norm, takes the statistics of the batch while it trains.
    /// A frozen one does not.
    fn takes_batch_statistics(&self) -> bool {
        false
    }
}

/// Stands around a layer and executes the simulated logic of its inputs and outputs in its place.
///
/// Change the type of a field from `Conv2d` to `Wrapper<Conv2d>` and its value with
/// [`Wrapper::new`] or `.into()`; nothing else changes. The wrapper is transparent: the paths of
/// its parameters, its records and its display are those of the layer, so plain checkpoints load
/// both ways. While nothing is attached, `forward` is the layer's own. Parameters are simulated
/// without a wrapper.
///
/// Some layers need a wrapper for their channels to be removed at all:
///
/// | layers                                     | what the wrapper does                               |
/// |--------------------------------------------|-----------------------------------------------------|
/// | depthwise convolutions                     | `groups` follows the channels                       |
/// | `LayerNorm`, `RmsNorm`, `GroupNorm`        | statistics over the channels whose `gamma` and `beta` are not masked; `num_channels` follows |
/// | `InstanceNorm`                             | `num_channels` follows                              |
/// | `Lstm`, `Gru`, `BiLstm`, `BiGru`           | a hidden unit is one through all gates; `d_hidden` follows |
/// | `MultiHeadAttention`                       | `n_heads` and the features of a head follow, if it is called with an [`AttentionInput`] |
///
/// Of a `GroupNorm` as many channels are removed from each group; with `"granularity": "head"` in a
/// pruning rule whole groups go, and `num_groups` follows. Recurrent layers take a sequence, or
/// a tuple `(sequence, initial_state)`.
///
/// Operations of a forward pass have targets as the layers [`Add`] and [`Concat`], a mean over
/// positions as Burn's `AdaptiveAvgPool2d`, any tensor as its `Identity`.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::conv::{Conv2d, Conv2dConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::Wrapper;
///
/// #[derive(Module, Debug)]
/// struct Net {
///     conv: Wrapper<Conv2d>,
/// }
///
/// let device = Device::flex();
/// let net = Net { conv: Conv2dConfig::new([1, 4], [3, 3]).init(&device).into() };
/// assert_eq!(net.conv.forward(Tensor::ones([1, 1, 8, 8], &device)).dims(), [1, 4, 6, 6]);
/// assert_eq!(net.conv.weight.dims(), [4, 1, 3, 3]);
/// ```
#[derive(Clone)]
pub struct Wrapper<L> {
    layer: L,
    ports: Ports,
}

impl<L> Wrapper<L> {
    /// Wraps a layer.
    pub fn new(layer: L) -> Self {
        Self {
            layer,
            ports: Ports::default(),
        }
    }

    /// Gives the layer back.
    pub fn into_inner(self) -> L {
        self.layer
    }

    /// Runs the layer with its simulated inputs and simulates its outputs.
    ///
    /// # Shapes
    ///
    /// Those of the layer.
    pub fn forward<I>(&self, input: I) -> L::Output
    where
        L: Layer<I>,
        I: Activation,
        L::Output: Activation,
    {
        if self.ports.are_idle() {
            return self.layer.simulate(input);
        }
        let input = input.pass(&self.ports.inputs());
        let output = match self.ports.folding() {
            None => once::scope(|| self.layer.simulate(input)),
            Some((Part::Host, folding)) => self.forward_host(folding, input),
            Some((Part::Norm, folding)) => self.forward_norm(folding, input),
        };
        output.pass(&self.ports.outputs())
    }

    /// Leaves the input for the norm and returns what its running statistics are made of.
    fn forward_host<I>(&self, folding: &Folding, input: I) -> L::Output
    where
        L: Layer<I>,
        I: Activation,
        L::Output: Activation,
    {
        let kept = RefCell::new(None);
        let tracked = folding.trains();
        let input = input.pass(&Port::keep(&kept, tracked));
        let output = reading::raw(tracked, || self.layer.forward(input));
        if let (Some(host), Some(input)) = (Layer::<I>::host(&self.layer), kept.take()) {
            folding.leave(host, input);
        }
        output
    }

    /// Shows the input to the norm and returns the output of the folded host.
    fn forward_norm<I>(&self, folding: &Folding, input: I) -> L::Output
    where
        L: Layer<I>,
        I: Activation,
        L::Output: Activation,
    {
        let Some(call) = folding.take() else {
            return self.layer.forward(input);
        };
        let raw = RefCell::new(None);
        let output = self.layer.forward(input.pass(&Port::keep(&raw, false)));
        // Asked only now that the running statistics have moved.
        let folded = Layer::<I>::norm(&self.layer).map(|norm| {
            let folded = run_folded(folding, &call, norm.clone());
            let is_batch = folding.trains() && Layer::<I>::takes_batch_statistics(&self.layer);
            match raw.take() {
                Some(raw) if is_batch => folding::of_the_batch(folded, raw, &norm),
                _ => folded,
            }
        });
        output.pass(&Port::replace(&RefCell::new(folded)))
    }
}

impl<L> From<L> for Wrapper<L> {
    fn from(layer: L) -> Self {
        Self::new(layer)
    }
}

impl<L> Deref for Wrapper<L> {
    type Target = L;

    fn deref(&self) -> &L {
        &self.layer
    }
}

impl<L> DerefMut for Wrapper<L> {
    fn deref_mut(&mut self) -> &mut L {
        &mut self.layer
    }
}

impl<L: fmt::Debug> fmt::Debug for Wrapper<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.layer.fmt(f)
    }
}

impl<L: Module + 'static> Module for Wrapper<L> {
    moves_with!(layer);

    fn train(self) -> Self {
        Self {
            layer: self.layer.train(),
            ports: self.ports,
        }
    }

    fn valid(&self) -> Self {
        Self {
            layer: self.layer.valid(),
            ports: self.ports.snapshot(),
        }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        announce_wrapper::<L>();
        walk::report_wrapper(&self.ports);
        self.layer.visit(visitor);
    }

    fn map<T: ModuleMapper>(mut self, mapper: &mut T) -> Self {
        walk::offer_wrapper(&mut self.ports, &mut self.layer);
        Self {
            layer: self.layer.map(mapper),
            ports: self.ports,
        }
    }
}

impl<L: ModuleDisplayDefault> ModuleDisplayDefault for Wrapper<L> {
    fn content(&self, content: Content) -> Option<Content> {
        self.layer.content(content)
    }

    fn num_params(&self) -> usize {
        self.layer.num_params()
    }
}

impl<L: ModuleDisplay> ModuleDisplay for Wrapper<L> {
    fn format(&self, settings: DisplaySettings) -> String {
        self.layer.format(settings)
    }

    fn custom_settings(&self) -> Option<DisplaySettings> {
        self.layer.custom_settings()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        self.layer.custom_content(content)
    }
}

impl<L: ModuleDisplay> fmt::Display for Wrapper<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.layer.format(DisplaySettings::default()))
    }
}

/// Runs a host with its parameters folded and then simulated.
fn run_folded(folding: &Folding, call: &Call, norm: Norm) -> FlatTensor {
    let own = call.host.bias();
    let is_simulated = |bias: &Param<Tensor<1>>| bias.reparameterization::<Simulation>().is_some();
    let simulated = own.is_some_and(is_simulated);
    let bias = own.map(Param::base);
    let norm = Arc::new(norm);
    let _scope = reading::folded(folding.fold().clone(), norm.clone());
    let bias = match (own, simulated) {
        (Some(own), true) => own.val(),
        _ => folding.fold().bias(bias, &norm),
    };
    call.host.forward(call.input.clone(), bias)
}
