//! Masks of the host and of the norm.

use super::*;

#[test]
fn masks_act_on_the_folded_weight_and_on_the_statistics() {
    let json = r#"[{"op_names": ["conv"], "target_names": ["weight"],
        "fuse_names": [["conv", "bn"]]}]"#;
    let mut chain = qat(json).unwrap();
    let mask = Mask::new(vec![0.0, 1.0, 1.0, 1.0], [4, 1, 1, 1]).unwrap();
    let weight = TargetId::new("conv", Target::param("weight"));
    chain.update_masks(&Masks::from([(weight, mask)])).unwrap();
    chain.advance(&Budget::steps(1), None).unwrap();
    // Channel 0 is its bias, everywhere: 0.9 of the old mean and 0.1 of that.
    let net = net();
    let mean = host(net.bn.running_mean.value())[0];
    let bias = host(net.conv.bias.as_ref().unwrap().val())[0];
    let found = host(chain.model().valid().bn.running_mean.value())[0];
    assert!((found - (0.9 * mean + 0.1 * bias)).abs() <= 1e-6);
    let compressed = assert_finished(chain);
    let weight = host(compressed.model().conv.weight.val());
    assert!(weight[..18].iter().all(|w| *w == 0.0));
    assert!(weight[18..].iter().any(|w| *w != 0.0));
}

/// Masks that remove channel 0 of the convolution, and the same of its norm.
fn removed_channel() -> Masks {
    let mask = |shape: &[usize]| Mask::new(vec![0.0, 1.0, 1.0, 1.0], shape.to_vec()).unwrap();
    let param = |layer: &str, name: &str| TargetId::new(layer, Target::param(name));
    Masks::from([
        (param("conv", "weight"), mask(&[4, 1, 1, 1])),
        (param("conv", "bias"), mask(&[4])),
        (param("bn", "gamma"), mask(&[4])),
        (param("bn", "beta"), mask(&[4])),
    ])
}

#[rstest]
fn masked_norms_are_folded_whoever_comes_first(#[values(true, false)] pruned_first: bool) {
    let mut chain = Compressor::from_model(net(), evaluator());
    if pruned_first {
        chain.update_masks(&removed_channel()).unwrap();
    }
    chain = QatQuantizer::from_compressor(chain, config(FUSE), QatConfig::new()).unwrap();
    if !pruned_first {
        chain.update_masks(&removed_channel()).unwrap();
    }
    chain.advance(&Budget::steps(3), None).unwrap();
    let normed = |net: &Net| {
        host(
            net.bn
                .forward(net.conv.forward(batch()))
                .slice([0..6, 0..1]),
        )
    };
    let zeros = vec![0.0; 6 * 9];
    assert_eq!(normed(&chain.model().valid()), zeros);
    let compressed = assert_finished(chain);
    assert_eq!(normed(compressed.model()), zeros);
}

/// A mask that removes channel 0 of one parameter of the norm alone.
#[rstest]
fn a_norm_without_its_factor_or_its_shift(
    #[values("gamma", "beta")] param: &str,
    #[values(("bn", 4), ("fc_bn", 3))] (norm, channels): (&str, usize),
) {
    let mut chain = qat(FUSE).unwrap();
    let mut mask = vec![1.0; channels];
    mask[0] = 0.0;
    let mask = Mask::new(mask, [channels]).unwrap();
    let id = TargetId::new(norm, Target::param(param));
    chain.update_masks(&Masks::from([(id, mask)])).unwrap();
    chain.advance(&Budget::steps(2), None).unwrap();
    assert_finished(chain);
}
