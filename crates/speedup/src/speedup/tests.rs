//! Whole models, masked and cut.

use super::*;
use crate::change::Change;
use crate::verify::RoundingBoundary;
use crate::{load_small, save_small};
use burn::module::{ModuleMapper, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, FloatDType, Tensor};
use burn_compress_core::graph::GraphError;
use burn_compress_core::{
    CalibrationEntry, Grid, Mask, QuantDtype, QuantScheme, Quantization, TargetId, Wrapper,
};
use std::collections::BTreeMap;

/// A stem, a residual block with a depthwise convolution, a grouped convolution and a head.
#[derive(Module, Debug)]
struct Net {
    stem: Wrapper<Conv2d>,
    norm: BatchNorm,
    depthwise: Wrapper<Conv2d>,
    point: Conv2d,
    grouped: Conv2d,
    fc: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let conv = |channels, kernel: usize| {
            Conv2dConfig::new(channels, [kernel, kernel])
                .with_padding(burn::nn::PaddingConfig2d::Same)
        };
        let net = Self {
            stem: conv([2, 8], 3).init(device).into(),
            norm: BatchNormConfig::new(8).init(device),
            depthwise: conv([8, 8], 3).with_groups(8).init(device).into(),
            point: conv([8, 8], 1).init(device),
            grouped: conv([8, 6], 3).with_groups(2).init(device),
            fc: LinearConfig::new(6 * 4, 3).init(device),
        };
        Self {
            norm: BatchNormConfig::new(8).init(device),
            ..net.map(&mut Computed)
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm.forward(self.stem.forward(x)));
        let x = self.point.forward(relu(self.depthwise.forward(x.clone()))) + x;
        let x = relu(self.grouped.forward(relu(x)));
        self.fc.forward(x.flatten(1, 3))
    }
}

/// Gives every tensor values that are the same in each run: random numbers of a device come from one
/// generator, whichever test asks.
struct Computed;

impl ModuleMapper for Computed {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| computed(tensor.dims(), &tensor.device()))
    }
}

fn computed<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| (i as f32 * 1.7).sin() * 0.4).collect();
    Tensor::<1>::from_floats(&values[..], device).reshape(shape)
}

fn dummy(device: &Device) -> DummyInput<Net> {
    DummyInput::new(computed([3, 2, 2, 2], device), |net: &Net, x| {
        net.forward(x)
    })
}

fn id(target: &str) -> TargetId {
    target.parse().unwrap()
}

/// A mask of `shape` without the indices `removed` along dimension 0.
fn rows(shape: &[usize], removed: &[usize]) -> Mask {
    let inner: usize = shape[1..].iter().product();
    let kept = |at: usize| !removed.contains(&(at / inner));
    let values = (0..shape[0] * inner)
        .map(|at| f32::from(kept(at)))
        .collect();
    Mask::new(values, shape.to_vec()).unwrap()
}

/// Channels 1 and 6 of the stream (one of each group of the grouped convolution) and channels
/// 0 and 5 of the grouped convolution.
fn masks() -> Masks {
    let (stream, grouped): (&[usize], &[usize]) = (&[1, 6], &[0, 5]);
    Masks::from([
        (id("stem.weight"), rows(&[8, 2, 3, 3], stream)),
        (id("stem.bias"), rows(&[8], stream)),
        (id("norm.gamma"), rows(&[8], stream)),
        (id("norm.beta"), rows(&[8], stream)),
        (id("depthwise.weight"), rows(&[8, 1, 3, 3], stream)),
        (id("depthwise.bias"), rows(&[8], stream)),
        (id("point.weight"), rows(&[8, 8, 1, 1], stream)),
        (id("point.bias"), rows(&[8], stream)),
        (id("grouped.weight"), rows(&[6, 4, 3, 3], grouped)),
        (id("grouped.bias"), rows(&[6], grouped)),
    ])
}

fn speed_up(masks: &Masks, calibration: &Calibration) -> Result<Speedup<Net>, Error> {
    let net = Net::new(&Device::flex());
    speed_up_net(&net, masks, calibration, PartialChannels::Keep)
}

