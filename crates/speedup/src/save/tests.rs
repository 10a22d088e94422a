//! Round trips, and files that must be refused.

use super::*;
use burn::module::ParamId;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, LinearLayout};
use burn::store::ModuleRecord;
use burn::tensor::{Device, Distribution, Tensor};
use burn_compress_core::{
    Calibration, CalibrationEntry, Grid, Mask, Masks, QuantDtype, QuantScheme, Quantization,
    TargetId, Wrapper,
};
use rstest::rstest;
use std::collections::BTreeMap;
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
    collect(model)
        .into_iter()
        .map(|tensor| (tensor.name, tensor.id, tensor.data))
        .collect()
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
        .with_metadata(TENSORS, r#"{"integers":{},"floats":{}}"#)
        .into_bytes()
        .unwrap();
    container::write(&path, &bytes).unwrap();
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
#[case::int8(entry("int8", (-127.0, 127.0), 0.0, Grid::per_tensor(2)), 120)]
#[case::uint8(entry("uint8", (0.0, 255.0), 117.0, Grid::per_tensor(2)), 120)]
#[case::int4_per_channel(entry("int4", (-7.0, 7.0), 0.0, Grid::per_channel(2, 1, 10)), 60)]
#[case::uint4_per_block(entry("uint4", (0.0, 15.0), 7.0, Grid::new([3, 5])), 60)]
#[case::uint4_with_a_fraction(entry("uint4", (0.0, 15.0), 7.3, Grid::new([3, 5])), 60)]
#[case::int3(entry("int3", (-3.0, 3.0), 0.0, Grid::per_channel(2, 0, 12)), 45)]
#[case::int2(entry("int2", (-1.0, 1.0), 0.0, Grid::new([4, 2])), 30)]
#[case::uint2(entry("uint2", (0.0, 3.0), 1.0, Grid::per_tensor(2)), 30)]
#[case::uint1(entry("uint1", (0.0, 1.0), 0.0, Grid::per_tensor(2)), 15)]
#[case::int1(entry("int1", (-1.0, 1.0), 0.0, Grid::per_channel(2, 1, 10)), 15)]
fn quantized_parameters_are_stored_as_integers(
    #[case] entry: CalibrationEntry,
    #[case] bytes: u64,
    #[values(LinearLayout::Row, LinearLayout::Col)] layout: LinearLayout,
) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("small.bcs");
    let device = Device::flex();
    let (model, state) = quantized(&entry, layout, &device);
    let storage = save_small(&model, &state, &path).unwrap();
    let expected = Storage {
        f32_bytes: 4 * (120 + 10),
        file_bytes: fs::metadata(&path).unwrap().len(),
        integers: 120,
        integer_bytes: bytes,
    };
    assert_eq!(storage, expected);

    device.seed(8);
    let full = LinearConfig::new(12, 10).with_layout(layout).init(&device);
    let (loaded, read) = load_small(full, &path).unwrap();
    assert_eq!(read, state);
    assert_eq!(loaded.weight.id, model.weight.id);
    assert_eq!(bits(loaded.weight.val()), bits(model.weight.val()));
    let x = Tensor::<2>::random([3, 12], Distribution::Default, &device);
    assert_eq!(bits(loaded.forward(x.clone())), bits(model.forward(x)));
    // The raw values are those of the integers, which are the same when they are saved again.
    assert_eq!(bits(loaded.weight.base()), bits(model.weight.val()));
    let again = directory.path().join("again.bcs");
    save_small(&loaded, &state, &again).unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap());
}

#[test]
fn few_bits_make_small_files() {
    let directory = TempDir::new().unwrap();
    let device = Device::flex();
    let model = LinearConfig::new(256, 256).init(&device);
    let size = |dtype: &str, most: f32| {
        let state = SmallState {
            calibration: Calibration::from([(
                id("weight"),
                entry(dtype, (-most, most), 0.0, Grid::per_tensor(2)),
            )]),
            ..SmallState::default()
        };
        let path = directory.path().join(dtype);
        save_small(&model, &state, &path).unwrap()
    };
    let floats = save_small(&model, &SmallState::default(), directory.path().join("f32")).unwrap();
    assert_eq!(floats.f32_bytes, 4 * (65536 + 256));
    assert_eq!((floats.integers, floats.integer_bytes), (0, 0));
    for (dtype, most, bytes) in [
        ("int8", 127.0, 65536),
        ("int4", 7.0, 32768),
        ("int2", 1.0, 16384),
        ("int1", 1.0, 8192),
    ] {
        let storage = size(dtype, most);
        assert_eq!(storage.integer_bytes, bytes);
        // The bias, and what describes the tensors.
        assert!(storage.file_bytes < bytes + 4 * 256 + 2048, "{storage:?}");
    }
    assert!(size("int4", 7.0).ratio() > 7.0);
}

