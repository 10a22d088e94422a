//! Convolutions, transposed and deformable ones, plain, grouped and depthwise.
//!
//! `weight` is `[out, in / groups, kernel..]`, for a transposed convolution
//! `[in, out / groups, kernel..]`.

use burn_ir::{
    Conv1dOpIr, Conv2dOpIr, Conv3dOpIr, ConvTranspose1dOpIr, ConvTranspose2dOpIr,
    ConvTranspose3dOpIr, DeformConv2dOpIr, TensorIr,
};

use super::super::GraphError;
use super::super::analysis::Analysis;
use super::super::facts::{Blocks, Grouped, Macs, Size};
use super::super::labels::Axis;
use super::super::value::Value;
use super::{matmul, reduce};
use crate::target::layer_of;

/// Rule of a convolution of any rank.
pub(super) struct Conv<'a> {
    x: &'a TensorIr,
    weight: &'a TensorIr,
    bias: Option<&'a TensorIr>,
    groups: usize,
    out: &'a TensorIr,
}

macro_rules! from_op {
    ($($op:ty),+) => {$(
        impl<'a> From<&'a $op> for Conv<'a> {
            fn from(op: &'a $op) -> Self {
                Self {
                    x: &op.x,
                    weight: &op.weight,
                    bias: op.bias.as_ref(),
                    groups: op.options.groups,
                    out: &op.out,
                }
            }
        }
    )+};
}

from_op!(
    Conv1dOpIr,
    Conv2dOpIr,
    Conv3dOpIr,
    ConvTranspose1dOpIr,
    ConvTranspose2dOpIr,
    ConvTranspose3dOpIr
);

/// Checked tensors of a convolution.
struct Parts {
    x: Value,
    weight: Value,
    bias: Option<Value>,
    layer: String,
}

fn parts(a: &mut Analysis, op: &Conv) -> Result<Parts, GraphError> {
    let (x, weight) = (a.value_at(op.x, 1), a.value(op.weight));
    let rank = op.out.shape.to_vec().len();
    if rank < 3 || x.shape.len() != rank || weight.shape.len() != rank || op.groups == 0 {
        return Err(a.shape_error(&[op.x, op.weight, op.out]));
    }
    let layer = a.layer(&weight);
    for axis in weight.axes[2..].iter().flatten() {
        a.hide(axis, "is a kernel's size");
    }
    for axis in x.axes[2..].iter().flatten() {
        let why = format!("is a place in the feature map of `{layer}`");
        a.protect(axis, &why);
    }
    let bias = op.bias.map(|bias| a.value(bias));
    Ok(Parts {
        x,
        weight,
        bias,
        layer,
    })
}

/// Rule of convolutions: plain, grouped or depthwise.
pub(super) fn conv(a: &mut Analysis, op: &Conv) -> Result<(), GraphError> {
    let parts = parts(a, op)?;
    let (inputs, per_group) = (parts.x.shape[1], parts.weight.shape[1]);
    if inputs != per_group * op.groups || !op.out.shape.to_vec()[1].is_multiple_of(op.groups) {
        return Err(a.shape_error(&[op.x, op.weight, op.out]));
    }
    let channels = if op.groups == 1 {
        let (x, weight) = (parts.x.axes[1].as_ref(), parts.weight.axes[1].as_ref());
        a.contract(x, weight, &parts.layer, a.is_input(op.x));
        matmul::biased(
            a,
            parts.weight.axes[0].as_ref(),
            parts.bias.as_ref(),
            &parts.layer,
        )
    } else if op.groups == inputs {
        depthwise(a, op, &parts)
    } else {
        grouped(a, op, &parts)
    };
    finish(a, op, &parts, channels);
    let out = a.value(op.out);
    let mut sizes: Vec<Size> = (0..out.shape.len())
        .map(|dim| Size::of(&out, dim))
        .collect();
    sizes.extend(
        parts.weight.shape[2..]
            .iter()
            .map(|&size| Size::fixed(size)),
    );
    let depthwise = op.groups == inputs && op.groups > 1;
    if !depthwise {
        sizes.push(Size::of(&parts.x, 1));
    }
    a.macs.push(Macs {
        layer: parts.layer,
        sizes,
        divisor: if depthwise { 1 } else { op.groups as u64 },
    });
    Ok(())
}

/// Depthwise convolution: the filters of an input channel are removed with it.
fn depthwise(a: &mut Analysis, op: &Conv, parts: &Parts) -> Option<Axis> {
    let weight = parts.weight.axes[0].as_ref();
    let outputs = parts.weight.shape[0];
    let per_input = outputs / op.groups;
    let x = parts.x.axes[1].as_ref();
    let input = x.and_then(|x| x.take((0..outputs).map(|i| i / per_input)));
    let why = a.fixed_by(op.x);
    a.join(input.as_ref(), weight, &why);
    // The filters of one input stay together even where nothing is known of the input.
    for filters in weight
        .map(|w| w.labels.chunks(per_input))
        .into_iter()
        .flatten()
    {
        for pair in filters.windows(2) {
            if let [Some(first), Some(second)] = *pair {
                a.labels.join(first, second);
            }
        }
    }
    if let Some((param, 0)) = a.origin(weight) {
        a.depthwise.insert(param, op.groups);
    } else if let Some(x) = x {
        let why = format!("has a constant or computed weight in `{}`", parts.layer);
        a.protect(x, &why);
    }
    matmul::biased(a, weight, parts.bias.as_ref(), &parts.layer)
}

