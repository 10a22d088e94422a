//! The pure parts that programs can call by themselves.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::graph::{ParamSlice, SlicePlan};
use burn_compress::layer::layers;
use burn_compress::prelude::*;
use burn_compress::pruning::mask::{MaskConfig, MaskTarget, generate};
use burn_compress::pruning::scores::{Apoz, Fisher, MeanActivation, Taylor};
use burn_compress::pruning::{Blocks, Pattern};
use burn_compress::quantization::{QuantDtype, QuantScheme, blocks};
use burn_compress::speedup::verify::relative_error;
use burn_compress::speedup::{SmallState, quantize_parameters, slice_module};
use burn_compress::{
    Calibration, CalibrationEntry, Compressed, FlatTensor, Grid, History, Learnable, Masks,
    RoundGradient, TrainedBy, tap, with_parameters,
};
use burn_compress_tests::chains::id;
use indexmap::IndexMap;

use crate::fixtures::Mlp;
use crate::table::{Attempt, Cases, ensure};

pub fn fill(cases: &mut Cases) {
    masks(cases);
    shapes(cases);
    parameters(cases);
    cuts(cases);
    integers(cases);
}

type Change = fn(MaskTarget<&'static str>) -> MaskTarget<&'static str>;

/// Half of four blocks, changed.
fn half(change: Change) -> Attempt {
    let settings = PruningSettings {
        sparse_ratio: Some(0.5),
        ..PruningSettings::default()
    };
    let target = MaskTarget::new("fc.weight", Blocks::elements(&[4])?, settings);
    let target = change(target.with_scores(vec![3.0, 1.0, 4.0, 2.0]));
    generate(&[target], MaskConfig::new())?;
    Ok(())
}

fn masks(cases: &mut Cases) {
    let changes: [(&str, Change, &str, &[&str]); 5] = [
        (
            "a score too few",
            |t| t.with_scores(vec![1.0; 3]),
            "Length",
            &["3 scores", "expected 4"],
        ),
        (
            "no scores",
            |t| t.with_scores(vec![]),
            "Length",
            &["0 scores", "expected 4"],
        ),
        (
            "a score of NaN",
            |t| t.with_scores(vec![0.0, f32::NAN, 1.0, 2.0]),
            "Target",
            &["NaN"],
        ),
        (
            "a mask of before too long",
            |t| t.with_current(&[true; 5]),
            "Length",
            &["5 values"],
        ),
        (
            "an alignment that no setting asks for",
            |t| t.with_align("fc.bias", vec![0]),
            "Requires",
            &["`align`"],
        ),
    ];
    for (name, change, variant, parts) in changes {
        let parts: Vec<&str> = ["fc.weight"].iter().chain(parts).copied().collect();
        cases.refused(format!("masks: {name}"), variant, parts, move || {
            half(change)
        });
    }
    cases.refused(
        "masks: a target twice",
        "Duplicate",
        ["fc.weight", "once"],
        || {
            let settings = PruningSettings {
                sparse_ratio: Some(0.5),
                ..PruningSettings::default()
            };
            let target = MaskTarget::new("fc.weight", Blocks::elements(&[2])?, settings);
            let target = target.with_scores(vec![1.0, 2.0]);
            generate(&[target.clone(), target], MaskConfig::new())?;
            Ok(())
        },
    );
    cases.right("masks: no targets", || {
        let masks = generate::<&str>(&[], MaskConfig::new())?;
        ensure(masks.is_empty(), "there are some")
    });
    for (kept, of) in [(0, 4), (4, 4), (5, 4), (0, 0)] {
        let parts = [format!("{kept}:{of}")];
        cases.refused(
            format!("the pattern {kept}:{of}"),
            "Setting",
            parts,
            move || {
                Pattern::new(kept, of)?;
                Ok(())
            },
        );
    }
    type Score = fn() -> Attempt;
    let scores: [(&str, Score); 4] = [
        ("Taylor", || Ok(Taylor::new(0).map(|_| ())?)),
        ("Fisher", || Ok(Fisher::new(0).map(|_| ())?)),
        ("Apoz", || Ok(Apoz::new(0).map(|_| ())?)),
        ("MeanActivation", || Ok(MeanActivation::new(0).map(|_| ())?)),
    ];
    for (name, score) in scores {
        let parts = ["`training_steps` is 0", "at least 1"];
        cases.refused(format!("{name} over no steps"), "Setting", parts, score);
    }
}

fn shapes(cases: &mut Cases) {
    let tilings: [(&[usize], &[i64], &str, &str); 6] = [
        (&[4, 6], &[3, -1], "BlockSize", "does not divide dim 0"),
        (&[4, 6], &[0, 1], "BlockSize", "block size 0"),
        (&[4, 6], &[-2, 1], "BlockSize", "block size -2"),
        (&[4], &[1, 1], "BlockRank", "one size a dim"),
        (&[4, 0], &[1, 1], "Empty", "no elements"),
        (&[usize::MAX, 2], &[1, 1], "TooLarge", "check its shape"),
    ];
    for (shape, block, variant, part) in tilings {
        cases.refused(
            format!("blocks {block:?} of {shape:?}"),
            variant,
            [part],
            move || {
                Blocks::new(shape, block)?;
                Ok(())
            },
        );
    }
    let grids: [(&[usize], [usize; 2], &str, &str); 5] = [
        (&[3, 1], [4, 6], "Grid", "[3, 1] blocks"),
        (&[1], [4, 6], "Grid", "[1] blocks"),
        (&[0, 1], [4, 6], "Grid", "[0, 1] blocks"),
        (&[8, 1], [4, 6], "Grid", "[8, 1] blocks"),
        (&[1, 1], [0, 6], "NoValues", "empty batches"),
    ];
    for (grid, shape, variant, part) in grids {
        cases.refused(
            format!("ranges of {grid:?} blocks of {shape:?}"),
            variant,
            [part],
            move || {
                let values = Tensor::<2>::zeros(shape, &Device::flex());
                blocks::range(&FlatTensor::new(values), &Grid::new(grid))?;
                Ok(())
            },
        );
    }
    for name in [
        "int0", "int9", "uint0", "uint9", "int", "8", "Int8", "int-8", "int 8", "",
    ] {
        cases.refused(
            format!("the type `{name}`"),
            "UnknownDtype",
            [name, "1 to 8"],
            move || {
                name.parse::<QuantDtype>()?;
                Ok(())
            },
        );
    }
}

fn parameters(cases: &mut Cases) {
    let set = |target: &str, values: Tensor<1>, shape: &[usize]| -> Attempt {
        let shape = shape.to_vec();
        let values = IndexMap::from([(id(target), FlatTensor { values, shape })]);
        with_parameters(Mlp::new(), values)?;
        Ok(())
    };
    let zeros = |count: usize| Tensor::<1>::zeros([count], &Device::flex());
    let parts = ["`fc3.weight`", "does not visit"];
    cases.refused(
        "values of no parameter",
        "UnknownTarget",
        parts,
        move || set("fc3.weight", zeros(1), &[1]),
    );
    let parts = ["`fc1.bias`", "[6]", "[5]"];
    cases.refused(
        "values of another shape",
        "ShapeMismatch",
        parts,
        move || set("fc1.bias", zeros(5), &[5]),
    );
    cases.refused(
        "values of another rank",
        "ShapeMismatch",
        ["`fc1.weight`", "[24]"],
        move || set("fc1.weight", zeros(24), &[24]),
    );
    cases.refused(
        "a tap on no layer",
        "UnknownTarget",
        ["`fc3._output_0`", "`fc"],
        || {
            tap(&Mlp::new(), &[id("fc3._output_0")])?;
            Ok(())
        },
    );
    for (count, shape) in [(3, vec![4]), (0, vec![1]), (2, vec![])] {
        let parts = [
            "`scores`".to_owned(),
            format!("{shape:?}"),
            format!("{count} values"),
        ];
        let name = format!("a learnable of {count} values for {shape:?}");
        cases.refused(name, "Learnable", parts, move || {
            let device = Device::flex();
            Learnable::new(
                "scores",
                vec![0.0; count],
                shape,
                TrainedBy::Evaluator,
                &device,
            )?;
            Ok(())
        });
    }
    cases.refused(
        "new values of a learnable",
        "Learnable",
        ["`scores`", "[4]", "5 values"],
        || {
            let device = Device::flex();
            let scores =
                Learnable::new("scores", vec![0.0; 4], [4], TrainedBy::Evaluator, &device)?;
            Ok(scores.set_values(vec![0.0; 5])?)
        },
    );
    cases.right("layers of a model without any", || {
        ensure(layers(&Nothing { rate: 0.5 }).is_empty(), "there are some")
    });
    cases.refused(
        "rules for a model without layers",
        "UnknownType",
        ["rule 0", "`Conv2d`"],
        || {
            let rules = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]"#;
            let config = ConfigList::<PruningSettings>::from_json(rules)?;
            config.select(&layers(&Nothing { rate: 0.5 }))?;
            Ok(())
        },
    );
}

