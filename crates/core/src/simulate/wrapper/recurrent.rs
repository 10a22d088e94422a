//! Recurrent layers: an input with or without an initial state, and what comes out of a pass.
//!
//! A masked hidden unit is exactly zero in every output: its gates read 0, the candidate is
//! `tanh(0) = 0`, and half of a state that began at zero is zero. The forward pass is therefore Burn's.
//! While a pass is captured the layer records each of its outputs as one operation, whose rule knows
//! that a unit is one through all gates, see [`builtin`](burn_compress_graph::builtin).

use burn::module::Param;
use burn::nn::activation::Activation as Function;
use burn::nn::{BiGru, BiLstm, GateController, Gru, Linear, Lstm, LstmState};
use burn::tensor::Tensor;
use burn_compress_graph::CustomOp;
use burn_compress_graph::builtin::{self, Recurrence};

use super::{Activation, Layer, Port};
use crate::graph::ports::{recording, recording_layers};

/// Recorded operation of a recurrent layer.
struct Recorded<'a> {
    id: &'static str,
    input: &'a Tensor<3>,
    batch_first: bool,
    /// For each direction its gates.
    directions: Vec<Vec<&'a GateController>>,
    keeps_zero: bool,
    reset_after: bool,
    /// Whether the layer computes with the usual functions and from the front.
    is_usual: bool,
}

impl Recorded<'_> {
    /// The sequence of hidden states and `ends` states at the end; `None` unless a pass is captured.
    fn outputs<const D: usize>(
        &self,
        states: &[&Tensor<D>],
        ends: usize,
    ) -> Option<(Tensor<3>, Vec<Tensor<D>>)> {
        // What another layer computes stands in no operation of its own.
        if !recording() || (!recording_layers() && !self.is_usual) {
            return None;
        }
        let [first, second, _] = self.input.dims();
        let batch = if self.batch_first { first } else { second };
        let directions = self.directions.len();
        let hidden = self.directions[0][0].hidden_transform.weight.dims()[0];
        // A state is `[hidden]` for each sequence, and in front of that for each direction.
        let state: [usize; D] = std::array::from_fn(|dim| match D - dim {
            1 => hidden,
            2 => batch,
            _ => directions,
        });
        for given in states {
            assert_eq!(given.dims(), state, "the shape of the initial state");
        }
        let sequence = self.operation(states, None);
        let sequence = sequence.output([first, second, directions * hidden])?;
        let ends = (0..ends).map(|end| self.operation(states, Some(end)).output(state));
        Some((sequence, ends.collect::<Option<_>>()?))
    }

    /// The operation whose output is the sequence, or the state `end`.
    fn operation<const D: usize>(&self, states: &[&Tensor<D>], end: Option<usize>) -> CustomOp {
        let gates = &self.directions[0];
        let has_bias = gates[0].input_transform.bias.is_some();
        let is = Recurrence {
            sequence: end.is_none(),
            directions: self.directions.len(),
            states: states.len(),
            gates: gates.len(),
            params: if has_bias { 4 } else { 2 },
            keeps_zero: self.keeps_zero,
            batch_first: self.batch_first,
            end: end.unwrap_or(0),
            reset_after: self.reset_after,
        };
        let mut op = CustomOp::new(self.id).input(self.input);
        for state in states {
            op = op.input(*state);
        }
        for gate in self.directions.iter().flatten() {
            let transforms = [&gate.input_transform, &gate.hidden_transform];
            for Linear { weight, .. } in transforms {
                op = op.input(&weight.val());
            }
            let biases = transforms.map(|transform| transform.bias.as_ref().map(Param::val));
            for bias in biases.into_iter().flatten() {
                op = op.input(&bias);
            }
        }
        is.scalars().into_iter().fold(op, CustomOp::scalar)
    }
}

/// Whether the function is 0 at 0.
fn keeps_zero(function: &Function) -> bool {
    match function {
        Function::Identity(_)
        | Function::Gelu(_)
        | Function::PRelu(_)
        | Function::Relu(_)
        | Function::LeakyRelu(_)
        | Function::Selu(_)
        | Function::Tanh(_)
        | Function::HardSwish(_)
        | Function::Softsign(_)
        | Function::Elu(_)
        | Function::Celu(_) => true,
        // A sigmoid is not, and what is not known for certain is not either.
        _ => false,
    }
}

