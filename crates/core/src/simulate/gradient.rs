//! Gradients that are no derivatives.
//!
//! Burn's tensors differentiate what they compute. A straight-through estimator, or a gradient that
//! is rounded, is no derivative of anything: it needs a step of its own in the backward pass. That
//! step is specific to a backend, so there is one for each backend that a feature of this crate
//! names. It also spares what a formula of tensors would keep for the backward pass and compute in
//! it: [`replace`] keeps what its rule holds, and nothing else.

// What cannot be done here comes back as it is, for the next that may.
#![allow(clippy::result_large_err)]

mod learned;

use std::fmt;
use std::sync::Arc;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{
    BalancedCheckpointing, CheckpointStrategy, NoCheckpointing,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{
    Autodiff, Backend, DispatchAutodiffContext, DispatchKindConversion, DispatchTensor,
    DispatchTensorKind, GradientCheckpointingStrategy,
};
use burn::tensor::{Device, Tensor};

pub(crate) use learned::{LearnedRule, replace_learned};

/// From the gradient of an output to that of its input; both have the shape of the output, on a
/// device without automatic differentiation.
#[derive(Clone)]
pub struct GradientRule<const D: usize>(Change<D>);

/// The rule itself; none is the identity.
type Change<const D: usize> = Option<Arc<dyn Fn(Tensor<D>) -> Tensor<D> + Send + Sync>>;

impl<const D: usize> GradientRule<D> {
    /// The gradient passes as it is.
    pub fn identity() -> Self {
        Self(None)
    }

    /// The gradient of the input is what `rule` makes of that of the output.
    pub fn new(rule: impl Fn(Tensor<D>) -> Tensor<D> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(rule)))
    }
}

impl<const D: usize> fmt::Debug for GradientRule<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_identity = self.0.is_none();
        f.debug_struct("GradientRule")
            .field("is_identity", &is_identity)
            .finish()
    }
}

/// The value of an operation and the rule of its gradient.
type Forward<'a, const D: usize> = Box<dyn FnOnce(Tensor<D>) -> (Tensor<D>, GradientRule<D>) + 'a>;

/// Whether gradients can be replaced on a device.
pub fn is_supported(device: &Device) -> bool {
    let probe = Tensor::<1>::zeros([1], &device.clone().without_autodiff());
    has_step(&probe.into_dispatch().kind)
}

/// `forward(value)`, whose gradient with respect to `value` is that of the rule beside it.
///
/// `forward` computes without automatic differentiation and may change the memory of its argument,
/// where nothing else needs it.
///
/// # Errors
///
/// `value` itself, on a backend without such a step, see [`is_supported`].
///
/// # Example
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::gradient::{self, GradientRule};
///
/// let x = Tensor::<1>::from_floats([0.4, 1.6], &Device::flex().autodiff()).require_grad();
/// let pass = |x: Tensor<1>| (x.round(), GradientRule::identity());
/// let y = gradient::replace(x.clone(), pass).unwrap();
/// assert_eq!(y.to_data().try_to_vec::<f32>().unwrap(), [0.0, 2.0]);
/// let gradients = (y * 3.0).sum().backward();
/// let gradient = x.grad(&gradients).unwrap().into_data();
/// assert_eq!(gradient.try_to_vec::<f32>().unwrap(), [3.0, 3.0]);
/// ```
pub fn replace<const D: usize>(
    value: Tensor<D>,
    forward: impl FnOnce(Tensor<D>) -> (Tensor<D>, GradientRule<D>),
) -> Result<Tensor<D>, Tensor<D>> {
    if !value.is_autodiff() {
        return Ok(forward(value).0);
    }
    match context(&value) {
        Some((backend, strategy)) => Ok(tracked(backend, strategy, value, Box::new(forward))),
        None => Err(value),
    }
}

