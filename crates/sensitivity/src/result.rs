//! Result of an analysis.

mod file;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;

use burn_compress_pruning::PruningSettings;
use serde::{Deserialize, Serialize};

use crate::cost::Costs;
use crate::error::SensitivityError;
pub(crate) use table::{Grid, shown};

/// Sensitivity of the units of a model to pruning, and of its layers to quantization.
///
/// Its `Display` is a table of the changes of the loss, and of the metric where there is one;
/// [`figure`](Self::figure) draws it, [`save`](Self::save) writes it to a file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sensitivity {
    /// The model as it is.
    pub dense: Measured,
    /// The sparsities that each unit is measured at.
    pub sparsities: Vec<f64>,
    /// The bits that each layer is measured at.
    pub bits: Vec<u8>,
    /// The number of batches of each point.
    pub batches: usize,
    /// The units that are pruned.
    pub units: Vec<UnitSensitivity>,
    /// The layers that are quantized.
    pub layers: Vec<LayerSensitivity>,
    pub(crate) settings: PruningSettings,
    pub(crate) costs: Option<Costs>,
    pub(crate) fingerprint: String,
}

/// Loss and metric of a model.
///
/// Numbers are kept to nine significant digits, so that they come back from a file as they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Mean loss over the batches; none where it is not finite.
    pub loss: Option<f64>,
    /// The evaluator's evaluation, where it was asked for and is finite.
    pub metric: Option<f64>,
}

impl Measured {
    pub(crate) fn new(loss: f64, metric: Option<f64>) -> Self {
        let kept = |value: f64| value.is_finite().then(|| nine_digits(value));
        Self {
            loss: kept(loss),
            metric: metric.and_then(kept),
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.loss {
            Some(loss) => write!(f, "loss {loss}")?,
            None => write!(f, "loss not finite")?,
        }
        self.metric
            .map_or(Ok(()), |metric| write!(f, ", metric {metric}"))
    }
}

fn nine_digits(value: f64) -> f64 {
    format!("{value:.8e}").parse().unwrap_or(value)
}

/// Layers whose channels go together, and what it costs to remove some.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitSensitivity {
    /// The layers that the rule selects, by path, in module order.
    pub layers: Vec<String>,
    /// The number of channels.
    pub channels: usize,
    /// Equal parts of the channels that lose equally many, as the heads of attention do; 1 where any
    /// channel may go.
    pub parts: usize,
    /// One for each sparsity, in their order.
    pub points: Vec<SparsityPoint>,
}

/// A unit with fewer channels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparsityPoint {
    /// The sparsity that was asked for.
    pub sparsity: f64,
    /// The number of channels that were removed.
    pub removed: usize,
    /// The model without them.
    pub measured: Measured,
}

/// A layer, and what it costs to round its targets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerSensitivity {
    /// Its path.
    pub layer: String,
    /// One for each number of bits, in their order.
    pub points: Vec<BitsPoint>,
}

/// A layer in integers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitsPoint {
    /// Bits of the integers.
    pub bits: u8,
    /// The model with this layer in integers.
    pub measured: Measured,
}

impl Sensitivity {
    /// How much the loss is larger than that of the model as it is; none where it is not finite.
    pub fn increase(&self, measured: &Measured) -> Option<f64> {
        Some(measured.loss? - self.dense.loss?)
    }

    /// The number of points that were measured.
    pub fn measured(&self) -> usize {
        let units = self.units.iter().map(|unit| unit.points.len());
        let layers = self.layers.iter().map(|layer| layer.points.len());
        units.chain(layers).sum()
    }

    /// The number of points of a complete result.
    pub fn total(&self) -> usize {
        self.units.len() * self.sparsities.len() + self.layers.len() * self.bits.len()
    }

    /// Whether everything was measured.
    pub fn is_complete(&self) -> bool {
        self.measured() == self.total()
    }

    /// Forward passes of one batch that the points took, that of the model as it is included;
    /// evaluations and the observation of ranges come on top.
    pub fn forwards(&self) -> usize {
        (self.measured() + 1) * self.batches
    }

    /// Parameters of the model as it is, as far as they are known: with coupled channels.
    pub fn parameters(&self) -> Option<u64> {
        let costs = self.costs.as_ref()?;
        Some(costs.parameters(&vec![1.0; self.units.len()]).round() as u64)
    }

    /// Multiply-accumulates of the model as it is for one element of the batch, as far as they are
    /// known: with coupled channels.
    pub fn macs(&self) -> Option<u64> {
        let costs = self.costs.as_ref()?;
        Some(costs.macs(&vec![1.0; self.units.len()]).round() as u64)
    }

    /// The first unit and sparsity that were not measured.
    pub(crate) fn next_sparsity(&self) -> Option<(usize, f64)> {
        let missing = |unit: &UnitSensitivity| self.sparsities.get(unit.points.len()).copied();
        let mut units = self.units.iter().enumerate();
        units.find_map(|(at, unit)| Some((at, missing(unit)?)))
    }

    /// The first layer and number of bits that were not measured.
    pub(crate) fn next_bits(&self) -> Option<(usize, u8)> {
        let missing = |layer: &LayerSensitivity| self.bits.get(layer.points.len()).copied();
        let mut layers = self.layers.iter().enumerate();
        layers.find_map(|(at, layer)| Some((at, missing(layer)?)))
    }

    /// Rejects points that are not those of the lists.
    pub(crate) fn check(&self) -> Result<(), SensitivityError> {
        let other = |name: &str, reason: &str| {
            Err(SensitivityError::Other {
                reason: format!("{reason} of `{name}` are not those of the result"),
            })
        };
        for unit in &self.units {
            let name = unit.layers.first().map_or("", |layer| layer);
            let mut points = unit.points.iter().enumerate();
            if unit.layers.is_empty()
                || !points.all(|(at, point)| {
                    self.sparsities.get(at) == Some(&point.sparsity)
                        && point.removed <= unit.channels
                        && unit.parts > 0
                })
            {
                return other(name, "the sparsities");
            }
        }
        for layer in &self.layers {
            let mut points = layer.points.iter().enumerate();
            if !points.all(|(at, point)| self.bits.get(at) == Some(&point.bits)) {
                return other(&layer.layer, "the bits");
            }
        }
        match self
            .costs
            .as_ref()
            .is_some_and(|costs| costs.units() > self.units.len())
        {
            true => other("the units", "the counts"),
            false => Ok(()),
        }
    }
}