fn gates_of_lstm(lstm: &Lstm) -> Vec<&GateController> {
    let gates = [
        Some(&lstm.input_gate),
        lstm.forget_gate.as_ref(),
        Some(&lstm.output_gate),
        Some(&lstm.cell_gate),
    ];
    gates.into_iter().flatten().collect()
}

fn lstm_keeps_zero(lstm: &Lstm) -> bool {
    keeps_zero(&lstm.cell_activation) && keeps_zero(&lstm.hidden_activation)
}

/// Whether the functions are those of the papers and nothing is clipped or coupled.
fn is_usual_lstm(lstm: &Lstm) -> bool {
    let tanh = |function: &Function| matches!(function, Function::Tanh(_));
    matches!(lstm.gate_activation, Function::Sigmoid(_))
        && tanh(&lstm.cell_activation)
        && tanh(&lstm.hidden_activation)
        && lstm.clip.is_none()
        && lstm.forget_gate.is_some()
}

fn is_usual_gru(gru: &Gru) -> bool {
    matches!(gru.gate_activation, Function::Sigmoid(_))
        && matches!(gru.hidden_activation, Function::Tanh(_))
        && gru.clip.is_none()
}

fn gates_of_gru(gru: &Gru) -> Vec<&GateController> {
    vec![&gru.update_gate, &gru.reset_gate, &gru.new_gate]
}

/// The states of an LSTM as they are recorded.
fn states_of<const D: usize>(state: &Option<LstmState<D>>) -> Vec<&Tensor<D>> {
    let state = state.as_ref();
    state.map_or(Vec::new(), |state| vec![&state.cell, &state.hidden])
}

/// The state of an LSTM of its recorded outputs.
fn state_from<const D: usize>(ends: Vec<Tensor<D>>) -> Option<LstmState<D>> {
    let mut ends = ends.into_iter();
    Some(LstmState::new(ends.next()?, ends.next()?))
}

/// The sequence and the initial state, zeros if there is none.
impl Layer<(Tensor<3>, Option<LstmState<2>>)> for Lstm {
    type Output = (Tensor<3>, LstmState<2>);

    fn forward(&self, (input, state): (Tensor<3>, Option<LstmState<2>>)) -> Self::Output {
        Lstm::forward(self, input, state)
    }

    fn simulate(&self, (input, state): (Tensor<3>, Option<LstmState<2>>)) -> Self::Output {
        let recorded = Recorded {
            id: builtin::LSTM,
            input: &input,
            batch_first: self.batch_first,
            directions: vec![gates_of_lstm(self)],
            keeps_zero: lstm_keeps_zero(self),
            reset_after: false,
            is_usual: !self.reverse && is_usual_lstm(self),
        };
        let outputs = recorded.outputs(&states_of(&state), 2);
        let outputs = outputs.and_then(|(sequence, ends)| Some((sequence, state_from(ends)?)));
        outputs.unwrap_or_else(|| Lstm::forward(self, input, state))
    }
}

/// The sequence and the initial state, zeros if there is none.
impl Layer<(Tensor<3>, Option<LstmState<3>>)> for BiLstm {
    type Output = (Tensor<3>, LstmState<3>);

    fn forward(&self, (input, state): (Tensor<3>, Option<LstmState<3>>)) -> Self::Output {
        BiLstm::forward(self, input, state)
    }

    fn simulate(&self, (input, state): (Tensor<3>, Option<LstmState<3>>)) -> Self::Output {
        let directions = [&self.forward, &self.reverse];
        let recorded = Recorded {
            id: builtin::LSTM,
            input: &input,
            batch_first: self.batch_first,
            directions: directions.map(gates_of_lstm).to_vec(),
            keeps_zero: directions.iter().all(|lstm| lstm_keeps_zero(lstm)),
            reset_after: false,
            is_usual: directions.iter().all(|lstm| is_usual_lstm(lstm)),
        };
        let outputs = recorded.outputs(&states_of(&state), 2);
        let outputs = outputs.and_then(|(sequence, ends)| Some((sequence, state_from(ends)?)));
        outputs.unwrap_or_else(|| BiLstm::forward(self, input, state))
    }
}

