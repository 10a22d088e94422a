//! Sensitivity of the layers of a model: how much worse the loss becomes when one of them is pruned
//! or quantized and all others stay as they are.
//!
//! Nothing trains, and the model is left as it is. For each unit, the layers whose channels a cut
//! removes together, and each of some sparsities, the channels with the smallest scores are masked
//! and the loss is computed on the same batches; for each layer and each of some numbers of bits, its
//! targets are rounded with the ranges that these batches have. [`Sensitivity::rules_for`] makes of it
//! the rules of a pruner that meet a size at the least estimated loss.
//!
//! ```
//! use burn::module::Module;
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::activation::relu;
//! use burn::tensor::{Device, Tensor};
//! use burn_compress_core::config::{named, on};
//! use burn_compress_core::{DummyInput, Error, Evaluator};
//! use burn_compress_sensitivity::{SensitivityConfig, SizeBudget};
//!
//! #[derive(Module, Debug)]
//! struct Mlp {
//!     first: Linear,
//!     second: Linear,
//!     head: Linear,
//! }
//!
//! impl Mlp {
//!     fn forward(&self, x: Tensor<2>) -> Tensor<2> {
//!         self.head.forward(relu(self.second.forward(relu(self.first.forward(x)))))
//!     }
//! }
//!
//! let device = Device::flex();
//! let model = Mlp {
//!     first: LinearConfig::new(4, 16).init(&device),
//!     second: LinearConfig::new(16, 16).init(&device),
//!     head: LinearConfig::new(16, 2).init(&device),
//! }; // yours, trained
//! let batch = Tensor::<2>::ones([8, 4], &device);
//! let evaluator = Evaluator::new()
//!     .with_dummy_input(DummyInput::new(batch.clone(), |model: &Mlp, x| model.forward(x)))
//!     .with_data(move |_epoch| vec![batch.clone()])
//!     .with_loss(|model: &Mlp, x: &Tensor<2>| model.forward(x.clone()).square().mean());
//!
//! let sensitivity = SensitivityConfig::new()
//!     .with_pruning(named(["first", "second"]))
//!     .with_quantization(on(["Linear"]))
//!     .analyze(model, evaluator)?;
//! println!("{sensitivity}"); // a table; `save` and `save_figure` write it to files
//! assert_eq!((sensitivity.units.len(), sensitivity.layers.len()), (2, 3));
//!
//! let rules = sensitivity.rules_for(SizeBudget::ParameterRatio(0.5))?; // for any pruner
//! assert!(!rules.rules.is_empty());
//! # Ok::<(), Error>(())
//! ```
#![warn(missing_docs)]

mod allocation;
mod analysis;
mod config;
mod cost;
mod error;
mod figure;
mod result;
#[cfg(test)]
mod tests;
mod units;

pub use allocation::{AllocatedUnit, Allocation, SizeBudget};
pub use analysis::Analysis;
pub use config::SensitivityConfig;
pub use error::{Refusal, SensitivityError};
pub use result::{
    BitsPoint, LayerSensitivity, Measured, Sensitivity, SparsityPoint, UnitSensitivity,
};
