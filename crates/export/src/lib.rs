//! ONNX files of Burn models.
#![allow(dead_code)]

mod graph;
