//! Operations that Burn does not know, with rules of the user.

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Capture, Dispatch, Flex, backend_extension};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn_ir::{CustomOpIr, OperationIr, TensorIr};
use burn_router::RouterClient;

use super::*;

/// `x^3` on the host, which no device can capture.
fn cube(x: Tensor<4>) -> Tensor<4> {
    if let Some(y) = CustomOp::new("cube").input(&x).output(x.dims()) {
        return y;
    }
    let cubes: Vec<f32> = x.to_data().iter::<f32>().map(|x| x.powi(3)).collect();
    Tensor::from_data(TensorData::new(cubes, x.dims()), &x.device())
}

/// `weight @ x` over the channels of a feature map, plus a bias, as one operation.
fn pointwise(x: Tensor<4>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let out = weight.dims()[0];
    let op = CustomOp::new("pointwise").input(&x).input(&weight);
    if let Some(y) = op.input(&bias).output([n, out, h, w]) {
        return y;
    }
    let rows = x.permute([0, 2, 3, 1]).reshape([n * h * w, c]);
    let rows = rows.matmul(weight.transpose()) + bias.unsqueeze();
    rows.reshape([n, h, w, out]).permute([0, 3, 1, 2])
}

fn pointwise_rule(op: &Operation) -> OperationRule {
    assert_eq!((op.name.as_str(), op.inputs.len()), ("pointwise", 3));
    OperationRule::new()
        .carry([(0, 0)], (0, 0), |_| None)
        .carry([(0, 2)], (0, 2), |_| None)
        .carry([(0, 3)], (0, 3), |_| None)
        .carry([(1, 0), (2, 0)], (0, 1), all_zero)
        .contract((0, 1), (1, 1))
        .macs([
            Dim::Output(0, 0),
            Dim::Output(0, 1),
            Dim::Output(0, 2),
            Dim::Output(0, 3),
            Dim::Input(0, 1),
        ])
}

#[derive(Module, Debug)]
struct Net {
    first: Conv2d,
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
    last: Conv2d,
}