/// Backend and strategy of a tensor on a device with automatic differentiation, where it has a step.
fn context<const D: usize>(
    tensor: &Tensor<D>,
) -> Option<(Stepping, GradientCheckpointingStrategy)> {
    if !tensor.is_autodiff() {
        return None;
    }
    let dispatch = tensor.clone().into_dispatch();
    let DispatchTensorKind::Autodiff(kind) = &dispatch.kind else {
        return None;
    };
    match dispatch.autodiff {
        DispatchAutodiffContext::Enabled(strategy) if has_step(kind) => Some((of(kind), strategy)),
        _ => None,
    }
}

/// The node of a tensor in the graph of its device with automatic differentiation, on a backend that
/// [is supported](is_supported).
pub(crate) fn node<const D: usize>(tensor: &Tensor<D>) -> Option<NodeId> {
    let (backend, strategy) = context(tensor)?;
    let tensor = tensor.clone();
    #[cfg_attr(feature = "tch", allow(deprecated))]
    match backend {
        #[cfg(feature = "flex")]
        Stepping::Flex => node_of::<burn::backend::Flex, D>(strategy, tensor),
        #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
        Stepping::Cube => node_of::<burn::backend::Cube, D>(strategy, tensor),
        #[cfg(feature = "tch")]
        Stepping::LibTorch => node_of::<burn::backend::LibTorch, D>(strategy, tensor),
        _ => None,
    }
}

#[allow(dead_code)] // Without any backend nothing calls it.
fn node_of<B: Backend, const D: usize>(
    strategy: GradientCheckpointingStrategy,
    tensor: Tensor<D>,
) -> Option<NodeId>
where
    DispatchTensor: DispatchKindConversion<Autodiff<B, NoCheckpointing>>
        + DispatchKindConversion<Autodiff<B, BalancedCheckpointing>>,
{
    match strategy {
        GradientCheckpointingStrategy::Disabled => {
            let primitive = tensor.try_into_primitive::<Autodiff<B, NoCheckpointing>>();
            primitive.ok().map(|tensor| tensor.id())
        }
        GradientCheckpointingStrategy::Balanced => {
            let primitive = tensor.try_into_primitive::<Autodiff<B, BalancedCheckpointing>>();
            primitive.ok().map(|tensor| tensor.id())
        }
    }
}

/// A backend with a step of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code)] // Which are made depends on the features.
enum Stepping {
    Flex,
    Cube,
    LibTorch,
    None,
}

fn has_step(kind: &DispatchTensorKind) -> bool {
    of(kind) != Stepping::None
}

#[cfg_attr(feature = "tch", allow(deprecated))] // Burn is about to drop the backend.
fn of(kind: &DispatchTensorKind) -> Stepping {
    match kind {
        #[cfg(feature = "flex")]
        DispatchTensorKind::Flex(_) => Stepping::Flex,
        #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
        DispatchTensorKind::Cube(_) => Stepping::Cube,
        #[cfg(feature = "tch")]
        DispatchTensorKind::LibTorch(_) => Stepping::LibTorch,
        _ => Stepping::None,
    }
}

#[cfg_attr(feature = "tch", allow(deprecated))]
fn tracked<const D: usize>(
    backend: Stepping,
    strategy: GradientCheckpointingStrategy,
    value: Tensor<D>,
    forward: Forward<'_, D>,
) -> Tensor<D> {
    match backend {
        #[cfg(feature = "flex")]
        Stepping::Flex => stepped::<burn::backend::Flex, D>(strategy, value, forward),
        #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
        Stepping::Cube => stepped::<burn::backend::Cube, D>(strategy, value, forward),
        #[cfg(feature = "tch")]
        Stepping::LibTorch => stepped::<burn::backend::LibTorch, D>(strategy, value, forward),
        _ => value,
    }
}

#[allow(dead_code)] // Without any backend nothing calls it.
fn stepped<B: Backend, const D: usize>(
    strategy: GradientCheckpointingStrategy,
    value: Tensor<D>,
    forward: Forward<'_, D>,
) -> Tensor<D>
where
    DispatchTensor: DispatchKindConversion<B>
        + DispatchKindConversion<Autodiff<B, NoCheckpointing>>
        + DispatchKindConversion<Autodiff<B, BalancedCheckpointing>>,
{
    match strategy {
        GradientCheckpointingStrategy::Disabled => step::<B, NoCheckpointing, D>(value, forward),
        GradientCheckpointingStrategy::Balanced => {
            step::<B, BalancedCheckpointing, D>(value, forward)
        }
    }
}

