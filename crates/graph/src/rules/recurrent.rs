//! Recurrent layers: LSTM and GRU, in one direction or two, as their wrappers record them.
//!
//! ```text
//! LSTM   c = f c' + i g,   h = o tanh(c)      i, f, o = sigmoid(W x + U h' + b),  g = tanh(..)
//! GRU    h = (1 - z) n + z h'                 z, r = sigmoid(W x + U h' + b),     n = tanh(..)
//! ```
//!
//! One unit of the hidden state is a column of every `W [in, hidden]`, an entry of every bias, and both a
//! column and a row of every `U [hidden, hidden]`, and it is one in both directions, whose states are
//! one tensor. With the columns and biases masked each gate reads 0, so that `g` and `n` are 0, and the
//! unit stays at 0 if it begins there: `c = 0.5 * 0 + 0.5 * 0` and `h = 0.5 * 0 + 0.5 * 0`. The state
//! that a pass begins with therefore has to be zeros, or to be 0 for a masked unit.

use burn_ir::{CustomOpIr, TensorIr};

use super::super::GraphError;
use super::super::analysis::Analysis;
use super::super::builtin::Recurrence;
use super::super::facts::{Count, Macs, Size, SizeRule};
use super::super::labels::Axis;
use super::super::operation::number;
use super::super::value::Value;

/// Follows the hidden units through all gates.
pub(super) fn apply(a: &mut Analysis, op: &CustomOpIr) -> Result<(), GraphError> {
    let layer = Layer::read(a, op)?;
    let Some(units) = layer.units(a) else {
        a.opaque(&op.inputs, &op.outputs);
        return Ok(());
    };
    layer.begin(a, &units);
    layer.read_inputs(a, &units);
    layer.count(a);
    layer.write(a, units);
    Ok(())
}

/// A recorded layer.
struct Layer<'a> {
    /// Its path.
    path: String,
    is: Recurrence,
    input: &'a TensorIr,
    x: Value,
    states: Vec<(&'a TensorIr, Value)>,
    gates: Vec<Gate>,
    out: &'a TensorIr,
}

/// The parameters of one gate of one direction.
struct Gate {
    /// `W [in, hidden]`
    input: Value,
    /// `U [hidden, hidden]`
    hidden: Value,
    biases: Vec<Value>,
}

impl<'a> Layer<'a> {
    fn read(a: &mut Analysis, op: &'a CustomOpIr) -> Result<Self, GraphError> {
        let tensors: Vec<&TensorIr> = op.inputs.iter().chain(&op.outputs).collect();
        let found = |a: &mut Analysis| {
            let scalars: Vec<f64> = op.scalars.iter().map(|&scalar| number(scalar)).collect();
            let is = Recurrence::of(&scalars)?;
            let (input, rest) = op.inputs.split_first()?;
            let (states, params) = rest.split_at_checked(is.states)?;
            let out = op.outputs.first()?;
            let gates = params.chunks(is.params.max(2)).map(|gate| {
                let mut gate = gate.iter().map(|tensor| a.value(tensor));
                let gate = Gate {
                    input: gate.next()?,
                    hidden: gate.next()?,
                    biases: gate.collect(),
                };
                gate.fits().then_some(gate)
            });
            let gates: Option<Vec<Gate>> = gates.collect();
            let layer = Self {
                path: a.returned_by(out).unwrap_or_else(|| a.op_name()),
                is,
                input,
                x: a.value_at(input, input.shape.to_vec().len().saturating_sub(1)),
                states: states.iter().map(|state| (state, a.value(state))).collect(),
                gates: gates?,
                out,
            };
            layer.fits().then_some(layer)
        };
        found(a).ok_or_else(|| a.shape_error(&tensors))
    }

    fn fits(&self) -> bool {
        let count = self.is.directions * self.is.gates;
        let hidden = |gate: &Gate| gate.input.shape[1];
        let Some(first) = self.gates.first() else {
            return false;
        };
        self.gates.len() == count
            && self.x.shape.len() == 3
            && self
                .gates
                .iter()
                .all(|gate| hidden(gate) == hidden(first) && gate.input.shape[0] == self.x.shape[2])
            && (self.states.iter()).all(|(_, state)| state.shape.last() == Some(&hidden(first)))
    }

