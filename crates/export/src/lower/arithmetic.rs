//! Operations on elements at the same place: arithmetic, comparisons, functions of one number.

use burn_ir::{BinaryOpIr, MaskFillOpIr, MaskWhereOpIr, ScalarIr, ScalarOpIr, TensorIr, UnaryOpIr};

use crate::graph::{Attribute, Element};
use crate::proto::data_type;

use super::{Lower, Lowering, Unsupported, element, scalar_value};

/// An operator of one tensor.
pub(super) fn unary(l: &mut Lower, operator: &str, op: &UnaryOpIr) -> Lowering {
    let x = l.input(&op.input)?;
    l.push(operator, [x], &op.out);
    Ok(())
}

/// An operator of two tensors.
pub(super) fn binary(l: &mut Lower, operator: &str, op: &BinaryOpIr) -> Lowering {
    let inputs = [l.input(&op.lhs)?, l.input(&op.rhs)?];
    l.push(operator, inputs, &op.out);
    Ok(())
}

/// An operator of a tensor and a number.
pub(super) fn with_number(l: &mut Lower, operator: &str, op: &ScalarOpIr) -> Lowering {
    let inputs = [l.input(&op.lhs)?, l.scalar(op.rhs, op.lhs.dtype)?];
    l.push(operator, inputs, &op.out);
    Ok(())
}

pub(super) fn not_equal(l: &mut Lower, op: &BinaryOpIr) -> Lowering {
    let inputs = [l.input(&op.lhs)?, l.input(&op.rhs)?];
    let equal = l.step("Equal", inputs, []);
    l.push("Not", [equal], &op.out);
    Ok(())
}

pub(super) fn not_equal_number(l: &mut Lower, op: &ScalarOpIr) -> Lowering {
    let inputs = [l.input(&op.lhs)?, l.scalar(op.rhs, op.lhs.dtype)?];
    let equal = l.step("Equal", inputs, []);
    l.push("Not", [equal], &op.out);
    Ok(())
}

/// `x^n`; a square is a product, as it is in Burn.
pub(super) fn power(l: &mut Lower, op: &ScalarOpIr) -> Lowering {
    let x = l.input(&op.lhs)?;
    if scalar_value(op.rhs) == 2.0 {
        l.push("Mul", [x.clone(), x], &op.out);
        return Ok(());
    }
    let exponent = l.scalar(op.rhs, op.lhs.dtype)?;
    l.push("Pow", [x, exponent], &op.out);
    Ok(())
}

pub(super) fn remainder(l: &mut Lower, op: &BinaryOpIr) -> Lowering {
    let y = l.input(&op.rhs)?;
    remainder_of(l, &op.lhs, y, &op.out)
}

pub(super) fn remainder_number(l: &mut Lower, op: &ScalarOpIr) -> Lowering {
    let y = l.scalar(op.rhs, op.lhs.dtype)?;
    remainder_of(l, &op.lhs, y, &op.out)
}

/// `x - floor(x / y) y`, with the sign of `y`. ONNX's `Mod` of floats has the sign of `x`.
fn remainder_of(l: &mut Lower, x: &TensorIr, y: String, out: &TensorIr) -> Lowering {
    let name = l.input(x)?;
    if element(x.dtype)? == Element::Int64 {
        l.push("Mod", [name, y], out);
        return Ok(());
    }
    let quotient = l.step("Div", [name.clone(), y.clone()], []);
    let whole = l.step("Floor", [quotient], []);
    let whole = l.step("Mul", [whole, y], []);
    l.push("Sub", [name, whole], out);
    Ok(())
}

