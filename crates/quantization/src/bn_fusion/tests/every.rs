//! Each quantizer rounds the folded weight, in its own way.

use super::*;
use crate::testing::names;
use crate::{
    AdaRoundConfig, AdaRoundQuantizer, LsqConfig, LsqQuantizer, QuantizationError, dorefa,
    quantizers,
};

const WEIGHTS: &str = r#"[{"op_types": ["Conv2d", "Linear"], "target_names": ["weight"],
    "quant_dtype": "int4", "fuse": true}]"#;

/// A chain with the quantizer of this name.
fn with(name: &str, json: &str) -> Chain {
    let mut entries = quantizers::<Net, Tensor<4>>().into_iter();
    let entry = entries.find(|entry| entry.name == name).unwrap();
    let chain = Compressor::from_model(net(), evaluator());
    (entry.fuse)(chain, &config(json)).unwrap()
}

/// The folded weight of the convolution, by hand.
fn folded(model: &Net) -> Tensor<4> {
    let model = model.valid();
    fold::weight(model.conv.weight.base(), 0, &values_of(&model.bn))
}

#[test]
fn folded_for_good_computes_what_was_simulated() {
    for name in names(|trains| trains) {
        let mut chain = with(name, WEIGHTS);
        chain.advance(&Budget::steps(4), None).unwrap();
        let compressed = assert_finished(chain);
        let model = compressed.model();
        assert_eq!(host(model.bn.gamma.val()), [1.0; 4]);
        assert_eq!(host(model.bn.beta.val()), [0.0; 4]);
    }
}

#[test]
fn all_targets_train_end_and_resume_bit_for_bit() {
    for name in names(|_| true) {
        let file = format!("fused-{name}-{}.ckpt", std::process::id());
        let path = std::env::temp_dir().join(file);
        let budget = Budget::steps(4);
        let straight = with(name, FUSE).compress(budget.clone()).unwrap();
        let mut first = with(name, FUSE);
        first.advance(&budget, Some(2)).unwrap();
        first.save_checkpoint(&path).unwrap();
        let resumed = with(name, FUSE).resume(&path).unwrap();
        let resumed = resumed.compress(budget).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(output(resumed.model()), output(straight.model()), "{name}");
        let calibration = straight.calibration().unwrap();
        assert_eq!(calibration.len(), 9);
        assert!(calibration.values().all(|entry| entry.enabled));
    }
}

#[test]
fn learned_scales_begin_at_the_folded_weight() {
    let json = r#"[{"op_names": ["conv"], "target_names": ["weight"], "quant_dtype": "int4",
        "fuse_names": [["conv", "bn"]]}]"#;
    let options = LsqConfig::new().with_learning_rate(Some(1e-12));
    let chain = Compressor::from_model(net(), evaluator());
    let mut chain = LsqQuantizer::from_compressor(chain, config(json), options).unwrap();
    chain.advance(&Budget::steps(1), None).unwrap();
    // As the observer of QAT sees it: with the statistics that the first pass has moved.
    let net = net();
    let (mean, variance) = fold::batch_statistics(net.conv.forward(batch()));
    let mut norm = values_of(&net.bn);
    norm.mean = norm.mean * 0.9 + mean * 0.1;
    norm.variance = norm.variance * 0.9 + variance * 0.1;
    let weight = host(fold::weight(net.conv.weight.val(), 0, &norm).abs());
    let expected = 2.0 * weight.iter().sum::<f32>() / weight.len() as f32 / 7f32.sqrt();
    let calibration = chain.calibration().unwrap();
    let entry = &calibration[&TargetId::new("conv", Target::param("weight"))];
    let found = entry.scale.as_ref().unwrap()[0];
    assert!(
        (found - expected).abs() <= 1e-6 * expected,
        "{found} {expected}"
    );
}

#[test]
fn dorefa_squeezes_and_bnn_takes_the_sign_of_the_folded_weight() {
    let mut chain = with("DoReFaQuantizer", WEIGHTS);
    chain.advance(&Budget::steps(3), None).unwrap();
    let weight = FlatTensor::new(folded(chain.model()));
    let expected = dorefa::quantize_weight(weight, "int4".parse().unwrap()).values;
    let compressed = chain.finish().unwrap();
    let found = host(compressed.unwrap_model().conv.weight.val());
    assert_eq!(found, host(expected));

    let mut chain = with("BnnQuantizer", WEIGHTS);
    chain.advance(&Budget::steps(3), None).unwrap();
    let weight = host(folded(chain.model()));
    let found = host(chain.finish().unwrap().unwrap_model().conv.weight.val());
    let signs = weight.iter().map(|w| if *w < 0.0 { -1.0 } else { 1.0 });
    assert_eq!(found, signs.collect::<Vec<f32>>());
}

