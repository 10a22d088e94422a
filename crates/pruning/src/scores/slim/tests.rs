use burn::nn::Linear;
use burn::tensor::Device;
use burn_compress_core::config::ConfigList;
use burn_compress_core::{
    Budget, Compressor, Error, Grid, QuantDtype, QuantScheme, Target, Wrapper,
};
use indexmap::IndexSet;
use rstest::rstest;

use super::*;
use crate::groups::build;
use crate::importance::Scorer;
use crate::sources::models::{
    Normed, alone, chain, close, columns, difference, effective, raw, removed, rules,
};
use crate::sources::{advice, normed_layers};
use crate::{LinearConfig, LinearPruner, MovementConfig, MovementPruner, PruningSettings};

type Chain = Compressor<Wrapper<Linear>, ()>;

fn half() -> ConfigList<PruningSettings> {
    rules(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5}]"#)
}

fn slim(config: SlimConfig) -> Chain {
    SlimPruner::from_compressor(chain(), half(), config.with_pruner(alone())).unwrap()
}

fn factors(chain: &mut Chain) -> Vec<f32> {
    chain.chain().learnables()[0].values().unwrap()
}

fn loss(chain: &Chain, step: usize) -> f64 {
    chain.history().steps[step].loss
}

#[test]
fn factors_are_trained_decide_and_are_folded_by_hand() {
    let mut chain = slim(SlimConfig::new(1).with_regular_scale(0.5));
    let budget = Budget::steps(2);
    // The loss is 4 - 6 with a penalty of 0.5 (1 + 1). The factors have the gradients 4 + 0.5 and
    // -6 + 0.5; the first step of Adam is the learning rate.
    chain.advance(&budget, Some(1)).unwrap();
    assert!((loss(&chain, 0) + 1.0).abs() < 1e-6);
    close(&factors(&mut chain), &[0.99, 1.01]);
    close(&raw(chain.model()), &[0.9, 2.1, 2.9, 4.1]);
    assert_eq!(chain.masks()[0].values(), [0.0, 1.0, 0.0, 1.0]);
    // Now -1.01 (2.1 + 4.1) without a penalty; the first column is masked, the factors stay.
    chain.advance(&budget, None).unwrap();
    assert!((loss(&chain, 1) + 6.262).abs() < 1e-5);
    close(&factors(&mut chain), &[0.99, 1.01]);
    close(&raw(chain.model()), &[0.9, 2.201, 2.9, 4.201]);
    let before = effective(chain.model());
    close(&before, &[0.0, 2.22301, 0.0, 4.24301]);
    let compressed = chain.finish().unwrap();
    close(&raw(compressed.model()), &[0.891, 2.22301, 2.871, 4.24301]);
    assert_eq!(effective(compressed.model()), before);
    assert_eq!(raw(&compressed.unwrap_model()), raw(compressed.model()));
}

#[test]
fn factors_can_be_trained_to_the_end() {
    let config = SlimConfig::new(1).with_regular_scale(0.5);
    let mut chain = slim(config.with_train_after_masks(true));
    chain.advance(&Budget::steps(2), None).unwrap();
    // -6.262 and 0.5 (0.99 + 1.01).
    assert!((loss(&chain, 1) + 5.262).abs() < 1e-5);
    let factors = factors(&mut chain);
    assert!(factors[0] < 0.985 && factors[1] > 1.015, "{factors:?}");
}

#[test]
fn a_schedule_raises_the_goal() {
    // Four blocks of one element each.
    let config = rules(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5, "granularity": [1, 1]}]"#);
    let options = SlimConfig::new(1).with_pruner(alone());
    let chain = SlimPruner::from_compressor(chain(), &config, options).unwrap();
    let mut chain = LinearPruner::new(chain, LinearConfig::new(2, 2)).unwrap();
    let counts: Vec<usize> = (1..=5)
        .map(|step| {
            chain.advance(&Budget::steps(5), Some(step)).unwrap();
            chain.masks()[0].removed()
        })
        .collect();
    // Decisions after steps 1 and 3, with goals 0 and 1/4, and the last after step 4.
    assert_eq!(counts, [0, 0, 1, 2, 2]);
    let moved = factors(&mut chain);
    chain.advance(&Budget::steps(6), None).unwrap();
    assert_eq!(factors(&mut chain), moved);
}

