//! The inputs and outputs of a wrapped layer.

use std::cell::RefCell;
use std::sync::Arc;

use burn::nn::attention::{MhaInput, MhaOutput};
use burn::tensor::{Bool, Int, Tensor};
use indexmap::IndexMap;

use crate::graph::ports as recorder;
use crate::simulate::flat::FlatTensor;
use crate::simulate::folding::{Folding, Part};
use crate::simulate::space::TargetSpace;
use crate::target::Target;

/// Attachment of a wrapper: its path in the model and a state for each simulated input and output.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ports {
    path: Option<Arc<str>>,
    spaces: IndexMap<Target, Arc<TargetSpace>>,
    folding: Option<(Part, Arc<Folding>)>,
}

impl Ports {
    /// Whether a forward pass has nothing to do here.
    pub(crate) fn are_idle(&self) -> bool {
        let empty = self.spaces.is_empty() && self.folding.is_none();
        self.path.is_none() || (empty && !recorder::recording())
    }

    pub(crate) fn set_path(&mut self, path: &str) {
        self.path = Some(path.into());
    }

    pub(crate) fn attach(&mut self, target: Target, space: Arc<TargetSpace>) {
        self.spaces.insert(target, space);
    }

    pub(crate) fn detach_all(&mut self) {
        self.spaces.clear();
        self.folding = None;
    }

    pub(crate) fn set_folding(&mut self, folding: Option<(Part, Arc<Folding>)>) {
        self.folding = folding;
    }

    pub(crate) fn rejoin_folding(&mut self, shared: &[Arc<Folding>]) {
        if let Some((_, folding)) = &mut self.folding
            && let Some(shared) = shared.iter().find(|shared| shared.is_copy_of(folding))
        {
            *folding = shared.clone();
        }
    }

    /// The folding that the layer takes part in, unless it has ended.
    pub(crate) fn folding(&self) -> Option<(Part, &Folding)> {
        let (part, folding) = self.folding.as_ref()?;
        (folding.is_active() && !recorder::recording()).then_some((*part, folding))
    }

    pub(crate) fn spaces(&self) -> impl Iterator<Item = &Arc<TargetSpace>> {
        self.spaces.values()
    }

    pub(crate) fn spaces_mut(&mut self) -> impl Iterator<Item = &mut Arc<TargetSpace>> {
        self.spaces.values_mut()
    }

    pub(crate) fn snapshot(&self) -> Self {
        let spaces = self.spaces.iter();
        Self {
            path: self.path.clone(),
            spaces: spaces
                .map(|(target, space)| (target.clone(), space.snapshot()))
                .collect(),
            folding: self
                .folding
                .as_ref()
                .filter(|(_, folding)| folding.is_active())
                .map(|(part, folding)| (*part, folding.snapshot())),
        }
    }

    pub(crate) fn inputs(&self) -> Port<'_> {
        Port(Passage::Simulate {
            ports: self,
            side: Target::Input,
        })
    }

    pub(crate) fn outputs(&self) -> Port<'_> {
        Port(Passage::Simulate {
            ports: self,
            side: Target::Output,
        })
    }
}

/// One side of a wrapped layer, through which its inputs or outputs pass.
#[derive(Debug)]
pub struct Port<'a>(Passage<'a>);

/// Treatment of a tensor that passes.
#[derive(Debug)]
enum Passage<'a> {
    /// Simulated, or recorded while a forward pass is captured.
    Simulate {
        ports: &'a Ports,
        side: fn(usize) -> Target,
    },
    /// The first one is kept and goes on, with its gradient or without.
    Keep {
        kept: &'a RefCell<Option<FlatTensor>>,
        tracked: bool,
    },
    /// The first one is replaced.
    Replace(&'a RefCell<Option<FlatTensor>>),
}

impl<'a> Port<'a> {
    pub(crate) fn keep(kept: &'a RefCell<Option<FlatTensor>>, tracked: bool) -> Self {
        Self(Passage::Keep { kept, tracked })
    }

    pub(crate) fn replace(by: &'a RefCell<Option<FlatTensor>>) -> Self {
        Self(Passage::Replace(by))
    }

