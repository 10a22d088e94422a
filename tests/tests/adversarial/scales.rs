//! Scales, zero points and ranges that cannot be used.

use burn_compress::prelude::*;
use burn_compress::quantization::{QuantDtype, QuantScheme, qparams};
use burn_compress::{Calibration, CalibrationEntry, Grid, RoundGradient};
use burn_compress_tests::chains::{self, id};

use crate::fixtures::{QUANTIZE, STEPS, chain, mlp, rows};
use crate::table::{Cases, ensure};

/// An entry that could be one of any target.
fn entry() -> CalibrationEntry {
    CalibrationEntry {
        dtype: "int8".into(),
        scheme: QuantScheme::Symmetric,
        qmin: -127.0,
        qmax: 127.0,
        grid: Grid::new([]),
        gradient: RoundGradient::StraightThrough,
        enabled: true,
        scale: Some(vec![0.5]),
        zero_point: Some(vec![0.0]),
        minimum: None,
        maximum: None,
    }
}

fn of(target: &str, entry: CalibrationEntry) -> Calibration {
    Calibration::from([(id(target), entry)])
}

type Change = fn(&mut CalibrationEntry);

const ENTRIES: &[(&str, Change, &[&str])] = &[
    (
        "a scale of 0",
        |entry| entry.scale = Some(vec![0.0]),
        &["a scale is 0"],
    ),
    (
        "a negative scale",
        |entry| entry.scale = Some(vec![-1.0]),
        &["a scale is -1"],
    ),
    (
        "a scale of NaN",
        |entry| entry.scale = Some(vec![f32::NAN]),
        &["a scale is NaN"],
    ),
    (
        "an infinite scale",
        |entry| entry.scale = Some(vec![f32::INFINITY]),
        &["a scale is inf"],
    ),
    (
        "two scales for one block",
        |entry| entry.scale = Some(vec![1.0; 2]),
        &["2 scale values"],
    ),
    (
        "no scale values",
        |entry| entry.scale = Some(vec![]),
        &["0 scale values", "1 block"],
    ),
    (
        "a zero point of NaN",
        |entry| entry.zero_point = Some(vec![f32::NAN]),
        &["zero point", "NaN"],
    ),
    (
        "two zero points",
        |entry| entry.zero_point = Some(vec![0.0; 2]),
        &["2 zero", "1 block"],
    ),
    (
        "two minima",
        |entry| entry.minimum = Some(vec![0.0; 2]),
        &["2 minimum", "1 block"],
    ),
    (
        "int4 with the range of int8",
        |entry| entry.dtype = "int4".into(),
        &["-127..127", "`int4`", "correct the type or the range"],
    ),
    (
        "a largest integer of NaN",
        |entry| entry.qmax = f32::NAN,
        &["`qmax` is NaN"],
    ),
    (
        "an infinite smallest integer",
        |entry| entry.qmin = f32::NEG_INFINITY,
        &["`qmin` is -inf", "integer"],
    ),
    (
        "a smallest integer of half",
        |entry| entry.qmin = -126.5,
        &["`qmin` is -126.5"],
    ),
    (
        "a range that is upside down",
        |entry| (entry.qmin, entry.qmax) = (127.0, -127.0),
        &["127..-127", "empty"],
    ),
    (
        "scales without zero points",
        |entry| entry.zero_point = None,
        &["without zero points"],
    ),
    (
        "zero points without scales",
        |entry| entry.scale = None,
        &["without scales"],
    ),
    (
        "a minimum above its maximum",
        |entry| (entry.minimum, entry.maximum) = (Some(vec![2.0]), Some(vec![1.0])),
        &["a minimum is 2", "maximum 1"],
    ),
    (
        "a grid of another shape",
        |entry| {
            entry.grid = Grid::new([3, 1, 1, 1]);
            entry.scale = Some(vec![1.0; 3]);
            entry.zero_point = Some(vec![0.0; 3]);
        },
        &["[3, 1, 1, 1]", "[4, 1, 3, 3]"],
    ),
    (
        "a grid of another rank",
        |entry| {
            entry.grid = Grid::new([4]);
            entry.scale = Some(vec![1.0; 4]);
            entry.zero_point = Some(vec![0.0; 4]);
        },
        &["[4]", "[4, 1, 3, 3]"],
    ),
    (
        "a grid without a block",
        |entry| {
            entry.grid = Grid::new([0, 1, 1, 1]);
            entry.scale = Some(vec![]);
            entry.zero_point = Some(vec![]);
        },
        &["no block"],
    ),
];

