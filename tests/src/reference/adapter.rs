//! The one place that names where the compressors' API lives.

pub use burn_compress::{core, distillation, pruning};

/// A layer whose inputs and outputs can be targets.
pub type Wrapped<L> = core::Wrapper<L>;

/// Wraps a layer.
pub fn wrap<L>(layer: L) -> Wrapped<L> {
    core::Wrapper::new(layer)
}
