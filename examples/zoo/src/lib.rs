//! Networks that people prune, with the parameter names of their references.
//!
//! Each file has one architecture, written for this library from its paper and the shapes of its
//! reference implementation: layers stand in a [`Wrapper`](burn_compress_core::Wrapper), sizes come
//! from the tensors, so that a network runs on after channels are gone, and every configuration has
//! widths and depths for versions that a test can run. [`Zoo`] lists all of them.
//!
//! | file | network | parameters | names of |
//! |---|---|---|---|
//! | [`resnet`] | ResNet-18, ResNet-50, ResNet-50 with group norms | 11,689,512; 25,557,032 | torchvision |
//! | [`vgg`] | VGG16 with batch norms | 138,365,992 | torchvision |
//! | [`mobilenet_v2`] | MobileNetV2 | 3,504,872 | torchvision |
//! | [`densenet`] | DenseNet-121 | 7,978,856 | torchvision |
//!
//! # Checkpoints
//!
//! A safetensors file of PyTorch loads through burn-store, which turns linear weights over and calls
//! scale and shift of a norm as Burn does. Where a name of the reference is no Rust field,
//! [`Model::torch_names`] has the pairs:
//!
//! ```
//! use burn::tensor::Device;
//! use burn_compress_zoo::{MobileNetV2Config, Model};
//! use burn_store::{BurnToPyTorchAdapter, ModuleSnapshot, PyTorchToBurnAdapter, SafetensorsStore};
//!
//! let directory = tempfile::tempdir()?;
//! let file = directory.path().join("mobilenet_v2.safetensors");
//! let config = MobileNetV2Config::new().with_width(0.25).with_depth(1).with_classes(10);
//! let mut model = config.init(&Device::flex());
//!
//! let mut store = SafetensorsStore::from_file(&file).with_to_adapter(BurnToPyTorchAdapter);
//! for (path, name) in model.torch_names().torch_patterns() {
//!     store = store.with_key_remapping(path, name);
//! }
//! model.save_into(&mut store)?; // features.0.0.weight, ..
//!
//! let mut store = SafetensorsStore::from_file(&file).with_from_adapter(PyTorchToBurnAdapter);
//! for (name, path) in model.torch_names().burn_patterns() {
//!     store = store.with_key_remapping(name, path);
//! }
//! model.load_from(&mut store)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(missing_docs)]

pub mod densenet;
mod layers;
pub mod mobilenet_v2;
mod model;
mod names;
mod registry;
pub mod resnet;
mod statistics;
pub mod vgg;

pub use densenet::{DenseNet, DenseNetConfig};
pub use layers::{ConvNorm, SqueezeExcitation};
pub use mobilenet_v2::{MobileNetV2, MobileNetV2Config};
pub use model::{Model, parameters};
pub use names::TorchNames;
pub use registry::{Scale, Task, Zoo};
pub use resnet::{ResNet, ResNetConfig};
pub use statistics::randomize_statistics;
pub use vgg::{Vgg, VggConfig};
