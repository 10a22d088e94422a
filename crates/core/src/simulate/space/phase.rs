//! Whether a training step runs, and what is computed once in it.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::backend::autodiff::NodeId;
use burn::tensor::Tensor;
use indexmap::IndexMap;
use parking_lot::Mutex;

use crate::simulate::gradient;
use crate::target::TargetId;

/// Whether the model is inside a training step.
///
/// Observers follow the data only while a step runs. A flag of our own, rather than the device of
/// a tensor, because a batch may lie on a plain device while the model trains.
///
/// A parameter does not change within a step, so what is simulated of it is computed at its first
/// read and shared by the others: a recurrent layer reads each of its parameters at every position.
/// The gradients of all reads add up before they pass the simulation once.
#[derive(Default)]
pub(crate) struct Phase {
    training: AtomicBool,
    simulated: Mutex<IndexMap<TargetId, Simulated>>,
}

/// What was simulated of a parameter.
struct Simulated {
    /// The parameter's node in the graph, another one after each step of the optimizer.
    node: NodeId,
    /// A tensor of the parameter's rank.
    value: Box<dyn Any + Send>,
}

impl fmt::Debug for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Phase")
            .field("training", &self.is_training())
            .finish_non_exhaustive()
    }
}

impl Phase {
    /// Begins or ends a step; what was computed in it is dropped.
    pub(crate) fn set_training(&self, training: bool) {
        self.training.store(training, Ordering::Release);
        self.simulated.lock().clear();
    }

    pub(crate) fn is_training(&self) -> bool {
        self.training.load(Ordering::Acquire)
    }

    /// What `simulate` makes of the parameter `base` of `id`, computed once a step where gradients
    /// flow.
    pub(super) fn once<const D: usize>(
        &self,
        id: &TargetId,
        base: Tensor<D>,
        simulate: impl FnOnce(Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        let node = self.is_training().then(|| gradient::node(&base)).flatten();
        let Some(node) = node else {
            return simulate(base);
        };
        if let Some(known) = self.simulated.lock().get(id)
            && known.node == node
            && let Some(value) = known.value.downcast_ref::<Tensor<D>>()
        {
            return value.clone();
        }
        // Unlocked: a transform may read other parameters.
        let value = simulate(base);
        let known = Simulated {
            node,
            value: Box::new(value.clone()),
        };
        self.simulated.lock().insert(id.clone(), known);
        value
    }

    /// Computes anew at the next read, after a change of what acts on `id`.
    pub(super) fn forget(&self, id: &TargetId) {
        self.simulated.lock().swap_remove(id);
    }
}