pub(super) fn clamp(
    l: &mut Lower,
    x: &TensorIr,
    min: Option<ScalarIr>,
    max: Option<ScalarIr>,
    out: &TensorIr,
) -> Lowering {
    let mut bound = |bound: Option<ScalarIr>| match bound {
        Some(bound) => l.scalar(bound, x.dtype),
        None => Ok(String::new()),
    };
    let (min, max) = (bound(min)?, bound(max)?);
    let mut inputs = vec![l.input(x)?, min, max];
    // An optional input at the end is left out.
    while inputs.last().is_some_and(String::is_empty) {
        inputs.pop();
    }
    l.push("Clip", inputs, out);
    Ok(())
}

/// Another type of elements; floats lose their fraction.
pub(super) fn cast(l: &mut Lower, input: &TensorIr, out: &TensorIr) -> Lowering {
    let (from, to) = (element(input.dtype)?, element(out.dtype)?);
    let x = l.input(input)?;
    if from == to {
        l.alias(x, out);
        return Ok(());
    }
    l.push("Cast", [x], out).set("to", type_code(to));
    Ok(())
}

/// The type of elements as an attribute.
pub(super) fn type_code(element: Element) -> Attribute {
    Attribute::Int(i64::from(match element {
        Element::Float => data_type::FLOAT,
        Element::Int64 => data_type::INT64,
        Element::Bool => data_type::BOOL,
    }))
}

/// `log(1 + x)`
pub(super) fn log1p(l: &mut Lower, op: &UnaryOpIr) -> Lowering {
    let inputs = [l.input(&op.input)?, l.number(1.0, op.input.dtype)?];
    let sum = l.step("Add", inputs, []);
    l.push("Log", [sum], &op.out);
    Ok(())
}

/// `sign(x) floor(|x|)`
pub(super) fn truncate(l: &mut Lower, op: &UnaryOpIr) -> Lowering {
    let x = l.input(&op.input)?;
    let size = l.step("Abs", [x.clone()], []);
    let floor = l.step("Floor", [size], []);
    let sign = l.step("Sign", [x], []);
    l.push("Mul", [sign, floor], &op.out);
    Ok(())
}

/// `sqrt(x^2 + y^2)`
pub(super) fn hypot(l: &mut Lower, op: &BinaryOpIr) -> Lowering {
    let (x, y) = (l.input(&op.lhs)?, l.input(&op.rhs)?);
    let x = l.step("Mul", [x.clone(), x], []);
    let y = l.step("Mul", [y.clone(), y], []);
    let sum = l.step("Add", [x, y], []);
    l.push("Sqrt", [sum], &op.out);
    Ok(())
}

/// `value` where the mask is set, `tensor` elsewhere.
pub(super) fn mask_where(l: &mut Lower, op: &MaskWhereOpIr) -> Lowering {
    let (mask, value) = (l.input(&op.mask)?, l.input(&op.value)?);
    choose(l, mask, value, &op.tensor, &op.out)
}

/// A number where the mask is set, `tensor` elsewhere.
pub(super) fn mask_fill(l: &mut Lower, op: &MaskFillOpIr) -> Lowering {
    let (mask, value) = (l.input(&op.mask)?, l.scalar(op.value, op.tensor.dtype)?);
    choose(l, mask, value, &op.tensor, &op.out)
}

fn choose(
    l: &mut Lower,
    mask: String,
    value: String,
    tensor: &TensorIr,
    out: &TensorIr,
) -> Lowering {
    let name = l.input(tensor)?;
    // `Where` of booleans is no operator of every runtime.
    if element(tensor.dtype)? == Element::Bool {
        let other = l.step("Not", [mask.clone()], []);
        let chosen = l.step("And", [mask, value], []);
        let kept = l.step("And", [other, name], []);
        l.push("Or", [chosen, kept], out);
        return Ok(());
    }
    l.push("Where", [mask, value, name], out);
    Ok(())
}

/// Checks that a size is the same in all captures.
pub(super) fn fixed(sizes: &crate::trace::Sizes, what: &str) -> Result<usize, Unsupported> {
    sizes.fixed().ok_or_else(|| {
        Unsupported::new(format!(
            "{what} is dynamic, which no operator follows: export that dimension with a fixed size"
        ))
    })
}
