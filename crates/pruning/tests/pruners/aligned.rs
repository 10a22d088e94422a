//! Targets that follow a parameter whose channels are coupled.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use burn_compress_core::{
    Budget, DummyInput, Evaluator, Mask, MaskMethod, Masks, TargetId, Wrapper,
};
use burn_compress_pruning::{L1NormPruner, PrunerConfig, PruningError};

use crate::nets::{cause, chain, removed, rules};

/// Half of the channels of all convolutions, and one more rule.
fn pruned(rule: &str) -> Result<Masks, Box<dyn std::error::Error>> {
    let text = format!(r#"[{{"op_types": ["Conv2d"], "sparse_ratio": 0.5}}, {rule}]"#);
    let pruner = L1NormPruner::from_compressor(chain(), rules(&text), PrunerConfig::new())?;
    Ok(pruner.compress(Budget::none())?.masks())
}

fn mask<'a>(masks: &'a Masks, target: &str) -> &'a Mask {
    &masks[&target.parse::<TargetId>().unwrap()]
}

fn error(rule: &str) -> String {
    pruned(rule).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn an_output_follows_with_its_own_apply_method() {
    let masks = pruned(
        r#"{"op_names": ["relu"], "target_names": ["_output_0"], "target_settings": {"_output_0": {
            "align": {"module_name": "stem", "target_name": "weight", "dims": [0]},
            "apply_method": "add"}}}"#,
    )
    .unwrap();
    let output = mask(&masks, "relu._output_0");
    assert_eq!(output.shape(), [1, 8, 1, 1]);
    assert_eq!(output.removed_along(1), removed(&masks, "stem.weight"));
    assert_eq!(output.method(), MaskMethod::Add);
}

#[test]
fn a_follower_can_be_followed() {
    let masks = pruned(
        r#"{"op_names": ["relu"], "target_names": ["_input_0", "_output_0"], "target_settings": {
            "_input_0": {"align": {"target_name": "_output_0", "dims": [1]}},
            "_output_0": {"align": {"module_name": "stem", "target_name": "weight", "dims": [0]}}}}"#,
    )
    .unwrap();
    let input = mask(&masks, "relu._input_0").removed_along(1);
    assert_eq!(input, removed(&masks, "stem.weight"));
}

#[test]
fn a_follower_has_blocks_and_a_threshold_of_its_own() {
    // The rows of the head, `[12, 3]`, which read the channels of `block`.
    let head = |settings: &str| {
        let masks = pruned(&format!(
            r#"{{"op_names": ["head"], "target_names": ["weight"], "target_settings": {{"weight": {{
                "align": {{"module_name": "block", "target_name": "weight", "dims": [0]}},
                {settings}}}}}}}"#
        ))
        .unwrap();
        let rows = mask(&masks, "head.weight").removed_along(0);
        (rows, removed(&masks, "block.weight"))
    };
    let (rows, channels) = head(r#""granularity": "in_channel""#);
    assert_eq!(rows, channels);
    let (rows, channels) = head(r#""granularity": [2, -1]"#);
    let pairs = channels
        .chunks(2)
        .map(|pair| pair.iter().all(|removed| *removed));
    let expected: Vec<bool> = pairs.flat_map(|removed| [removed; 2]).collect();
    assert_eq!(rows, expected);
    // No row reaches the threshold, one stays: unless its channel is gone, and then none does.
    let (rows, channels) = head(r#""granularity": "in_channel", "sparse_threshold": 100.0"#);
    let stays: Vec<usize> = (0..12).filter(|&row| !rows[row]).collect();
    assert!(
        stays.len() <= 1 && stays.iter().all(|&row| !channels[row]),
        "{rows:?}"
    );
}

#[test]
fn an_alignment_that_does_not_fit_is_refused_by_name() {
    let head = |dims: &str| {
        error(&format!(
            r#"{{"op_names": ["head"], "target_names": ["weight"], "target_settings": {{"weight": {{
                "align": {{"module_name": "block", "target_name": "weight", "dims": {dims}}},
                "granularity": "in_channel"}}}}}}"#
        ))
    };
    let text = head("[7]");
    assert!(
        text.contains("head.weight: aligned to dims [7] of `block.weight`, which has shape"),
        "{text}"
    );
    let text = head("[0, 1]");
    assert!(
        text.contains("head.weight: the mask of shape [12, 12] from `block.weight` does not fit"),
        "{text}"
    );
}

/// Found when the pruner is made, not after the steps that a score takes.
#[test]
fn what_cannot_be_decided_is_refused_before_the_training() {
    let refused = |text: &str| {
        let pruner = L1NormPruner::from_compressor(chain(), rules(text), PrunerConfig::new());
        pruner.map(|_| ()).unwrap_err()
    };
    let found = refused(
        r#"[{"op_names": ["head"], "target_names": ["bias"], "target_settings": {"bias": {
            "align": {"module_name": "block", "target_name": "weight", "dims": [0]}}}}]"#,
    );
    assert!(matches!(cause(&found), PruningError::Target { .. }));
    assert!(
        cause(&found)
            .to_string()
            .starts_with("head.bias: aligned to `block.weight`, which this pruner"),
        "{found}"
    );
    let found = refused(
        r#"[{"op_names": ["stem"], "sparse_ratio": 0.5, "dependency_group_id": 1},
            {"op_names": ["block"], "sparse_ratio": 0.25, "dependency_group_id": 1}]"#,
    );
    assert!(
        cause(&found)
            .to_string()
            .starts_with("block.weight: group `1`: `sparse_ratio` is 0.25"),
        "{found}"
    );
}

/// A linear layer over a sequence as long as it has output channels.
#[derive(Module, Debug)]
struct Sequence {
    fc: Wrapper<Linear>,
}

#[test]
fn the_channels_of_a_linear_layer_are_the_last_dim() {
    let device = Device::flex();
    let fc = LinearConfig::new(4, 6).init(&device);
    let x = Tensor::<3>::ones([2, 6, 4], &device);
    let evaluator = Evaluator::<Sequence, ()>::new()
        .with_dummy_input(DummyInput::new(x, |net: &Sequence, x| net.fc.forward(x)));
    let text = r#"[{"op_types": ["Linear"], "target_names": ["weight", "_output_0"],
        "target_settings": {"weight": {"sparse_ratio": 0.5},
            "_output_0": {"align": {"target_name": "weight", "dims": [1]}}}}]"#;
    let options = PrunerConfig::new().with_coupled(false);
    let net = Sequence { fc: fc.into() };
    let pruner = L1NormPruner::new(net, rules(text), evaluator, options).unwrap();
    let masks = pruner.compress(Budget::none()).unwrap().masks();
    let output = mask(&masks, "fc._output_0");
    assert_eq!(output.shape(), [1, 1, 6]);
    let weight = mask(&masks, "fc.weight").removed_along(1);
    assert_eq!(output.removed_along(2), weight);
}
