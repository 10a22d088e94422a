//! What the example programs share: data, network, plain training, command line and results.
//!
//! - [`digits`]: handwritten digits, embedded in the program
//! - [`resnet`]: the residual network that every example compresses
//! - [`train`]: plain training of the dense network, and its accuracy
//! - [`configs`]: what is pruned, quantized and distilled
//! - `deployed` (feature `onnx`): a quantized network against its file in onnxruntime
//! - [`fused`]: the chain of the main job
//! - [`pipeline`]: everything around the compressors
//! - [`learner`]: a training with Burn's `Learner`, its metrics and its checkpoints
//! - [`cli`]: the options that all programs have
//! - [`results`]: the table on the terminal and the JSON document
//! - [`mod@file`]: files that are written, checked before anything runs
//! - [`process`]: CPU time and memory of a program
//! - [`quartiles`]: of what was measured several times
//! - `onnx` (feature `onnx`): the small network as an ONNX file
//! - `onnxruntime` (feature `ort`): networks in ONNX files, run by the onnxruntime library
//!
//! The programs themselves are in `src/bin`, one for each combination of compressors.

#![recursion_limit = "256"]

pub mod cli;
pub mod configs;
#[cfg(feature = "onnx")]
pub mod deployed;
pub mod digits;
pub mod file;
pub mod fused;
pub mod learner;
#[cfg(feature = "onnx")]
pub mod onnx;
#[cfg(feature = "ort")]
pub mod onnxruntime;
pub mod pipeline;
pub mod process;
pub mod quartiles;
pub mod resnet;
pub mod results;
pub mod train;
