//! Operations in messages and rules: a name, shapes and numbers.

use std::fmt::{self, Write};

use burn_ir::{OperationIr, ScalarIr, TensorIr};

use super::builtin;

/// An operation of a captured forward pass.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Operation {
    /// The identifier of a custom operation, or the name of one of Burn's: `conv2d`.
    pub name: String,
    /// The shape of each input.
    pub inputs: Vec<Vec<usize>>,
    /// The shape of each output.
    pub outputs: Vec<Vec<usize>>,
    /// The numbers that a custom operation was called with.
    pub scalars: Vec<f64>,
}

impl Operation {
    /// Describes an operation of Burn's intermediate representation.
    pub(super) fn of(op: &OperationIr) -> Self {
        let shape = |tensor: &TensorIr| tensor.shape.to_vec();
        let scalars = match op {
            OperationIr::Custom(custom) => custom.scalars.as_slice(),
            _ => &[],
        };
        Self {
            name: name(op),
            inputs: op.inputs().map(shape).collect(),
            outputs: op.outputs().map(shape).collect(),
            scalars: scalars.iter().map(|&scalar| number(scalar)).collect(),
        }
    }
}

/// The name of an operation: `conv2d`, `add_scalar`, or a custom operation's own.
pub fn name(op: &OperationIr) -> String {
    if let OperationIr::Custom(custom) = op {
        return builtin::short(&custom.id).to_string();
    }
    // `NumericFloat(F32, AddScalar(ScalarOpIr { ..`: the variant is the last but one word.
    let mut head = Head::default();
    // Writing ends in an error once the head is complete.
    let _ = write!(head, "{op:?}");
    let head = &*head.0;
    let words: Vec<&str> = head
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let variant = words.iter().rev().nth(1).copied().unwrap_or(head);
    let mut snake = String::new();
    for c in variant.chars() {
        if c.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

/// What is written before the first brace.
#[derive(Default)]
struct Head(String);

impl fmt::Write for Head {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match text.split_once('{') {
            None => self.0.write_str(text),
            Some((before, _)) => {
                self.0.push_str(before);
                Err(fmt::Error)
            }
        }
    }
}

/// A scalar operand as a number.
pub fn number(scalar: ScalarIr) -> f64 {
    match scalar {
        ScalarIr::Float(x) => x,
        ScalarIr::Int(x) => x as f64,
        ScalarIr::UInt(x) => x as f64,
        ScalarIr::Bool(x) => f64::from(x),
    }
}
