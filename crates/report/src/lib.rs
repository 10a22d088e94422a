//! Reports of compressed Burn models: one HTML file with figures and tables, which needs no server, no
//! network and no script.
//!
//! [`Report`] takes what there is (the run, the small model, a plan, a sensitivity analysis, times) and
//! writes the page: curves of the run, channels, multiply-accumulates and bytes of each layer before
//! and after, ranges and scales of quantizers, warnings, versions and seed. It is readable in light and
//! dark, on a telephone, on paper and by a screen reader; behind every figure is a table.
//!
//! ```
//! use burn::module::Module;
//! use burn::nn::{Linear, LinearConfig};
//! use burn::tensor::activation::relu;
//! use burn::tensor::{Device, Tensor};
//! use burn_compress_core::{DummyInput, Error, Mask, Masks};
//! use burn_compress_report::{Platform, Report};
//! use burn_compress_speedup::{ModelSpeedup, latency};
//!
//! #[derive(Module, Debug)]
//! struct Mlp {
//!     first: Linear,
//!     second: Linear,
//! }
//!
//! let device = Device::flex();
//! let model = Mlp {
//!     first: LinearConfig::new(4, 3).with_bias(false).init(&device),
//!     second: LinearConfig::new(3, 2).init(&device),
//! };
//! let dummy_input = DummyInput::new(Tensor::<2>::ones([1, 4], &device), |model: &Mlp, x| {
//!     model.second.forward(relu(model.first.forward(x)))
//! });
//! let mask = Mask::new([1.0, 0.0, 1.0].repeat(4), [4, 3])?;
//! let masks = Masks::from([("first.weight".parse()?, mask)]);
//! let speedup = ModelSpeedup::from_masks(model.clone(), dummy_input.clone(), &masks)?;
//! let small = speedup.speedup_model()?;
//!
//! let page = Report::new("A small perceptron")
//!     .with_speedup(&small)
//!     .with_plan(&speedup.plan()?)
//!     .with_latency("batch of 1", latency(&model, &small.model, &dummy_input)?)
//!     .with_platform(Platform::new("flex"))
//!     .html()?; // `save` writes it to a file
//! assert!(page.contains("first") && !page.contains("<script"));
//! # Ok::<(), Error>(())
//! ```
#![warn(missing_docs)]

mod error;
mod figure;
mod html;
mod number;
mod page;
mod platform;
mod report;
mod sections;

pub use error::ReportError;
pub use platform::Platform;
pub use report::Report;
