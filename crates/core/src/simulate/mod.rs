//! Simulation around layers and parameters, and its state.
//!
//! ```text
//! parameter --Simulation--+
//!                         +--> TargetSpace: mask, quantization, observer, transforms
//! input, output --Wrapper-+
//! ```
//!
//! Compression state is not in the module tree: a module holds a shared pointer to the state of its
//! target, which `attach` hangs on the model and `rebuild` takes off.

pub(crate) mod attach;
pub(crate) mod block;
pub mod fake_quantize;
pub(crate) mod flat;
pub(crate) mod folding;
pub mod gradient;
pub(crate) mod granularity;
pub(crate) mod mask;
pub(crate) mod masks;
pub(crate) mod once;
pub(crate) mod operation;
pub(crate) mod params;
pub(crate) mod quant_dtype;
pub(crate) mod quantization;
pub(crate) mod reading;
pub(crate) mod rebuild;
pub(crate) mod round_gradient;
pub(crate) mod simulation;
pub(crate) mod sizes;
pub(crate) mod space;
pub(crate) mod transform;
pub(crate) mod walk;
pub(crate) mod wrapper;
