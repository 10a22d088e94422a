//! Multiply-accumulates of a model, before and after channels are removed.
//!
//! Convolutions, linear layers and matrix products are counted, for one element of the batch:
//!
//! ```text
//! conv    out_channels * in_channels / groups * kernel * places
//! matmul  rows * inner * columns
//! ```

use super::analysis::Analysis;
use super::channel_set::ChannelSet;
use super::facts::Macs;
use super::labels::ChannelId;

/// Multiply-accumulates of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationMacs {
    /// The layer's path; the operation's name where it has no parameters.
    pub layer: String,
    /// Multiply-accumulates for one element of the batch.
    pub macs: u64,
}

/// Multiply-accumulates of one operation as a product, to count many cuts without a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct MacsProduct {
    /// The layer's path; the operation's name where it has no parameters.
    pub layer: String,
    /// Everything that no cut changes, for one element of the batch.
    pub scale: f64,
    /// Sizes that a cut changes: the channel of each entry, `None` where it stays.
    pub factors: Vec<Vec<Option<ChannelId>>>,
}

/// An operation with the factors of its count.
#[derive(Debug, Clone)]
pub(super) struct CountedOp {
    pub layer: String,
    fixed: u128,
    channels: Vec<Vec<Option<ChannelId>>>,
    divisor: u64,
}

impl CountedOp {
    pub fn all(analysis: &Analysis) -> Vec<Self> {
        let channel = |atom: usize| analysis.labels.channel(atom);
        let count = |op: &Macs| {
            let plain = op.sizes.iter().filter(|size| size.labels.is_none());
            let labelled = op.sizes.iter().filter_map(|size| size.labels.as_ref());
            Self {
                layer: op.layer.clone(),
                fixed: plain.map(|size| u128::from(size.size)).product(),
                channels: labelled
                    .map(|labels| labels.iter().map(|label| label.map(channel)).collect())
                    .collect(),
                divisor: op.divisor,
            }
        };
        analysis.macs.iter().map(count).collect()
    }

    pub fn product(&self, batch: u64) -> MacsProduct {
        MacsProduct {
            layer: self.layer.clone(),
            scale: self.fixed as f64 / (self.divisor as f64 * batch as f64),
            factors: self.channels.clone(),
        }
    }

    pub fn macs(&self, removed: &ChannelSet, batch: u64) -> u64 {
        let kept = |channels: &Vec<Option<ChannelId>>| removed.kept(channels) as u128;
        let sizes: u128 = self.channels.iter().map(kept).product();
        let total = self.fixed * sizes / u128::from(self.divisor) / u128::from(batch);
        u64::try_from(total).unwrap_or(u64::MAX)
    }
}