fn speed_up_net(
    net: &Net,
    masks: &Masks,
    calibration: &Calibration,
    partial_channels: PartialChannels,
) -> Result<Speedup<Net>, Error> {
    let compressed = Compressed::from_parts(net.clone(), masks, calibration, History::default())?;
    ModelSpeedup::new(compressed, dummy(&Device::flex()))
        .with_partial_channels(partial_channels)
        .speedup_model()
}

fn keep(net: &Net, masks: &Masks) -> Speedup<Net> {
    speed_up_net(net, masks, &Calibration::new(), PartialChannels::Keep).unwrap()
}

fn lift(net: &Net, masks: &Masks) -> Speedup<Net> {
    speed_up_net(net, masks, &Calibration::new(), PartialChannels::Lift).unwrap()
}

/// Compares what two networks make of the same input, bit by bit.
fn assert_same(a: &Net, b: &Net) {
    let (dummy, device) = (dummy(&Device::flex()), Device::flex());
    let (a, b) = (dummy.run(a, &device), dummy.run(b, &device));
    a[0].assert_eq(&b[0], true);
}

#[test]
fn residual_depthwise_grouped_and_flatten_shrink_together() {
    let small = speed_up(&masks(), &Calibration::new()).unwrap();
    let net = &small.model;
    assert_eq!(net.stem.weight.dims(), [6, 2, 3, 3]);
    assert_eq!(net.norm.running_mean.value().dims(), [6]);
    assert_eq!(
        (net.depthwise.weight.dims(), net.depthwise.groups),
        ([6, 1, 3, 3], 6)
    );
    assert_eq!(net.point.weight.dims(), [6, 6, 1, 1]);
    assert_eq!(
        (net.grouped.weight.dims(), net.grouped.groups),
        ([4, 3, 3, 3], 2)
    );
    assert_eq!(net.fc.weight.dims(), [4 * 4, 3]);
    assert!(small.report.max_relative_error <= TOLERANCE);
    assert!(small.state.masks.is_empty() && small.state.calibration.is_empty());
    let groups = BTreeMap::from([("groups".to_string(), 6)]);
    assert_eq!(
        small.state.sizes,
        BTreeMap::from([("depthwise".to_string(), groups)])
    );
    // 2 x 2 places; depthwise and grouped read one and three inputs a row.
    let macs = 4 * (6 * 2 * 9 + 6 * 9 + 6 * 6 + 4 * 3 * 9) + 16 * 3;
    assert_eq!(small.report.macs.small, macs);

    let layer = |path: &str| small.report.layers.iter().find(|row| row.layer == path);
    let change = |dense, small| Change { dense, small };
    let grouped = layer("grouped").unwrap();
    assert_eq!(grouped.channels, Some(change(6, 4)));
    assert_eq!(grouped.macs, Some(change(4 * 6 * 4 * 9, 4 * 4 * 3 * 9)));
    assert_eq!(
        grouped.bytes,
        change(4 * (6 * 4 * 9 + 6), 4 * (4 * 3 * 9 + 4))
    );
    // Nothing is quantized.
    assert_eq!(grouped.stored, Some(grouped.bytes.small));
    // Gamma, beta, mean and variance; a norm has no products.
    let norm = layer("norm").unwrap();
    assert_eq!(
        (norm.bytes, norm.macs),
        (change(4 * 32, 4 * 24), Some(change(0, 0)))
    );
}

#[test]
fn single_masked_values_stay_zero() {
    let mut masks = masks();
    let mut values = vec![1.0; 6 * 4 * 3];
    values[3] = 0.0;
    masks.insert(id("fc.weight"), Mask::new(values, [24, 3]).unwrap());
    let small = speed_up(&masks, &Calibration::new()).unwrap();
    // Rows 0..4 of fc read channel 0, which is gone: the masked entry went with it.
    assert_eq!(small.model.fc.weight.dims(), [16, 3]);
    let mut values = vec![1.0; 6 * 4 * 3];
    values[5 * 3] = 0.0;
    masks.insert(id("fc.weight"), Mask::new(values, [24, 3]).unwrap());
    let small = speed_up(&masks, &Calibration::new()).unwrap();
    let weight = small
        .model
        .fc
        .weight
        .val()
        .into_data()
        .try_to_vec::<f32>()
        .unwrap();
    assert_eq!(weight.iter().position(|&value| value == 0.0), Some(3));
}

