//! Masks and scales that are none, or those of other shapes.

use burn::module::Module;
use burn::optim::AdamConfig;
use burn_compress::prelude::*;
use burn_compress::{
    Calibration, CalibrationEntry, Compressed, Error, Grid, History, Mask, Masks, QuantScheme,
    RoundGradient,
};
use burn_compress_tests::chains::{assert_says, id};
use burn_compress_tests::nets::{Batch, Net, batches, dummy_input};
use rstest::rstest;

use crate::fixtures::{chain, net};

#[test]
fn masks_that_cannot_be_masks() {
    let error = Mask::new(vec![1.0, 0.5], [2]).unwrap_err();
    assert!(matches!(error, Error::InvalidMask { .. }));
    assert_says(&error, &["value 1 is 0.5", "only 0 and 1"]);
    assert_says(&Mask::new(vec![f32::NAN], [1]).unwrap_err(), &["NaN"]);
    assert_says(
        &Mask::new(vec![1.0; 5], [2, 3]).unwrap_err(),
        &["5 values", "[2, 3]"],
    );
    // Read from a file.
    let read = |text: &str| serde_json::from_str::<Mask>(text).unwrap_err();
    assert_says(
        &read(r#"{"values": [0.5], "shape": [1]}"#),
        &["value 0 is 0.5"],
    );
    assert_says(
        &read(r#"{"values": [1], "shape": [6, 1, 3, 3]}"#),
        &["1 values", "[6, 1, 3, 3]"],
    );
}

#[rstest]
#[case::rank(&[6])]
#[case::channels(&[1, 5, 1, 1])]
#[case::batch(&[3, 6, 1, 1])]
fn masks_of_outputs_that_no_pass_has_reached_yet(#[case] shape: &[usize]) {
    let mask = Mask::new(vec![1.0; shape.iter().product()], shape).unwrap();
    let found = format!("{shape:?}");
    for target in ["relu._output_0", "block.conv1._input_0"] {
        let masks = Masks::from([(id(target), mask.clone())]);
        // The dummy input tells the shape, which has two images.
        let mut with_dummy = chain();
        let error = with_dummy.update_masks(&masks).unwrap_err();
        let named = format!("`{target}`");
        assert_says(&error, &[&named, &found, "mask"]);
        assert!(with_dummy.masks().is_empty(), "nothing was changed");
    }
    // Without it, only training does.
    let masks = Masks::from([(id("relu._output_0"), mask)]);
    let evaluator = Evaluator::new()
        .with_data(|epoch| batches(5, epoch))
        .with_optimizer(AdamConfig::new().init())
        .with_learning_rate(1e-2)
        .with_loss(Net::loss);
    let mut without = Compressor::from_model(net(), evaluator);
    without.update_masks(&masks).unwrap();
    let error = without.compress(Budget::steps(1)).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { .. }), "{error}");
    assert_says(
        &error,
        &["`relu._output_0`", "[8, 6, 6, 6]", &found, "the mask"],
    );
}

#[test]
fn a_mask_of_another_rank_than_its_convolution() {
    let mut chain = Compressor::<Net, Batch>::from_model(net(), Evaluator::new());
    for target in ["stem._output_0", "block.conv2._input_0"] {
        let mask = Mask::new(vec![1.0; 6], [6]).unwrap();
        let masks = Masks::from([(id(target), mask)]);
        let error = chain.update_masks(&masks).unwrap_err();
        assert!(matches!(error, Error::MaskRank { expected: 4, .. }));
        assert_says(&error, &[target, "4 dimensions", "[6]"]);
        let error = compressed(&masks).unwrap_err();
        assert!(matches!(error, Error::MaskRank { .. }), "{error}");
    }
    // The type of a layer that takes any rank tells nothing, a forward pass does.
    let mask = Mask::new(vec![1.0; 6], [6]).unwrap();
    let masks = Masks::from([(id("relu._output_0"), mask)]);
    let compressed = compressed(&masks).unwrap();
    let error = ModelSpeedup::new(compressed, dummy_input()).speedup_model();
    let said = [
        "`relu._output_0` has the shape [2, 6, 6, 6]",
        "mask the shape [6]",
    ];
    assert_says(&error.unwrap_err(), &said);
}

fn compressed(masks: &Masks) -> Result<Compressed<Net>, Error> {
    Compressed::from_parts(net(), masks, &Calibration::new(), History::default())
}

