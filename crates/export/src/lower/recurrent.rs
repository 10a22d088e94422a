//! Recurrent layers that were captured as one operation.
//!
//! ONNX's `LSTM` and `GRU` hold the gates of a direction below one another: input, output, forget, cell,
//! where a layer records input, forget, output, cell; and update, reset, new. Their matrices are turned:
//! `W [directions, gates * hidden, in]`, `R [directions, gates * hidden, hidden]`, and both biases behind
//! one another in `B [directions, 2 * gates * hidden]`.

use burn_compress_core::graph::builtin::Recurrence;
use burn_ir::{CustomOpIr, TensorIr};

use crate::graph::{Attribute, Constant, Node, Values};

use super::{Lower, Lowering, Unsupported, constant, ints, scalar_value};

/// Lowers one output of a layer. Those of one call share an operator.
pub(super) fn apply(l: &mut Lower, op: &CustomOpIr, operator: &str) -> Lowering {
    let scalars: Vec<f64> = op
        .scalars
        .iter()
        .map(|&scalar| scalar_value(scalar))
        .collect();
    let unknown = || Unsupported::new("it was recorded by another version of the layer");
    let is = Recurrence::of(&scalars).ok_or_else(unknown)?;
    let out = op.outputs.first().ok_or_else(unknown)?;
    let key: Vec<u64> = op.inputs.iter().map(|tensor| tensor.id.value()).collect();
    let outputs = match l.recurrent.get(&key) {
        Some(outputs) => outputs.clone(),
        None => {
            let outputs = layer(l, op, operator, is)?;
            l.recurrent.insert(key, outputs.clone());
            outputs
        }
    };
    let [sequence, hidden, cell] = outputs;
    if is.sequence {
        return whole_sequence(l, sequence, is, out);
    }
    let state = match (operator, is.end) {
        ("LSTM", 0) => cell,
        _ => hidden,
    };
    if is.directions == 2 {
        l.alias(state, out);
    } else {
        let first = l.ints([0]);
        l.push("Squeeze", [state, first], out);
    }
    Ok(())
}

/// `[steps, directions, batch, hidden]` to the order of Burn's layer.
fn whole_sequence(l: &mut Lower, sequence: String, is: Recurrence, out: &TensorIr) -> Lowering {
    let order = match is.batch_first {
        true => [2, 0, 1, 3],
        false => [0, 2, 1, 3],
    };
    let turned = l.step("Transpose", [sequence], [("perm", ints(order))]);
    let shape = l.ints([0, 0, -1]);
    l.push("Reshape", [turned, shape], out);
    Ok(())
}

/// The operator, with the names of sequence, hidden state and cell.
fn layer(
    l: &mut Lower,
    op: &CustomOpIr,
    operator: &str,
    is: Recurrence,
) -> Result<[String; 3], Unsupported> {
    let mut x = l.input(&op.inputs[0])?;
    if is.batch_first {
        x = l.step("Transpose", [x], [("perm", ints([1, 0, 2]))]);
    }
    let (states, params) = op.inputs[1..].split_at(is.states);
    let parameters = Parameters::read(l, params, is)?;
    let hidden = parameters.hidden;
    // The place of the lengths of the sequences stays empty.
    let mut inputs = vec![x];
    inputs.extend(parameters.pack(l, is));
    inputs.push(String::new());
    let mut given = Vec::new();
    for state in states {
        let state = l.input(state)?;
        given.push(match is.directions {
            2 => state,
            _ => {
                let first = l.ints([0]);
                l.step("Unsqueeze", [state, first], [])
            }
        });
    }
    // Recorded are cell and hidden state, ONNX takes hidden state and cell.
    given.reverse();
    inputs.extend(given);
    while inputs.last().is_some_and(String::is_empty) {
        inputs.pop();
    }
    let name = l.stem.clone();
    let outputs = ["sequence", "hidden", "cell"].map(|part| l.unique(&format!("{name}.{part}")));
    let written = if operator == "LSTM" { 3 } else { 2 };
    let direction = if is.directions == 2 {
        "bidirectional"
    } else {
        "forward"
    };
    let mut node = Node::new(operator, inputs, outputs[..written].to_vec())
        .with("hidden_size", Attribute::Int(hidden as i64))
        .with("direction", Attribute::Text(direction.to_string()));
    if operator == "GRU" {
        let after = Attribute::Int(i64::from(is.reset_after));
        node = node.with("linear_before_reset", after);
    }
    l.append(node);
    Ok(outputs)
}