pub fn fill(cases: &mut Cases) {
    for &(name, change, parts) in ENTRIES {
        let parts: Vec<&str> = ["`stem.weight`"].iter().chain(parts).copied().collect();
        let name = format!("update_calibration: {name}");
        cases.refused(name, "InvalidCalibration", parts, move || {
            let mut chain = chain();
            let mut entry = entry();
            change(&mut entry);
            let outcome = chain.update_calibration(&of("stem.weight", entry));
            ensure(chain.calibration()?.is_empty(), "something was set")?;
            Ok(outcome?)
        });
    }
    for (target, parts) in [
        ("stm.weight", ["`stm.weight`", "did you mean `stem`"]),
        ("stem.wight", ["`stem.wight`", "weight"]),
        ("plain._input_0", ["`plain._input_0`", "Wrapper"]),
    ] {
        let name = format!("update_calibration: {target}");
        cases.refused(name, "UnknownTarget", parts, move || {
            Ok(chain().update_calibration(&of(target, entry()))?)
        });
    }
    let parts = ["`stem.bias`"];
    cases.refused(
        "update_calibration: one of two fits",
        "InvalidCalibration",
        parts,
        || {
            let mut chain = chain();
            let mut calibration = of("stem.weight", entry());
            let scale = Some(vec![-1.0]);
            calibration.insert(id("stem.bias"), CalibrationEntry { scale, ..entry() });
            let outcome = chain.update_calibration(&calibration);
            ensure(chain.calibration()?.is_empty(), "half of it was set")?;
            Ok(outcome?)
        },
    );
    written(cases);
    ranges(cases);
    cases.right("scales are applied", || {
        let mut chain = mlp();
        let coarse = CalibrationEntry {
            scale: Some(vec![0.25]),
            ..entry()
        };
        chain.update_calibration(&of("fc2._output_0", coarse))?;
        let output: Vec<f32> = chain
            .model()
            .forward(rows(0.3))
            .into_data()
            .iter()
            .collect();
        let on_grid = output.iter().all(|value| (value / 0.25).fract() == 0.0);
        ensure(
            on_grid && output.iter().any(|value| *value != 0.0),
            format!("{output:?}"),
        )
    });
    cases.right("a calibration of nothing", || {
        let mut chain = chain();
        chain.update_calibration(&Calibration::new())?;
        ensure(chain.calibration()?.is_empty(), "there is something")
    });
}

/// Calibrations that are read from JSON.
fn written(cases: &mut Cases) {
    let good = r#"{"dtype": "int8", "scheme": "symmetric", "qmin": -127, "qmax": 127,
                   "grid": [], "enabled": true, "scale": [0.5], "zero_point": [0]}"#;
    for (from, to, part) in [
        (r#""dtype": "int8", "#, "", "dtype"),
        (r#""qmin": -127"#, r#""qmin": "low""#, "invalid type"),
        (r#""grid": []"#, r#""grid": 3"#, "invalid type"),
        (r#""enabled": true"#, r#""enabled": 1"#, "invalid type"),
        (r#""scale": [0.5]"#, r#""scales": [0.5]"#, "scales"),
        (r#""scale": [0.5]"#, r#""scale": [null]"#, "invalid type"),
        (r#""zero_point": [0]"#, r#""zero_point": 0"#, "invalid type"),
    ] {
        let text = good.replace(from, to);
        let name = format!("an entry read with `{to}` for `{from}`");
        cases.refused(name, "Error", [part], move || {
            serde_json::from_str::<CalibrationEntry>(&text)?;
            Ok(())
        });
    }
    cases.right("a calibration written and read", || {
        let mut chain = chains::quantize(chain(), QUANTIZE, QatConfig::new())?;
        chain.advance(&Budget::steps(STEPS), Some(2))?;
        let calibration = chain.calibration()?;
        let read: Calibration = serde_json::from_str(&serde_json::to_string(&calibration)?)?;
        ensure(read == calibration, "they differ")
    });
}

/// Ranges from which no scale can be made.
fn ranges(cases: &mut Cases) {
    for (low, high) in [
        (f32::NAN, 1.0),
        (0.0, f32::NAN),
        (f32::NEG_INFINITY, 1.0),
        (0.0, f32::INFINITY),
    ] {
        for scheme in [QuantScheme::Symmetric, QuantScheme::Affine] {
            let parts = [
                "block 0".to_owned(),
                format!("{low}..{high}"),
                "not finite".to_owned(),
            ];
            let name = format!("a {scheme} range of {low}..{high}");
            cases.refused(name, "NonFiniteRange", parts, move || {
                qparams::compute_one(low, high, QuantDtype::INT8, scheme)?;
                Ok(())
            });
        }
    }
    for (low, high) in [(0.0, 0.0), (2.0, 1.0), (f32::MIN, f32::MAX), (1e-45, 1e-45)] {
        for scheme in [QuantScheme::Symmetric, QuantScheme::Affine] {
            cases.right(format!("a {scheme} range of {low}..{high}"), move || {
                let found = qparams::compute_one(low, high, QuantDtype::INT8, scheme)?;
                let usable = found.0.is_finite() && found.0 > 0.0 && found.1.is_finite();
                ensure(usable, format!("{found:?}"))
            });
        }
    }
}