fn entry(grid: Grid) -> CalibrationEntry {
    let blocks = grid.len();
    let quantization = Quantization::of(QuantDtype::INT8, QuantScheme::Symmetric).with_grid(grid);
    CalibrationEntry {
        enabled: true,
        scale: Some((1..=blocks).map(|at| 0.01 * at as f32).collect()),
        zero_point: Some(vec![0.0; blocks]),
        ..quantization.to_calibration().unwrap()
    }
}

#[test]
fn scales_of_weights_and_outputs_follow_their_channels() {
    let calibration = Calibration::from([
        (id("stem.weight"), entry(Grid::per_channel(4, 0, 8))),
        (id("depthwise._output_0"), entry(Grid::per_channel(4, 1, 8))),
        (id("fc.weight"), entry(Grid::per_tensor(2))),
    ]);
    let small = speed_up(&masks(), &calibration).unwrap();
    let kept = [1, 3, 4, 5, 6, 8].map(|at| 0.01 * at as f32).to_vec();
    let scale = |target: &str| small.state.calibration[&id(target)].scale.clone();
    assert_eq!(scale("stem.weight"), Some(kept.clone()));
    assert_eq!(scale("depthwise._output_0"), Some(kept));
    assert_eq!(scale("fc.weight"), Some(vec![0.01]));
    assert!(small.report.max_relative_error <= TOLERANCE);
    assert_eq!(
        small.report.rounding_boundary,
        RoundingBoundary {
            values: 9,
            differing: 0
        }
    );
}

#[test]
fn zero_must_stay_zero_where_channels_go() {
    let mut quantization = entry(Grid::per_tensor(4));
    quantization.zero_point = Some(vec![0.25]);
    let calibration = Calibration::from([(id("stem._output_0"), quantization)]);
    let error = speed_up(&masks(), &calibration).unwrap_err();
    assert!(
        error.to_string().contains("its zero point 0.25 is no int8"),
        "{error}"
    );
}

#[test]
fn masks_from_elsewhere_cut_a_plain_model() {
    let (net, dummy) = (Net::new(&Device::flex()), dummy(&Device::flex()));
    let small = ModelSpeedup::from_masks(net.clone(), dummy.clone(), &masks()).unwrap();
    let small = small.speedup_model().unwrap();
    let of_chain = keep(&net, &masks());
    assert_same(&small.model, &of_chain.model);
    assert_eq!(small.report, of_chain.report);
    assert_eq!(small.plan.params, of_chain.plan.params);

    let error = |target: &str, mask: Mask| {
        let masks = Masks::from([(id(target), mask)]);
        let speedup = ModelSpeedup::from_masks(net.clone(), dummy.clone(), &masks);
        speedup.unwrap_err().to_string()
    };
    let found = error("stem.weight", rows(&[4, 2, 3, 3], &[1]));
    assert!(
        found.contains("stem.weight") && found.contains("[8, 2, 3, 3]"),
        "{found}"
    );
    let found = error("root.weight", rows(&[8, 2, 3, 3], &[1]));
    assert!(found.contains("root"), "{found}");
    let found = error("point._output_0", rows(&[1, 8, 1, 1], &[]));
    assert!(
        found.contains("point") && found.contains("Wrapper"),
        "{found}"
    );
}

#[test]
fn a_result_remembers_its_dummy_input() {
    let net = Net::new(&Device::flex());
    let parts = || {
        let (calibration, history) = (Calibration::new(), History::default());
        Compressed::from_parts(net.clone(), &masks(), &calibration, history).unwrap()
    };
    let error = parts().speedup().unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(SpeedupError::NoDummyInput)),
        "{error}"
    );
    let remembered = parts().with_dummy_input(dummy(&Device::flex()));
    let small = remembered.speedup().unwrap();
    assert_eq!(small.report, keep(&net, &masks()).report);
}

