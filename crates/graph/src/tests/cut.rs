//! The captured forward pass, cut, and the forward pass of the cut model.

use std::collections::HashMap;

use burn_capture::TensorId;
use burn_ir::{IrVisitorMut, OperationIr, TensorIr, TensorStatus};

use super::*;

/// The operations, with tensors numbered in the order in which they occur.
fn numbered(captured: &Captured) -> Vec<OperationIr> {
    #[derive(Default)]
    struct Number(HashMap<TensorId, u64>);

    impl IrVisitorMut for Number {
        fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
            let next = self.0.len() as u64;
            tensor.id = TensorId::new(*self.0.entry(tensor.id).or_insert(next));
            tensor.status = TensorStatus::ReadOnly;
        }

        fn visit_range_mut(&mut self, range: &mut burn::tensor::Slice) {
            // A slice to the end is written in several ways.
            range.end.get_or_insert(isize::MAX);
        }
    }

    let mut numbers = Number::default();
    let operations = captured.graph().operations.iter().cloned();
    operations
        .map(|mut op| {
            op.visit_mut(&mut numbers);
            op
        })
        .collect()
}

/// The capture without the channels `removed` is the capture of the model without them.
///
/// The code of a model may take another path with fewer channels, a linear layer as well: it merges the
/// leading dimensions of its input or keeps them. Then only the outputs are compared.
pub(super) fn assert_cut_alike<M: Module>(
    model: &M,
    dummy: &DummyInput<M>,
    graph: &ChannelGraph,
    removed: &BTreeSet<ChannelId>,
    small: &M,
) {
    let (cut, plan) = match capture(model, dummy).unwrap().without(graph, removed) {
        Err(GraphError::NotCut { .. }) => return,
        cut => cut.unwrap(),
    };
    assert_eq!(plan, graph.slice_plan(removed).unwrap());
    let small = capture(small, dummy).unwrap();
    assert_eq!(cut.output_shapes(), small.output_shapes());
    let (cut, small) = (numbered(&cut), numbered(&small));
    if cut.len() == small.len() {
        assert_eq!(cut, small);
    }
}

#[derive(Module, Debug)]
struct Separable {
    stem: Conv2d,
    depth: Conv2d,
    point: Conv2d,
}

/// The shapes of the outputs of all operations, by name.
fn shapes(captured: &Captured) -> Vec<(String, Vec<usize>)> {
    let operations = captured.graph().operations.iter();
    let output = |op: &OperationIr| {
        let out = op.outputs().next()?;
        Some((operation::name(op), out.shape.to_vec()))
    };
    operations.filter_map(output).collect()
}

#[test]
fn numbers_that_a_model_holds_are_cut_in_its_capture() {
    let model = Separable {
        stem: conv(3, 4, 1),
        depth: conv(4, 4, 4),
        point: conv(8, 2, 1),
    };
    // Neither the reshape to 4 channels nor the depthwise convolution follows a cut by itself.
    let dummy = DummyInput::new(images(3), |model: &Separable, x: Tensor<4>| {
        let x = model.depth.forward(model.stem.forward(x));
        let halves = x
            .reshape([2, 4, 36])
            .slice([0..2, 0..4, 6..18])
            .reshape([2, 4, 2, 6]);
        let front = halves.clone().slice([0..2, 0..2, 0..2, 0..6]);
        let back = halves.slice([0..2, 2..4, 0..2, 0..6]);
        let x = Tensor::cat(vec![back.clone(), front.clone(), back, front], 1);
        model.point.forward(x)
    });
    let captured = capture(&model, &dummy).unwrap();
    let graph = ChannelGraph::analyze(&captured).unwrap();
    let group = &graph.groups()[0];
    assert_eq!(group.protected, None);
    let removed = BTreeSet::from([group.channels[0], group.channels[2]]);
    let (cut, plan) = captured.without(&graph, &removed).unwrap();
    assert_eq!(plan.params["depth.weight"].shape, [2, 1, 3, 3]);
    assert_eq!(plan.params["point.weight"].keep[&1], [1, 3, 5, 7]);
    let expected: Vec<(String, Vec<usize>)> = [
        ("conv2d", vec![2, 2, 6, 6]),
        ("conv2d", vec![2, 2, 6, 6]),
        ("reshape", vec![2, 2, 36]),
        ("slice", vec![2, 2, 12]),
        ("reshape", vec![2, 2, 2, 6]),
        ("slice", vec![2, 1, 2, 6]),
    ]
    .map(|(name, shape)| (name.to_string(), shape))
    .to_vec();
    // The first operation makes the input.
    assert_eq!(shapes(&cut)[1..7], expected);
    let OperationIr::Module(burn_ir::ModuleOperationIr::Conv2d(depth)) = &cut.graph().operations[2]
    else {
        panic!("{:?}", cut.graph().operations[2]);
    };
    assert_eq!(depth.options.groups, 2);
    assert_eq!(depth.weight.shape.to_vec(), [2, 1, 3, 3]);
}
