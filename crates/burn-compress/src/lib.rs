//! Fusion compression for [Burn](https://burn.dev) models: prune, quantize and distill one model in
//! one training run, then make it smaller for real.
//!
//! ```
//! use burn::module::Module;
//! use burn::nn::conv::{Conv2d, Conv2dConfig};
//! use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
//! use burn::optim::AdamConfig;
//! use burn::tensor::{Device, Distribution, Tensor, activation::relu};
//! use burn_compress::prelude::*;
//!
//! #[derive(Module, Debug)]
//! struct Net {
//!     conv: Wrapper<Conv2d>, // a `Conv2d` whose input and output can be simulated
//!     bn: Wrapper<BatchNorm>,
//!     head: Linear,
//! }
//!
//! impl Net {
//!     fn forward(&self, images: Tensor<4>) -> Tensor<2> {
//!         let x = relu(self.bn.forward(self.conv.forward(images)));
//!         self.head.forward(x.mean_dim(3).mean_dim(2).flatten(1, 3))
//!     }
//! }
//!
//! let device = Device::flex();
//! let model = Net {
//!     conv: Conv2dConfig::new([1, 8], [3, 3]).init(&device).into(),
//!     bn: BatchNormConfig::new(8).init(&device).into(),
//!     head: LinearConfig::new(8, 2).init(&device),
//! };
//! let images = Tensor::<4>::random([16, 1, 6, 6], Distribution::Normal(0.0, 1.0), &device);
//! let evaluator = Evaluator::new()
//!     .with_dummy_input(DummyInput::new(images.clone(), Net::forward))
//!     .with_data(move |_epoch| vec![images.clone()])
//!     .with_optimizer(AdamConfig::new().init())
//!     .with_learning_rate(1e-3)
//!     .with_loss(|model: &Net, images: &Tensor<4>| model.forward(images.clone()).square().mean());
//!
//! let prune = ConfigList::from_json(r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]"#)?;
//! let quantize = ConfigList::from_json(r#"[{"op_types": ["Conv2d"], "quant_dtype": "int8"}]"#)?;
//! let distill = ConfigList::from_json(r#"[{"op_types": ["Conv2d"], "lambda": 0.1}]"#)?;
//!
//! let teacher = model.clone();
//! let pruner = TaylorPruner::new(model, &prune, evaluator, TaylorConfig::new(2))?;
//! let pruner = AgpPruner::new(pruner, AgpConfig::new(2, 3))?;
//! let quantizer =
//!     QatQuantizer::from_compressor(pruner, &quantize, QatConfig::new().with_start_step(2))?;
//! let distiller = DynamicLayerwiseDistiller::from_compressor(
//!     quantizer,
//!     &distill,
//!     &teacher,
//!     |teacher: &Net, images: &Tensor<4>| teacher.forward(images.clone()),
//!     DistillConfig::new(0.1),
//! )?;
//! let compressed = distiller.compress(Budget::steps(10))?; // one run, everything at once
//! let small = compressed.speedup()?;
//! assert_eq!(small.model.conv.weight.dims(), [4, 1, 3, 3]); // same type, smaller tensors
//! # Ok::<(), Error>(())
//! ```
//!
//! # Crates
//!
//! This facade re-exports [`burn_compress_core`] at its root and the algorithms by what they do:
//!
//! - [`pruning`]: importance scores, masks and schedules.
//! - [`quantization`]: integer types, observers and quantizers, with and without training.
//! - [`distillation`]: losses between hidden states or logits, teachers and their cache.
//! - [`sensitivity`]: which layers bear pruning and few bits, and rules made of it.
//! - [`speedup`]: removal of what was masked, verification, saving and loading.
//! - [`report`]: all of it as one HTML file with figures and tables.
//! - `export`, with the feature `onnx`: ONNX files.
//!
//! # Features
//!
//! The backend features of Burn are forwarded: `flex` and `simd` (default), `wgpu`, `vulkan`,
//! `cuda` and `tch`. Several can be compiled in; the run-time `Device` chooses.
#![warn(missing_docs)]

pub use burn_compress_core::*;

pub use burn_compress_distillation as distillation;
#[cfg(feature = "onnx")]
pub use burn_compress_export as export;
pub use burn_compress_pruning as pruning;
pub use burn_compress_quantization as quantization;
pub use burn_compress_report as report;
pub use burn_compress_sensitivity as sensitivity;
pub use burn_compress_speedup as speedup;

/// The names of a compression program.
pub mod prelude {
    pub use burn_compress_core::config::{ConfigList, Rule, named, on};
    pub use burn_compress_core::{
        Add, AttentionInput, BitsMetric, Budget, Calibration, Compressed, CompressionOutput,
        Compressor, Concat, DummyInput, EpochLoader, Error, EvaluationEvent, Evaluator,
        Granularity, History, Layer, Mask, Masks, MasksEvent, Method, Obstacle, RunObserver,
        SparsityMetric, StepEvent, Target, TargetId, Wrapper,
    };
    pub use burn_compress_distillation::registry::built_in::*;
    pub use burn_compress_distillation::{
        DistillationRule, DistillationSettings, FeatureDistiller, LogitDistiller, Teacher,
        TeacherCache, Teachers,
    };
    #[cfg(feature = "onnx")]
    pub use burn_compress_export::{OnnxConfig, OnnxFile, export_graph_cut, export_onnx};
    pub use burn_compress_pruning::built_in::*;
    pub use burn_compress_pruning::{
        AgpConfig, AgpPruner, LinearConfig as LinearScheduleConfig, LinearPruner, Pruner,
        PrunerConfig, PruningRule, PruningSettings,
    };
    pub use burn_compress_quantization::built_in::*;
    pub use burn_compress_quantization::{
        Deployment, QuantDtype, QuantScheme, QuantizationRule, QuantizationSettings, Quantizer,
    };
    pub use burn_compress_report::{Platform, Report};
    pub use burn_compress_sensitivity::{Sensitivity, SensitivityConfig, SizeBudget};
    pub use burn_compress_speedup::{
        CutPlan, Latency, LatencyConfig, ModelSpeedup, PlanExt, SaveConfig, Small, Speedup,
        SpeedupExt, latency, load_small, save_small,
    };
}

/// The programs of the README, which are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