#[test]
fn a_schedule_needs_intervals_as_long_as_the_training() {
    let chain = slim(SlimConfig::new(3));
    let error = LinearPruner::new(chain, LinearConfig::new(2, 2)).unwrap_err();
    assert!(matches!(
        error.downcast_ref(),
        Some(PruningError::Setting {
            key: "interval",
            ..
        })
    ));
}

#[test]
fn the_factors_of_a_batch_norm_decide_about_the_layer_in_front() {
    let config = rules(r#"[{"op_names": ["conv", "bn"], "sparse_ratio": 0.5}]"#);
    let mut chain =
        SlimPruner::from_compressor(Normed::chain(), &config, SlimConfig::new(1)).unwrap();
    let learnables = chain.chain().learnables();
    assert_eq!(learnables.len(), 1);
    assert_eq!(learnables[0].name(), "bn.gamma");
    // A step moves each by 0.01; the sign does not count.
    learnables[0].set_values(vec![0.2, -3.0, 1.0, 0.1]).unwrap();
    let compressed = chain.compress(Budget::steps(1)).unwrap();
    let expected = [true, false, false, true];
    for target in ["conv.weight", "conv.bias", "bn.gamma", "bn.beta"] {
        assert_eq!(removed(&compressed, target), expected, "{target}");
    }
}

#[rstest]
#[case(r#"[{"op_names": ["conv"], "sparse_ratio": 0.5}]"#, &["conv.weight"], false)]
#[case(r#"[{"op_names": ["conv", "bn"], "sparse_ratio": 0.5}]"#, &["conv.weight", "bn.gamma"], true)]
fn a_batch_norm_behind_a_layer_is_found(
    #[case] config: &str,
    #[case] sources: &[&str],
    #[case] both: bool,
) {
    let mut chain =
        SlimPruner::from_compressor(Normed::chain(), rules(config), SlimConfig::new(1)).unwrap();
    let sources: IndexSet<String> = sources.iter().map(ToString::to_string).collect();
    let pairs = normed_layers(&chain.chain(), "SlimPruner", &sources);
    let found: Vec<_> = pairs
        .iter()
        .map(|(a, b)| (a.to_string(), b.to_string()))
        .collect();
    assert_eq!(found, [("conv.weight".to_string(), "bn.gamma".to_string())]);
    // Where the `gamma` is not selected, the layer keeps its factors and masks the batch norm.
    let name = if both { "bn.gamma" } else { "conv.weight" };
    assert_eq!(chain.chain().learnables()[0].name(), name);
    let compressed = chain.compress(Budget::steps(1)).unwrap();
    // The warning of the construction is in the result.
    let warned = |warning: &String| {
        warning.starts_with("SlimPruner: the batch norm `bn` behind `conv` cancels the scale")
    };
    assert!(compressed.warnings().iter().all(warned));
    assert_eq!(compressed.warnings().len(), usize::from(!both));
    assert_eq!(
        removed(&compressed, "bn.gamma"),
        removed(&compressed, "conv.weight")
    );
}

/// The advice about `conv` in front of `bn`, and what comes of following it.
#[rstest]
#[case::coupled(r#""sparse_ratio": 0.5"#, true)]
#[case::channels(r#""sparse_ratio": 0.5, "granularity": "out_channel""#, true)]
#[case::ranked(r#""sparse_ratio": 0.5, "global_group_id": 1"#, true)]
#[case::alone(r#""sparse_ratio": 0.5"#, false)]
fn the_advice_about_a_batch_norm_can_be_followed(#[case] goal: &str, #[case] coupled: bool) {
    let options = PrunerConfig::new().with_coupled(coupled);
    let config = |layers: &str| rules(&format!(r#"[{{"op_names": [{layers}], {goal}}}]"#));
    let mut chain = Normed::chain();
    let selected = PruningSettings::select(&config(r#""conv""#), chain.layers()).unwrap();
    let scorer = Scorer::new("SlimPruner", BlockValue, false);
    build(&mut chain.chain(), &scorer, &selected, options).unwrap();
    let (conv, gamma) = ("conv.weight".parse().unwrap(), "bn.gamma".parse().unwrap());
    let advice = advice(coupled, &conv, &gamma);
    let followed = match coupled {
        true => {
            assert!(
                advice.ends_with(
                    "select `bn` as well, with the same goal and groups as `conv`, so that its \
                     `gamma` decides for both"
                ),
                "{advice}"
            );
            config(r#""conv", "bn""#)
        }
        false => {
            assert!(
                advice.ends_with("select `bn` in place of `conv`"),
                "{advice}"
            );
            config(r#""bn""#)
        }
    };
    let slim = SlimConfig::new(1).with_pruner(options);
    let chain = SlimPruner::from_compressor(Normed::chain(), &followed, slim).unwrap();
    let compressed = chain.compress(Budget::steps(1)).unwrap();
    assert_eq!(
        removed(&compressed, "bn.gamma")
            .iter()
            .filter(|r| **r)
            .count(),
        2
    );
    let movement = MovementConfig::new(0, 1).with_pruner(options);
    let chain = MovementPruner::from_compressor(Normed::chain(), &followed, movement).unwrap();
    assert!(chain.compress(Budget::steps(1)).is_ok());
}

#[test]
fn a_quantization_is_scaled_with_the_factors() {
    let device = Device::flex();
    let flat = |values: [f32; 4]| FlatTensor {
        values: Tensor::from_floats(values, &device),
        shape: vec![2, 2],
    };
    let numbers = |tensor: Option<Tensor<1>>| tensor.unwrap().into_data().try_to_vec::<f32>();
    // Rows [1, -2] and [4, 0], times 0.5 and 3.
    let (before, after) = (flat([1.0, -2.0, 4.0, 0.0]), flat([0.5, -1.0, 12.0, 0.0]));
    let mut state = Quantization::of(QuantDtype::INT8, QuantScheme::Symmetric);
    state.grid = Grid::per_channel(2, 0, 2);
    state.scale = Some(Tensor::from_floats([2.0, 4.0], &device));
    state.minimum = Some(Tensor::from_floats([-2.0, -4.0], &device));
    let scaled = scale_along(state.clone(), &before, &after, None).unwrap();
    assert_eq!(numbers(scaled.scale).unwrap(), [1.0, 12.0]);
    assert_eq!(numbers(scaled.minimum).unwrap(), [-1.0, -12.0]);
    // One block for everything: the largest kept value goes from 4 to 12, or from 2 to 1.
    state.grid = Grid::per_tensor(2);
    state.scale = Some(Tensor::from_floats([2.0], &device));
    state.minimum = None;
    let scaled = scale_along(state.clone(), &before, &after, None).unwrap();
    assert_eq!(numbers(scaled.scale).unwrap(), [6.0]);
    let kept = [1.0, 1.0, 0.0, 0.0];
    let scaled = scale_along(state, &before, &after, Some(&kept)).unwrap();
    assert_eq!(numbers(scaled.scale).unwrap(), [1.0]);
}

#[test]
fn a_quantized_weight_computes_the_same_after_the_fold() {
    let mut chain = slim(SlimConfig::new(3));
    let id = TargetId::new("", Target::param("weight"));
    let mut state = Quantization::of(QuantDtype::INT8, QuantScheme::Symmetric);
    state.grid = Grid::per_channel(2, 1, 2);
    state.scale = Some(Tensor::from_floats([0.03, 0.04], &Device::flex()));
    state.zero_point = Some(Tensor::zeros([2], &Device::flex()));
    state.enabled = true;
    chain
        .chain()
        .space(&id)
        .unwrap()
        .set_quantization(Some(state));
    chain.advance(&Budget::steps(3), None).unwrap();
    let before = effective(chain.model());
    assert_ne!(before, raw(chain.model()));
    let compressed = chain.finish().unwrap();
    close(&effective(compressed.model()), &before);
    assert_ne!(raw(compressed.model())[0], before[0]);
}

#[test]
fn a_snapshot_keeps_its_factors() {
    let mut chain = slim(SlimConfig::new(4));
    chain.advance(&Budget::steps(4), Some(1)).unwrap();
    let snapshot = chain.model().valid();
    let before = effective(&snapshot);
    chain.advance(&Budget::steps(4), Some(2)).unwrap();
    assert_eq!(effective(&snapshot), before);
    assert_ne!(effective(&chain.model().valid()), before);
}

#[rstest]
#[case(SlimConfig::new(0), "training_steps")]
#[case(SlimConfig::new(1).with_regular_scale(-0.1), "regular_scale")]
#[case(SlimConfig::new(1).with_regular_scale(f64::NAN), "regular_scale")]
#[case(SlimConfig::new(1).with_learning_rate(0.0), "learning_rate")]
fn bad_settings_are_named(#[case] config: SlimConfig, #[case] expected: &str) {
    let error = SlimPruner::new(columns(), half(), difference(), config).unwrap_err();
    match error.downcast_ref() {
        Some(PruningError::Setting { key, .. }) => assert_eq!(*key, expected),
        _ => panic!("{error}"),
    }
}

#[test]
fn only_parameters_that_are_multiplied_have_factors() {
    let refused = |config: &str| {
        let options = SlimConfig::new(1).with_pruner(alone());
        let error = SlimPruner::from_compressor(chain(), rules(config), options).unwrap_err();
        error.to_string()
    };
    let error = refused(
        r#"[{"op_types": ["Linear"], "target_names": ["_output_0"], "sparse_ratio": 0.5}]"#,
    );
    assert!(error.contains("cannot be scored"), "{error}");
    let error =
        refused(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5, "apply_method": "add"}]"#);
    assert!(error.contains("apply_method"), "{error}");
}

#[test]
fn a_run_that_is_too_short_is_refused() {
    let error = slim(SlimConfig::new(3)).compress(Budget::steps(2));
    assert!(matches!(error, Err(Error::Budget { .. })));
}

#[rstest]
#[case(false)]
#[case(true)]
fn a_resumed_run_goes_on_bit_for_bit(#[case] train_after_masks: bool) {
    let file = format!("slim-{}-{train_after_masks}.ckpt", std::process::id());
    let path = std::env::temp_dir().join(file);
    let start = || {
        let config = SlimConfig::new(2).with_train_after_masks(train_after_masks);
        LinearPruner::new(slim(config), LinearConfig::new(2, 2)).unwrap()
    };
    let whole = start().compress(Budget::steps(7)).unwrap();
    for stop in 0..7 {
        let mut first = start();
        first.advance(&Budget::steps(7), Some(stop)).unwrap();
        first.save_checkpoint(&path).unwrap();
        let mut second = start().resume(&path).unwrap();
        assert_eq!(factors(&mut first), factors(&mut second));
        let resumed = second.compress(Budget::steps(7)).unwrap();
        assert_eq!(raw(resumed.model()), raw(whole.model()), "{stop}");
        assert_eq!(resumed.masks(), whole.masks(), "{stop}");
        assert_eq!(resumed.history().steps, whole.history().steps, "{stop}");
    }
    std::fs::remove_file(path).unwrap();
}
