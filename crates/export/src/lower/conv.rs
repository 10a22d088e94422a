//! Convolutions of one to three dimensions, and transposed ones.

use burn_ir::{
    Conv1dOpIr, Conv2dOpIr, Conv3dOpIr, ConvTranspose1dOpIr, ConvTranspose2dOpIr,
    ConvTranspose3dOpIr, TensorIr,
};

use crate::graph::Attribute;

use super::{Lower, Lowering, ints};

/// A convolution of any kind.
pub(super) struct Conv<'a> {
    operator: &'static str,
    x: &'a TensorIr,
    weight: &'a TensorIr,
    bias: Option<&'a TensorIr>,
    out: &'a TensorIr,
    stride: Vec<usize>,
    dilation: Vec<usize>,
    /// Before and after each dimension.
    padding: Vec<(usize, usize)>,
    /// Rows that are added to the output of a transposed convolution.
    padding_out: Vec<usize>,
    groups: usize,
}

macro_rules! from_op {
    ($($op:ident: $operator:literal, |$options:ident| $padding:expr, $padding_out:expr;)+) => {$(
        impl<'a> From<&'a $op> for Conv<'a> {
            fn from(op: &'a $op) -> Self {
                let $options = &op.options;
                Self {
                    operator: $operator,
                    x: &op.x,
                    weight: &op.weight,
                    bias: op.bias.as_ref(),
                    out: &op.out,
                    stride: $options.stride.to_vec(),
                    dilation: $options.dilation.to_vec(),
                    padding: $padding,
                    padding_out: $padding_out,
                    groups: $options.groups,
                }
            }
        }
    )+};
}

fn both(padding: &[usize]) -> Vec<(usize, usize)> {
    padding.iter().map(|&padding| (padding, padding)).collect()
}

from_op! {
    Conv1dOpIr: "Conv", |options| options.padding.to_vec(), Vec::new();
    Conv2dOpIr: "Conv", |options| options.padding.to_vec(), Vec::new();
    Conv3dOpIr: "Conv", |options| both(&options.padding), Vec::new();
    ConvTranspose1dOpIr: "ConvTranspose", |options| both(&options.padding), options.padding_out.to_vec();
    ConvTranspose2dOpIr: "ConvTranspose", |options| both(&options.padding), options.padding_out.to_vec();
    ConvTranspose3dOpIr: "ConvTranspose", |options| both(&options.padding), options.padding_out.to_vec();
}

/// The weight has ONNX's layout, `[out, in / groups, ..]` and transposed `[in, out / groups, ..]`.
pub(super) fn conv(l: &mut Lower, op: &Conv) -> Lowering {
    let mut inputs = vec![l.input(op.x)?, l.input(op.weight)?];
    if let Some(bias) = op.bias {
        inputs.push(l.input(bias)?);
    }
    let kernel = op.weight.shape.to_vec()[2..].to_vec();
    let pads = op
        .padding
        .iter()
        .map(|pad| pad.0)
        .chain(op.padding.iter().map(|pad| pad.1));
    let node = l.push(op.operator, inputs, op.out);
    node.set("kernel_shape", ints(kernel))
        .set("strides", ints(op.stride.iter().copied()))
        .set("pads", ints(pads))
        .set("dilations", ints(op.dilation.iter().copied()))
        .set("group", Attribute::Int(op.groups as i64));
    if op.padding_out.iter().any(|&padding| padding > 0) {
        node.set("output_padding", ints(op.padding_out.iter().copied()));
    }
    Ok(())
}
