use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::{Device, Distribution};

use super::*;
use crate::graph::DummyInput;
use crate::simulate::block::Grid;
use crate::{
    Calibration, CalibrationEntry, Compressor, Evaluator, QuantScheme, RoundGradient, Target,
    TargetId, Wrapper,
};

#[derive(Module, Debug)]
struct Net {
    conv1: Wrapper<Conv2d>,
    conv2: Wrapper<Conv2d>,
    add: Wrapper<Add>,
    concat: Wrapper<Concat>,
}

impl Net {
    fn new(device: &Device) -> Self {
        let conv = |channels| Conv2dConfig::new([channels, 4], [1, 1]).init(device).into();
        Self {
            conv1: conv(2),
            conv2: conv(4),
            add: Add::new().into(),
            concat: Concat::new(1).into(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.conv1.forward(x);
        let sum = self.add.forward((self.conv2.forward(x.clone()), x.clone()));
        self.concat.forward(vec![x, sum])
    }
}

fn entry(scale: f32) -> CalibrationEntry {
    CalibrationEntry {
        dtype: "int8".into(),
        scheme: QuantScheme::Symmetric,
        qmin: -127.0,
        qmax: 127.0,
        grid: Grid::new([]),
        gradient: RoundGradient::StraightThrough,
        enabled: true,
        scale: Some(vec![scale]),
        zero_point: Some(vec![0.0]),
        minimum: None,
        maximum: None,
    }
}

#[test]
fn each_operand_is_rounded_by_itself() {
    let device = Device::flex();
    let net = Net::new(&device);
    let mut chain = Compressor::<_, ()>::from_model(net.clone(), Evaluator::new());
    let id = |layer: &str, target| TargetId::new(layer, target);
    let calibration = Calibration::from([
        (id("add", Target::Input(1)), entry(0.5)),
        (id("concat", Target::Input(0)), entry(0.25)),
    ]);
    chain.update_calibration(&calibration).unwrap();
    let x = Tensor::random([1, 2, 3, 3], Distribution::Default, &device);
    let y = chain.model().forward(x.clone());
    let hidden = net.conv1.forward(x);
    let round = |x: &Tensor<4>, scale: f32| (x.clone() / scale).round() * scale;
    let sum = net.conv2.forward(hidden.clone()) + round(&hidden, 0.5);
    let expected = Tensor::cat(vec![round(&hidden, 0.25), sum], 1);
    y.into_data().assert_eq(&expected.into_data(), true);
}

#[test]
fn channels_are_coupled_through_the_sum() {
    let device = Device::flex();
    let net = Net::new(&device);
    let x = Tensor::<4>::ones([2, 2, 3, 3], &device);
    let dummy = DummyInput::new(x, Net::forward);
    let graph = crate::simulate::attach::analyze(&net, &dummy, &Default::default()).unwrap();
    let group = graph.group_of("conv1", "weight", 0).unwrap();
    assert_eq!(graph.group_of("conv2", "weight", 0), Some(group));
    let channels = graph.groups()[group].channels.clone();
    for (layer, target) in [("add", Target::Input(0)), ("add", Target::Input(1))] {
        assert_eq!(
            graph.port_channels(layer, &target).unwrap(),
            (1, channels.clone())
        );
    }
}
