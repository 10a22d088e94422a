//! Values that cannot be ranked.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use burn_compress_core::{Budget, Compressor};
use burn_compress_pruning::{L1NormPruner, L2NormPruner, PrunerConfig, PruningError, pruners};

use crate::nets::{Net, cause, chain, evaluator, net, rules};

/// Sets the first value of the weights with these shapes.
struct Spoil {
    shapes: Vec<Vec<usize>>,
    value: f32,
}

impl ModuleMapper for Spoil {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.dims().to_vec();
        if !self.shapes.contains(&shape) {
            return param;
        }
        param.map(|tensor| {
            let mut values = tensor.to_data().try_to_vec::<f32>().unwrap();
            values[1] = self.value;
            Tensor::from_data(TensorData::new(values, shape), &tensor.device())
        })
    }
}

fn spoilt(shapes: &[&[usize]], value: f32) -> Net {
    let shapes = shapes.iter().map(|shape| shape.to_vec()).collect();
    net(1).map(&mut Spoil { shapes, value })
}

const STEM: &[usize] = &[8, 1, 3, 3];
const BLOCK: &[usize] = &[12, 12, 1, 1];

#[test]
fn every_pruner_refuses_values_that_are_not_finite_by_name() {
    for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        for pruner in pruners::<Net, _>() {
            let chain = Compressor::from_model(spoilt(&[STEM], value), evaluator());
            let text = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5,
                "granularity": "out_channel"}]"#;
            let error = (pruner.fuse)(chain, &rules(text), 2).unwrap_err();
            let expected = format!("stem.weight: value 1 is {value};");
            let text = cause(&error).to_string();
            assert!(text.starts_with(&expected), "{}: {text}", pruner.name);
        }
    }
}

#[test]
fn all_of_them_are_named_at_once() {
    let net = spoilt(&[STEM, BLOCK], f32::INFINITY);
    let text = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]"#;
    let error = L1NormPruner::new(net, rules(text), evaluator(), PrunerConfig::new());
    let error = error.unwrap_err();
    assert!(
        matches!(cause(&error), PruningError::Several(errors) if errors.len() == 2),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.contains("\n- block.weight: value 1 is inf"), "{text}");
}

#[test]
fn what_is_not_pruned_is_not_looked_at() {
    let net = spoilt(&[BLOCK], f32::INFINITY);
    let text = r#"[{"op_names": ["stem"], "sparse_ratio": 0.5}]"#;
    assert!(L1NormPruner::new(net, rules(text), evaluator(), PrunerConfig::new()).is_ok());
}

#[test]
fn a_score_that_overflows_is_refused() {
    // The values are finite, their norms are not.
    let text = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]"#;
    let net = net(1).map(&mut Large);
    let pruner = L2NormPruner::new(net, rules(text), evaluator(), PrunerConfig::new()).unwrap();
    let error = pruner.compress(Budget::none()).unwrap_err();
    let text = with_sources(&error);
    assert!(text.contains("stem.weight: score 0 is inf"), "{text}");
}

/// An error with all its sources.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text += &format!(": {source}");
        next = source.source();
    }
    text
}

/// Makes every value as large as can be.
struct Large;

impl ModuleMapper for Large {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.full_like(f32::MAX))
    }
}

#[test]
fn alignments_with_dims_that_are_unknown_or_none_are_refused() {
    let refused = |align: &str| {
        let text = format!(
            r#"[{{"op_types": ["Conv2d"], "sparse_ratio": 0.5,
                "target_settings": {{"bias": {{"align": {align}}}}}}}]"#
        );
        let error = L1NormPruner::from_compressor(chain(), rules(&text), PrunerConfig::new());
        cause(&error.unwrap_err()).to_string()
    };
    // The channels of the bias are those of the weight, whatever is written.
    assert_eq!(
        refused(r#"{"target_name": "weight", "dims": [7]}"#),
        "stem.bias: aligned to dims [7] of `stem.weight`, which has shape [8, 1, 3, 3]; name each dim \
         once"
    );
    assert_eq!(
        refused(r#"{"target_name": "weight", "dims": [1]}"#),
        "stem.bias: its mask is that of the channels of `stem.weight`, so that what is set for it \
         cannot be: `align` follows dims [1] of `stem.weight`, whose channels lie along dim 0; \
         remove it, or give all of them the same"
    );
    let text = refused(r#"{"module_name": "block", "target_name": "weight", "dims": [0]}"#);
    assert!(
        text.contains("`align` follows `block.weight`, which has other channels"),
        "{text}"
    );
    let text = refused(r#"{"target_name": "weight", "dims": []}"#);
    assert!(text.contains("`align` is without `dims`"), "{text}");
}

#[test]
fn dims_of_an_output_are_checked_without_a_dummy_input() {
    let refused = |dims: &str, source: &str| {
        let text = format!(
            r#"[{{"op_names": ["stem"], "sparse_ratio": 0.5}},
                {{"op_names": ["relu"], "target_names": ["_output_0"], "target_settings": {{
                    "_output_0": {{"align": {{"module_name": "{source}", "target_name": "weight",
                        "dims": {dims}}}}}}}}}]"#
        );
        let evaluator = burn_compress_core::Evaluator::<Net, crate::nets::Batch>::new();
        let options = PrunerConfig::new().with_coupled(false);
        let pruner = L1NormPruner::new(net(1), rules(&text), evaluator, options);
        pruner
            .map(|_| ())
            .map_err(|error| cause(&error).to_string())
    };
    assert_eq!(refused("[0]", "stem"), Ok(()));
    let text = refused("[4]", "stem").unwrap_err();
    assert!(
        text.starts_with("relu._output_0: aligned to dims [4] of `stem.weight`, which has shape"),
        "{text}"
    );
    let text = refused("[0]", "block").unwrap_err();
    assert!(
        text.starts_with("relu._output_0: aligned to `block.weight`, which this pruner"),
        "{text}"
    );
}
