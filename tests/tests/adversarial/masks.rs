//! Masks that are none, or those of other shapes, ranks and targets.

use burn::module::Module;
use burn_compress::prelude::*;
use burn_compress::{Mask, MaskMethod, Masks};
use burn_compress_tests::chains::{HALF, id};

use crate::fixtures::{chain, mask, mlp, prune, rows};
use crate::table::{Cases, ensure};

pub fn fill(cases: &mut Cases) {
    values(cases);
    written(cases);
    targets(cases);
    states(cases);
}

/// Values that cannot be a mask.
fn values(cases: &mut Cases) {
    for (value, shown) in [
        (0.5, "0.5"),
        (-1.0, "-1"),
        (2.0, "2"),
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (f32::MIN_POSITIVE, "0.0"),
    ] {
        let parts = ["value 1 is", shown, "only 0 and 1"];
        cases.refused(
            format!("a mask with {value}"),
            "InvalidMask",
            parts,
            move || {
                Mask::new(vec![1.0, value], [2])?;
                Ok(())
            },
        );
    }
    for (count, shape) in [(5, vec![2, 3]), (0, vec![1]), (1, vec![0]), (2, vec![])] {
        let parts = [format!("{count} values"), format!("{shape:?}")];
        let name = format!("a mask of {count} values for {shape:?}");
        cases.refused(name, "InvalidMask", parts, move || {
            Mask::new(vec![1.0; count], shape)?;
            Ok(())
        });
    }
    let parts = ["InvalidMask"; 0];
    cases.refused(
        "a mask of a shape that overflows",
        "InvalidMask",
        parts,
        || {
            Mask::new(vec![1.0; 4], [usize::MAX, 2])?;
            Ok(())
        },
    );
    cases.right("a mask of a scalar", || {
        let mask = Mask::new(vec![0.0], [])?;
        ensure(mask.sparsity() == 1.0, "it removes nothing")
    });
}