impl Net {
    fn new() -> Self {
        Self {
            first: conv(3, 4, 1),
            weight: Param::from_tensor(Tensor::ones([5, 4], &device())),
            bias: Param::from_tensor(Tensor::ones([5], &device())),
            last: conv(5, 2, 1),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = cube(self.first.forward(x));
        let x = pointwise(x, self.weight.val(), self.bias.val());
        self.last.forward(relu(x))
    }
}

fn plain() -> DummyInput<Net> {
    DummyInput::new(images(3), |net: &Net, x| net.forward(x))
}

fn dummy() -> DummyInput<Net> {
    let cube = |_: &Operation| OperationRule::elementwise(|x| Some(x[0]?.powi(3)));
    let dummy = plain().with_rule("cube", move |op| cube(op).activation());
    dummy.with_rule("pointwise", pointwise_rule)
}

#[test]
fn channels_go_through_operations_with_rules() {
    let graph = analyze(&Net::new(), &dummy());
    assert_eq!(
        lines(&graph)[..2],
        [
            "4 channels of first.weight[0] first.bias[0] -> weight[1]",
            "5 channels of weight[0] bias[0] -> last.weight[1]",
        ]
    );
    let mut removed = pick(&graph, 0, &[1, 2]);
    removed.extend(pick(&graph, 1, &[0, 4]));
    assert_exact(&Net::new(), &dummy(), &removed, |_, _| {});
}

#[test]
fn multiply_accumulates_of_a_rule_follow_a_cut() {
    let graph = analyze(&Net::new(), &dummy());
    let macs = |removed: &BTreeSet<ChannelId>| {
        let all = graph.macs_by_operation(removed);
        let of: Vec<_> = all.iter().filter(|op| op.layer == "pointwise").collect();
        of.iter().map(|op| op.macs).sum::<u64>()
    };
    // One image has 6 * 6 places: 36 * 4 * 5, then 36 * 3 * 4.
    assert_eq!(macs(&BTreeSet::new()), 720);
    let mut removed = pick(&graph, 0, &[3]);
    removed.extend(pick(&graph, 1, &[3]));
    assert_eq!(macs(&removed), 432);
}

#[test]
fn an_operation_without_a_rule_is_an_error_with_the_call_for_one() {
    let error = ChannelGraph::analyze(&capture(&Net::new(), &plain()).unwrap()).unwrap_err();
    let text = error.to_string();
    for part in [
        "`cube`",
        "`first.weight`",
        "DummyInput::with_rule(\"cube\", ..)",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_constant_behind_a_zeroed_channel_keeps_it() {
    // x^3 + 1
    let dummy = dummy().with_rule("cube", |_| {
        OperationRule::elementwise(|x| Some(x[0]?.powi(3) + 1.0))
    });
    let graph = analyze(&Net::new(), &dummy);
    let reason = graph.protected(graph.groups()[0].channels[0]).unwrap();
    assert_eq!(
        reason,
        "`cube` of a removed channel is not zero before `pointwise`"
    );
}

#[test]
fn channels_that_a_rule_leaves_out_must_stay() {
    let dummy = dummy().with_rule("pointwise", |_| {
        OperationRule::new().carry([(1, 0)], (0, 1), any_zero)
    });
    let graph = analyze(&Net::new(), &dummy);
    let why = "is read by `pointwise`, whose rule leaves it out";
    let first = &graph.groups()[0];
    assert_eq!(first.protected.as_deref(), Some(why));
    assert_eq!(graph.param_channels("weight", 1), None);
    // Without the bias the output channels are free.
    let free = graph.group_of("", "weight", 0).unwrap();
    assert_eq!(graph.groups()[free].protected, None);
}

#[test]
fn rules_that_do_not_fit_are_errors() {
    let error = |rule: OperationRule| {
        let dummy = dummy().with_rule("pointwise", move |_| rule.clone());
        let captured = capture(&Net::new(), &dummy).unwrap();
        ChannelGraph::analyze(&captured).unwrap_err().to_string()
    };
    let cases = [
        (
            OperationRule::new().carry([(3, 0)], (0, 1), any_zero),
            "input 3",
        ),
        (
            OperationRule::new().carry([(0, 1)], (0, 4), any_zero),
            "dimension 4 of output 0",
        ),
        (
            OperationRule::new().carry([(0, 1)], (0, 1), any_zero),
            "4 indices",
        ),
        (
            OperationRule::new().contract((0, 1), (1, 0)),
            "4 indices of (0, 1) with 5",
        ),
        (
            OperationRule::new().macs([Dim::Output(1, 0)]),
            "Output(1, 0)",
        ),
        (
            OperationRule::elementwise(any_zero).contract((0, 1), (1, 1)),
            "elementwise",
        ),
    ];
    for (rule, part) in cases {
        let text = error(rule);
        assert!(
            text.contains("`pointwise`") && text.contains(part),
            "{text}"
        );
    }
}

#[test]
fn a_rule_that_is_never_used_is_an_error() {
    // An operation that nothing calls, and one that has a rule.
    for name in ["cubed", "relu"] {
        let dummy = dummy().with_rule(name, |_| OperationRule::new());
        let captured = capture(&Net::new(), &dummy).unwrap();
        let expected = GraphError::UnusedRule {
            operation: name.into(),
        };
        assert_eq!(ChannelGraph::analyze(&captured).unwrap_err(), expected);
    }
}

#[test]
fn trial_cuts_know_operations_with_rules() {
    let (net, dummy) = (Net::new(), dummy());
    let graph = analyze(&net, &dummy);
    let sets = [pick(&graph, 0, &[1]), pick(&graph, 1, &[2])];
    let trial = Trial::new(net.valid(), &dummy, &graph, |net, groups| (net, groups));
    assert_eq!(trial.failures(&sets), [None, None]);
}

#[test]
fn a_number_that_follows_the_channels_fails_a_trial() {
    let forward = |net: &Net, x| {
        let x: Tensor<4> = net.first.forward(x);
        let scale = x.dims()[1] as f64;
        let op = CustomOp::new("scale").input(&x).scalar(scale);
        let x = op.output(x.dims()).unwrap_or(x * scale);
        net.last
            .forward(pointwise(x, net.weight.val(), net.bias.val()))
    };
    let dummy = DummyInput::new(images(3), forward)
        .with_rule("scale", |op| {
            let scale = op.scalars[0];
            OperationRule::elementwise(move |x| Some(x[0]? * scale))
        })
        .with_rule("pointwise", pointwise_rule);
    let net = Net::new();
    let graph = analyze(&net, &dummy);
    let trial = Trial::new(net.valid(), &dummy, &graph, |net, groups| (net, groups));
    let failures = trial.failures(&[pick(&graph, 0, &[1])]);
    let failure = failures[0].as_ref().unwrap();
    assert!(matches!(failure, CutFailure::Operation { operation, .. } if operation == "scale"));
}

#[test]
fn an_operation_on_integers_gives_floats() {
    let forward = |net: &Net, x: Tensor<4>| {
        let op = CustomOp::new("lookup").input(&x.clone().int());
        net.first.forward(op.output(x.dims()).unwrap_or(x))
    };
    let dummy = DummyInput::new(images(3), forward).with_rule("lookup", |_| OperationRule::new());
    let graph = analyze(&Net::new(), &dummy);
    assert!(graph.is_used("first.weight"));
}

/// A kernel that has an implementation for each backend, the capture among them.
#[backend_extension(Flex, Capture)]
trait Swish: burn::backend::Backend {
    fn swish(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Swish for Flex {
    fn swish(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let gate = <Self as burn::backend::ops::ActivationOps<Self>>::sigmoid(x.clone());
        Self::float_mul(x, gate)
    }
}

impl Swish for Capture {
    fn swish(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let client = x.client.clone();
        let x = x.into_ir();
        let out = TensorIr::uninit(client.create_empty_handle(), x.shape.clone(), x.dtype);
        let op = CustomOpIr::new("swish", &[x], &[out]);
        client.register(OperationIr::Custom(op)).remove(0)
    }
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

#[test]
fn a_backend_extension_is_captured_by_its_identifier() {
    let model = Mlp {
        fc1: LinearConfig::new(3, 4).init(&device()),
        fc2: LinearConfig::new(4, 2).init(&device()),
    };
    let x = Tensor::<2>::ones([2, 3], &device());
    let dummy = DummyInput::new(x, |model: &Mlp, x: Tensor<2>| {
        let x = model.fc1.forward(x);
        let x = Tensor::<2>::from_dispatch(<Dispatch as Swish>::swish(x.into_dispatch()));
        model.fc2.forward(x)
    })
    .with_rule("swish", |_| {
        OperationRule::elementwise(|x| Some(x[0]? / (1.0 + (-x[0]?).exp())))
    });
    let graph = analyze(&model, &dummy);
    assert_eq!(
        lines(&graph)[0],
        "4 channels of fc1.weight[1] fc1.bias[0] -> fc2.weight[0]"
    );
    assert_exact(&model, &dummy, &pick(&graph, 0, &[0, 3]), |_, _| {});
}

#[test]
fn an_activation_is_found_in_an_operation_with_a_rule() {
    let (net, dummy) = (Net::new(), dummy());
    let captured = capture(&net, &dummy).unwrap();
    let layers = crate::layer::layers(&net);
    let flow = Flow::new(&captured, &layers);
    let first = layers.iter().find(|layer| layer.path == "first").unwrap();
    let activations = flow.follow(first, "weight", Some(1)).activations;
    let found: Vec<_> = activations
        .iter()
        .map(|stop| stop.operation.as_deref())
        .collect();
    assert_eq!(found, [Some("cube")]);
}
