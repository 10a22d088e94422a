//! Gradients of a value and of what it is computed with.

use std::fmt;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{
    BalancedCheckpointing, CheckpointStrategy, NoCheckpointing,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{
    Autodiff, AutodiffBackend, Backend, BackendTypes, DispatchKindConversion, DispatchTensor,
    GradientCheckpointingStrategy,
};
use burn::tensor::Tensor;

use super::{Stepping, context, of_backend};

/// From the gradient of an output, `[elements]`, to those of a value of as many elements and of two
/// parameters.
pub(crate) type LearnedRule = Arc<dyn Fn(Tensor<1>) -> (Tensor<1>, [Tensor<1>; 2]) + Send + Sync>;

/// The rule as the state of a step.
#[derive(Clone)]
struct State(LearnedRule);

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LearnedRule")
    }
}

/// The value of an operation and the rule of its gradients.
type Forward<'a> = Box<dyn FnOnce(Tensor<1>, [Tensor<1>; 2]) -> (Tensor<1>, LearnedRule) + 'a>;

/// `forward(value, parameters)`, whose gradients are those of the rule beside it; none flows to what
/// is no part of a graph.
///
/// # Errors
///
/// Value and parameters, where none is on a device with automatic differentiation and on a backend
/// without such a step.
pub(crate) fn replace_learned(
    value: Tensor<1>,
    parameters: [Tensor<1>; 2],
    forward: impl FnOnce(Tensor<1>, [Tensor<1>; 2]) -> (Tensor<1>, LearnedRule),
) -> Result<Tensor<1>, (Tensor<1>, [Tensor<1>; 2])> {
    let [a, b] = &parameters;
    let Some((backend, strategy)) = [&value, a, b].into_iter().find_map(context) else {
        return Err((value, parameters));
    };
    let forward = Box::new(forward);
    match backend {
        #[cfg(feature = "flex")]
        Stepping::Flex => Ok(stepped::<burn::backend::Flex>(
            strategy, value, parameters, forward,
        )),
        #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
        Stepping::Cube => Ok(stepped::<burn::backend::Cube>(
            strategy, value, parameters, forward,
        )),
        #[cfg(feature = "tch")]
        #[allow(deprecated)] // Burn is about to drop the backend.
        Stepping::LibTorch => Ok(stepped::<burn::backend::LibTorch>(
            strategy, value, parameters, forward,
        )),
        _ => Err((value, parameters)),
    }
}

#[allow(dead_code)] // Without any backend nothing calls it.
fn stepped<B: Backend>(
    strategy: GradientCheckpointingStrategy,
    value: Tensor<1>,
    parameters: [Tensor<1>; 2],
    forward: Forward<'_>,
) -> Tensor<1>
where
    DispatchTensor: DispatchKindConversion<B>
        + DispatchKindConversion<Autodiff<B, NoCheckpointing>>
        + DispatchKindConversion<Autodiff<B, BalancedCheckpointing>>,
{
    match strategy {
        GradientCheckpointingStrategy::Disabled => {
            step::<B, NoCheckpointing>(value, parameters, forward)
        }
        GradientCheckpointingStrategy::Balanced => {
            step::<B, BalancedCheckpointing>(value, parameters, forward)
        }
    }
}

fn step<B: Backend, C: CheckpointStrategy>(
    value: Tensor<1>,
    [a, b]: [Tensor<1>; 2],
    forward: Forward<'_>,
) -> Tensor<1>
where
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B, C>>,
{
    let [value, a, b] = [value, a, b].map(|tensor| tracked::<B, C>(tensor).into_parts());
    let nodes = [value.1, a.1, b.1];
    let plain = [value.0, a.0, b.0].map(Tensor::<1>::from_primitive::<B>);
    let [value, a, b] = plain;
    let (output, rule) = forward(value, [a, b]);
    let output = of_backend::<B, 1>(output);
    let prepared = Learned.prepare::<C>(nodes).compute_bound().stateful();
    Tensor::from_primitive::<Autodiff<B, C>>(match prepared {
        OpsKind::Tracked(prepared) => prepared.finish(State(rule), output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    })
}

/// The tensor as one of a graph, a new one if it is on a plain device.
fn tracked<B: Backend, C: CheckpointStrategy>(
    tensor: Tensor<1>,
) -> <Autodiff<B, C> as BackendTypes>::FloatTensorPrimitive
where
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B, C>>,
{
    match tensor.is_autodiff() {
        true => of_backend::<Autodiff<B, C>, 1>(tensor),
        false => Autodiff::<B, C>::from_inner(of_backend::<B, 1>(tensor)),
    }
}

/// An operation whose gradients are those of a rule.
#[derive(Debug)]
struct Learned;

impl<B: Backend> Backward<B, 3> for Learned
where
    DispatchTensor: DispatchKindConversion<B>,
{
    type State = State;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = gradients.consume::<B>(&ops.node);
        let State(rule) = ops.state;
        let (value, [a, b]) = rule(Tensor::from_primitive::<B>(gradient));
        for (parent, gradient) in ops.parents.into_iter().zip([value, a, b]) {
            if let Some(parent) = parent {
                gradients.register::<B>(parent.id, of_backend::<B, 1>(gradient));
            }
        }
    }
}
