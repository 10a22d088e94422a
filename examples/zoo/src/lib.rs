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
//! | [`mobilenet_v3`] | MobileNetV3-Small | 2,542,856 | torchvision |
//! | [`efficientnet`] | EfficientNet-B0 | 5,288,548 | torchvision |
//! | [`densenet`] | DenseNet-121 | 7,978,856 | torchvision |
//! | [`shufflenet_v2`] | ShuffleNetV2 | 2,278,604 | torchvision |
//! | [`convnext`] | ConvNeXt-Tiny | 28,589,128 | torchvision |
//! | [`vit`] | ViT-B/16 | 86,567,656 | torchvision |
//! | [`swin`] | Swin-T | 28,288,354 | torchvision |
//! | [`yolox`] | YOLOX-nano | 912,159 | its authors |
//! | [`unet`] | U-Net | 7,763,041 | PyTorch Hub |
//! | [`bert`] | BERT-base | 109,483,778 | transformers |
//! | [`llama`] | SmolLM2-135M | 134,515,008 | transformers |
//! | [`lstm`] | a classifier with two LSTM layers | 3,482,114 | Burn |
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

mod attention;
pub mod bert;
pub mod convnext;
pub mod densenet;
pub mod efficientnet;
mod kinds;
mod layers;
pub mod llama;
pub mod lstm;
pub mod mobilenet_v2;
pub mod mobilenet_v3;
mod model;
mod names;
mod registry;
pub mod resnet;
pub mod shufflenet_v2;
mod statistics;
pub mod swin;
pub mod unet;
pub mod vgg;
pub mod vit;
pub mod yolox;

pub use bert::{Bert, BertConfig};
pub use convnext::{ConvNeXt, ConvNeXtConfig};
pub use densenet::{DenseNet, DenseNetConfig};
pub use efficientnet::{EfficientNet, EfficientNetConfig};
pub use kinds::{OWN_LAYERS, register_layers};
pub use layers::{ConvNorm, InvertedBottleneck, SqueezeExcitation};
pub use llama::{Llama, LlamaConfig};
pub use lstm::{LstmClassifier, LstmClassifierConfig};
pub use mobilenet_v2::{MobileNetV2, MobileNetV2Config};
pub use mobilenet_v3::{MobileNetV3, MobileNetV3Config};
pub use model::{Model, parameters};
pub use names::TorchNames;
pub use registry::{Scale, Task, Zoo};
pub use resnet::{ResNet, ResNetConfig};
pub use shufflenet_v2::{ShuffleNetV2, ShuffleNetV2Config};
pub use statistics::randomize_statistics;
pub use swin::{SwinTransformer, SwinTransformerConfig};
pub use unet::{UNet, UNetConfig};
pub use vgg::{Vgg, VggConfig};
pub use vit::{VisionTransformer, VisionTransformerConfig};
pub use yolox::{YoloX, YoloXConfig};
