//! Round trips.

mod integers;
mod refused;

use super::*;
use crate::content::storage as stored;
use crate::tensors::collect;
use burn::module::ParamId;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, LinearLayout};
use burn::store::ModuleRecord;
use burn::tensor::{DType, Device, Distribution, FloatDType, Tensor};
use burn_compress_core::graph::LayerSizes;
use burn_compress_core::{
    Calibration, CalibrationEntry, Grid, Mask, Masks, QuantDtype, QuantScheme, Quantization,
    TargetId, Wrapper,
};
use burn_pack::Writer;
use rstest::rstest;
use std::fs;
use tempfile::TempDir;

#[derive(Module, Debug)]
struct Net {
    conv: Wrapper<Conv2d>,
    norm: BatchNorm,
    fc: Linear,
}

impl Net {
    /// A depthwise convolution of `channels`, a norm, and a linear layer in the given layout.
    fn new(channels: usize, layout: LinearLayout, device: &Device) -> Self {
        let conv = Conv2dConfig::new([channels, channels], [3, 3]).with_groups(channels);
        Self {
            conv: conv.init(device).into(),
            norm: BatchNormConfig::new(channels).init(device),
            fc: LinearConfig::new(channels, 2)
                .with_layout(layout)
                .init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.norm.forward(self.conv.forward(x));
        self.fc.forward(x.mean_dims(&[2, 3]).flatten(1, 3))
    }
}

fn state() -> SmallState {
    let quantization = Quantization::of(QuantDtype::INT8, QuantScheme::Symmetric)
        .with_grid(Grid::per_channel(4, 0, 3));
    let mut entry = quantization.to_calibration().unwrap();
    entry.scale = Some(vec![0.1, 1.0 / 3.0, f32::MIN_POSITIVE]);
    entry.zero_point = Some(vec![0.0; 3]);
    let target: TargetId = "conv.weight".parse().unwrap();
    let mask = Mask::new(vec![1.0, 0.0, 1.0], [1, 3, 1, 1]).unwrap();
    SmallState {
        masks: Masks::from([("conv._output_0".parse().unwrap(), mask)]),
        calibration: Calibration::from([(target, entry)]),
        sizes: LayerSizes::from([("conv".to_string(), [("groups".to_string(), 3)].into())]),
    }
}

/// Storage as it is known before anything is written.
fn planned<M: Module>(
    model: &M,
    state: &SmallState,
    config: &SaveConfig,
) -> Result<Storage, SpeedupError> {
    let stored = stored(model, state, config)?;
    let of_tensors: u64 = stored.tensors.iter().flat_map(|of| of.values()).sum();
    assert!(of_tensors < stored.storage.file_bytes);
    Ok(stored.storage)
}

/// A saved small model with 3 of 5 channels, its file and the directory that holds it.
fn saved(layout: LinearLayout) -> (Net, std::path::PathBuf, TempDir) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("small.bcs");
    let small = Net::new(3, layout, &Device::flex());
    // Statistics that are not the initial ones.
    let device = Device::flex().autodiff();
    let trained = small.clone().train();
    trained.forward(Tensor::ones([2, 3, 5, 5], &device) * 3.0);
    let small = trained.valid();
    let storage = save_small(&small, &state(), &path).unwrap();
    assert_eq!(
        planned(&small, &state(), &SaveConfig::new()).unwrap(),
        storage
    );
    (small, path, directory)
}

fn error_of<M: Module>(model: M, path: &Path) -> SpeedupError {
    load_parts(model, path).map(|_| ()).unwrap_err()
}

fn tensors<M: Module>(model: &M) -> Vec<(String, ParamId, TensorData)> {
    collect(model)
        .into_iter()
        .map(|(layout, data)| (layout.name, layout.id, data))
        .collect()
}

fn entry(dtype: &str, range: (f32, f32), zero: f32, grid: Grid) -> CalibrationEntry {
    let blocks = grid.len();
    CalibrationEntry {
        enabled: true,
        scale: Some((0..blocks).map(|at| 0.03 + 0.007 * at as f32).collect()),
        zero_point: Some(vec![zero; blocks]),
        ..Quantization::new(dtype, QuantScheme::Affine, range.0, range.1)
            .with_grid(grid)
            .to_calibration()
            .unwrap()
    }
}

fn id(target: &str) -> TargetId {
    target.parse().unwrap()
}

/// A linear layer of 12 to 10 features that is quantized as `entry` says.
fn quantized(
    entry: &CalibrationEntry,
    layout: LinearLayout,
    device: &Device,
) -> (Linear, SmallState) {
    device.seed(7);
    let model = LinearConfig::new(12, 10).with_layout(layout).init(device);
    let state = SmallState {
        calibration: Calibration::from([(id("weight"), entry.clone())]),
        ..SmallState::default()
    };
    (simulated(model, &state), state)
}