#[test]
fn a_small_model_saves_and_loads_itself() {
    let calibration = Calibration::from([(id("stem.weight"), entry(Grid::per_channel(4, 0, 8)))]);
    let small = speed_up(&masks(), &calibration).unwrap();
    let directory = tempfile::TempDir::new().unwrap();
    let (path, second) = (
        directory.path().join("small"),
        directory.path().join("second"),
    );
    let storage = small.save(&path).unwrap();
    // The size was known without the file.
    assert_eq!(small.report.storage, Some(storage));
    assert_eq!(storage.file_bytes, std::fs::metadata(&path).unwrap().len());
    let loaded = Small::load(Net::new(&Device::flex()), &path).unwrap();
    assert_eq!(loaded.state, small.state);
    assert_same(&loaded.model, &small.model);
    loaded.save(&second).unwrap();
    let again = Small::load(Net::new(&Device::flex()), &second).unwrap();
    assert_same(&again.model, &small.model);
    let config = SaveConfig::new().with_master_weights(true);
    let raw = small.save_with(&path, &config).unwrap();
    // Six of eight channels of 2 * 3 * 3 weights are left.
    assert_eq!((storage.integers, raw.integers), (108, 0));
    assert_eq!(small.clone().into_small().state, small.state);
}

#[test]
fn a_saved_small_model_computes_the_same() {
    let calibration = Calibration::from([
        (id("stem.weight"), entry(Grid::per_channel(4, 0, 8))),
        (id("depthwise._output_0"), entry(Grid::per_channel(4, 1, 8))),
    ]);
    let small = speed_up(&masks(), &calibration).unwrap();
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("small.bcs");
    save_small(&small.model, &small.state, &path).unwrap();
    let device = Device::flex();
    let (model, state) = load_small(Net::new(&device), &path).unwrap();
    assert_eq!(state, small.state);
    assert_same(&model, &small.model);
    // Without its state the model computes something else, so the state came along.
    let plain = Compressed::from_parts(
        model,
        &Masks::new(),
        &Calibration::new(),
        History::default(),
    );
    let x = Tensor::<4>::ones([3, 2, 2, 2], &device);
    let (plain, x2) = (plain.unwrap().unwrap_model(), x.clone());
    assert!(plain.forward(x).into_data() != small.model.forward(x2).into_data());
}

fn speed_up_with(forward: impl Fn(&Net, Tensor<4>) -> Tensor<2> + Send + Sync + 'static) -> Error {
    let device = Device::flex();
    let model = Net::new(&device);
    let compressed =
        Compressed::from_parts(model, &masks(), &Calibration::new(), History::default());
    let dummy = DummyInput::new(Tensor::<4>::ones([3, 2, 2, 2], &device), forward);
    ModelSpeedup::new(compressed.unwrap(), dummy)
        .speedup_model()
        .unwrap_err()
}

#[test]
fn another_function_is_refused_with_the_layer() {
    // This forward pass depends on a size that the speedup changes from 6 to 4.
    let error = speed_up_with(|net, x| net.forward(x) * net.grouped.weight.dims()[0] as f64);
    let Some(SpeedupError::Differs { layer, error, .. }) = error.downcast_ref() else {
        panic!("{error}")
    };
    assert_eq!(layer.as_deref(), Some("grouped"));
    assert!((error - 1.0 / 3.0).abs() < 1e-6);
}

#[test]
fn a_forward_pass_that_cannot_run_is_an_error() {
    let error = speed_up_with(|net, x| {
        assert_eq!(net.stem.weight.dims()[0], 8, "eight channels");
        net.forward(x)
    });
    assert!(
        matches!(error.downcast_ref(), Some(SpeedupError::Forward { reason }) if reason.contains("eight"))
    );
}

#[test]
fn a_depthwise_layer_that_disagrees_keeps_the_channel() {
    let mut masks = masks();
    masks.insert(id("depthwise.bias"), rows(&[8], &[1]));
    let small = speed_up(&masks, &Calibration::new());
    // Only channel 1 could go, and the two groups of `grouped` must lose equally many.
    assert_eq!(small.unwrap().model.stem.weight.dims(), [8, 2, 3, 3]);
}

/// The masks of [`masks`] with that of the first and depthwise convolution on their outputs.
fn masks_of_outputs() -> Masks {
    let mut masks = masks();
    masks.retain(|target, _| !["stem", "depthwise"].contains(&target.layer.as_str()));
    let channels = rows(&[8], &[1, 6]).values().to_vec();
    let mask = Mask::new(channels, [1, 8, 1, 1]).unwrap();
    masks.insert(id("stem._output_0"), mask.clone());
    masks.insert(id("depthwise._output_0"), mask);
    masks
}