/// Masks that are read from JSON.
fn written(cases: &mut Cases) {
    for (text, parts) in [
        (
            r#"{"values": [0.5], "shape": [1]}"#,
            &["value 0 is 0.5"][..],
        ),
        (r#"{"values": [1], "shape": [2]}"#, &["1 values", "[2]"]),
        (r#"{"values": [1]}"#, &["shape"]),
        (r#"{"shape": [1]}"#, &["values"]),
        (r#"{"values": ["1"], "shape": [1]}"#, &["invalid type"]),
        (r#"{"values": [1], "shape": [-1]}"#, &["invalid value"]),
        (r#"{"values": [1], "shape": [1], "keep": 1}"#, &["keep"]),
        (r#"{"values": [null], "shape": [1]}"#, &["invalid type"]),
        (
            r#"{"values": [1], "shape": [1], "method": "and"}"#,
            &["and"],
        ),
        ("[]", &["invalid length"]),
        ("", &["EOF"]),
    ] {
        cases.refused(
            format!("a mask read from {text}"),
            "Error",
            parts,
            move || {
                serde_json::from_str::<Mask>(text)?;
                Ok(())
            },
        );
    }
    cases.right("masks written and read", || {
        let masks = prune(HALF)?.compress(Budget::none())?.masks();
        let text = serde_json::to_string(&masks)?;
        let read: Masks = serde_json::from_str(&text)?;
        ensure(read == masks, "they differ")
    });
}

/// Masks for targets that do not exist or have another shape.
fn targets(cases: &mut Cases) {
    for (target, shape, variant, parts) in [
        (
            "stm.weight",
            vec![1],
            "UnknownTarget",
            &["`stm.weight`", "did you mean `stem`"][..],
        ),
        (
            "stem.wight",
            vec![1],
            "UnknownTarget",
            &["`stem.wight`", "weight", "bias"],
        ),
        (
            "plain._output_0",
            vec![1],
            "UnknownTarget",
            &["`plain._output_0`", "Wrapper"],
        ),
        (
            "block._output_0",
            vec![1],
            "UnknownTarget",
            &["`block._output_0`"],
        ),
        (
            "bn.gamma",
            vec![8],
            "ShapeMismatch",
            &["`bn.gamma`", "[4]", "[8]", "the mask"],
        ),
        (
            "stem.weight",
            vec![4],
            "ShapeMismatch",
            &["`stem.weight`", "[4, 1, 3, 3]", "[4]"],
        ),
        (
            "stem.weight",
            vec![1, 1, 1, 2],
            "ShapeMismatch",
            &["`stem.weight`", "[1, 1, 1, 2]"],
        ),
        (
            "stem.weight",
            vec![1, 4, 1, 1, 1],
            "ShapeMismatch",
            &["`stem.weight`"],
        ),
        (
            "head.weight",
            vec![3, 5],
            "ShapeMismatch",
            &["`head.weight`", "[5, 3]", "[3, 5]"],
        ),
    ] {
        let name = format!("update_masks: {target} {shape:?}");
        cases.refused(name, variant, parts, move || {
            let count = shape.iter().product();
            let mut chain = chain();
            let outcome = chain.update_masks(&mask(target, vec![0.0; count], &shape)?);
            ensure(chain.masks().is_empty(), "a mask was set")?;
            Ok(outcome?)
        });
    }
    let parts = ["`bn.gamma`", "[4]", "[8]"];
    cases.refused(
        "update_masks: one of two fits",
        "ShapeMismatch",
        parts,
        || {
            let mut chain = chain();
            let mut masks = mask("stem.bias", vec![0.0; 4], &[4])?;
            masks.extend(mask("bn.gamma", vec![1.0; 8], &[8])?);
            let outcome = chain.update_masks(&masks);
            ensure(chain.masks().is_empty(), "half of them were set")?;
            Ok(outcome?)
        },
    );
    for shape in [vec![4], vec![4, 1, 1], vec![1, 4, 1, 1, 1]] {
        let parts = [
            "`stem._output_0`".to_owned(),
            "4 dimensions".to_owned(),
            format!("{shape:?}"),
            "1 where it does not distinguish".to_owned(),
        ];
        let name = format!("a mask of an output of shape {shape:?}");
        cases.refused(name, "MaskRank", parts, move || {
            let mut chain = chain();
            let outcome = chain.update_masks(&mask("stem._output_0", vec![1.0; 4], &shape)?);
            ensure(chain.masks().is_empty(), "it was set")?;
            Ok(outcome?)
        });
    }
    // The shape of an output is that of the dummy input's forward pass.
    for (shape, name) in [
        (vec![1, 5, 1, 1], "channels"),
        (vec![3, 4, 1, 1], "the batch"),
        (vec![1, 4, 2, 1], "positions"),
    ] {
        let parts = [
            "`stem._output_0`".to_owned(),
            format!("{shape:?}"),
            "the mask".to_owned(),
        ];
        let name = format!("a mask of an output with other {name}");
        cases.refused(name, "ShapeMismatch", parts, move || {
            let mut chain = chain();
            let count = shape.iter().product();
            chain.update_masks(&mask("stem._output_0", vec![1.0; count], &shape)?)?;
            chain.compress(Budget::steps(1))?;
            Ok(())
        });
    }
    for text in ["", "stem.", "stem._output_-1", "stem._input_x"] {
        cases.refused(
            format!("the target `{text}`"),
            "ParseTargetError",
            [text],
            move || {
                text.parse::<TargetId>()?;
                Ok(())
            },
        );
    }
}

/// What masks do that remove everything, nothing, or add.
fn states(cases: &mut Cases) {
    cases.right("no masks", || {
        let mut chain = chain();
        chain.update_masks(&Masks::new())?;
        ensure(chain.masks().is_empty(), "there are some")
    });
    cases.right("a mask of zeros is applied", || {
        let mut chain = mlp();
        chain.update_masks(&mask("fc2.weight", vec![0.0], &[1, 1])?)?;
        chain.update_masks(&mask("fc2.bias", vec![0.0; 3], &[3])?)?;
        let output: Vec<f32> = chain
            .model()
            .valid()
            .forward(rows(0.3))
            .into_data()
            .iter()
            .collect();
        ensure(
            output.iter().all(|value| *value == 0.0),
            format!("{output:?}"),
        )
    });
    cases.right("a mask that adds is far below every value", || {
        let mut chain = mlp();
        let mut masks = mask("fc2._output_0", vec![1.0, 0.0, 1.0], &[1, 3])?;
        let added = masks[&id("fc2._output_0")]
            .clone()
            .with_method(MaskMethod::Add);
        masks.insert(id("fc2._output_0"), added);
        chain.update_masks(&masks)?;
        let output: Vec<f32> = chain
            .model()
            .valid()
            .forward(rows(0.3))
            .into_data()
            .iter()
            .collect();
        let lowered = output
            .iter()
            .skip(1)
            .step_by(3)
            .all(|value| *value < -900.0);
        ensure(lowered && output[0] > -10.0, format!("{output:?}"))
    });
    cases.right("a second mask replaces the first", || {
        let mut chain = chain();
        chain.update_masks(&mask("stem.bias", vec![0.0; 4], &[4])?)?;
        chain.update_masks(&mask("stem.bias", vec![1.0, 0.0, 1.0, 1.0], &[4])?)?;
        ensure(
            chain.masks()[&id("stem.bias")].sparsity() == 0.25,
            "they add up",
        )
    });
}
