//! Recurrent layers with masked units, with numbers worked out by hand.

use burn::module::{Module, ModuleDisplay, ModuleVisitor};
use burn::nn::{BiGruConfig, BiLstmConfig, GruConfig, Initializer, LstmConfig, LstmState};
use burn::tensor::{Device, Tensor};

use super::*;
use crate::{Compressor, Evaluator, Mask, Masks, Target, TargetId, Wrapper};

/// The paths and shapes of all parameters.
#[derive(Default)]
struct Shapes {
    path: Vec<String>,
    found: Vec<(String, Vec<usize>)>,
}

impl ModuleVisitor for Shapes {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let shape = param.base().dims().to_vec();
        self.found.push((self.path.join("."), shape));
    }
}

/// The wrapped layer with the last unit of every gate masked.
fn masked<L: Module + ModuleDisplay + 'static>(layer: L) -> Wrapper<L> {
    let mut shapes = Shapes::default();
    layer.visit(&mut shapes);
    let masks = shapes.found.into_iter().map(|(path, shape)| {
        let (layer, name) = path.rsplit_once('.').unwrap();
        let hidden = *shape.last().unwrap();
        let kept =
            (0..shape.iter().product()).map(|at: usize| f32::from(at % hidden != hidden - 1));
        let mask = Mask::new(kept.collect(), shape).unwrap();
        (TargetId::new(layer, Target::param(name)), mask)
    });
    let masks: Masks = masks.collect();
    let mut chain = Compressor::<_, ()>::from_model(Wrapper::new(layer), Evaluator::new());
    chain.update_masks(&masks).unwrap();
    chain.model().valid()
}

const WEIGHTS: Initializer = Initializer::Constant { value: 1.0 };

fn input() -> Tensor<3> {
    Tensor::from_floats([[[1.0], [-1.0]]], &Device::flex())
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[track_caller]
fn assert_close(found: f32, expected: f32) {
    assert!((found - expected).abs() < 1e-6, "{found} {expected}");
}

/// All weights are 1 and there is no bias: the first unit reads `x + h'`, the masked one 0, and both
/// read only the first.
#[test]
fn a_masked_unit_of_an_lstm_is_zero_at_all_times() {
    let config = LstmConfig::new(1, 2, false).with_initializer(WEIGHTS);
    let lstm = masked(config.init(&Device::flex()));
    let (sequence, state) = lstm.forward(input());
    let (mut c, mut h, mut expected) = (0.0, 0.0, Vec::new());
    for x in [1.0, -1.0] {
        let sum: f32 = x + h;
        c = sigmoid(sum) * c + sigmoid(sum) * sum.tanh();
        h = sigmoid(sum) * f32::tanh(c);
        expected.push(h);
    }
    let sequence = values(sequence);
    assert_eq!((sequence[1], sequence[3]), (0.0, 0.0));
    assert_close(sequence[0], expected[0]);
    assert_close(sequence[2], expected[1]);
    let (cell, hidden) = (values(state.cell), values(state.hidden));
    assert_eq!((cell[1], hidden[1]), (0.0, 0.0));
    assert_close(cell[0], c);
    // What a unit begins with is halved at each step, so that it has to begin at zero.
    let begun = Tensor::from_floats([[0.0, 0.8]], &Device::flex());
    let begun = LstmState::new(begun.clone(), begun * 0.0);
    let (_, state) = lstm.forward((input(), Some(begun)));
    assert_close(values(state.cell)[1], 0.8 * 0.5 * 0.5);
}

/// `h = (1 - z) n + z h'`, with the reset gate before or after the product with the hidden state.
#[test]
fn a_masked_unit_of_a_gru_is_zero_at_all_times() {
    for reset_after in [true, false] {
        let config = GruConfig::new(1, 2, false).with_initializer(WEIGHTS);
        let config = config.with_reset_after(reset_after);
        let gru = masked(config.init(&Device::flex()));
        let (mut h, mut expected) = (0.0, Vec::new());
        for x in [1.0, -1.0] {
            let gate = sigmoid(x + h);
            h = (1.0 - gate) * f32::tanh(x + gate * h) + gate * h;
            expected.push(h);
        }
        let sequence = values(gru.forward(input()));
        assert_eq!((sequence[1], sequence[3]), (0.0, 0.0));
        assert_close(sequence[0], expected[0]);
        assert_close(sequence[2], expected[1]);
    }
}

/// Of two directions, each with a masked unit, the output holds both.
#[test]
fn masked_units_of_both_directions_are_zero() {
    let device = Device::flex();
    let lstm = BiLstmConfig::new(1, 2, true)
        .with_initializer(WEIGHTS)
        .init(&device);
    let (sequence, state) = masked(lstm).forward(input());
    let gru = BiGruConfig::new(1, 2, true)
        .with_initializer(WEIGHTS)
        .init(&device);
    let (other, end) = masked(gru).forward(input());
    for sequence in [values(sequence), values(other)] {
        let zero: Vec<bool> = sequence.iter().map(|value| *value == 0.0).collect();
        assert_eq!(zero, [false, true, false, true, false, true, false, true]);
    }
    for state in [values(state.cell), values(state.hidden), values(end)] {
        let zero: Vec<bool> = state.iter().map(|value| *value == 0.0).collect();
        assert_eq!(zero, [false, true, false, true]);
    }
}

/// A wrapper that nothing hangs on returns what the layer does.
#[test]
fn layers_are_themselves_in_a_wrapper() {
    let device = Device::flex();
    let lstm = LstmConfig::new(1, 3, true).init(&device);
    let (own, _) = Lstm::forward(&lstm, input(), None);
    let (wrapped, _) = Wrapper::new(lstm).forward(input());
    wrapped.into_data().assert_eq(&own.into_data(), true);
}
