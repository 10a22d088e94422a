//! Layers of models of several shapes.

use super::*;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig, LinearLayout, Relu,
};
use burn::prelude::*;
use burn::tensor::Distribution;
use rstest::rstest;

#[derive(Module, Debug)]
struct Block {
    conv: Conv2d,
    norm: BatchNorm,
    relu: Relu,
}

#[derive(Module, Debug)]
struct Net {
    token: Param<Tensor<3>>,
    scales: Vec<Param<Tensor<1>>>,
    blocks: Vec<Block>,
    pool: MaxPool2d,
    drop: Dropout,
    relus: [Relu; 2],
    fc: Linear,
}

fn block(channels: [usize; 2], device: &Device) -> Block {
    Block {
        conv: Conv2dConfig::new(channels, [3, 3])
            .with_bias(false)
            .init(device),
        norm: BatchNormConfig::new(channels[1]).init(device),
        relu: Relu::new(),
    }
}

fn net() -> Net {
    let device = Device::flex();
    let vector = |n| Param::from_tensor(Tensor::random([n], Distribution::Default, &device));
    Net {
        token: Param::from_tensor(Tensor::zeros([1, 2, 3], &device)),
        scales: vec![vector(5), vector(6)],
        blocks: vec![block([1, 4], &device), block([4, 8], &device)],
        pool: MaxPool2dConfig::new([2, 2]).init(),
        drop: DropoutConfig::new(0.5).init(),
        relus: [Relu::new(), Relu::new()],
        fc: LinearConfig::new(8, 2).init(&device),
    }
}

#[test]
fn finds_layers_in_module_order() {
    let found: Vec<String> = layers(&net())
        .iter()
        .map(|layer| {
            let params: Vec<_> = layer
                .params
                .iter()
                .map(|p| format!("{}{:?}", p.name, p.shape))
                .collect();
            format!("{}:{} {}", layer.path, layer.kind, params.join(" "))
        })
        .collect();
    assert_eq!(
        found,
        [
            ":Net token[1, 2, 3] scales.0[5] scales.1[6]",
            "blocks.0.conv:Conv2d weight[4, 1, 3, 3]",
            "blocks.0.norm:BatchNorm gamma[4] beta[4]",
            "blocks.0.relu: ",
            "blocks.1.conv:Conv2d weight[8, 4, 3, 3]",
            "blocks.1.norm:BatchNorm gamma[8] beta[8]",
            "blocks.1.relu: ",
            "pool: ",
            "drop:Dropout ",
            "relus.0: ",
            "relus.1: ",
            "fc:Linear weight[8, 2] bias[2]",
        ]
    );
}

#[test]
fn a_single_layer_is_its_own_model() {
    let linear = LinearConfig::new(3, 2).init(&Device::flex());
    let found = layers(&linear);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].path.as_str(), found[0].name()), ("", ""));
    assert_eq!(found[0].param("weight").unwrap().id, linear.weight.id);
    assert!(found[0].has(&Target::param("bias")) && !found[0].has(&Target::Output(0)));
}

#[test]
fn a_lazy_parameter_has_the_shape_that_it_is_initialized_with() {
    let device = Device::flex();
    for layout in [LinearLayout::Row, LinearLayout::Col] {
        let linear = LinearConfig::new(6, 12).with_layout(layout).init(&device);
        assert!(!linear.weight.is_initialized());
        let shape = layers(&linear)[0].param("weight").unwrap().shape.clone();
        assert_eq!(shape, [6, 12], "{layout:?}");
        assert_eq!(linear.weight.dims(), [6, 12]);
    }
}

#[test]
fn a_wrapper_announces_its_layer() {
    let mut collector = LayerCollector::new();
    let conv = Conv2dConfig::new([1, 2], [3, 3]).init(&Device::flex());
    collector.enter_module("conv", "Struct:Net");
    announce_wrapper::<Conv2d>();
    conv.visit(&mut collector);
    collector.exit_module("conv", "Struct:Net");
    collector.enter_module("relu", "Struct:Net");
    announce_wrapper::<Relu>();
    collector.exit_module("relu", "Struct:Net");
    collector.enter_module("block", "Struct:Net");
    announce_wrapper::<Block>();
    block([1, 2], &Device::flex()).visit(&mut collector);
    collector.exit_module("block", "Struct:Net");
    let found = collector.finish();
    let found: Vec<_> = found
        .iter()
        .map(|l| (l.path.as_str(), l.kind.as_str(), l.wrapped, l.params.len()))
        .collect();
    assert_eq!(
        found,
        [
            ("conv", "Conv2d", true, 2),
            ("relu", "Relu", true, 0),
            ("block", "Block", true, 0),
            ("block.conv", "Conv2d", false, 1),
            ("block.norm", "BatchNorm", false, 2),
            ("block.relu", "", false, 0),
        ]
    );
}