/// A module that holds no parameter.
#[derive(Module, Debug)]
struct Nothing {
    #[module(skip)]
    rate: f64,
}

fn plan(path: &str, dim: usize, keep: Vec<usize>, shape: Vec<usize>) -> SlicePlan {
    let slice = ParamSlice {
        path: path.to_owned(),
        keep: BTreeMap::from([(dim, keep)]),
        columns: None,
        shape,
    };
    SlicePlan {
        params: IndexMap::from([(path.to_owned(), slice)]),
        ..SlicePlan::default()
    }
}

fn cuts(cases: &mut Cases) {
    type Make = fn() -> SlicePlan;
    let plans: [(&str, Make, &str, &str); 5] = [
        (
            "no parameter",
            || plan("fc3.bias", 0, vec![0], vec![1]),
            "UnknownParameter",
            "`fc3.bias`",
        ),
        (
            "an index outside",
            || plan("fc1.bias", 0, vec![6], vec![1]),
            "Slice",
            "index 6",
        ),
        (
            "a dim outside",
            || plan("fc1.bias", 1, vec![0], vec![6]),
            "Slice",
            "no dimension 1",
        ),
        (
            "nothing kept",
            || plan("fc1.bias", 0, vec![], vec![0]),
            "Slice",
            "`fc1.bias`",
        ),
        (
            "an index twice",
            || plan("fc1.bias", 0, vec![1, 1], vec![2]),
            "Slice",
            "`fc1.bias`",
        ),
    ];
    for (name, plan, variant, part) in plans {
        cases.refused(format!("a plan of {name}"), variant, [part], move || {
            slice_module(Mlp::new(), &plan())?;
            Ok(())
        });
    }
    let data = |values: &[f32]| TensorData::from(values);
    for (name, a, b, part) in [
        (
            "an output more",
            vec![data(&[1.0])],
            vec![data(&[1.0]), data(&[1.0])],
            "2 outputs",
        ),
        (
            "another shape",
            vec![data(&[1.0])],
            vec![data(&[1.0, 2.0])],
            "shape",
        ),
        (
            "a value of NaN",
            vec![data(&[1.0])],
            vec![data(&[f32::NAN])],
            "NaN",
        ),
        (
            "an infinite value",
            vec![data(&[f32::INFINITY])],
            vec![data(&[1.0])],
            "inf",
        ),
    ] {
        cases.refused(
            format!("outputs with {name}"),
            "Incomparable",
            [part],
            move || {
                relative_error(&a, &b)?;
                Ok(())
            },
        );
    }
    cases.right("outputs of zeros", move || {
        let error = relative_error(&[data(&[0.0])], &[data(&[0.0])])?;
        ensure(error == 0.0, format!("{error}"))
    });
}