#[test]
fn an_activation_at_the_end_of_a_sequence_is_cut_as_one() {
    let json = r#"[{"op_names": ["conv"], "target_names": ["weight", "_output_0"],
        "quant_dtype": "uint2", "quant_scheme": "affine", "fuse": true}]"#;
    let mut chain = with("DoReFaQuantizer", json);
    chain.advance(&Budget::steps(1), None).unwrap();
    let calibration = chain.calibration().unwrap();
    let entry = &calibration[&TargetId::new("relu", Target::Output(0))];
    // 0..=1 in 3 steps, not the range of the batch.
    assert_eq!(entry.scale, Some(vec![1.0 / 3.0]));
}

#[test]
fn rounding_is_learned_for_the_folded_weight() {
    let json = r#"[{"op_names": ["conv"], "target_names": ["weight"], "quant_dtype": "int3",
        "fuse_names": [["conv", "bn"]]}]"#;
    let options = AdaRoundConfig::new().with_steps(400);
    let chain = Compressor::from_model(net(), evaluator());
    let chain = AdaRoundQuantizer::from_compressor(chain, config(json), options).unwrap();
    let adaptive = chain.compress(Budget::none()).unwrap();
    let ptq = with("PtqQuantizer", json).compress(Budget::none()).unwrap();
    let normed = |net: &Net| net.bn.forward(net.conv.forward(batch()));
    let distance = |compressed: &Compressed<Net>| {
        let error = normed(compressed.model()) - normed(&net().valid());
        error.square().mean().into_scalar::<f32>()
    };
    let (learned, nearest) = (distance(&adaptive), distance(&ptq));
    assert!(
        learned > 0.0 && learned < 0.9 * nearest,
        "{learned} {nearest}"
    );
    // The raw weight is on the grid of the folded one, less than a step from it.
    let model = adaptive.model();
    assert_eq!(
        host(model.conv.weight.base()),
        host(model.conv.weight.val())
    );
    let calibration = adaptive.calibration().unwrap();
    let entry = &calibration[&TargetId::new("conv", Target::param("weight"))];
    let step = entry.scale.as_ref().unwrap()[0];
    let weights = host(folded(&net()));
    for (found, wanted) in host(model.conv.weight.base()).iter().zip(&weights) {
        assert!((found - wanted).abs() <= step * 1.001, "{found} {wanted}");
    }
    assert_eq!(host(model.bn.gamma.val()), [1.0; 4]);
}

#[test]
fn a_folded_bias_belongs_to_the_quantizer_that_folds() {
    let bias = r#"[{"op_names": ["conv"], "target_names": ["bias"]}]"#;
    let fused = r#"[{"op_names": ["conv"], "target_names": ["weight"],
        "fuse_names": [["conv", "bn"]]}]"#;
    let qat = |chain, json| QatQuantizer::from_compressor(chain, config(json), QatConfig::new());
    let refused = |error: Error, expected: &str| {
        let Error::Algorithm { source, .. } = error else {
            panic!("{error}");
        };
        let source = source.downcast::<QuantizationError>().unwrap();
        assert!(
            matches!(*source, QuantizationError::Fusion { .. }),
            "{source}"
        );
        assert!(source.to_string().contains(expected), "{source}");
    };
    let chain = qat(Compressor::from_model(net(), evaluator()), fused).unwrap();
    refused(
        qat(chain, bias).unwrap_err(),
        "`conv.bias` is read with the norm folded",
    );
    let chain = qat(Compressor::from_model(net(), evaluator()), bias).unwrap();
    refused(qat(chain, fused).unwrap_err(), "has claimed `conv.bias`");
    // In one configuration they go together.
    let both = r#"[{"op_names": ["conv"], "target_names": ["weight", "bias"],
        "fuse_names": [["conv", "bn"]]}]"#;
    let mut chain = qat(Compressor::from_model(net(), evaluator()), both).unwrap();
    chain.advance(&Budget::steps(2), None).unwrap();
    assert_finished(chain);
}
