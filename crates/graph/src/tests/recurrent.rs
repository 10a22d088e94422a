//! A recurrent layer as its wrapper records it.

use burn::nn::{Gru, GruConfig, Linear, LinearConfig};

use super::*;
use crate::builtin::{GRU, Recurrence};
use crate::target::Target;

#[derive(Module, Debug)]
struct Net {
    first: Linear,
    rnn: Gru,
    head: Linear,
}

/// The sequence of hidden states of a layer that keeps zeros or not, from a state or from zeros.
fn record(gru: &Gru, x: Tensor<3>, state: Option<Tensor<2>>, keeps_zero: bool) -> Tensor<3> {
    let is = Recurrence {
        sequence: true,
        directions: 1,
        states: usize::from(state.is_some()),
        gates: 3,
        params: 2,
        keeps_zero,
        batch_first: true,
        end: 0,
        reset_after: true,
    };
    let [batch, steps, _] = x.dims();
    let mut op = CustomOp::new(GRU).input(&x);
    if let Some(state) = &state {
        op = op.input(state);
    }
    for gate in [&gru.update_gate, &gru.reset_gate, &gru.new_gate] {
        op = op.input(&gate.input_transform.weight.val());
        op = op.input(&gate.hidden_transform.weight.val());
    }
    let op = is.scalars().into_iter().fold(op, CustomOp::scalar);
    let [hidden, _] = gru.new_gate.hidden_transform.weight.dims();
    let output = op.output([batch, steps, hidden]).expect("a capture");
    let id = ports::tensor_id(&output).expect("a capture");
    ports::record_port("rnn", &Target::Output(0), id);
    output
}

fn net() -> Net {
    Net {
        first: LinearConfig::new(2, 3).with_bias(false).init(&device()),
        rnn: GruConfig::new(3, 4, false).init(&device()),
        head: LinearConfig::new(4, 2).init(&device()),
    }
}

fn graph(forward: impl Fn(&Net, Tensor<3>) -> Tensor<3> + Send + Sync + 'static) -> ChannelGraph {
    let x = Tensor::<3>::ones([5, 6, 2], &device());
    analyze(&net(), &DummyInput::new(x, forward))
}

#[test]
fn a_unit_is_one_through_all_gates() {
    let graph = graph(|net, x| {
        let x = net.first.forward(x);
        net.head.forward(record(&net.rnn, x, None, true))
    });
    let gates = |name: &str| -> String {
        let gate = |gate| format!("rnn.{gate}.{name}");
        ["update_gate", "reset_gate", "new_gate"]
            .map(gate)
            .join(" ")
    };
    let input = "input_transform.weight[0]";
    assert_eq!(
        lines(&graph)[0],
        format!("3 channels of first.weight[1] -> {}", gates(input))
    );
    let made = "4 channels of rnn.update_gate.input_transform.weight[1]";
    assert!(lines(&graph)[1].starts_with(made), "{graph}");
    // Both dimensions of a hidden weight follow.
    let plan = graph.slice_plan(&pick(&graph, 1, &[2])).unwrap();
    assert_eq!(
        plan.params["rnn.new_gate.hidden_transform.weight"].shape,
        [3, 3]
    );
    assert_eq!(plan.params["head.weight"].shape, [3, 2]);
    let [size] = &plan.sizes[..] else {
        panic!("{:?}", plan.sizes);
    };
    assert_eq!((&*size.field, size.before, size.after), ("d_hidden", 4, 3));
    // 30 steps of three gates that read 3 features and 4 units, and what is around them.
    let macs = 6 * (3 * (3 * 4 + 4 * 4) + 2 * 3 + 4 * 2);
    assert_eq!(graph.macs(), macs);
}

#[test]
fn units_that_do_not_stay_at_zero_are_kept() {
    let why = |graph: ChannelGraph| {
        let unit = graph.groups()[1].channels[0];
        graph.protected(unit).map(str::to_string)
    };
    let not_zero = graph(|net, x| {
        let x = net.first.forward(x);
        net.head.forward(record(&net.rnn, x, None, false))
    });
    let reason = why(not_zero).unwrap();
    assert!(
        reason.contains("of a removed channel is not zero"),
        "{reason}"
    );
    let given = graph(|net, x| {
        let state = Tensor::zeros([5, 4], &x.device());
        let x = net.first.forward(x);
        net.head.forward(record(&net.rnn, x, Some(state), true))
    });
    assert_eq!(
        why(given).as_deref(),
        Some("the initial state of `rnn` has a size that cannot change")
    );
}
