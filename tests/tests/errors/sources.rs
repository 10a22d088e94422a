//! Errors whose sources are printed as well, as reports of `anyhow` do: nothing is said twice.

use std::error::Error as StdError;

use burn_compress::Error;
use burn_compress::prelude::*;
use burn_compress::pruning::PruningError;
use burn_compress::quantization::QuantizationError;
use burn_compress::speedup::SpeedupError;
use burn_compress_tests::chains::assert_says;

use crate::fixtures::{chain, distill, prune, quantize};

/// The error with its sources behind it, as `{:#}` of `anyhow` shows it.
fn with_sources(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text.push_str(": ");
        text.push_str(&next.to_string());
        source = next.source();
    }
    text
}

#[track_caller]
fn assert_said_once(error: &dyn StdError, part: &str) {
    let text = with_sources(error);
    assert_eq!(text.matches(part).count(), 1, "{text}");
}

#[test]
fn what_an_error_wraps_is_printed_once() {
    let ratio = r#"[{"op_names": ["stem"], "sparse_ratio": 0.5, "granularity": [4, 1, 1, 1]}]"#;
    let pruning = prune(ratio).unwrap_err();
    assert_said_once(&*pruning, "does not divide dim 0");

    let blocks = r#"[{"op_names": ["stem"], "quant_dtype": "int8", "target_names": ["weight"],
        "granularity": [4, 1, 1, 1]}]"#;
    let quantization = quantize(blocks).unwrap_err();
    assert_said_once(&*quantization, "does not divide dim 0");

    let link = r#"[{"op_names": ["stem"], "link": "head"}]"#;
    let distillation = distill(link).unwrap().compress(Budget::steps(1));
    assert_said_once(&distillation.unwrap_err(), "link layers of equal shape");

    let config = ConfigList::<PruningSettings>::from_json("{").unwrap_err();
    let config = Error::from(PruningError::from(Error::from(config)));
    assert_said_once(&config, "cannot be read as JSON");
}

#[test]
fn every_error_that_wraps_another_prints_it_once() {
    let inner = || "the innermost";
    let of_algorithm = || Error::Algorithm {
        algorithm: "Outer",
        source: inner().into(),
    };
    let pruning = PruningError::from(of_algorithm()).at("conv.weight");
    let quantization = QuantizationError::Target {
        target: "conv.weight".to_string(),
        source: Box::new(QuantizationError::State(inner().to_string())),
    };
    let nested = Error::Algorithm {
        algorithm: "Outer",
        source: Box::new(quantization.clone()),
    };
    let speedup = SpeedupError::from(of_algorithm());
    let other = Error::from(PruningError::from(of_algorithm()).at("conv.weight"));
    let errors: [&dyn StdError; 6] = [
        &of_algorithm(),
        &pruning,
        &quantization,
        &nested,
        &speedup,
        &other,
    ];
    for error in errors {
        assert_said_once(error, inner());
    }
    // Who wants the wrapped one finds it in the error.
    assert!(nested.downcast_ref() == Some(&quantization));
}

#[test]
fn files_name_their_path_once() {
    let missing = std::env::temp_dir().join("burn-compress-no-such-file");
    let error = chain().resume(&missing).unwrap_err();
    assert_said_once(&error, "burn-compress-no-such-file");
    assert_says(&with_sources(&error), &["checkpoint"]);
}
