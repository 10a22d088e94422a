//! Files and models that are refused: damaged, of another version, of another architecture.

use super::*;

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
    let json = r#"{"masks":{},"settings":[],"calibration":{},"sizes":{}}"#;
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

#[test]
fn the_error_of_another_version_has_a_remedy() {
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