#[test]
fn an_announcement_that_nobody_heard_is_forgotten() {
    announce_wrapper::<Vec<Relu>>();
    let linear = LinearConfig::new(3, 2).init(&Device::flex());
    assert!(!layers(&linear)[0].wrapped);
    assert_eq!(short_type_name::<Vec<Relu>>(), "Vec");
}

#[test]
fn what_a_reparameterization_owns_is_no_layer() {
    let mut collector = LayerCollector::new();
    let linear = LinearConfig::new(3, 2).init(&Device::flex());
    collector.enter_module("weight", "Struct:Linear");
    collector.visit_float(&linear.weight);
    collector.enter_module("Lora", "Reparameterization");
    collector.enter_module("a", "Struct:Lora");
    collector.visit_float(&linear.weight);
    collector.exit_module("a", "Struct:Lora");
    collector.exit_module("Lora", "Reparameterization");
    collector.exit_module("weight", "Struct:Linear");
    let found = collector.finish();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].params.len(), 1);
}

#[rstest]
#[case("Conv2d", "weight", 4, Some(0), Some(1))]
#[case("ConvTranspose1d", "weight", 3, Some(1), Some(0))]
#[case("Linear", "weight", 2, Some(1), Some(0))]
#[case("Linear", "bias", 1, Some(0), None)]
#[case("Embedding", "weight", 2, Some(1), None)]
#[case("BatchNorm", "gamma", 1, Some(0), None)]
#[case("MyLayer", "kernel", 3, Some(0), Some(1))]
#[case("MyLayer", "temperature", 0, None, None)]
fn channels_are_where_burn_keeps_them(
    #[case] kind: &str,
    #[case] param: &str,
    #[case] rank: usize,
    #[case] output: Option<usize>,
    #[case] input: Option<usize>,
) {
    assert_eq!(
        channel_dims(kind, param, rank),
        ChannelDims { output, input }
    );
}

#[rstest]
#[case("Linear", 2, 1)]
#[case("Linear", 4, 3)]
#[case("Conv2d", 4, 1)]
#[case("Conv1d", 3, 1)]
#[case("BatchNorm", 2, 1)]
#[case("LayerNorm", 3, 2)]
#[case("Relu", 4, 1)]
#[case("Relu", 3, 2)]
#[case("", 2, 1)]
#[case("Relu", 1, 0)]
fn channels_of_ports_are_where_the_layer_puts_them(
    #[case] kind: &str,
    #[case] rank: usize,
    #[case] dim: usize,
) {
    assert_eq!(port_channel_dim(kind, rank), dim);
}

#[test]
fn a_type_of_a_user_has_the_row_that_was_registered() {
    let row = || {
        LayerKind::new("TestMixer", LayerRole::Norm)
            .with_param("kernel", Some(2), None)
            .with_channels(PortChannels::Last)
            .with_rank(5)
    };
    let before = (
        channel_dims("TestMixer", "kernel", 3),
        port_channel_dim("TestMixer", 5),
    );
    assert_eq!(
        before,
        (
            ChannelDims {
                output: Some(0),
                input: Some(1)
            },
            1
        )
    );
    row().register().unwrap();
    let after = (
        channel_dims("TestMixer", "kernel", 3),
        port_channel_dim("TestMixer", 5),
    );
    assert_eq!(
        after,
        (
            ChannelDims {
                output: Some(2),
                input: None
            },
            4
        )
    );
    assert_eq!(LayerKind::of("TestMixer"), row());
    // Vectors and other parameters are as everywhere.
    assert_eq!(channel_dims("TestMixer", "bias", 1).output, Some(0));
    assert_eq!(channel_dims("TestMixer", "other", 2).input, Some(1));

    assert_eq!(row().register(), Ok(()));
    let taken = KindError::Taken {
        name: "TestMixer".into(),
    };
    assert_eq!(row().with_rank(4).register(), Err(taken));
    for name in ["Linear", "Relu"] {
        let row = LayerKind::new(name, LayerRole::Other);
        assert_eq!(row.register(), Err(KindError::OfBurn { name: name.into() }));
    }
}

#[rstest]
#[case("Relu", LayerRole::Activation)]
#[case("BatchNorm", LayerRole::Norm)]
#[case("MyNorm", LayerRole::Norm)]
#[case("AdaptiveAvgPool2d", LayerRole::Pool)]
#[case("Interpolate2d", LayerRole::Pool)]
#[case("Linear", LayerRole::Weighted)]
#[case("", LayerRole::Other)]
fn roles_are_known_by_the_name(#[case] kind: &str, #[case] role: LayerRole) {
    assert_eq!(LayerKind::of(kind).role(), role);
}

#[test]
fn a_dimension_that_a_parameter_lacks_holds_no_channels() {
    let kind = LayerKind::new("Odd", LayerRole::Weighted).with_param("weight", Some(2), Some(0));
    let dims = |rank| {
        let dims = kind.dims("weight", rank);
        (dims.output, dims.input)
    };
    assert_eq!(dims(3), (Some(2), Some(0)));
    assert_eq!(dims(2), (None, Some(0)));
}
