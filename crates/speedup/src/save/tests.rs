//! Round trips, and files that must be refused.

use super::*;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, LinearLayout};
use burn::store::ModuleRecord;
use burn::tensor::Device;
use burn_compress_core::{
    Calibration, CalibrationEntry, Grid, Mask, Masks, Quantization, TargetId, Wrapper,
};
use rstest::rstest;
use std::collections::BTreeMap;
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
    let quantization =
        Quantization::new("int8", "symmetric", -127.0, 127.0).with_grid(Grid::per_channel(4, 0, 3));
    let mut entry = quantization.to_calibration().unwrap();
    entry.scale = Some(vec![0.1, 1.0 / 3.0, f32::MIN_POSITIVE]);
    let target: TargetId = "conv.weight".parse().unwrap();
    let mask = Mask::new(vec![1.0, 0.0, 1.0], [1, 3, 1, 1]).unwrap();
    SmallState {
        masks: Masks::from([("conv._output_0".parse().unwrap(), mask)]),
        calibration: Calibration::from([(target, entry)]),
        groups: BTreeMap::from([("conv".to_string(), 3)]),
    }
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
    save_small(&small, &state(), &path).unwrap();
    (small, path, directory)
}

fn error_of<M: Module>(model: M, path: &Path) -> SpeedupError {
    load_parts(model, path).map(|_| ()).unwrap_err()
}

fn tensors<M: Module>(model: &M) -> Vec<(String, ParamId, TensorData)> {
    let mut collector = Collector {
        path: Vec::new(),
        tensors: Vec::new(),
    };
    model.visit(&mut collector);
    collector.tensors
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
    let x = Tensor::<4>::random(
        [2, 3, 5, 5],
        burn::tensor::Distribution::Default,
        &Device::flex(),
    );
    small
        .forward(x.clone())
        .into_data()
        .assert_eq(&loaded.forward(x).into_data(), true);
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
        ..Quantization::new("int8", "symmetric", -127.0, 127.0)
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

#[test]
fn an_ordinary_load_fails_whatever_its_options() {
    let (_, path, _directory) = saved(LinearLayout::Row);
    // Options are set on a record, and no record comes out of the file.
    let error = ModuleRecord::load(&path)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(error.to_lowercase().contains("magic"), "{error}");
    let full = Net::new(5, LinearLayout::Row, &Device::flex());
    assert!(full.try_load_file(&path).is_err());
}

#[test]
fn damaged_files_are_refused_at_every_length() {
    let (_, path, _directory) = saved(LinearLayout::Row);
    let full = Net::new(5, LinearLayout::Row, &Device::flex());
    let bytes = fs::read(&path).unwrap();
    for length in [0, 7, 8, 20, 27, 28, 200, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = error_of(full.clone(), &path);
        assert!(
            matches!(error, SpeedupError::Format { .. }),
            "{length}: {error}"
        );
    }
    for at in [0, 8, 12, 20, 28, 100, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let error = error_of(full.clone(), &path);
        assert!(
            matches!(error, SpeedupError::Format { .. }),
            "{at}: {error}"
        );
    }
}

#[test]
fn other_architectures_are_refused() {
    let (_, path, _directory) = saved(LinearLayout::Row);
    let device = Device::flex();
    let error = error_of(Net::new(2, LinearLayout::Row, &device), &path).to_string();
    assert!(
        error.contains("`conv.weight` is [3, 1, 3, 3], the model's [2, 1, 3, 3]"),
        "{error}"
    );
    let error = error_of(LinearConfig::new(4, 4).init(&device), &path).to_string();
    assert!(error.contains("it has no `weight`"), "{error}");

    #[derive(Module, Debug)]
    struct Headless {
        conv: Wrapper<Conv2d>,
        norm: BatchNorm,
    }
    let Net { conv, norm, .. } = Net::new(5, LinearLayout::Row, &device);
    let error = error_of(Headless { conv, norm }, &path).to_string();
    assert!(error.contains("the model has no `fc."), "{error}");

    #[derive(Module, Debug)]
    struct Plain {
        conv: Conv2d,
        norm: BatchNorm,
        fc: Linear,
    }
    let full = Net::new(5, LinearLayout::Row, &device);
    let plain = Plain {
        conv: full.conv.into_inner(),
        norm: full.norm,
        fc: full.fc,
    };
    assert!(matches!(
        error_of(plain, &path),
        SpeedupError::ConstantField { layer, value: 3, .. } if layer == "conv"
    ));
}

#[test]
fn values_that_are_not_finite_are_named_and_leave_the_old_file() {
    let (mut small, path, directory) = saved(LinearLayout::Row);
    let before = fs::read(&path).unwrap();
    small.fc.bias = small
        .fc
        .bias
        .map(|bias| bias.map(|values| values * f32::NAN));
    let error = save_small(&small, &state(), &path).unwrap_err();
    assert!(matches!(error, SpeedupError::NotFinite { tensor, .. } if tensor == "fc.bias"));
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);

    // A file that someone else wrote.
    let nan = burn_pack::Tensor::new(
        "param:weight".to_string(),
        DType::F32,
        vec![1],
        None,
        Bytes::from_bytes_vec(f32::NAN.to_le_bytes().to_vec()),
    );
    let json = r#"{"masks":{},"settings":[],"calibration":{},"groups":{}}"#;
    let bytes = Writer::new(vec![nan])
        .with_metadata(STATE, json)
        .into_bytes()
        .unwrap();
    write(&path, &bytes).unwrap();
    let error = error_of(LinearConfig::new(1, 1).init(&Device::flex()), &path);
    assert!(matches!(error, SpeedupError::NotFinite { tensor, .. } if tensor == "weight"));
}

#[test]
fn a_missing_file_and_a_missing_directory_are_io_errors() {
    let directory = TempDir::new().unwrap();
    let model = LinearConfig::new(1, 1).init(&Device::flex());
    let path = directory.path().join("none").join("small.bcs");
    let error = save_small(&model, &SmallState::default(), &path).unwrap_err();
    assert!(matches!(error, SpeedupError::Io { .. }));
    assert!(matches!(error_of(model, &path), SpeedupError::Io { .. }));
}