#[test]
fn master_weights_are_kept_on_request() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("small.bcs");
    let device = Device::flex();
    let entry = entry("int4", (-7.0, 7.0), 0.0, Grid::per_tensor(2));
    let (model, state) = quantized(&entry, LinearLayout::Row, &device);
    let config = SaveConfig::new().with_master_weights(true);
    let storage = save_small_with(&model, &state, &path, &config).unwrap();
    assert_eq!(storage.integers, 0);
    let (loaded, read) = load_small(LinearConfig::new(12, 10).init(&device), &path).unwrap();
    assert_eq!(read, state);
    let raw = model.weight.base().into_data();
    loaded.weight.base().into_data().assert_eq(&raw, true);
    assert!(raw != model.weight.val().into_data());
    assert_eq!(bits(loaded.weight.val()), bits(model.weight.val()));
}

#[test]
fn masks_act_on_loaded_integers() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("small.bcs");
    let device = Device::flex();
    let entry = entry("uint4", (0.0, 15.0), 7.0, Grid::per_channel(2, 1, 10));
    let mut state = SmallState {
        calibration: Calibration::from([(id("weight"), entry)]),
        ..SmallState::default()
    };
    let mask = (0..120).map(|at| f32::from(u8::from(at % 3 > 0))).collect();
    let mask = Mask::new(mask, [12, 10]).unwrap();
    state.masks.insert(id("weight"), mask);
    let model = simulated(LinearConfig::new(12, 10).init(&device), &state);
    save_small(&model, &state, &path).unwrap();
    let (loaded, _) = load_small(LinearConfig::new(12, 10).init(&device), &path).unwrap();
    assert_eq!(bits(loaded.weight.val()), bits(model.weight.val()));
    let zeros = bits(loaded.weight.val()).into_iter().step_by(3);
    assert!(zeros.eq([0; 40]));
}

#[test]
fn a_training_model_trains_on_from_the_integers() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("small.bcs");
    let entry = entry("int4", (-7.0, 7.0), 0.0, Grid::per_tensor(2));
    let (model, state) = quantized(&entry, LinearLayout::Col, &Device::flex());
    save_small(&model, &state, &path).unwrap();
    let device = Device::flex().autodiff();
    let full = LinearConfig::new(12, 10).with_layout(LinearLayout::Col);
    let (loaded, _) = load_small(full.init(&device), &path).unwrap();
    assert!(loaded.weight.is_require_grad());
    let loss = loaded.forward(Tensor::<2>::ones([1, 12], &device)).sum();
    let gradient = loaded.weight.base().grad(&loss.backward()).unwrap();
    assert_eq!(gradient.dims(), [12, 10]);
    assert_eq!(bits(loaded.weight.val().inner()), bits(model.weight.val()));
}

