//! The graph of models with wrapped layers.

mod flow;
/// Those of the graph's own tests.
#[path = "../../../../graph/src/tests/layers.rs"]
mod layers;
mod ports;
mod trial;

use std::collections::BTreeSet;

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor, TensorData};

use super::*;
use layers::{analyze, conv, device, images, norm, pick};
