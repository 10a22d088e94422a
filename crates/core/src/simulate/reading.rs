//! Reads of a layer's parameters in a forward pass: the one place at which a folded batch norm
//! enters.
//!
//! An ordinary read is [`TargetSpace::simulate_parameter`]. Only while a layer that takes up a norm
//! runs on this thread, its parameters are read otherwise, see [`raw`] and [`folded`].

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use burn::tensor::Tensor;

use crate::simulate::flat::FlatTensor;
use crate::simulate::space::TargetSpace;

/// Parameters and statistics of a batch norm, each `[channels]`.
///
/// `y = (x - mean) / sqrt(variance + epsilon) * gamma + beta`
#[derive(Clone, Debug)]
pub struct Norm {
    /// The learned factor; 1 without it.
    pub gamma: Option<Tensor<1>>,
    /// The learned shift; 0 without it.
    pub beta: Option<Tensor<1>>,
    /// The mean that is subtracted.
    pub mean: Tensor<1>,
    /// The variance that is divided by.
    pub variance: Tensor<1>,
    /// Added to the variance.
    pub epsilon: f64,
}

/// Folding of a norm into the parameters of its host; gradients flow through.
pub trait Fold: fmt::Debug + Send + Sync {
    /// The folded weight, in the shape of `weight`.
    fn weight(&self, weight: FlatTensor, norm: &Norm) -> FlatTensor;

    /// The folded bias, `[channels]`, also of a host that has none.
    fn bias(&self, bias: Option<Tensor<1>>, norm: &Norm) -> Tensor<1>;
}

/// Form in which the parameters of a host are read.
#[derive(Clone)]
enum Reading {
    /// As the statistics see them: masked, neither folded nor quantized. Gradients flow through in
    /// the steps of a run alone.
    Raw { tracked: bool },
    /// Folded, then simulated.
    Folded {
        fold: Arc<dyn Fold>,
        norm: Arc<Norm>,
    },
}

thread_local! {
    static READING: RefCell<Option<Reading>> = const { RefCell::new(None) };
}

/// Ends a reading however the forward pass ends.
pub(crate) struct Scope {
    outer: Option<Reading>,
}

impl Scope {
    fn enter(reading: Reading) -> Self {
        let outer = READING.replace(Some(reading));
        Self { outer }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        READING.set(self.outer.take());
    }
}

/// Runs a host as the statistics of its norm see it, with gradients if they are `tracked`.
pub(crate) fn raw<T>(tracked: bool, run: impl FnOnce() -> T) -> T {
    let _scope = Scope::enter(Reading::Raw { tracked });
    run()
}

/// Runs a host with its parameters folded and then simulated, until the scope ends.
pub(crate) fn folded(fold: Arc<dyn Fold>, norm: Arc<Norm>) -> Scope {
    Scope::enter(Reading::Folded { fold, norm })
}

/// The parameter of `space` as the forward pass at hand reads it.
pub(crate) fn read<const D: usize>(space: &TargetSpace, base: Tensor<D>) -> Tensor<D> {
    let dims = base.dims();
    match READING.with_borrow(Option::clone) {
        None => space.simulate_parameter(base),
        Some(Reading::Raw { tracked: true }) => space.simulate_mask(base),
        Some(Reading::Raw { tracked: false }) => space.simulate_mask(base.detach()),
        Some(Reading::Folded { fold, norm }) => {
            let folded = match space.id().target.param_name() {
                Some("weight") => fold.weight(FlatTensor::new(base), &norm).values,
                Some("bias") => fold.bias(Some(FlatTensor::new(base).values), &norm),
                _ => return space.simulate_parameter(base),
            };
            space.simulate_folded(folded.reshape(dims))
        }
    }
}