    /// Passes the tensor with position `index` and returns it simulated.
    pub fn tensor<const D: usize>(&self, index: usize, value: Tensor<D>) -> Tensor<D> {
        let (ports, side) = match &self.0 {
            Passage::Simulate { ports, side } => (ports, side),
            Passage::Keep { kept, tracked } => {
                if index == 0 {
                    kept.replace(Some(FlatTensor::new(value.clone())));
                }
                return match tracked {
                    true => value,
                    false => value.detach(),
                };
            }
            Passage::Replace(by) if index == 0 => {
                let dims = value.dims();
                let by = by.take();
                return by.map_or(value, |by| by.values.reshape(dims));
            }
            Passage::Replace(_) => return value,
        };
        let target = side(index);
        if let (Some(path), true) = (&ports.path, recorder::recording()) {
            if let Some(id) = recorder::tensor_id(&value) {
                recorder::record_port(path, &target, id);
            }
            return value;
        }
        let is_on_this_side = |space: &&Arc<TargetSpace>| match space.id().target {
            Target::Input(at) | Target::Output(at) => side(at) == space.id().target,
            Target::Param(_) => false,
        };
        let on_this_side = ports.spaces.values().filter(is_on_this_side);
        on_this_side.for_each(|space| space.note_position(index));
        match ports.spaces.get(&target) {
            Some(space) => space.simulate_activation(value),
            None => value,
        }
    }
}

/// Inputs and outputs of a wrapped layer.
///
/// Implemented for float tensors (position 0), tuples of tensors (their order) and the types of
/// Burn's attention. Implement it for a type of your own by passing each of its float tensors:
///
/// ```
/// use burn::tensor::Tensor;
/// use burn_compress_core::{Activation, Port};
///
/// struct Features {
///     image: Tensor<4>,
///     text: Tensor<3>,
/// }
///
/// impl Activation for Features {
///     fn pass(self, port: &Port<'_>) -> Self {
///         Self { image: port.tensor(0, self.image), text: port.tensor(1, self.text) }
///     }
/// }
/// ```
pub trait Activation {
    /// Passes each float tensor through the port, by position.
    fn pass(self, port: &Port<'_>) -> Self;
}

impl<const D: usize> Activation for Tensor<D> {
    fn pass(self, port: &Port<'_>) -> Self {
        port.tensor(0, self)
    }
}

/// The tensors in their order.
impl<const D: usize> Activation for Vec<Tensor<D>> {
    fn pass(self, port: &Port<'_>) -> Self {
        let tensors = self.into_iter().enumerate();
        tensors
            .map(|(index, tensor)| port.tensor(index, tensor))
            .collect()
    }
}

/// Integers are never simulated.
impl<const D: usize> Activation for Tensor<D, Int> {
    fn pass(self, _port: &Port<'_>) -> Self {
        self
    }
}

/// Booleans are never simulated.
impl<const D: usize> Activation for Tensor<D, Bool> {
    fn pass(self, _port: &Port<'_>) -> Self {
        self
    }
}

impl<const D1: usize, const D2: usize> Activation for (Tensor<D1>, Tensor<D2>) {
    fn pass(self, port: &Port<'_>) -> Self {
        (port.tensor(0, self.0), port.tensor(1, self.1))
    }
}

impl<const D1: usize, const D2: usize, const D3: usize> Activation
    for (Tensor<D1>, Tensor<D2>, Tensor<D3>)
{
    fn pass(self, port: &Port<'_>) -> Self {
        (
            port.tensor(0, self.0),
            port.tensor(1, self.1),
            port.tensor(2, self.2),
        )
    }
}

/// Burn keeps the fields of this type to itself, so its tensors cannot be simulated; call the
/// wrapped attention with [`AttentionInput`](crate::AttentionInput) instead.
impl Activation for MhaInput {
    fn pass(self, _port: &Port<'_>) -> Self {
        self
    }
}

/// The context is output 0, the attention weights are output 1.
impl Activation for MhaOutput {
    fn pass(self, port: &Port<'_>) -> Self {
        Self {
            context: port.tensor(0, self.context),
            weights: port.tensor(1, self.weights),
        }
    }
}