type Edit = fn(&mut CalibrationEntry);

/// A network whose first weight has this quantization.
fn quantized(change: Edit) -> SmallState {
    let mut entry = CalibrationEntry {
        dtype: "int8".into(),
        scheme: QuantScheme::Symmetric,
        qmin: -127.0,
        qmax: 127.0,
        grid: Grid::new([1, 1]),
        gradient: RoundGradient::StraightThrough,
        enabled: true,
        scale: Some(vec![0.1]),
        zero_point: Some(vec![0.0]),
        minimum: None,
        maximum: None,
    };
    change(&mut entry);
    SmallState {
        calibration: Calibration::from([(id("fc1.weight"), entry)]),
        ..SmallState::default()
    }
}

/// Quantizations that tensors of Burn can hold and cannot.
fn integers(cases: &mut Cases) {
    let refused: [(&str, Edit, &str, &str); 2] = [
        (
            "a zero point",
            |entry| entry.zero_point = Some(vec![3.0]),
            "NotInBurn",
            "zero point",
        ),
        (
            "a grid of another shape",
            |entry| {
                entry.grid = Grid::new([5, 1]);
                entry.scale = Some(vec![0.1; 5]);
                entry.zero_point = Some(vec![0.0; 5]);
            },
            "InvalidCalibration",
            "[5, 1] does not divide",
        ),
    ];
    for (name, change, variant, part) in refused {
        let parts = ["`fc1.weight`", part];
        cases.refused(
            format!("tensors of Burn: {name}"),
            variant,
            parts,
            move || {
                quantize_parameters(&Mlp::new(), &quantized(change))?;
                Ok(())
            },
        );
    }
    let right: [(&str, Edit); 3] = [
        ("eight bits", |_| {}),
        ("three bits", |entry| {
            entry.dtype = "int3".into();
            (entry.qmin, entry.qmax) = (-3.0, 3.0);
        }),
        ("a scale for each column", |entry| {
            entry.grid = Grid::new([1, 6]);
            entry.scale = Some(vec![0.1, 0.2, 0.1, 0.05, 0.1, 0.3]);
            entry.zero_point = Some(vec![0.0; 6]);
        }),
    ];
    for (name, change) in right {
        cases.right(format!("tensors of Burn: {name}"), move || {
            let state = quantized(change);
            let integers = quantize_parameters(&Mlp::new(), &state)?;
            let (none, history) = (Masks::new(), History::default());
            let simulated = Compressed::from_parts(Mlp::new(), &none, &state.calibration, history)?;
            let values = |tensor: Tensor<2>| -> Vec<f32> { tensor.into_data().iter().collect() };
            let found = values(integers.fc1.weight.val().dequantize());
            let expected = values(simulated.model().fc1.weight.val());
            let near = found
                .iter()
                .zip(&expected)
                .all(|(a, b)| (a - b).abs() < 1e-6);
            ensure(near, format!("{found:?} instead of {expected:?}"))
        });
    }
}
