//! Graphs of one or two layers whose rewritten form is worked out by hand, run by an evaluator in
//! integers and by onnxruntime.

mod evaluator;
mod net;
mod norms;
mod placing;
mod refusals;
mod rounding;
mod runtime;
mod whole;
