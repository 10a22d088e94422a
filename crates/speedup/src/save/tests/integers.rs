//! Quantized parameters, stored as packed integers.

use super::*;

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
    assert_eq!(
        planned(&model, &state, &SaveConfig::new()).unwrap(),
        storage
    );
    let tensors = stored(&model, &state, &SaveConfig::new()).unwrap().tensors;
    let expected = [("weight".to_string(), bytes), ("bias".to_string(), 4 * 10)];
    assert_eq!(tensors, Some(IndexMap::from(expected)));

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
        let storage = save_small(&model, &state, &path).unwrap();
        assert_eq!(
            planned(&model, &state, &SaveConfig::new()).unwrap(),
            storage
        );
        storage
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

/// Parameters of another type than `f32` are tensors of their own in the file.
#[test]
fn the_size_of_half_precision_is_known_before() {
    use burn::module::{ModuleMapper, Param};
    struct Halve;
    impl ModuleMapper for Halve {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(FloatDType::F16))
        }
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("small.bcs");
    let model = Net::new(3, LinearLayout::Col, &Device::flex()).map(&mut Halve);
    let state = SmallState::default();
    let storage = save_small(&model, &state, &path).unwrap();
    assert_eq!(
        planned(&model, &state, &SaveConfig::new()).unwrap(),
        storage
    );
    assert_eq!(storage.file_bytes, fs::metadata(&path).unwrap().len());
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
    assert_eq!(planned(&model, &state, &config).unwrap(), storage);
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