/// A file with one parameter of two integers of 4 bits whose parts are replaced.
fn forged(
    path: &Path,
    integers: (&str, Vec<u8>),
    from: &str,
    to: &str,
) -> Result<(Linear, SmallState), SpeedupError> {
    let entry = entry("int4", (-7.0, 7.0), 0.0, Grid::per_tensor(2));
    let state = SmallState {
        calibration: Calibration::from([(id("weight"), entry)]),
        ..SmallState::default()
    };
    let (state, values) = packed::pack(&state).unwrap();
    let state = serde_json::to_string(&state).unwrap();
    let json = r#"{"integers":{"weight":{"shape":[1,2],"id":1}},"floats":{}}"#;
    let both = format!("{state}|{json}");
    assert!(both.contains(from), "{both}");
    let both = both.replace(from, to);
    let (state, json) = both.split_once('|').unwrap();
    let stream = |name: &str, dtype, count, bytes| {
        burn_pack::Tensor::new(name.to_string(), dtype, vec![count], None, bytes)
    };
    let (name, bytes) = integers;
    let mut tensors = vec![stream(
        name,
        DType::U8,
        bytes.len(),
        Bytes::from_bytes_vec(bytes),
    )];
    for (name, data) in values {
        tensors.push(stream(
            name,
            DType::F32,
            data.num_elements(),
            data.into_bytes(),
        ));
    }
    let bytes = Writer::new(tensors)
        .with_metadata(STATE, state)
        .with_metadata(TENSORS, json)
        .into_bytes()
        .unwrap();
    container::write(path, &bytes).unwrap();
    let full = LinearConfig::new(2, 2)
        .with_bias(false)
        .init(&Device::flex());
    load_small(full, path)
}

#[rstest]
#[case::nothing(vec![0xe0], "", "", None)]
#[case::beyond_the_type(vec![0xf0], "", "", Some("integer 1 is 8, the type ends at 7"))]
#[case::too_few(vec![0xe0], "[1,2]", "[2,2]", Some("it needs 2 values of the tensor `integers:`"))]
#[case::too_many(vec![0xe0, 0], "", "", Some("1 values of the tensor `integers:` belong"))]
#[case::too_large(vec![0xe0], "[1,2]", "[4294967296,4294967296]", Some("is too large"))]
#[case::grid(vec![0xe0], "\"grid\":[1,1]", "\"grid\":[1]", Some("does not divide the shape"))]
#[case::idle(vec![0xe0], "\"enabled\":true", "\"enabled\":false", Some("does not act"))]
#[case::wide(vec![0xe0], "\"qmax\":7.0", "\"qmax\":700.0", Some("none of 1 to 8 bits"))]
#[case::no_calibration(vec![0xe0], "{\"weight\":{\"shape", "{\"bias\":{\"shape", Some("no calibration"))]
#[case::twice(
    vec![0xe0], "\"floats\":{}", "\"floats\":{\"weight\":{\"shape\":[0,2],\"id\":1}}",
    Some("it holds `weight` twice"),
)]
fn integers_that_do_not_fit_are_refused(
    #[case] bytes: Vec<u8>,
    #[case] from: &str,
    #[case] to: &str,
    #[case] message: Option<&str>,
) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("small.bcs");
    match (forged(&path, (INTEGERS, bytes), from, to), message) {
        (Ok((model, _)), None) => {
            // -7 and 7 steps of 0.03.
            let values: Vec<f32> = model.weight.base().into_data().try_into_vec().unwrap();
            assert_eq!(values, [-7.0 * 0.03, 7.0 * 0.03]);
        }
        (Err(error @ SpeedupError::Format { .. }), Some(message)) => {
            assert!(error.to_string().contains(message), "{error}");
        }
        (result, _) => panic!("{result:?}"),
    }
}

#[test]
fn unknown_tensors_and_larger_parameters_are_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("small.bcs");
    let error = forged(&path, ("words:", vec![0xe0]), "", "").unwrap_err();
    assert!(
        error.to_string().contains("unexpected tensor `words:`"),
        "{error}"
    );
    let (from, to) = ("[1,2]", "[1,3]");
    let error = forged(&path, (INTEGERS, vec![0xe0, 0]), from, to).unwrap_err();
    assert!(
        matches!(error, SpeedupError::Architecture { .. }),
        "{error}"
    );
}

#[test]
fn other_versions_say_what_to_do() {
    let (_, path, _directory) = saved(LinearLayout::Row);
    let bytes = fs::read(&path).unwrap();
    let full = Net::new(5, LinearLayout::Row, &Device::flex());
    for (version, action) in [
        (
            2,
            "its format version is 2, this one reads 3: save it again with this version",
        ),
        (
            4,
            "its format version is 4, this one reads 3: load it with the version that saved it",
        ),
    ] {
        let mut other = bytes.clone();
        other[8] = version;
        fs::write(&path, &other).unwrap();
        let error = error_of(full.clone(), &path);
        assert!(matches!(error, SpeedupError::Format { .. }));
        assert!(error.to_string().contains(action), "{error}");
    }
}
