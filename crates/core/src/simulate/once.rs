//! Parameters that a layer reads many times in one forward pass, simulated once.
//!
//! A recurrent layer reads each of its parameters at every position of a sequence. Within
//! [`scope`] what is simulated of a parameter is computed at its first read and shared by the others,
//! and the gradients of all reads add up before they pass the simulation once. A scope is as long as
//! the forward pass of one layer: nothing that acts on the parameter changes within it, and no graph
//! is used up by a backward pass, as may happen between two passes of a model in one step.

use std::any::Any;
use std::cell::RefCell;

use burn::backend::autodiff::NodeId;
use burn::tensor::Tensor;
use indexmap::IndexMap;

use crate::simulate::gradient;
use crate::target::TargetId;

/// What was simulated of a parameter.
struct Simulated {
    /// The node of the parameter in its graph.
    node: NodeId,
    /// A tensor of the parameter's rank.
    value: Box<dyn Any>,
}

thread_local! {
    static SHARED: RefCell<Option<IndexMap<TargetId, Simulated>>> = const { RefCell::new(None) };
}

/// Runs the forward pass of one layer; what it shares is dropped however it ends.
pub(crate) fn scope<T>(run: impl FnOnce() -> T) -> T {
    struct Ends(Option<IndexMap<TargetId, Simulated>>);
    impl Drop for Ends {
        fn drop(&mut self) {
            SHARED.set(self.0.take());
        }
    }
    let _ends = Ends(SHARED.replace(Some(IndexMap::new())));
    run()
}

/// What `simulate` makes of the parameter `base` of `id`; within a scope it is computed once, where
/// gradients flow.
pub(crate) fn shared<const D: usize>(
    id: &TargetId,
    base: Tensor<D>,
    simulate: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    let is_open = SHARED.with_borrow(Option::is_some);
    let Some(node) = is_open.then(|| gradient::node(&base)).flatten() else {
        return simulate(base);
    };
    let known = SHARED.with_borrow(|shared| {
        let known = shared
            .as_ref()?
            .get(id)
            .filter(|known| known.node == node)?;
        known.value.downcast_ref::<Tensor<D>>().cloned()
    });
    if let Some(known) = known {
        return known;
    }
    let value = simulate(base);
    let known = Simulated {
        node,
        value: Box::new(value.clone()),
    };
    SHARED.with_borrow_mut(|shared| {
        if let Some(shared) = shared {
            shared.insert(id.clone(), known);
        }
    });
    value
}
