//! Recurrent layers, in a wrapper and without.

use burn::module::Module;
use burn::nn::{BiGruConfig, BiLstm, BiLstmConfig, Gru, GruConfig, Lstm, LstmConfig, LstmState};
use burn::prelude::*;
use burn::tensor::Distribution;
use burn_compress::Wrapper;
use burn_compress_export::OnnxConfig;

use crate::fixtures::{compare_model, device};

fn sequences(batch: usize, steps: usize) -> Tensor<3> {
    Tensor::random([batch, steps, 3], Distribution::Normal(0.0, 1.0), &device())
}

/// Sequences of batches 2 and 1 and, where the steps are dynamic, of another length.
fn inputs(dynamic: bool) -> Vec<Tensor<3>> {
    device().seed(9);
    let mut inputs = vec![sequences(2, 6), sequences(1, 6)];
    if dynamic {
        inputs.push(sequences(3, 4));
    }
    inputs
}

fn steps() -> OnnxConfig {
    OnnxConfig::new().with_dynamic_axis(0, 1, "steps")
}

#[test]
fn an_lstm_with_all_that_it_puts_out() {
    let lstm: Wrapper<Lstm> = LstmConfig::new(3, 4, true).init(&device()).into();
    let forward = |lstm: &Wrapper<Lstm>, x: Tensor<3>| {
        let (sequence, state) = lstm.forward(x);
        (sequence, state.cell, state.hidden)
    };
    let file = compare_model(
        &lstm,
        forward,
        &inputs(true),
        &steps(),
        &["sequence", "cell", "hidden"],
    );
    assert_eq!(file.report().operators["LSTM"], 1);
}

#[test]
fn an_lstm_that_begins_with_a_state() {
    let lstm: Wrapper<Lstm> = LstmConfig::new(3, 4, false).init(&device()).into();
    let forward = |lstm: &Wrapper<Lstm>, x: Tensor<3>| {
        let batch = x.dims()[0];
        let cell = Tensor::full([batch, 4], 0.3, &x.device());
        let hidden = Tensor::full([batch, 4], -0.2, &x.device());
        lstm.forward((x, Some(LstmState::new(cell, hidden)))).0
    };
    let file = compare_model(&lstm, forward, &inputs(true), &steps(), &["sequence"]);
    assert_eq!(file.report().operators["LSTM"], 1);
}

#[test]
fn an_lstm_in_both_directions() {
    let lstm: Wrapper<BiLstm> = BiLstmConfig::new(3, 4, true).init(&device()).into();
    let forward = |lstm: &Wrapper<BiLstm>, x: Tensor<3>| {
        let (sequence, state) = lstm.forward(x);
        (sequence, state.cell, state.hidden)
    };
    let file = compare_model(
        &lstm,
        forward,
        &inputs(true),
        &steps(),
        &["sequence", "cell", "hidden"],
    );
    assert_eq!(file.report().operators["LSTM"], 1);
}

#[test]
fn grus_of_both_kinds() {
    for after in [true, false] {
        let gru: Wrapper<Gru> = GruConfig::new(3, 4, true)
            .with_reset_after(after)
            .init(&device())
            .into();
        let forward = |gru: &Wrapper<Gru>, x: Tensor<3>| gru.forward(x);
        let file = compare_model(&gru, forward, &inputs(true), &steps(), &["sequence"]);
        assert_eq!(file.report().operators["GRU"], 1);
    }
    let gru: Wrapper<_> = BiGruConfig::new(3, 4, true).init(&device()).into();
    let forward = |gru: &Wrapper<burn::nn::BiGru>, x: Tensor<3>| gru.forward(x);
    compare_model(
        &gru,
        forward,
        &inputs(true),
        &steps(),
        &["sequence", "state"],
    );
}

/// Without a wrapper the steps are captured one by one, and their number is fixed.
#[test]
fn a_layer_without_a_wrapper() {
    let lstm = LstmConfig::new(3, 4, true).init(&device());
    let forward = |lstm: &Lstm, x: Tensor<3>| lstm.forward(x, None).0;
    let file = compare_model(
        &lstm,
        forward,
        &inputs(false),
        &OnnxConfig::new(),
        &["sequence"],
    );
    assert!(!file.report().operators.contains_key("LSTM"));
}

/// A clipped one has no operator of its own either.
#[test]
fn a_layer_with_other_functions() {
    let lstm: Wrapper<Lstm> = LstmConfig::new(3, 4, true)
        .with_clip(Some(0.1))
        .init(&device())
        .into();
    let forward = |lstm: &Wrapper<Lstm>, x: Tensor<3>| lstm.forward(x).0;
    let file = compare_model(
        &lstm,
        forward,
        &inputs(false),
        &OnnxConfig::new(),
        &["sequence"],
    );
    assert!(!file.report().operators.contains_key("LSTM"));
}

/// A model that is a list of layers of different kinds.
#[derive(Module, Debug)]
struct Stack {
    first: Wrapper<Lstm>,
    second: Wrapper<Gru>,
}

#[test]
fn layers_behind_one_another() {
    let model = Stack {
        first: LstmConfig::new(3, 5, true).init(&device()).into(),
        second: GruConfig::new(5, 2, true).init(&device()).into(),
    };
    let forward = |model: &Stack, x: Tensor<3>| model.second.forward(model.first.forward(x).0);
    compare_model(&model, forward, &inputs(true), &steps(), &["sequence"]);
}