fn simulated<M: Module + 'static>(model: M, state: &SmallState) -> M {
    let (masks, calibration) = (&state.masks, &state.calibration);
    Compressed::from_parts(model, masks, calibration, History::default())
        .unwrap()
        .into_model()
}

fn bits(tensor: Tensor<2>) -> Vec<u32> {
    let values: Vec<f32> = tensor.into_data().try_into_vec().unwrap();
    // Zeros have no sign.
    values.iter().map(|value| (value + 0.0).to_bits()).collect()
}

#[rstest]
#[case(LinearLayout::Row)]
#[case(LinearLayout::Col)]
fn weights_statistics_groups_and_state_come_back_exactly(#[case] layout: LinearLayout) {
    let (small, path, _directory) = saved(layout);
    let full = Net::new(5, layout, &Device::flex());
    let (loaded, read) = load_parts(full.clone(), &path).unwrap();
    assert_eq!(read, state());
    assert_eq!((loaded.conv.groups, full.conv.groups), (3, 5));
    assert_eq!(full.norm.running_mean.value().dims(), [5]);
    for ((name, id, expected), (_, found_id, found)) in tensors(&small).iter().zip(tensors(&loaded))
    {
        found.assert_eq(expected, true);
        if !name.contains("running") {
            assert_eq!(*id, found_id, "{name}");
        }
    }
    let x = Tensor::<4>::random([2, 3, 5, 5], Distribution::Default, &Device::flex());
    small
        .forward(x.clone())
        .into_data()
        .assert_eq(&loaded.forward(x).into_data(), true);
}

#[test]
fn what_is_simulated_on_the_full_size_model_does_not_go_on() {
    let (_, path, _directory) = saved(LinearLayout::Row);
    let full = Net::new(5, LinearLayout::Row, &Device::flex());
    let masks = Masks::from([
        (id("fc.weight"), Mask::new(vec![0.0; 10], [5, 2]).unwrap()),
        (id("fc.bias"), Mask::new(vec![0.0; 2], [2]).unwrap()),
        (id("norm.gamma"), Mask::new(vec![0.0; 5], [5]).unwrap()),
    ]);
    let calibration = state().calibration;
    let wide = CalibrationEntry {
        grid: Grid::per_channel(4, 0, 5),
        scale: Some(vec![0.5; 5]),
        zero_point: Some(vec![0.0; 5]),
        ..calibration[0].clone()
    };
    let before = SmallState {
        masks,
        calibration: Calibration::from([(id("conv.weight"), wide)]),
        ..SmallState::default()
    };
    let (expected, _) = load_small(full.clone(), &path).unwrap();
    let (loaded, read) = load_small(simulated(full, &before), &path).unwrap();
    assert_eq!(read, state());
    let x = Tensor::<4>::random([2, 3, 5, 5], Distribution::Default, &Device::flex());
    let (found, expected) = (loaded.forward(x.clone()), expected.forward(x));
    found.into_data().assert_eq(&expected.into_data(), true);
}

#[test]
fn many_quantized_targets_take_little_more_than_their_values() {
    let directory = TempDir::new().unwrap();
    let model = LinearConfig::new(4, 4).init(&Device::flex());
    let size = |state: &SmallState| {
        let path = directory.path().join("small.bcs");
        save_small(&model, state, &path).unwrap();
        let (_, read) = load_parts(model.clone(), &path).unwrap();
        assert_eq!(read, *state);
        fs::metadata(&path).unwrap().len()
    };
    let entry = CalibrationEntry {
        scale: Some(vec![0.1; 16]),
        zero_point: Some(vec![0.0; 16]),
        minimum: Some(vec![-1.0; 16]),
        maximum: Some(vec![1.0; 16]),
        ..Quantization::of(QuantDtype::INT8, QuantScheme::Symmetric)
            .with_grid(Grid::per_channel(2, 0, 16))
            .to_calibration()
            .unwrap()
    };
    let target = |at: usize| format!("blocks.{at}.conv.weight").parse().unwrap();
    let calibration = (0..42).map(|at| (target(at), entry.clone())).collect();
    let state = SmallState {
        calibration,
        ..SmallState::default()
    };
    let (without, with) = (size(&SmallState::default()), size(&state));
    let values = 42 * 4 * 16 * 4;
    assert!(with - without < values + 2048, "{without} {with}");
}

#[test]
fn a_training_model_gets_trainable_parameters() {
    let (_, path, _directory) = saved(LinearLayout::Row);
    let device = Device::flex().autodiff();
    let (loaded, _) = load_parts(Net::new(5, LinearLayout::Row, &device), &path).unwrap();
    assert!(loaded.fc.weight.is_require_grad());
    let gradients = loaded
        .forward(Tensor::ones([1, 3, 3, 3], &device))
        .sum()
        .backward();
    assert_eq!(loaded.fc.weight.grad(&gradients).unwrap().dims(), [3, 2]);
}
