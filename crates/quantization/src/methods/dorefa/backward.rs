//! Hooks on gradients in the backward pass.
//!
//! Burn's tensors differentiate what they compute; a gradient that is no derivative, such as a
//! rounded one, needs a step of its own in the backward pass. That step is specific to a backend,
//! so there is one for each backend that a feature of this crate names.

use std::fmt;
use std::sync::Arc;

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

/// Change of a gradient.
pub(crate) trait GradientHook: fmt::Debug + Send + Sync {
    /// The changed gradient, in the shape of `gradient`.
    fn apply(&self, gradient: Tensor<1>) -> Tensor<1>;
}

/// Whether gradients can be changed on a device.
pub(crate) fn is_supported(device: &Device) -> bool {
    let probe = Tensor::<1>::zeros([1], &device.clone().without_autodiff());
    route(&probe.into_dispatch().kind).is_some()
}

/// `value`, whose gradient goes through `hook` on its way back.
///
/// A value without gradients, and one of a backend that is not supported, stays as it is.
pub(crate) fn hooked(value: Tensor<1>, hook: Arc<dyn GradientHook>) -> Tensor<1> {
    let dispatch = value.clone().into_dispatch();
    let steps = match &dispatch.kind {
        DispatchTensorKind::Autodiff(inner) => route(inner),
        _ => None,
    };
    match (steps, dispatch.autodiff) {
        (Some(steps), DispatchAutodiffContext::Enabled(strategy)) => match strategy {
            GradientCheckpointingStrategy::Disabled => (steps.plain)(value, hook),
            GradientCheckpointingStrategy::Balanced => (steps.balanced)(value, hook),
        },
        _ => value,
    }
}

type Step = fn(Tensor<1>, Arc<dyn GradientHook>) -> Tensor<1>;

/// The step of one backend, without and with gradient checkpointing.
struct Steps {
    plain: Step,
    balanced: Step,
}

#[cfg_attr(feature = "tch", allow(deprecated))] // Burn is about to drop the backend.
fn route(kind: &DispatchTensorKind) -> Option<Steps> {
    match kind {
        #[cfg(feature = "flex")]
        DispatchTensorKind::Flex(_) => Some(steps::<burn::backend::Flex>()),
        #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
        DispatchTensorKind::Cube(_) => Some(steps::<burn::backend::Cube>()),
        #[cfg(feature = "tch")]
        DispatchTensorKind::LibTorch(_) => Some(steps::<burn::backend::LibTorch>()),
        _ => None,
    }
}

#[allow(dead_code)] // Without any backend nothing calls it.
fn steps<B: Backend>() -> Steps
where
    DispatchTensor: DispatchKindConversion<B>
        + DispatchKindConversion<Autodiff<B, NoCheckpointing>>
        + DispatchKindConversion<Autodiff<B, BalancedCheckpointing>>,
{
    Steps {
        plain: step::<B, NoCheckpointing>,
        balanced: step::<B, BalancedCheckpointing>,
    }
}

fn step<B: Backend, C: CheckpointStrategy>(
    value: Tensor<1>,
    hook: Arc<dyn GradientHook>,
) -> Tensor<1>
where
    DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B, C>>,
{
    let Ok(primitive) = value.clone().try_into_primitive::<Autodiff<B, C>>() else {
        return value;
    };
    let (output, node) = primitive.into_parts();
    let prepared = Identity.prepare::<C>([node]).compute_bound().stateful();
    Tensor::from_primitive::<Autodiff<B, C>>(match prepared {
        OpsKind::Tracked(prepared) => prepared.finish(hook, output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    })
}

/// Changes nothing but the gradient.
#[derive(Debug)]
struct Identity;

impl<B: Backend> Backward<B, 1> for Identity
where
    DispatchTensor: DispatchKindConversion<B>,
{
    type State = Arc<dyn GradientHook>;

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
        let changed = ops
            .state
            .apply(Tensor::from_primitive::<B>(gradient.clone()));
        // A hook keeps the backend; if it did not, the gradient would go on as it came.
        let changed = changed.try_into_primitive::<B>().unwrap_or(gradient);
        gradients.register::<B>(parent.id, changed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Negate;

    impl GradientHook for Negate {
        fn apply(&self, gradient: Tensor<1>) -> Tensor<1> {
            gradient.neg()
        }
    }

    fn floats(tensor: Tensor<1>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    /// `sum(3 hooked(2 x) + x)`: the gradient is `2 (-3) + 1`.
    fn gradient(device: &Device) -> Vec<f32> {
        let x = Tensor::<1>::from_floats([1.0, -2.0], device).require_grad();
        let y = hooked(x.clone() * 2.0, Arc::new(Negate));
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
        let plain = hooked(Tensor::from_floats([1.5], &device), Arc::new(Negate));
        assert_eq!(floats(plain), [1.5]);
        let x = Tensor::<1>::from_floats([1.5], &device.autodiff());
        let untracked = hooked(x, Arc::new(Negate));
        assert!(!untracked.is_require_grad());
        assert_eq!(floats(untracked), [1.5]);
    }

    #[test]
    fn a_device_tells_whether_it_is_supported() {
        assert!(is_supported(&Device::flex()));
        assert!(is_supported(&Device::flex().autodiff()));
    }
}