/// The sequence and the initial state, zeros if there is none.
impl Layer<(Tensor<3>, Option<Tensor<2>>)> for Gru {
    type Output = Tensor<3>;

    fn forward(&self, (input, state): (Tensor<3>, Option<Tensor<2>>)) -> Tensor<3> {
        Gru::forward(self, input, state)
    }

    fn simulate(&self, (input, state): (Tensor<3>, Option<Tensor<2>>)) -> Tensor<3> {
        let recorded = Recorded {
            id: builtin::GRU,
            input: &input,
            batch_first: true,
            directions: vec![gates_of_gru(self)],
            keeps_zero: keeps_zero(&self.hidden_activation),
            reset_after: self.reset_after,
            is_usual: is_usual_gru(self),
        };
        let states: Vec<&Tensor<2>> = state.iter().collect();
        let outputs = recorded.outputs(&states, 0);
        match outputs {
            Some((sequence, _)) => sequence,
            None => Gru::forward(self, input, state),
        }
    }
}

/// The sequence and the initial state, zeros if there is none.
impl Layer<(Tensor<3>, Option<Tensor<3>>)> for BiGru {
    type Output = (Tensor<3>, Tensor<3>);

    fn forward(&self, (input, state): (Tensor<3>, Option<Tensor<3>>)) -> Self::Output {
        BiGru::forward(self, input, state)
    }

    fn simulate(&self, (input, state): (Tensor<3>, Option<Tensor<3>>)) -> Self::Output {
        let directions = [&self.forward, &self.reverse];
        let recorded = Recorded {
            id: builtin::GRU,
            input: &input,
            batch_first: self.batch_first,
            directions: directions.map(gates_of_gru).to_vec(),
            keeps_zero: directions
                .iter()
                .all(|gru| keeps_zero(&gru.hidden_activation)),
            reset_after: self.forward.reset_after,
            is_usual: directions.iter().all(|gru| is_usual_gru(gru))
                && self.forward.reset_after == self.reverse.reset_after,
        };
        let states: Vec<&Tensor<3>> = state.iter().collect();
        let outputs = recorded.outputs(&states, 1);
        let outputs = outputs.and_then(|(sequence, mut ends)| Some((sequence, ends.pop()?)));
        outputs.unwrap_or_else(|| BiGru::forward(self, input, state))
    }
}

/// Layers that take a sequence alone as well, and begin with zeros.
macro_rules! from_zeros {
    ($($layer:ty: $state:ty),+ $(,)?) => {$(
        impl Layer<Tensor<3>> for $layer {
            type Output = <$layer as Layer<(Tensor<3>, Option<$state>)>>::Output;

            fn forward(&self, input: Tensor<3>) -> Self::Output {
                Layer::<(Tensor<3>, Option<$state>)>::forward(self, (input, None))
            }

            fn simulate(&self, input: Tensor<3>) -> Self::Output {
                Layer::<(Tensor<3>, Option<$state>)>::simulate(self, (input, None))
            }
        }
    )+};
}

from_zeros! {
    Lstm: LstmState<2>, BiLstm: LstmState<3>, Gru: Tensor<2>, BiGru: Tensor<3>,
}

/// The sequence is input 0, the cell and the hidden state are inputs 1 and 2.
impl<const D: usize> Activation for (Tensor<3>, Option<LstmState<D>>) {
    fn pass(self, port: &Port<'_>) -> Self {
        (
            port.tensor(0, self.0),
            self.1.map(|state| pass_state(state, port)),
        )
    }
}

/// The sequence is output 0, the cell and the hidden state are outputs 1 and 2.
impl<const D: usize> Activation for (Tensor<3>, LstmState<D>) {
    fn pass(self, port: &Port<'_>) -> Self {
        (port.tensor(0, self.0), pass_state(self.1, port))
    }
}

fn pass_state<const D: usize>(state: LstmState<D>, port: &Port<'_>) -> LstmState<D> {
    LstmState::new(port.tensor(1, state.cell), port.tensor(2, state.hidden))
}

/// The sequence is input 0, the state is input 1.
impl<const D: usize> Activation for (Tensor<3>, Option<Tensor<D>>) {
    fn pass(self, port: &Port<'_>) -> Self {
        (
            port.tensor(0, self.0),
            self.1.map(|state| port.tensor(1, state)),
        )
    }
}

#[cfg(test)]
mod tests;
