//! Burn's quantized tensors against the simulation, and what Burn cannot hold.

use super::*;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::Distribution;
use burn_compress_core::{QuantScheme, Quantization, Wrapper};
use rstest::rstest;

fn id(target: &str) -> TargetId {
    target.parse().unwrap()
}

fn entry(dtype: &str, range: (f32, f32), grid: Grid) -> CalibrationEntry {
    let blocks = grid.len();
    CalibrationEntry {
        enabled: true,
        scale: Some((0..blocks).map(|at| 0.013 + 0.0017 * at as f32).collect()),
        zero_point: Some(vec![0.0; blocks]),
        ..Quantization::new(dtype, QuantScheme::Symmetric, range.0, range.1)
            .with_grid(grid)
            .to_calibration()
            .unwrap()
    }
}

fn weight<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let device = Device::flex();
    device.seed(5);
    Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), &device)
}

fn simulated<const D: usize>(tensor: Tensor<D>, entry: &CalibrationEntry) -> Vec<f32> {
    #[derive(Module, Debug)]
    struct One<const D: usize> {
        weight: Param<Tensor<D>>,
    }
    let layer = One {
        weight: Param::from_tensor(tensor),
    };
    let calibration = Calibration::from([(id("weight"), entry.clone())]);
    let model =
        Compressed::from_parts(layer, &Masks::new(), &calibration, History::default()).unwrap();
    let value = model.model().weight.val().into_data();
    value.try_into_vec().unwrap()
}

#[rstest]
#[case::int8(entry("int8", (-127.0, 127.0), Grid::per_tensor(4)), QuantValue::Q8S, 1)]
#[case::full_int8(entry("int8", (-128.0, 127.0), Grid::per_tensor(4)), QuantValue::Q8F, 1)]
#[case::int6(entry("int6", (-31.0, 31.0), Grid::per_tensor(4)), QuantValue::Q8S, 1)]
#[case::int4(entry("int4", (-7.0, 7.0), Grid::per_tensor(4)), QuantValue::Q4S, 1)]
#[case::int2(entry("int2", (-1.0, 1.0), Grid::per_tensor(4)), QuantValue::Q2S, 1)]
#[case::binary(entry("int1", (-1.0, 1.0), Grid::per_tensor(4)), QuantValue::Q2S, 1)]
#[case::uint1(entry("uint1", (0.0, 1.0), Grid::per_tensor(4)), QuantValue::Q2S, 1)]
#[case::uint4(entry("uint4", (0.0, 15.0), Grid::per_tensor(4)), QuantValue::Q8S, 1)]
#[case::per_channel(entry("int4", (-7.0, 7.0), Grid::per_channel(4, 0, 6)), QuantValue::Q4S, 6)]
#[case::per_column(entry("int8", (-127.0, 127.0), Grid::per_channel(4, 1, 4)), QuantValue::Q8S, 4)]
#[case::blocks(entry("int2", (-1.0, 1.0), Grid::new([3, 2, 1, 1])), QuantValue::Q2S, 6)]
fn dequantized_values_are_those_of_the_simulation(
    #[case] entry: CalibrationEntry,
    #[case] value: QuantValue,
    #[case] scales: usize,
) {
    let tensor = weight([6, 4, 3, 3]);
    let plan = Plan::new(&id("conv.weight"), &entry, &[6, 4, 3, 3], &Device::flex()).unwrap();
    assert_eq!((plan.scheme.value, plan.scales.len()), (value, scales));
    let quantized = quantize_tensor(&id("conv.weight"), tensor.clone(), &entry).unwrap();
    assert!(matches!(quantized.dtype(), DType::QFloat(scheme) if scheme.value == value));
    let found: Vec<f32> = quantized.dequantize().into_data().try_into_vec().unwrap();
    let expected = simulated(tensor, &entry);
    // Zeros have no sign.
    let bits = |values: &[f32]| -> Vec<u32> {
        values.iter().map(|value| (value + 0.0).to_bits()).collect()
    };
    assert_eq!(bits(&found), bits(&expected));
}

#[test]
fn whole_zero_points_are_shifted_away() {
    let mut entry = entry("uint8", (0.0, 255.0), Grid::per_channel(2, 0, 2));
    entry.zero_point = Some(vec![128.0, 128.0]);
    let tensor = weight([2, 8]);
    let quantized = quantize_tensor(&id("weight"), tensor.clone(), &entry).unwrap();
    assert!(matches!(quantized.dtype(), DType::QFloat(scheme) if scheme.value == QuantValue::Q8F));
    let found: Vec<f32> = quantized.dequantize().into_data().try_into_vec().unwrap();
    assert_eq!(found, simulated(tensor, &entry));
}

#[test]
fn blocks_that_are_too_large_are_divided() {
    // 600 = 3 * 200 is the largest divisor below 256.
    let entry = entry("int4", (-7.0, 7.0), Grid::per_channel(2, 1, 2));
    let plan = Plan::new(&id("weight"), &entry, &[600, 2], &Device::flex()).unwrap();
    assert_eq!(plan.scheme.block_size().unwrap().to_vec(), [200, 1]);
    let scale = entry.scale.clone().unwrap();
    assert_eq!(plan.scales, [&scale[..], &scale[..], &scale[..]].concat());
    let tensor = weight([600, 2]);
    let quantized = quantize_tensor(&id("weight"), tensor.clone(), &entry).unwrap();
    let found: Vec<f32> = quantized.dequantize().into_data().try_into_vec().unwrap();
    assert_eq!(found, simulated(tensor, &entry));
}

