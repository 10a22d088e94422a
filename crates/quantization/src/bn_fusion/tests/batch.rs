//! Training on the statistics of the batch.

use super::*;

const PLAIN: &str = r#"[{"op_types": ["Conv2d", "Linear"], "fuse": true,
    "apply_method": "bypass"}]"#;

fn removed_channel(chain: &mut Chain) {
    let mask = Mask::new(vec![1.0, 0.0, 1.0, 1.0], [4, 1, 1, 1]).unwrap();
    let weight = TargetId::new("conv", Target::param("weight"));
    chain.update_masks(&Masks::from([(weight, mask)])).unwrap();
}

/// Three steps, a mask, and three more.
fn trained(mut chain: Chain) -> Chain {
    chain.advance(&Budget::steps(6), Some(3)).unwrap();
    removed_channel(&mut chain);
    chain.advance(&Budget::steps(6), None).unwrap();
    chain
}

#[test]
fn without_rounding_it_is_the_training_of_the_norm() {
    let plain = trained(Compressor::from_model(net(), evaluator()));
    let fused = trained(qat(PLAIN).unwrap());
    let losses = |chain: &Chain| -> Vec<f32> {
        let steps = chain.history().steps.iter();
        steps.map(|step| step.loss as f32).collect()
    };
    let error = difference(&losses(&fused), &losses(&plain));
    assert!(error <= 1e-5, "{error}");
    let values = |chain: &Chain| {
        let model = chain.model().valid();
        [
            host(model.conv.weight.base()),
            host(model.bn.gamma.base()),
            host(model.bn.beta.base()),
            host(model.bn.running_mean.value()),
            host(model.bn.running_var.value()),
            host(model.fc.weight.base()),
            host(model.fc_bn.gamma.base()),
            host(model.head.weight.base()),
        ]
    };
    for (at, (fused, plain)) in values(&fused).iter().zip(&values(&plain)).enumerate() {
        let error = difference(fused, plain);
        assert!(error <= 1e-4, "tensor {at}: {error}");
    }
}

#[test]
fn the_more_bits_the_closer_to_the_training_of_the_norm() {
    // One step from the same state: what differs is the rounding of one folded weight.
    let loss = |setting: &str| {
        let json = format!(
            r#"[{{"op_names": ["conv"], "target_names": ["weight"],
            "fuse_names": [["conv", "bn"]], {setting}}}]"#
        );
        let mut chain = qat(&json).unwrap();
        chain.advance(&Budget::steps(1), None).unwrap();
        chain.history().steps[0].loss
    };
    let exact = loss(r#""apply_method": "bypass""#);
    let [eight, four] = ["int8", "int4"].map(|dtype| {
        let rounded = loss(&format!(r#""quant_dtype": "{dtype}""#));
        (rounded - exact).abs()
    });
    assert!(0.0 < eight && eight < four, "{eight} {four}");
}

#[test]
fn a_frozen_norm_keeps_its_statistics() {
    let mut frozen = net();
    frozen.bn = frozen.bn.freeze();
    frozen.fc_bn = frozen.fc_bn.freeze();
    let loss = |model: &Net| {
        let output = model.forward(batch());
        host((output - 0.5).square().mean())[0]
    };
    let expected = loss(&frozen);
    let fused = QatQuantizer::new(frozen, config(PLAIN), evaluator(), QatConfig::new());
    let mut chain = fused.unwrap();
    chain.advance(&Budget::steps(1), None).unwrap();
    let found = chain.history().steps[0].loss as f32;
    assert!(
        (found - expected).abs() <= 1e-5 * expected,
        "{found} {expected}"
    );
}