/// Grouped convolution: every group must keep equally many channels.
fn grouped(a: &mut Analysis, op: &Conv, parts: &Parts) -> Option<Axis> {
    let (x, weight) = (parts.x.axes[1].as_ref(), parts.weight.axes[0].as_ref());
    if let Some(columns) = &parts.weight.axes[1] {
        a.hide(columns, "is a column of a grouped convolution");
    }
    let why = format!(
        "is not zero before the grouped convolution `{}`",
        parts.layer
    );
    if let Some(x) = x {
        for (i, &label) in x.labels.iter().enumerate() {
            if x.value[i] != Some(0.0) {
                a.protect_label(label, &why);
            }
        }
    }
    match a.origin(weight) {
        Some((param, 0)) => {
            let labels = |axis: Option<&Axis>| axis.map_or_else(Vec::new, |a| a.labels.clone());
            let layer = layer_of(&a.captured.params[param].path).to_string();
            for axis in [x, weight].into_iter().flatten() {
                let labels = axis.labels.clone();
                a.blocks
                    .push(Blocks::equal(layer.clone(), op.groups, labels));
            }
            a.grouped.push(Grouped {
                weight: param,
                groups: op.groups,
                input: labels(x),
                output: labels(weight),
            });
        }
        _ => {
            let why = format!("has a constant or computed weight in `{}`", parts.layer);
            for axis in [x, weight].into_iter().flatten() {
                a.protect(axis, &why);
            }
        }
    }
    matmul::biased(a, weight, parts.bias.as_ref(), &parts.layer)
}

/// Rule of transposed convolutions.
pub(super) fn transposed(a: &mut Analysis, op: &Conv) -> Result<(), GraphError> {
    let parts = parts(a, op)?;
    let (inputs, per_group) = (parts.x.shape[1], parts.weight.shape[1]);
    let outputs = per_group * op.groups;
    if parts.weight.shape[0] != inputs || op.out.shape.to_vec()[1] != outputs {
        return Err(a.shape_error(&[op.x, op.weight, op.out]));
    }
    let (x, rows) = (parts.x.axes[1].as_ref(), parts.weight.axes[0].as_ref());
    let columns = parts.weight.axes[1].as_ref();
    let channels = if op.groups == 1 {
        a.contract(x, rows, &parts.layer, a.is_input(op.x));
        matmul::biased(a, columns, parts.bias.as_ref(), &parts.layer)
    } else {
        // Rows are inputs and columns are outputs within a group: neither can go alone.
        let why = format!("is split into the groups of `{}`", parts.layer);
        for axis in [x, rows].into_iter().flatten() {
            a.protect(axis, &why);
        }
        if let Some(columns) = columns {
            a.hide(columns, &why);
        }
        let bias = parts.bias.as_ref().and_then(|bias| bias.axes[0].clone());
        if let Some(bias) = &bias {
            a.protect(bias, &why);
        }
        bias.map(|bias| bias.map(reduce::lost))
    };
    finish(a, op, &parts, channels);
    let out = a.value(op.out);
    let mut sizes: Vec<Size> = (0..parts.x.shape.len())
        .map(|dim| Size::of(&parts.x, dim))
        .collect();
    sizes.extend(
        parts.weight.shape[2..]
            .iter()
            .map(|&size| Size::fixed(size)),
    );
    sizes.push(Size::of(&out, 1));
    a.macs.push(Macs {
        layer: parts.layer,
        sizes,
        divisor: op.groups as u64,
    });
    Ok(())
}

/// Rule of deformable convolutions: offsets and modulation are positions, without channels.
pub(super) fn deformable(a: &mut Analysis, op: &DeformConv2dOpIr) -> Result<(), GraphError> {
    for tensor in [Some(&op.offset), op.mask.as_ref()].into_iter().flatten() {
        let value = a.value(tensor);
        for axis in value.axes.iter().flatten() {
            a.protect(axis, "is read as a position by a deformable convolution");
        }
    }
    if op.options.offset_groups > 1 {
        let x = a.value_at(&op.x, 1);
        if let Some(axis) = &x.axes[1] {
            a.protect(
                axis,
                "is split into the offset groups of a deformable convolution",
            );
        }
    }
    let op = Conv {
        x: &op.x,
        weight: &op.weight,
        bias: op.bias.as_ref(),
        groups: op.options.weight_groups,
        out: &op.out,
    };
    conv(a, &op)
}

fn finish(a: &mut Analysis, op: &Conv, parts: &Parts, channels: Option<Axis>) {
    let batch = parts.x.axes[0].as_ref().map(|axis| match op.bias {
        Some(_) => axis.map(reduce::lost),
        None => axis.map(reduce::zero),
    });
    let mut axes = vec![None; parts.x.shape.len()];
    (axes[0], axes[1]) = (batch, channels);
    a.set(op.out, axes, true);
}