#[rstest]
#[case::fraction("uint4", (0.0, 15.0), 0.25, &[4, 4], "zero point 0.25 is no integer", "symmetric")]
#[case::zero_point("uint8", (0.0, 255.0), 100.0, &[4, 4], "from -100 to 155", "symmetric")]
#[case::width("uint8", (0.0, 255.0), 0.0, &[4, 4], "the integers 0 to 255", "signed type")]
#[case::prime("int8", (-127.0, 127.0), 0.0, &[257, 4], "do not divide", "one scale")]
#[case::rank("int8", (-127.0, 127.0), 0.0, &[2, 4, 2, 2, 2, 2], "have 6 dimensions", "one scale")]
fn what_burn_cannot_express_is_named(
    #[case] dtype: &str,
    #[case] range: (f32, f32),
    #[case] zero: f32,
    #[case] shape: &[usize],
    #[case] message: &str,
    #[case] remedy: &str,
) {
    let rank = shape.len();
    let mut entry = entry(dtype, range, Grid::per_channel(rank, 1, 4));
    entry.zero_point = Some(vec![zero; 4]);
    let error = burn_scheme(&id("conv.weight"), &entry, shape, &Device::flex()).unwrap_err();
    assert!(matches!(&error, SpeedupError::NotInBurn { target, .. } if target == "conv.weight"));
    let error = error.to_string();
    assert!(error.contains(message) && error.contains(remedy), "{error}");
}

#[test]
fn what_is_not_calibrated_is_refused() {
    let mut entry = entry("int8", (-127.0, 127.0), Grid::per_tensor(2));
    entry.enabled = false;
    let error = quantize_tensor(&id("weight"), weight([2, 2]), &entry).unwrap_err();
    assert!(error.to_string().contains("calibrate it first"), "{error}");
    entry.enabled = true;
    entry.grid = Grid::new([3, 1]);
    let error = quantize_tensor(&id("weight"), weight([2, 2]), &entry).unwrap_err();
    assert!(matches!(
        error,
        SpeedupError::Core(Error::InvalidCalibration { .. })
    ));
}

#[derive(Module, Debug)]
struct Net {
    conv: Wrapper<Conv2d>,
    norm: BatchNorm,
    fc: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        device.seed(9);
        Self {
            conv: Conv2dConfig::new([2, 4], [3, 3]).init(device).into(),
            norm: BatchNormConfig::new(4).init(device),
            fc: LinearConfig::new(4, 8).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.norm.forward(self.conv.forward(x));
        self.fc.forward(x.mean_dims(&[2, 3]).flatten(1, 3))
    }
}

fn state() -> SmallState {
    let mut mask = vec![1.0; 4 * 2 * 9];
    mask[..9].fill(0.0);
    let mask = Mask::new(mask, [4, 2, 3, 3]).unwrap();
    let output = entry("int8", (-127.0, 127.0), Grid::per_tensor(4));
    SmallState {
        masks: Masks::from([(id("conv.weight"), mask)]),
        calibration: Calibration::from([
            (
                id("conv.weight"),
                entry("int4", (-7.0, 7.0), Grid::per_channel(4, 0, 4)),
            ),
            (
                id("fc.weight"),
                entry("int8", (-127.0, 127.0), Grid::per_tensor(2)),
            ),
            (id("conv._output_0"), output),
        ]),
        ..SmallState::default()
    }
}

fn simulate(model: Net, state: &SmallState) -> Net {
    let (masks, calibration) = (&state.masks, &state.calibration);
    Compressed::from_parts(model, masks, calibration, History::default())
        .unwrap()
        .into_model()
}

#[rstest]
#[case::plain(Device::flex())]
#[case::training(Device::flex().autodiff())]
fn a_quantized_model_computes_what_the_simulated_one_does(#[case] device: Device) {
    let (model, state) = (simulate(Net::new(&device), &state()), state());
    let quantized = quantize_parameters(&model, &state).unwrap();
    assert!(matches!(quantized.conv.weight.dtype(), DType::QFloat(_)));
    assert!(matches!(quantized.fc.weight.dtype(), DType::QFloat(_)));
    assert_eq!(quantized.norm.gamma.dtype(), DType::F32);
    assert_eq!(quantized.conv.weight.id, model.conv.weight.id);
    let x = weight([3, 2, 6, 6]);
    let expected = model.valid().forward(x.clone()).into_data();
    quantized
        .forward(x.clone())
        .into_data()
        .assert_eq(&expected, true);
    // The quantization of the output is still there.
    let weights = SmallState {
        calibration: state.calibration.clone().into_iter().take(2).collect(),
        ..state
    };
    let other = quantize_parameters(&model, &weights).unwrap();
    assert!(other.forward(x).into_data() != expected);
}

#[test]
fn states_that_do_not_fit_a_model_are_refused() {
    let model = Net::new(&Device::flex());
    let mut added = state();
    let mask = added.masks[0].clone().with_method(MaskMethod::Add);
    added.masks.insert(id("conv.weight"), mask);
    let error = quantize_parameters(&model, &added).unwrap_err().to_string();
    assert!(error.contains("its mask is added"), "{error}");

    let mut shape = state();
    let mask = Mask::new(vec![0.0, 1.0], [1, 2]).unwrap();
    shape.masks.insert(id("conv.weight"), mask);
    let error = quantize_parameters(&model, &shape).unwrap_err();
    assert!(matches!(error, SpeedupError::Shape { .. }), "{error}");

    let mut unknown = state();
    let weight = unknown.calibration[1].clone();
    unknown.calibration.insert(id("gc.weight"), weight);
    let error = quantize_parameters(&model, &unknown).unwrap_err();
    assert!(matches!(error, SpeedupError::UnknownParameter { path } if path == "gc.weight"));
}