    /// The hidden units, joined over all gates and directions; zero where all parameters are masked.
    fn units(&self, a: &mut Analysis) -> Option<Axis> {
        let columns = self.gates.iter().flat_map(|gate| {
            let matrices = [gate.input.axes[1].as_ref(), gate.hidden.axes[1].as_ref()];
            let biases = gate.biases.iter().map(|bias| bias.axes[0].as_ref());
            matrices.into_iter().chain(biases)
        });
        let columns: Option<Vec<&Axis>> = columns.collect();
        let columns = columns?;
        let first = *columns.first()?;
        let why = format!("meets a size that cannot change in `{}`", self.path);
        for column in &columns {
            a.join(Some(first), Some(column), &why);
        }
        let is_zero = |i: usize| columns.iter().all(|column| column.value[i] == Some(0.0));
        let mut origins: Vec<_> = columns
            .iter()
            .flat_map(|axis| axis.origins.clone())
            .collect();
        origins.sort_unstable();
        origins.dedup();
        Some(Axis {
            labels: first.labels.clone(),
            value: (0..first.labels.len())
                .map(|i| (self.is.keeps_zero && is_zero(i)).then_some(0.0))
                .collect(),
            origins,
            nonzero_since: None,
        })
    }

    /// Joins the units with the state that the pass begins with.
    fn begin(&self, a: &mut Analysis, units: &Axis) {
        let path = &self.path;
        for (tensor, state) in &self.states {
            let Some((last, leading)) = state.axes.split_last() else {
                continue;
            };
            let why = match a.is_input(tensor) {
                true => format!("the initial state of `{path}` is an input of the model"),
                false => format!("the initial state of `{path}` has a size that cannot change"),
            };
            a.join(Some(units), last.as_ref(), &why);
            for axis in leading.iter().flatten() {
                a.protect(axis, &format!("`{path}` runs over it"));
            }
            let Some(last) = last else { continue };
            let why = format!("the initial state of a masked unit of `{path}` is not zero");
            for (&label, value) in last.labels.iter().zip(&last.value) {
                if *value != Some(0.0) {
                    a.protect_label(label, &why);
                }
            }
        }
    }

    /// The matrix products with the sequence and with the hidden state.
    fn read_inputs(&self, a: &mut Analysis, units: &Axis) {
        let is_input = a.is_input(self.input);
        // What is read is the state, not the parameters that make it.
        let state = Axis {
            origins: Vec::new(),
            ..units.clone()
        };
        for gate in &self.gates {
            let (x, rows) = (self.x.axes[2].as_ref(), gate.input.axes[0].as_ref());
            a.contract(x, rows, &self.path, is_input);
            let rows = gate.hidden.axes[0].as_ref();
            a.contract(Some(&state), rows, &self.path, false);
        }
        for axis in self.x.axes[..2].iter().flatten() {
            a.protect(axis, &format!("`{}` runs over it", self.path));
        }
    }

    fn count(&self, a: &mut Analysis) {
        if !self.is.sequence {
            return;
        }
        let [first, second] = [0, 1].map(|dim| self.x.shape[dim]);
        for gate in &self.gates {
            for matrix in [&gate.input, &gate.hidden] {
                a.macs.push(Macs {
                    layer: self.path.clone(),
                    sizes: vec![
                        Size::fixed(first),
                        Size::fixed(second),
                        Size::of(matrix, 0),
                        Size::of(matrix, 1),
                    ],
                    divisor: 1,
                });
            }
        }
    }

    /// Describes the output, and the number of units that the layer holds.
    fn write(&self, a: &mut Analysis, units: Axis) {
        let (labels, path) = (units.labels.clone(), self.path.clone());
        let mut axes = vec![None; self.out.shape.to_vec().len()];
        let states = self
            .states
            .iter()
            .filter_map(|(_, state)| state.axes.last()?.as_ref());
        let learned: Vec<_> = states.flat_map(|axis| axis.origins.clone()).collect();
        let times = if self.is.sequence {
            self.is.directions
        } else {
            1
        };
        if let Some(last) = axes.last_mut() {
            *last = Some(Axis {
                labels: labels.repeat(times),
                value: units.value.repeat(times),
                origins: [units.origins, learned].concat(),
                nonzero_since: None,
            });
        }
        a.set(self.out, axes, true);
        a.follow_size(SizeRule {
            layer: path,
            field: "d_hidden",
            labels,
            count: Count::Channels,
        });
    }
}

impl Gate {
    fn fits(&self) -> bool {
        let (&[_, hidden], &[rows, columns]) = (&self.input.shape[..], &self.hidden.shape[..])
        else {
            return false;
        };
        let fits = |bias: &Value| bias.shape == [hidden];
        rows == hidden && columns == hidden && self.biases.iter().all(fits)
    }
}
