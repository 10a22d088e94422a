//! Parameters and multiply-accumulates of a model of which channels are removed.
//!
//! Both are sums of products: a convolution has
//!
//! ```text
//! parameters  out_channels * in_channels / groups * kernel
//! MACs        out_channels * in_channels / groups * kernel * places
//! ```
//!
//! and a size that channels of unit `u` are counted in is `fixed + sum over u of entries(u) kept(u)`
//! with the kept fraction of each unit. The counts are those of the cut model where a unit loses as
//! many channels of each of its dimensions, which fails only where a concatenation joins layers and
//! one of them loses more than the others.

use std::collections::BTreeMap;

use burn_compress_core::graph::{ChannelGraph, ChannelId};
use burn_compress_core::layer::LayerInfo;
use serde::{Deserialize, Serialize};

/// A size as a function of the kept fractions of the units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Factor {
    fixed: usize,
    /// Entries that are channels of a unit.
    units: BTreeMap<usize, usize>,
}

impl Factor {
    fn of(entries: &[Option<ChannelId>], unit_of: &BTreeMap<ChannelId, usize>) -> Self {
        let mut factor = Self::default();
        for entry in entries {
            match entry.and_then(|channel| unit_of.get(&channel)) {
                Some(&unit) => *factor.units.entry(unit).or_default() += 1,
                None => factor.fixed += 1,
            }
        }
        factor
    }

    fn value(&self, kept: &[f64]) -> f64 {
        let units = self.units.iter();
        self.fixed as f64
            + units
                .map(|(&unit, &entries)| entries as f64 * kept[unit])
                .sum::<f64>()
    }
}

/// A count: the scale times all factors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Product {
    scale: f64,
    factors: Vec<Factor>,
}

impl Product {
    /// The product without factors that no unit has a part in.
    fn new(scale: f64, factors: impl IntoIterator<Item = Factor>) -> Self {
        let mut product = Self {
            scale,
            factors: Vec::new(),
        };
        for factor in factors {
            match factor.units.is_empty() {
                true => product.scale *= factor.fixed as f64,
                false => product.factors.push(factor),
            }
        }
        product
    }

    fn value(&self, kept: &[f64]) -> f64 {
        let factors = self.factors.iter().map(|factor| factor.value(kept));
        self.scale * factors.product::<f64>()
    }
}

/// Counts of a model by the kept fractions of its units.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Costs {
    parameters: Vec<Product>,
    macs: Vec<Product>,
}

impl Costs {
    /// The counts of the model of `graph`, whose channels belong to these units.
    pub(crate) fn of(
        graph: &ChannelGraph,
        layers: &[LayerInfo],
        unit_of: &BTreeMap<ChannelId, usize>,
    ) -> Self {
        let mut parameters: Vec<Product> = Vec::new();
        let mut counted = 0;
        for node in graph.params().filter(|node| !node.statistic) {
            let grouped = graph.grouped().iter().find(|conv| conv.weight == node.path);
            let mut scale = 1.0;
            let mut factors = Vec::new();
            for (dim, (&size, channels)) in node.shape.iter().zip(&node.channels).enumerate() {
                match (channels, grouped) {
                    (Some(channels), _) => {
                        let entries: Vec<_> = channels.iter().copied().map(Some).collect();
                        factors.push(Factor::of(&entries, unit_of));
                    }
                    // Column `j` of such a weight is an input channel of every group.
                    (None, Some(conv)) if dim == 1 => {
                        scale /= conv.groups as f64;
                        factors.push(Factor::of(&conv.input, unit_of));
                    }
                    (None, _) => scale *= size as f64,
                }
            }
            counted += node.shape.iter().product::<usize>();
            parameters.push(Product::new(scale, factors));
        }
        let all = layers.iter().flat_map(|layer| &layer.params);
        let all: usize = all.map(|param| param.shape.iter().product::<usize>()).sum();
        // What the forward pass does not use is in no graph, and no cut changes it.
        parameters.push(Product::new(all as f64 - counted as f64, []));
        let macs = graph.macs_products().into_iter().map(|product| {
            let factors = product.factors.iter();
            Product::new(
                product.scale,
                factors.map(|entries| Factor::of(entries, unit_of)),
            )
        });
        Self {
            parameters: merged(parameters),
            macs: merged(macs.collect()),
        }
    }

    pub(crate) fn parameters(&self, kept: &[f64]) -> f64 {
        self.parameters
            .iter()
            .map(|product| product.value(kept))
            .sum()
    }

    pub(crate) fn macs(&self, kept: &[f64]) -> f64 {
        self.macs.iter().map(|product| product.value(kept)).sum()
    }

    /// Number of the last unit that a count depends on, and one more.
    pub(crate) fn units(&self) -> usize {
        let products = self.parameters.iter().chain(&self.macs);
        let factors = products.flat_map(|product| &product.factors);
        let units = factors.filter_map(|factor| factor.units.last_key_value());
        units.map(|(&unit, _)| unit + 1).max().unwrap_or(0)
    }
}

/// Products with the same factors as one.
fn merged(products: Vec<Product>) -> Vec<Product> {
    let mut merged: Vec<Product> = Vec::new();
    for product in products {
        match merged.iter_mut().find(|one| one.factors == product.factors) {
            Some(one) => one.scale += product.scale,
            None => merged.push(product),
        }
    }
    merged.retain(|product| product.scale != 0.0);
    merged
}
