//! Students whose channels are being pruned.

use burn::module::Module;
use burn_compress_core::{Budget, Compressor, Error, Mask, Masks};

use super::*;
use crate::{
    AttentionConfig, AttentionDistiller, DistillConfig, DistillationError,
    DynamicLayerwiseDistiller,
};

/// A mask of `first.weight`, `[3, 1, 3, 3]`, that removes a channel.
fn masks(removed: usize) -> Masks {
    let values = (0..27).map(|at| if at / 9 == removed { 0.0 } else { 1.0 });
    let mask = Mask::new(values.collect(), [3, 1, 3, 3]).unwrap();
    Masks::from([("first.weight".parse().unwrap(), mask)])
}

fn distilled(chain: Compressor<Net, Batch>, rules: &str) -> Compressor<Net, Batch> {
    DynamicLayerwiseDistiller::from_compressor(
        chain,
        super::rules(rules),
        &net(3, 2),
        logits,
        DistillConfig::new(0.0),
    )
    .unwrap()
}

const KEPT: &str = r#"[{"op_names": ["first"], "channels": "kept"}]"#;

/// Mean squared error over the given channels.
fn expected(channels: [usize; 2]) -> f64 {
    let state = |net: Net| net.valid().first.forward(batch(0).images);
    let (student, teacher) = (state(chain(3).unwrap_model()), state(net(3, 2)));
    let difference = student - teacher;
    let squares = channels.map(|channel| {
        let one = difference.clone().slice([0..4, channel..channel + 1]);
        f64::from(one.square().mean().into_scalar::<f32>())
    });
    (squares[0] + squares[1]) / 2.0
}

#[test]
fn masked_channels_are_left_out() {
    let mut before = chain(3);
    before.update_masks(&masks(1)).unwrap();
    let mut after = distilled(chain(3), KEPT);
    after.update_masks(&masks(1)).unwrap();
    for chain in [distilled(before, KEPT), after] {
        let compressed = chain.compress(Budget::steps(1)).unwrap();
        let (loss, expected) = (losses(&compressed)[0].0, expected([0, 2]));
        assert!((loss - expected).abs() < 1e-6, "{loss} {expected}");
    }
}

#[test]
fn masks_of_the_output_count_too() {
    let mut chain = distilled(chain(3), KEPT);
    let mask = Mask::new(vec![0.0, 1.0, 1.0], [1, 3, 1, 1]).unwrap();
    let masks = Masks::from([("first._output_0".parse().unwrap(), mask)]);
    chain.update_masks(&masks).unwrap();
    let compressed = chain.compress(Budget::steps(1)).unwrap();
    let (loss, expected) = (losses(&compressed)[0].0, expected([1, 2]));
    assert!((loss - expected).abs() < 1e-6, "{loss} {expected}");
}

#[test]
fn a_mask_that_removes_nothing_leaves_all() {
    let all = r#"[{"op_names": ["first"]}]"#;
    let run = |rules| {
        let mut chain = distilled(chain(3), rules);
        // There is no channel 3.
        chain.update_masks(&masks(3)).unwrap();
        losses(&chain.compress(Budget::steps(3)).unwrap())
    };
    assert_eq!(run(KEPT), run(all));
}

#[test]
fn without_any_mask_nothing_could_be_left_out() {
    let error = distilled(chain(3), KEPT)
        .compress(Budget::steps(3))
        .unwrap_err();
    let Error::Algorithm { source, .. } = &error else {
        panic!("{error}");
    };
    let source = source.downcast_ref::<DistillationError>();
    assert!(matches!(source, Some(DistillationError::NoMask { layer }) if layer == "first"));
}

#[test]
fn teachers_of_another_number_of_channels() {
    let rules = super::rules(KEPT);
    let config = AttentionConfig::new();
    let chain = AttentionDistiller::from_compressor(chain(3), &rules, &net(5, 2), logits, config);
    let mut chain = chain.unwrap();
    chain.update_masks(&masks(1)).unwrap();
    let error = chain.compress(Budget::steps(1)).unwrap_err();
    assert!(error.to_string().contains("as many channels"), "{error}");
}

#[test]
fn a_moving_mask_is_followed() {
    let mut chain = distilled(chain(3), KEPT);
    chain.update_masks(&masks(1)).unwrap();
    let budget = Budget::steps(2);
    chain.advance(&budget, Some(1)).unwrap();
    chain.update_masks(&masks(0)).unwrap();
    let student = chain.model().valid().first.forward(batch(1).images);
    let teacher = net(3, 2).valid().first.forward(batch(1).images);
    let kept = (student - teacher).slice([0..4, 1..3]);
    let expected = f64::from(kept.square().mean().into_scalar::<f32>());
    let loss = losses(&chain.compress(budget).unwrap())[1].0;
    assert!((loss - expected).abs() < 1e-6, "{loss} {expected}");
}

#[test]
fn channels_that_cannot_be_told() {
    let rules = r#"[{"op_names": ["first"], "channels": "kept", "channel_dim": 2}]"#;
    let mut chain = distilled(chain(3), rules);
    chain.update_masks(&masks(1)).unwrap();
    let error = chain.compress(Budget::steps(1)).unwrap_err();
    assert!(
        error.to_string().contains("4 channels in dimension 2"),
        "{error}"
    );
}

#[test]
fn nothing_is_left_to_compare() {
    let mut chain = distilled(chain(3), KEPT);
    let mask = Mask::new(vec![0.0; 27], [3, 1, 3, 3]).unwrap();
    let masks = Masks::from([("first.weight".parse().unwrap(), mask)]);
    chain.update_masks(&masks).unwrap();
    let error = chain.compress(Budget::steps(1)).unwrap_err();
    assert!(error.to_string().contains("nothing to learn"), "{error}");
}
