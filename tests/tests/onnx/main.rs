//! ONNX files of small graphs in onnxruntime against Burn, and what cannot be exported.

mod dynamic;
mod fixtures;
mod images;
mod indices;
mod numbers;
mod recurrent;
mod refusals;
mod structure;
