//! The report of a speedup.

use std::fmt;

use burn::module::Module;
use burn_compress_core::layer::{LayerInfo, layers};
use burn_compress_core::write_table;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::counts::{LayerCounts, MacCounts, owner};
use crate::slice::float_shapes;
use crate::sparsity::{Removal, channels, elements, largest};
use crate::uncut::UncutMask;
use crate::verify::RoundingBoundary;

/// Result of verifying a small model.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verified {
    pub max_relative_error: f64,
    pub rounding_boundary: RoundingBoundary,
}

/// The largest parameter of one layer, before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerChange {
    /// Path of the layer.
    pub layer: String,
    /// Its type, `Conv2d`.
    pub kind: String,
    /// Shape of its largest parameter before.
    pub before: Vec<usize>,
    /// Shape of that parameter in the small model.
    pub after: Vec<usize>,
    /// The sparsity that a pruner of the run was asked for.
    #[serde(default)]
    pub asked: Option<f64>,
    /// The fraction of the output channels that went, or that stay and are masked; of single values
    /// where a mask holds those. It is of the parameter that was asked for, or of the largest.
    #[serde(default)]
    pub reached: f64,
    /// Output channels of that parameter; absent where it has no dimension of them.
    #[serde(default)]
    pub channels: Option<Change>,
    /// Bytes of all values of the layer in memory as `f32`, running statistics included.
    #[serde(default)]
    pub bytes: Change,
    /// Bytes of these values in the [file](SpeedupReport::storage) of the small model, quantized ones
    /// as integers. Absent where that is not known.
    #[serde(default)]
    pub stored: Option<u64>,
    /// Multiply-accumulates of the layer for one element of the batch; absent where they were not
    /// counted one by one. Products of two activations, as in attention, belong to no layer.
    #[serde(default)]
    pub macs: Option<Change>,
}

/// The size of the file of a small model, and its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// Bytes of all values of the small model in memory as `f32`, running statistics included.
    pub f32_bytes: u64,
    /// Bytes of the file: values, scales, masks, names and shapes.
    pub file_bytes: u64,
    /// Number of values that are stored as integers of 1 to 8 bits.
    pub integers: u64,
    /// Bytes of these integers.
    pub integer_bytes: u64,
}

impl Storage {
    /// Ratio of the size of the small model's values as `f32` to the size of the file.
    pub fn ratio(&self) -> f64 {
        ratio(self.f32_bytes, self.file_bytes)
    }
}

fn ratio(before: u64, after: u64) -> f64 {
    before as f64 / after.max(1) as f64
}

/// A shape as tables show it.
pub(crate) fn dims(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    sizes.join("x")
}

/// A fraction in percent.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}

/// Sizes before and after a speedup, and how well the small model was verified.
///
/// Its `Display` is a small table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeedupReport {
    /// Parameters, without the running statistics of normalizations.
    pub params: Change,
    /// Multiply-accumulates of one forward pass for one element of the batch.
    pub macs: Change,
    /// Bytes of all values in memory as `f32`, running statistics included. Quantization does not
    /// count, as it is simulated in memory; see [`storage`](Self::storage).
    pub bytes: Change,
    /// Storage of the small model as [`save_small`](crate::save_small) writes it, quantized parameters
    /// as integers. Absent when the model cannot be saved. Values are not looked at: saving rejects
    /// those that are not finite.
    #[serde(default)]
    pub storage: Option<Storage>,
    /// The layers in module order.
    pub layers: Vec<LayerChange>,
    /// Largest relative error on the dummy input, without simulated quantization.
    pub max_relative_error: f64,
    /// With simulated quantization: how many outputs moved across a rounding boundary.
    pub rounding_boundary: RoundingBoundary,
    /// The channels that stayed and whose masks were lifted, see
    /// [`PartialChannels::Lift`](crate::PartialChannels::Lift).
    #[serde(default)]
    pub lifted_channels: usize,
    /// The targets that are masked in the small model as well, because the cut could not follow or
    /// because only single values are masked.
    #[serde(default)]
    pub uncut: Vec<UncutMask>,
}