#[test]
fn masks_of_outputs_remove_the_same_as_masks_of_parameters() {
    let net = Net::new(&Device::flex());
    let expected = keep(&net, &masks());
    let small = keep(&net, &masks_of_outputs());
    assert_eq!(small.plan, expected.plan);
    // They are all ones now.
    assert!(small.state.masks.is_empty());
    assert_same(&small.model, &expected.model);
}

#[test]
fn an_output_that_is_masked_place_by_place_loses_no_channel() {
    let mut masks = masks_of_outputs();
    let places: Vec<f32> = (0..8 * 4).map(|at| f32::from(at % 4 != 0)).collect();
    let mask = Mask::new(places, [1, 8, 2, 2]).unwrap();
    masks.insert(id("depthwise._output_0"), mask.clone());
    let small = speed_up(&masks, &Calibration::new()).unwrap();
    assert_eq!(small.model.stem.weight.dims(), [8, 2, 3, 3]);
    assert_eq!(small.state.masks[&id("depthwise._output_0")], mask);
}

#[test]
fn the_plan_lists_what_was_kept() {
    let plan = speed_up(&masks(), &Calibration::new()).unwrap().plan;
    assert_eq!(plan.params["stem.weight"].keep[&0], [0, 2, 3, 4, 5, 7]);
    assert_eq!(plan.params["grouped.bias"].keep[&0], [1, 2, 3, 4]);
    let output = plan
        .ports
        .iter()
        .find(|port| port.target == id("stem._output_0"));
    assert_eq!(output.unwrap().keep, [0, 2, 3, 4, 5, 7]);
}

#[test]
fn a_layer_without_channels_is_an_error() {
    let all = Masks::from([
        (
            id("grouped.weight"),
            rows(&[6, 4, 3, 3], &[0, 1, 2, 3, 4, 5]),
        ),
        (id("grouped.bias"), rows(&[6], &[0, 1, 2, 3, 4, 5])),
    ]);
    let error = speed_up(&all, &Calibration::new()).unwrap_err();
    let cause = error.downcast_ref();
    assert!(matches!(cause, Some(GraphError::NothingLeft { layer }) if layer == "grouped"));
}

#[test]
fn double_precision_distinguishes_rounding_from_another_function() {
    let net = Net::new(&Device::flex());
    let given = dummy(&Device::flex());
    let wide = |net: &Net, left: &Masks| Wide {
        model: net.clone(),
        masks: IndexMap::new(),
        simulated: simulated(left),
    };
    let none = Masks::new();
    let error = |a: Wide<Net>, b: Wide<Net>, dummy: &DummyInput<Net>| {
        let [a, b] = [a, b].map(|net| net.run(dummy, Input::Given));
        Some(verify::relative_error(&a?, &b?).unwrap())
    };
    let error_f64 =
        |a: &Net, b: &Net, dummy: &DummyInput<Net>| error(wide(a, &none), wide(b, &none), dummy);
    assert_eq!(error_f64(&net, &net, &given), Some(0.0));

    // The output is linear in the last layer, so it moves by the factor of its parameters.
    let mut other = net.clone();
    let factor = 1.0 + f32::EPSILON;
    other.fc.weight = other.fc.weight.map(|weight| weight * factor);
    other.fc.bias = other.fc.bias.map(|bias| bias.map(|bias| bias * factor));
    let moved = error_f64(&net, &other, &given).unwrap();
    assert!((5e-8..3e-7).contains(&moved), "{moved}");

    // A mask that stays beside the parameters is widened with them.
    let masks = Masks::from([(id("fc.bias"), rows(&[3], &[0, 1, 2]))]);
    let masked = with_state(net.clone(), &masks, &Calibration::new()).unwrap();
    let beside = error(wide(&net, &none), wide(&masked, &masks), &given);
    assert!(beside.unwrap() > 1e-3);
    // Inside, it does the same.
    let inside = Wide {
        masks: products(&masks),
        ..wide(&net, &none)
    };
    assert_eq!(error(inside, wide(&masked, &masks), &given), Some(0.0));

    let closure =
        DummyInput::from_fn(|net: &Net, device| net.forward(Tensor::ones([1, 2, 2, 2], device)));
    assert_eq!(error_f64(&net, &net, &closure), None);
}

mod dtypes;
mod lifted;
mod uncut;