/// The parameters of all gates as ONNX holds them.
struct Parameters {
    layer: String,
    inputs: usize,
    hidden: usize,
    weights: Vec<f32>,
    recurrences: Vec<f32>,
    biases: Vec<f32>,
}

impl Parameters {
    fn read(l: &Lower, params: &[TensorIr], is: Recurrence) -> Result<Self, Unsupported> {
        let constants = params.iter().map(|tensor| {
            let (path, _) = l.trace.parameters.get(&tensor.id).ok_or_else(|| {
                Unsupported::new("its weights are computed in the forward pass and no parameters")
            })?;
            let missing = || Unsupported::new(format!("the parameter `{path}` has no value"));
            constant::of(l.values.get(path).ok_or_else(missing)?)
        });
        let constants = constants.collect::<Result<Vec<Constant>, _>>()?;
        let path = params
            .first()
            .and_then(|tensor| l.trace.parameters.get(&tensor.id));
        // `lstm.input_gate.input_transform.weight`, and `lstm.forward.input_gate..` of two directions.
        let above = if is.directions == 2 { 4 } else { 3 };
        let parts: Vec<&str> = path.map_or("", |(path, _)| path).split('.').collect();
        let mut packed = Self {
            layer: parts[..parts.len().saturating_sub(above)].join("."),
            inputs: constants[0].dims[0],
            hidden: constants[0].dims[1],
            weights: Vec::new(),
            recurrences: Vec::new(),
            biases: Vec::new(),
        };
        for direction in constants.chunks(is.gates * is.params) {
            let mut gates: Vec<&[Constant]> = direction.chunks(is.params).collect();
            if gates.len() == 4 {
                gates.swap(1, 2);
            }
            for gate in &gates {
                packed.weights.extend(turned(&gate[0]));
                packed.recurrences.extend(turned(&gate[1]));
            }
            for part in 2..is.params {
                gates
                    .iter()
                    .for_each(|gate| packed.biases.extend(floats(&gate[part])));
            }
        }
        Ok(packed)
    }

    /// The initializers, under the path of the layer.
    fn pack(self, l: &mut Lower, is: Recurrence) -> Vec<String> {
        let rows = is.gates * self.hidden;
        let name = |part: &str| match self.layer.is_empty() {
            true => part.to_string(),
            false => format!("{}.{part}", self.layer),
        };
        let parts = [
            ("W", vec![is.directions, rows, self.inputs], self.weights),
            (
                "R",
                vec![is.directions, rows, self.hidden],
                self.recurrences,
            ),
            ("B", vec![is.directions, 2 * rows], self.biases),
        ];
        let parts = parts
            .into_iter()
            .map(|(part, dims, values)| match values.is_empty() {
                true => String::new(),
                false => l.constant(&name(part), dims, Values::Float(values)),
            });
        parts.collect()
    }
}

fn floats(constant: &Constant) -> &[f32] {
    match &constant.values {
        Values::Float(values) => values,
        _ => &[],
    }
}

/// A matrix with rows and columns exchanged.
fn turned(matrix: &Constant) -> Vec<f32> {
    let (values, columns) = (floats(matrix), matrix.dims[1]);
    let at = |row: usize, column: usize| values[row * columns + column];
    let rows = matrix.dims[0];
    (0..columns)
        .flat_map(|column| (0..rows).map(move |row| at(row, column)))
        .collect()
}
