//! The inputs and outputs of wrapped layers in a graph.

use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;

use super::*;
use crate::{Compressor, Evaluator, Mode, Target, TargetId, Wrapper};

/// Patches with a class token before them and a learned position for each, as in a vision
/// transformer.
#[derive(Module, Debug)]
struct Patches {
    token: Param<Tensor<3>>,
    positions: Param<Tensor<3>>,
    fc1: Wrapper<Linear>,
    fc2: Wrapper<Linear>,
}

#[test]
fn ports_of_sequences_with_learned_positions_run_along_the_features() {
    let ones = |shape: [usize; 3]| Param::from_tensor(Tensor::ones(shape, &device()));
    let model = Patches {
        token: ones([1, 1, 4]),
        positions: ones([1, 6, 4]),
        fc1: LinearConfig::new(4, 8).init(&device()).into(),
        fc2: LinearConfig::new(8, 4).init(&device()).into(),
    };
    let patches = Tensor::<3>::ones([2, 5, 4], &device());
    let dummy = DummyInput::new(patches, |model: &Patches, x: Tensor<3>| {
        let token = model.token.val().expand([2, 1, 4]);
        let x = Tensor::cat(vec![token, x], 1) + model.positions.val();
        model.fc2.forward(relu(model.fc1.forward(x)))
    });
    let mut chain = Compressor::<Patches, ()>::from_model(model, Evaluator::new());
    let hidden = [
        TargetId::new("fc1", Target::Output(0)),
        TargetId::new("fc2", Target::Input(0)),
    ];
    chain.chain().claim(Mode::Quantization, &hidden).unwrap();
    let captured = crate::simulate::attach::capture(chain.model(), &dummy).unwrap();
    let graph = ChannelGraph::analyze(&captured).unwrap();
    let group = graph.group_of("fc1", "weight", 1).unwrap();
    let channels = &graph.groups()[group].channels;
    assert_eq!(graph.groups()[group].protected, None);
    for id in &hidden {
        let found = graph.port_channels(&id.layer, &id.target).unwrap();
        assert_eq!(found, (2, channels.clone()), "{id}");
    }
    let plan = graph.slice_plan(&pick(&graph, group, &[0, 5])).unwrap();
    let ports: Vec<_> = plan
        .ports
        .iter()
        .map(|port| (&port.target, port.dim))
        .collect();
    assert_eq!(ports, [(&hidden[0], 2), (&hidden[1], 2)]);
}
