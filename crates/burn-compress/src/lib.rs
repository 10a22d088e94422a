//! Fusion compression for [Burn](https://burn.dev).
#![warn(missing_docs)]

pub use burn_compress_core::*;
pub use burn_compress_distillation as distillation;
pub use burn_compress_pruning as pruning;
pub use burn_compress_quantization as quantization;
pub use burn_compress_speedup as speedup;
