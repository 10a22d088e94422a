//! The configuration list on a real model, with the settings of an imaginary mode.

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, Relu};
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;
use crate::layer::layers;

mod reading;
mod selecting;

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(default, deny_unknown_fields)]
struct Toy {
    ratio: Option<f64>,
    align: Option<Align>,
    #[serde(rename = "lambda")]
    weight: Option<f32>,
    block: Option<Vec<i64>>,
    group: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
struct Align {
    layer: Option<String>,
    dims: Vec<usize>,
}

impl Settings for Toy {
    const MODE: Mode = Mode::Pruning;

    fn default_targets(layer: &LayerInfo) -> Vec<Target> {
        match layer.kind.as_str() {
            "Conv2d" | "Linear" => vec![Target::param("weight"), Target::param("bias")],
            _ => Vec::new(),
        }
    }

    fn merge(self, over: &Self) -> Self {
        let over = over.clone();
        Self {
            ratio: over.ratio.or(self.ratio),
            align: over.align.or(self.align),
            weight: over.weight.or(self.weight),
            block: over.block.or(self.block),
            group: over.group.or(self.group),
        }
    }

    fn validate(&self, _layer: &LayerInfo, target: &Target) -> Result<(), String> {
        match self.ratio {
            Some(ratio) if !(0.0..1.0).contains(&ratio) => {
                Err(format!("`ratio` is {ratio} for {target}, not in 0..1"))
            }
            _ => Ok(()),
        }
    }
}

#[derive(Module, Debug)]
struct Net {
    conv1: Conv2d,
    norm: BatchNorm,
    relu: Relu,
    blocks: Vec<Conv2d>,
    fc: Linear,
}

/// `conv1` and `fc` have a bias, `blocks.0` has none; nothing is wrapped.
fn model() -> Vec<LayerInfo> {
    let device = Device::flex();
    layers(&Net {
        conv1: Conv2dConfig::new([1, 4], [3, 3]).init(&device),
        norm: BatchNormConfig::new(4).init(&device),
        relu: Relu::new(),
        blocks: vec![
            Conv2dConfig::new([4, 8], [3, 3])
                .with_bias(false)
                .init(&device),
        ],
        fc: LinearConfig::new(8, 2).init(&device),
    })
}

/// The same model with `conv1` and `relu` in wrappers.
fn wrapped_model() -> Vec<LayerInfo> {
    let mut layers = model();
    layers[0].wrapped = true;
    layers[2].wrapped = true;
    layers[2].kind = "Relu".to_string();
    layers
}

fn read(json: &str) -> ConfigList<Toy> {
    ConfigList::from_json(json).unwrap()
}