impl SpeedupReport {
    /// Counts and compares two models with the same layers.
    pub fn new<M: Module>(
        dense: &M,
        small: &M,
        macs: Change,
        max_relative_error: f64,
        rounding_boundary: RoundingBoundary,
    ) -> Self {
        let (before, after) = (layers(dense), layers(small));
        let (shapes, left) = (float_shapes(dense), float_shapes(small));
        let bytes_of = LayerCounts::new(&before, &shapes, |path, _| {
            left.get(path).map_or(0, |shape| 4 * elements(shape))
        });
        let change = |(before, after): (&LayerInfo, &LayerInfo)| {
            let param = largest(&before.params)?;
            let after = after.param(&param.name)?;
            Some(LayerChange {
                layer: before.path.clone(),
                kind: before.kind.clone(),
                before: param.shape.clone(),
                after: after.shape.clone(),
                asked: None,
                reached: 0.0,
                channels: channels(before, param, &after.shape),
                bytes: bytes_of.of(&before.path),
                stored: None,
                macs: None,
            })
        };
        let bytes = |shapes: &IndexMap<String, Vec<usize>>| {
            shapes.values().map(|shape| 4 * elements(shape)).sum()
        };
        let params = |layers: &[LayerInfo]| -> u64 {
            let params = layers.iter().flat_map(|layer| &layer.params);
            params.map(|param| elements(&param.shape)).sum()
        };
        Self {
            params: Change {
                dense: params(&before),
                small: params(&after),
            },
            macs,
            bytes: Change {
                dense: bytes(&shapes),
                small: bytes(&left),
            },
            storage: None,
            layers: before.iter().zip(&after).filter_map(change).collect(),
            max_relative_error,
            rounding_boundary,
            lifted_channels: 0,
            uncut: Vec::new(),
        }
    }

    /// Counts what a cut has left of a model with these layers and shapes.
    pub(crate) fn of_cut(
        layers: &[LayerInfo],
        shapes: &IndexMap<String, Vec<usize>>,
        removal: &Removal<'_>,
        macs: &MacCounts,
        verified: Verified,
    ) -> Self {
        let bytes = LayerCounts::new(layers, shapes, |path, shape| {
            4 * elements(removal.after(path, shape))
        });
        let change = |layer: &LayerInfo| {
            let loss = removal.of(layer)?;
            Some(LayerChange {
                layer: layer.path.clone(),
                kind: layer.kind.clone(),
                before: loss.before,
                after: loss.after,
                asked: loss.asked,
                reached: loss.reached,
                channels: loss.channels,
                bytes: bytes.of(&layer.path),
                stored: None,
                macs: Some(macs.of(&layer.path)),
            })
        };
        Self {
            params: removal.params(layers),
            macs: macs.total,
            bytes: removal.bytes(shapes),
            storage: None,
            layers: layers.iter().filter_map(change).collect(),
            max_relative_error: verified.max_relative_error,
            rounding_boundary: verified.rounding_boundary,
            lifted_channels: 0,
            uncut: Vec::new(),
        }
    }

    /// Sets what is written when the small model is saved.
    pub fn with_storage(mut self, storage: Option<Storage>) -> Self {
        self.storage = storage;
        self
    }

    /// Sets the bytes of each layer in the file, from those of each tensor.
    pub(crate) fn with_stored(mut self, tensors: &IndexMap<String, u64>) -> Self {
        let of_layer: Vec<&str> = self.layers.iter().map(|row| row.layer.as_str()).collect();
        let mut stored = vec![0; of_layer.len()];
        for (path, bytes) in tensors {
            if let Some(at) = owner(path, |layer| of_layer.iter().position(|row| *row == layer)) {
                stored[at] += bytes;
            }
        }
        for (row, stored) in self.layers.iter_mut().zip(stored) {
            row.stored = Some(stored);
        }
        self
    }

    /// Ratio of the size of the given model's values as `f32` to the size of the small model's
    /// file: by pruning and quantization together.
    pub fn compression_ratio(&self) -> Option<f64> {
        let storage = self.storage?;
        Some(ratio(self.bytes.dense, storage.file_bytes))
    }

    /// Sets what is masked in the small model.
    pub fn with_uncut(mut self, uncut: Vec<UncutMask>) -> Self {
        self.uncut = uncut;
        self
    }

    /// Sets the number of channels whose masks were lifted.
    pub fn with_lifted_channels(mut self, channels: usize) -> Self {
        self.lifted_channels = channels;
        self
    }
}

