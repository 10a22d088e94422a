//! What is refused, and the ports of wrapped layers.

use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn_capture::TensorId;
use burn_ir::{CustomOpIr, OperationIr};

use super::*;
use crate::target::Target;

#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

fn mlp() -> Mlp {
    Mlp {
        fc1: LinearConfig::new(3, 4).init(&device()),
        fc2: LinearConfig::new(4, 2).init(&device()),
    }
}

fn dummy(columns: usize) -> DummyInput<Mlp> {
    let x = Tensor::<2>::ones([2, columns], &device());
    DummyInput::new(x, |model: &Mlp, x: Tensor<2>| {
        let y = relu(model.fc1.forward(x));
        for target in [Target::Output(0), Target::Input(7)] {
            if ports::recording() {
                let id = ports::tensor_id(&y).unwrap();
                ports::record_port("fc1", &target, id);
            }
        }
        model.fc2.forward(y)
    })
}

#[test]
fn an_input_that_does_not_fit_is_a_forward_error() {
    let error = capture(&mlp(), &dummy(5)).unwrap_err();
    assert!(matches!(error, GraphError::Forward { .. }), "{error}");
    // The device is free again.
    assert!(capture(&mlp(), &dummy(3)).is_ok());
}

#[test]
fn reading_values_is_a_forward_error() {
    let x = Tensor::<2>::ones([2, 3], &device());
    let dummy = DummyInput::new(x, |model: &Mlp, x: Tensor<2>| {
        let y = model.fc1.forward(x);
        let first = y.clone().slice([0..1, 0..1]).into_scalar::<f32>();
        y * first
    });
    assert!(matches!(
        capture(&mlp(), &dummy),
        Err(GraphError::Forward { .. })
    ));
}

#[test]
fn an_output_of_another_device_is_named() {
    let x = Tensor::<2>::ones([2, 3], &device());
    let dummy = DummyInput::new(x, |model: &Mlp, x: Tensor<2>| {
        (model.fc1.forward(x), Tensor::<1>::zeros([1], &device()))
    });
    let error = capture(&mlp(), &dummy).unwrap_err();
    assert_eq!(error, GraphError::OutputDevice { index: 1 });
}

#[test]
fn an_unknown_operation_names_itself_and_the_parameters_it_reads() {
    let mut captured = capture(&mlp(), &dummy(3)).unwrap();
    let read = captured.graph.operations.iter().flat_map(|op| op.outputs());
    let relu = read
        .filter(|tensor| tensor.shape.to_vec() == [2, 4])
        .last()
        .unwrap()
        .clone();
    let mut out = relu.clone();
    out.id = TensorId::new(u64::MAX);
    let custom = OperationIr::Custom(CustomOpIr::new("warp", &[relu], &[out]));
    captured.graph.operations.push(custom);
    assert_eq!(
        ChannelGraph::analyze(&captured).unwrap_err(),
        GraphError::UnknownOperation {
            operation: "warp".into(),
            parameters: "`fc1.weight`, `fc1.bias`, `fc2.weight`".into(),
        }
    );
}

#[test]
fn plans_refuse_what_must_stay() {
    let graph = analyze(&mlp(), &dummy(3));
    let refused = |removed: BTreeSet<ChannelId>| graph.slice_plan(&removed).unwrap_err();
    assert_eq!(
        refused(pick(&graph, 1, &[0])),
        GraphError::Protected {
            param: "fc2.weight".into(),
            reason: "reaches the model's output".into(),
        }
    );
    assert_eq!(
        refused(pick(&graph, 0, &[0, 1, 2, 3])),
        GraphError::Emptied {
            param: "fc1.weight".into(),
            dim: 1,
        }
    );
    let other = ChannelId(1_000_000);
    assert!(matches!(
        refused(BTreeSet::from([other])),
        GraphError::UnknownChannel { channel } if channel == "#1000000"
    ));
    assert_eq!(graph.slice_plan(&BTreeSet::new()), Ok(SlicePlan::default()));
}

#[test]
fn ports_follow_their_channels() {
    let graph = analyze(&mlp(), &dummy(3));
    let (dim, channels) = graph.port_channels("fc1", &Target::Output(0)).unwrap();
    assert_eq!((dim, channels), (1, graph.groups()[0].channels.clone()));
    assert_eq!(graph.port_channels("fc2", &Target::Output(0)), None);
    let plan = graph.slice_plan(&pick(&graph, 0, &[2])).unwrap();
    let ports: Vec<(String, &[usize])> = plan
        .ports
        .iter()
        .map(|port| (port.target.to_string(), &port.keep[..]))
        .collect();
    assert_eq!(
        ports,
        [
            ("fc1._input_7".into(), &[0, 1, 3][..]),
            ("fc1._output_0".into(), &[0, 1, 3][..])
        ]
    );
}

#[test]
fn inputs_made_inside_and_the_batch_size() {
    let inside = DummyInput::from_fn(|model: &Mlp, device| {
        let x =
            Tensor::<2>::ones([8, 3], device) + Tensor::<2>::from_data([[1.0, 2.0, 3.0]], device);
        model.fc2.forward(relu(model.fc1.forward(x)))
    });
    let captured = capture(&mlp(), &inside).unwrap();
    assert_eq!(captured.batch(), 8);
    let graph = ChannelGraph::analyze(&captured).unwrap();
    assert_eq!(graph.macs(), 3 * 4 + 4 * 2);
    assert_eq!(
        lines(&graph)[0],
        "4 channels of fc1.weight[1] fc1.bias[0] -> fc2.weight[0]"
    );
}