#[test]
fn masks_of_another_shape() {
    let mut chain = chain();
    let good = Mask::new(vec![0.0; 6], [6]).unwrap();
    let wrong = Mask::new(vec![1.0; 8], [8]).unwrap();
    let masks = Masks::from([(id("stem.bias"), good), (id("bn.gamma"), wrong)]);
    let error = chain.update_masks(&masks).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { .. }));
    assert_says(&error, &["`bn.gamma`", "[6]", "[8]", "the mask"]);
    assert!(chain.masks().is_empty(), "nothing was changed");

    let unknown = Masks::from([(id("stm.weight"), Mask::new(vec![1.0], [1]).unwrap())]);
    let error = chain.update_masks(&unknown).unwrap_err();
    assert!(matches!(error, Error::UnknownTarget { .. }));
    assert_says(&error, &["`stm.weight`", "did you mean `stem`"]);
}

#[test]
fn scales_that_cannot_be_scales() {
    let entry = |scale: Vec<f32>, grid: &[usize]| CalibrationEntry {
        dtype: "int8".into(),
        scheme: QuantScheme::Symmetric,
        qmin: -127.0,
        qmax: 127.0,
        grid: Grid::new(grid),
        gradient: RoundGradient::StraightThrough,
        enabled: true,
        scale: Some(scale),
        zero_point: Some(vec![0.0; grid.iter().product()]),
        minimum: None,
        maximum: None,
    };
    let mut chain = chain();
    let all: &[usize] = &[];
    for (scale, grid, part) in [
        (vec![0.0], all, "a scale is 0"),
        (vec![f32::NAN], all, "a scale is NaN"),
        (vec![1.0, 1.0], all, "2 scale values for 1 blocks"),
        (
            vec![1.0; 4],
            &[4, 1, 1, 1],
            "the grid [4, 1, 1, 1] does not divide the shape [6, 1, 3, 3]",
        ),
        (
            vec![1.0; 6],
            &[6],
            "the grid [6] does not divide the shape [6, 1, 3, 3]",
        ),
        (vec![], &[0, 1, 1, 1], "no block"),
    ] {
        let calibration = [(id("stem.weight"), entry(scale, grid))]
            .into_iter()
            .collect();
        let error = chain.update_calibration(&calibration).unwrap_err();
        assert!(matches!(error, Error::InvalidCalibration { .. }));
        assert_says(&error, &["`stem.weight`", part]);
    }
    assert!(chain.calibration().unwrap().is_empty());
}

#[test]
fn integers_that_are_not_those_of_the_type() {
    let entry = |dtype: &str, qmin: f32, qmax: f32| CalibrationEntry {
        dtype: dtype.into(),
        scheme: QuantScheme::Symmetric,
        qmin,
        qmax,
        grid: Grid::new([]),
        gradient: RoundGradient::StraightThrough,
        enabled: true,
        scale: Some(vec![0.1]),
        zero_point: Some(vec![0.0]),
        minimum: None,
        maximum: None,
    };
    let config = ConfigList::from_json(r#"[{"op_names": ["stem"], "quant_dtype": "int8"}]"#);
    let quantizer = PtqQuantizer::from_compressor(chain(), config.unwrap(), PtqConfig::new());
    for (mut chain, target) in [
        (chain(), "stem.weight"),
        (chain(), "stem._output_0"),
        (quantizer.unwrap(), "stem.weight"),
    ] {
        let before = chain.calibration().unwrap();
        for (entry, part) in [
            (entry("int4", -127.0, 127.0), "is not that of `int4`"),
            (entry("int8", -127.0, f32::NAN), "`qmax` is NaN"),
            (entry("int8", f32::NEG_INFINITY, 127.0), "`qmin` is -inf"),
            (entry("int8", -127.0, 126.5), "`qmax` is 126.5"),
            (entry("int8", 127.0, -127.0), "127..-127 is empty"),
        ] {
            let given = [(id(target), entry)].into_iter().collect();
            let error = chain.update_calibration(&given).unwrap_err();
            assert!(matches!(error, Error::InvalidCalibration { .. }));
            assert_says(&error, &[target, part]);
            let model = chain.model().valid();
            let parts = Compressed::from_parts(model, &Masks::new(), &given, History::default());
            assert_says(&parts.unwrap_err(), &[target, part]);
        }
        assert_eq!(chain.calibration().unwrap(), before);
    }
}
