//! What became of a quantized model in an exported file.

use std::fmt;

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::target::OnnxTarget;

/// Operators in integers and in floating point, quantizers, and where the file leaves the simulation.
///
/// Predicted from what the target is known to execute; a runtime of another version may differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizationReport {
    /// The runtime that the file is made for.
    pub target: OnnxTarget,
    /// Operators that the target executes in integers.
    pub integer_nodes: Vec<IntegerNode>,
    /// Operators that it executes in floating point.
    pub float_nodes: Vec<FloatNode>,
    /// Quantizers of tensors, those of several targets merged.
    pub quantizers: Vec<TensorQuantizer>,
    /// Norms that were folded into a layer.
    pub folded_norms: Vec<FoldedNorm>,
    /// ReLUs and clips that a quantizer's range does in their place, by the tensor they made.
    pub absorbed_activations: Vec<String>,
    /// What the file computes and the simulation did not.
    pub not_simulated: Vec<Difference>,
    /// What the simulation computed and the file does not.
    pub left_out: Vec<Difference>,
    /// Biases in int32.
    pub integer_biases: usize,
    /// Largest integer of a bias.
    pub largest_bias: Option<LargestBias>,
    /// Size of the constants.
    pub bytes: ConstantBytes,
}

/// An operator in integers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntegerNode {
    /// The layer's path, or the operator's name where it belongs to none.
    pub name: String,
    /// The operator of ONNX.
    pub operator: String,
}

/// An operator in floating point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloatNode {
    /// The layer's path, or the operator's name where it belongs to none.
    pub name: String,
    /// The operator of ONNX.
    pub operator: String,
    /// Why it is not executed in integers.
    pub reason: String,
}

/// The quantizer of a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorQuantizer {
    /// The tensor.
    pub tensor: String,
    /// The targets of the compression that it stands for; several were merged, none is a copy of
    /// another quantizer on the other side of an operator that only moves values.
    pub targets: Vec<String>,
    /// `int8` or `uint8`.
    pub storage: String,
    /// Its scale.
    pub scale: f32,
    /// Its zero point.
    pub zero_point: i32,
    /// Operators that read the quantized values and did not in the simulation.
    pub also_read_by: Vec<String>,
}

/// A norm folded into a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldedNorm {
    /// The layer's path.
    pub layer: String,
    /// The norm's first parameter.
    pub norm: String,
}

/// A difference between simulation and file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// The target of the compression.
    pub path: String,
    /// The difference.
    pub what: String,
}

/// A bias in integers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LargestBias {
    /// The layer's path.
    pub layer: String,
    /// The largest magnitude.
    pub value: i64,
}

/// Size of the constants of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstantBytes {
    /// Weights and biases in integers, zero points.
    pub integers: u64,
    /// Scales and whatever is in floating point.
    pub floats: u64,
}

impl QuantizationReport {
    pub(crate) fn new(target: OnnxTarget) -> Self {
        Self {
            target,
            ..Self::default()
        }
    }

    pub(crate) fn differs(&mut self, path: impl fmt::Display, what: impl Into<String>) {
        let (path, what) = (path.to_string(), what.into());
        self.not_simulated.push(Difference { path, what });
    }

    pub(crate) fn leaves_out(&mut self, path: impl fmt::Display, what: impl Into<String>) {
        let (path, what) = (path.to_string(), what.into());
        self.left_out.push(Difference { path, what });
    }

    pub(crate) fn stays_float(
        &mut self,
        name: impl Into<String>,
        operator: &str,
        reason: impl Into<String>,
    ) {
        self.float_nodes.push(FloatNode {
            name: name.into(),
            operator: operator.to_string(),
            reason: reason.into(),
        });
    }
}

impl fmt::Display for QuantizationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["operator", "layer", "executed in"]);
        for node in &self.integer_nodes {
            table.add_row([&node.operator, &node.name, "integers"]);
        }
        for node in &self.float_nodes {
            let how = format!("floating point: {}", node.reason);
            table.add_row([&node.operator, &node.name, &how]);
        }
        writeln!(f, "for {}", self.target)?;
        writeln!(f, "{}", table.trim_fmt())?;
        for quantizer in &self.quantizers {
            let TensorQuantizer {
                tensor, targets, ..
            } = quantizer;
            if targets.len() > 1 {
                writeln!(f, "merged on {tensor}: {}", targets.join(", "))?;
            }
            if targets.is_empty() {
                writeln!(f, "copied to {tensor}")?;
            }
            if !quantizer.also_read_by.is_empty() {
                let readers = quantizer.also_read_by.join(", ");
                writeln!(f, "not simulated: {readers} reads {tensor} quantized")?;
            }
        }
        write_differences(f, "not simulated", &self.not_simulated)?;
        write_differences(f, "left out", &self.left_out)?;
        let folded = self.folded_norms.len();
        let absorbed = self.absorbed_activations.len();
        writeln!(
            f,
            "{folded} norms folded, {absorbed} activations done by quantizers"
        )?;
        if let Some(LargestBias { layer, value }) = &self.largest_bias {
            let count = self.integer_biases;
            writeln!(f, "{count} biases in int32, the largest {value} of {layer}")?;
        }
        let ConstantBytes { integers, floats } = self.bytes;
        write!(
            f,
            "constants: {integers} bytes in integers, {floats} in floating point"
        )
    }
}

/// One line for all paths with the same difference.
fn write_differences(f: &mut fmt::Formatter<'_>, kind: &str, all: &[Difference]) -> fmt::Result {
    let mut paths: IndexMap<&str, Vec<&str>> = IndexMap::new();
    for Difference { path, what } in all {
        paths.entry(what).or_default().push(path);
    }
    for (what, paths) in paths {
        writeln!(f, "{kind}: {what}: {}", paths.join(", "))?;
    }
    Ok(())
}