impl fmt::Display for SpeedupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_goals = self.layers.iter().any(|row| row.asked.is_some());
        let title = ["layer", "type", "before", "after", "asked", "reached"].map(str::to_string);
        let columns = if has_goals { 6 } else { 4 };
        let mut rows = vec![title[..columns].to_vec()];
        for row in &self.layers {
            let (asked, reached) = (row.asked.map_or_else(String::new, percent), row.reached);
            let cells = [
                row.layer.clone(),
                row.kind.clone(),
                dims(&row.before),
                dims(&row.after),
                asked,
                percent(reached),
            ];
            rows.push(cells[..columns].to_vec());
        }
        write_table(f, &rows)?;
        writeln!(f)?;
        for (name, change) in [
            ("parameters", self.params),
            ("MACs", self.macs),
            ("bytes", self.bytes),
        ] {
            change.write(f, name)?;
        }
        if let (Some(storage), Some(ratio)) = (self.storage, self.compression_ratio()) {
            let (name, dense, file) = ("file", self.bytes.dense, storage.file_bytes);
            writeln!(
                f,
                "{name:<10}  {dense:>12} -> {file:>12}  ({ratio:.1} times smaller)"
            )?;
        }
        write!(f, "largest relative error {:.1e}", self.max_relative_error)?;
        if self.rounding_boundary.values > 0 {
            let RoundingBoundary { values, differing } = self.rounding_boundary;
            write!(
                f,
                ", {differing} of {values} quantized outputs moved by rounding"
            )?;
        }
        if self.lifted_channels > 0 {
            let channels = self.lifted_channels;
            write!(f, ", masks of {channels} remaining channels lifted")?;
        }
        writeln!(f)?;
        if !self.uncut.is_empty() {
            writeln!(f, "masked and not cut")?;
        }
        self.uncut
            .iter()
            .try_for_each(|uncut| writeln!(f, "  {uncut}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::conv::{Conv2d, Conv2dConfig};
    use burn::nn::{BatchNorm, BatchNormConfig};
    use burn::tensor::Device;

    #[derive(Module, Debug)]
    struct Net {
        conv: Conv2d,
        norm: BatchNorm,
    }

    fn net(channels: usize) -> Net {
        let device = Device::flex();
        Net {
            conv: Conv2dConfig::new([2, channels], [3, 3]).init(&device),
            norm: BatchNormConfig::new(channels).init(&device),
        }
    }

    fn report() -> SpeedupReport {
        let macs = Change {
            dense: 400,
            small: 100,
        };
        let rounding = RoundingBoundary {
            values: 10,
            differing: 1,
        };
        let storage = Storage {
            f32_bytes: 4 * 23,
            file_bytes: 46,
            integers: 18,
            integer_bytes: 9,
        };
        SpeedupReport::new(&net(4), &net(1), macs, 2e-7, rounding)
            .with_lifted_channels(2)
            .with_storage(Some(storage))
    }

    #[test]
    fn running_statistics_are_bytes_but_no_parameters() {
        let report = report();
        // A channel has 2 * 9 weights, a bias, gamma and beta; and two statistics.
        assert_eq!(
            report.params,
            Change {
                dense: 4 * 21,
                small: 21
            }
        );
        assert_eq!(
            report.bytes,
            Change {
                dense: 4 * 4 * 23,
                small: 4 * 23
            }
        );
        assert_eq!(report.macs.saved(), 0.75);
        assert_eq!(report.layers[0].after, [1, 2, 3, 3]);
        let change = |dense, small| Change { dense, small };
        let channels: Vec<_> = report.layers.iter().map(|row| row.channels).collect();
        assert_eq!(channels, [Some(change(4, 1)); 2]);
        // 2 * 9 weights and a bias; gamma, beta and both statistics.
        let bytes: Vec<Change> = report.layers.iter().map(|row| row.bytes).collect();
        assert_eq!(bytes, [change(4 * 4 * 19, 4 * 19), change(4 * 16, 4 * 4)]);
        assert!(
            report
                .layers
                .iter()
                .all(|row| row.macs.is_none() && row.stored.is_none())
        );
        assert_eq!(report.compression_ratio(), Some(8.0));
        assert_eq!(report.storage.unwrap().ratio(), 2.0);
        assert_eq!(report.with_storage(None).compression_ratio(), None);
    }

    #[test]
    fn it_is_shown_as_a_table() {
        let text = report().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "layer  type       before   after");
        assert_eq!(lines[1], "conv   Conv2d     4x2x3x3  1x2x3x3");
        assert_eq!(lines[2], "norm   BatchNorm  4        1");
        assert!(lines[4].ends_with("(75.0 % removed)"), "{text}");
        // 4 * 4 * 23 bytes to 46.
        assert_eq!(
            lines[7],
            "file                 368 ->           46  (8.0 times smaller)"
        );
        assert!(text.contains("1 of 10 quantized outputs"), "{text}");
        assert!(text.contains("masks of 2 remaining channels"), "{text}");
    }

    #[test]
    fn it_survives_json() {
        let report = report();
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(
            serde_json::from_str::<SpeedupReport>(&json).unwrap(),
            report
        );
        // Of a version that did not know the size of the file.
        let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json.as_object_mut().unwrap().remove("storage");
        let read: SpeedupReport = serde_json::from_value(json).unwrap();
        assert_eq!(read, report.with_storage(None));
    }
}