fn step<B: Backend, C: CheckpointStrategy, const D: usize>(
    value: Tensor<D>,
    forward: Forward<'_, D>,
) -> Tensor<D>
where
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B, C>>,
{
    let shared = value.clone();
    let Ok(primitive) = shared.try_into_primitive::<Autodiff<B, C>>() else {
        return value;
    };
    drop(value);
    let (plain, node) = primitive.into_parts();
    let (output, rule) = forward(Tensor::from_primitive::<B>(plain));
    let output = of_backend::<B, D>(output);
    let prepared = Replaced::<D>
        .prepare::<C>([node])
        .compute_bound()
        .stateful();
    Tensor::from_primitive::<Autodiff<B, C>>(match prepared {
        OpsKind::Tracked(prepared) => prepared.finish(rule, output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    })
}

fn of_backend<B: Backend, const D: usize>(tensor: Tensor<D>) -> B::FloatTensorPrimitive
where
    DispatchTensor: DispatchKindConversion<B>,
{
    let primitive = tensor.try_into_primitive::<B>();
    primitive.expect("an operation and its gradient stay on the device of their argument")
}

/// An operation whose gradient is that of a rule.
#[derive(Debug)]
struct Replaced<const D: usize>;

impl<B: Backend, const D: usize> Backward<B, 1> for Replaced<D>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    type State = GradientRule<D>;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [Some(parent)] = ops.parents else {
            return;
        };
        let gradient = match ops.state.0 {
            Some(rule) => of_backend::<B, D>(rule(Tensor::from_primitive::<B>(gradient))),
            None => gradient,
        };
        gradients.register::<B>(parent.id, gradient);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(tensor: Tensor<1>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    fn negated(value: Tensor<1>) -> Tensor<1> {
        let negate = |value: Tensor<1>| (value, GradientRule::new(Tensor::neg));
        replace(value, negate).unwrap()
    }

    /// `sum(3 negated(2 x) + x)`: the gradient is `2 (-3) + 1`.
    fn gradient(device: &Device) -> Vec<f32> {
        let x = Tensor::<1>::from_floats([1.0, -2.0], device).require_grad();
        let y = negated(x.clone() * 2.0);
        assert_eq!(floats(y.clone()), [2.0, -4.0]);
        let gradients = (y * 3.0 + x.clone()).sum().backward();
        floats(x.grad(&gradients).unwrap())
    }

    #[test]
    fn only_the_gradient_changes() {
        let device = Device::flex();
        assert_eq!(gradient(&device.clone().autodiff()), [-5.0, -5.0]);
    }

    #[test]
    fn gradients_of_checkpointed_passes_change_as_well() {
        let device = Device::flex().autodiff().gradient_checkpointing();
        assert_eq!(gradient(&device), [-5.0, -5.0]);
    }

    #[test]
    fn values_without_gradients_stay_as_they_are() {
        let device = Device::flex();
        assert_eq!(floats(negated(Tensor::from_floats([1.5], &device))), [1.5]);
        let x = Tensor::<1>::from_floats([1.5], &device.autodiff());
        let untracked = negated(x);
        assert!(!untracked.is_require_grad());
        assert_eq!(floats(untracked), [1.5]);
    }

    #[test]
    fn an_argument_that_others_hold_keeps_its_values() {
        let device = Device::flex().autodiff();
        let x = Tensor::<1>::from_floats([1.0, 2.0], &device).require_grad();
        let doubled = replace(x.clone(), |x| (x * 2.0, GradientRule::identity())).unwrap();
        assert_eq!(floats(doubled), [2.0, 4.0]);
        assert_eq!(floats(x), [1.0, 2.0]);
    }

    #[test]
    fn a_device_tells_whether_it_is_supported() {
        assert!(is_supported(&Device::flex()));
        assert!(is_supported(&Device::flex().autodiff()));
    }
}
