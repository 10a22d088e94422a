//! Checkpoints that are resumed with another configuration.

use std::path::Path;

use burn::optim::SgdConfig;
use burn_compress::distillation::registry::{self as distillation, Needs, Supervision, distillers};
use burn_compress::prelude::*;
use burn_compress::pruning::registry::{self as pruning, pruners};
use burn_compress::quantization::registry::quantizers;
use burn_compress::{Difference, Error};
use burn_compress_tests::chains::{self, Built, Chain, HALF, assert_says, teach};
use burn_compress_tests::nets::{Batch, Net, evaluator};

use crate::fixtures::{NET, Place, STEPS};

const QUARTER: &str = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.25}]"#;
const BUDGET: usize = 6;
/// Steps over which a pruner collects its score.
const SCORED: usize = 3;

fn chain() -> Chain {
    Compressor::from_model(NET.init(1), evaluator(STEPS))
}

/// Leaves a checkpoint of `chain` after 3 of 6 steps.
fn leave(chain: Built, path: &Path) {
    let mut chain = chain.unwrap();
    chain.advance(&Budget::steps(BUDGET), Some(3)).unwrap();
    chain.save_checkpoint(path).unwrap();
}

#[track_caller]
fn differences(chain: Built, path: &Path) -> Vec<Difference> {
    match chain.unwrap().resume(path) {
        Err(error @ Error::Changed { .. }) => {
            assert_says(
                &error,
                &[&path.display().to_string(), "resume_with_changes"],
            );
            let Error::Changed { differences, .. } = error else {
                unreachable!()
            };
            differences
        }
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("the checkpoint was accepted"),
    }
}

#[track_caller]
fn texts(chain: Built, path: &Path) -> Vec<String> {
    let found = differences(chain, path);
    found.iter().map(ToString::to_string).collect()
}

fn prune(rules: &str) -> Built {
    chains::prune(chain(), rules, PrunerConfig::new())
}

fn quantize(dtype: &str, start: usize) -> Built {
    let rules = format!(
        r#"[{{"op_types": ["Conv2d"], "target_names": ["weight"], "quant_dtype": "{dtype}"}}]"#
    );
    chains::quantize(chain(), &rules, QatConfig::new().with_start_step(start))
}

fn schedule(interval: usize, times: usize) -> Built {
    chains::prune_by_schedule(chain(), HALF, AgpConfig::new(interval, times))
}

#[test]
fn another_goal_is_named_for_each_target() {
    let place = Place::new();
    leave(prune(HALF), &place.path);
    let found = texts(prune(QUARTER), &place.path);
    let stem = "L1NormPruner, `stem.weight`: `sparse_ratio` was 0.5, is 0.25";
    assert!(found.contains(&stem.to_string()), "{found:?}");
    assert!(found.len() > 1);
    assert!(
        found
            .iter()
            .all(|one| one.contains("`sparse_ratio` was 0.5, is 0.25"))
    );
    // What holds anyway may be written or not.
    let written = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "round_to": 1}]"#;
    assert!(prune(written).unwrap().resume(&place.path).is_ok());
}

#[test]
fn another_type_is_named_and_acts_where_it_is_meant() {
    let place = Place::new();
    leave(quantize("int4", 0), &place.path);
    let found = texts(quantize("int8", 0), &place.path);
    let stem = "QatQuantizer, `stem.weight`: `quant_dtype` was int4, is int8";
    assert!(found.contains(&stem.to_string()), "{found:?}");

    let accepted = quantize("int8", 0).unwrap();
    let accepted = accepted.resume_with_changes(&place.path).unwrap();
    let compressed = accepted.compress(Budget::steps(BUDGET)).unwrap();
    let calibration = compressed.calibration().unwrap();
    assert!(
        calibration
            .values()
            .all(|entry| entry.dtype.to_string() == "int8" && entry.enabled)
    );
    assert_eq!(compressed.history().steps.len(), BUDGET);
}

#[test]
fn another_beginning_is_named_and_acts_where_it_is_meant() {
    let place = Place::new();
    leave(quantize("int8", 0), &place.path);
    let found = texts(quantize("int8", 5), &place.path);
    assert_eq!(found, ["QatQuantizer: `start_step` was 0, is 5"]);
    let accepted = quantize("int8", 5).unwrap();
    let mut accepted = accepted.resume_with_changes(&place.path).unwrap();
    let enabled = |chain: &Chain| {
        let calibration = chain.calibration().unwrap();
        let enabled: Vec<bool> = calibration.values().map(|entry| entry.enabled).collect();
        assert!(enabled.iter().all(|&one| one == enabled[0]));
        enabled[0]
    };
    let budget = Budget::steps(BUDGET);
    accepted.advance(&budget, Some(5)).unwrap();
    assert!(!enabled(&accepted));
    accepted.advance(&budget, None).unwrap();
    assert!(enabled(&accepted));
}

#[test]
fn another_schedule_is_named_and_acts_where_it_is_meant() {
    let place = Place::new();
    leave(schedule(6, 1), &place.path);
    let found = texts(schedule(2, 3), &place.path);
    let expected = [
        "AgpPruner: `schedule.interval` was 6, is 2",
        "AgpPruner: `schedule.times` was 1, is 3",
    ];
    assert_eq!(found, expected);
    let accepted = schedule(2, 3).unwrap();
    let mut accepted = accepted.resume_with_changes(&place.path).unwrap();
    let removes = |chain: &Chain| chain.masks().values().any(|mask| mask.removed() > 0);
    assert!(!removes(&accepted));
    accepted.advance(&Budget::steps(BUDGET), Some(4)).unwrap();
    assert!(
        removes(&accepted),
        "after the second update of the new schedule"
    );

    // The name of the schedule does not hide the pruner below it.
    let config = ConfigList::from_json(HALF).unwrap();
    let other = L1NormPruner::from_compressor(chain(), &config, PrunerConfig::new());
    let other = other.and_then(|chain| AgpPruner::new(chain, AgpConfig::new(6, 1)));
    let found = texts(other.map_err(Into::into), &place.path);
    assert!(
        found.contains(&"AgpPruner: `pruner` was TaylorPruner, is L1NormPruner".to_string()),
        "{found:?}"
    );
}

#[test]
fn another_optimizer_and_another_teacher_are_named_with_all_the_rest() {
    let place = Place::new();
    let build = |chain: Chain, ratio: &str, teacher: u64, origin: f64| -> Built {
        let chain = chains::prune(chain, ratio, PrunerConfig::new())?;
        let rules = r#"[{"op_types": ["Conv2d"], "lambda": 0.1}]"#;
        chains::distill(chain, rules, &NET.init(teacher), origin)
    };
    leave(build(chain(), HALF, 100, 1.0), &place.path);
    assert!(
        build(chain(), HALF, 100, 1.0)
            .unwrap()
            .resume(&place.path)
            .is_ok()
    );

    let other = evaluator(STEPS)
        .with_optimizer(SgdConfig::new().init())
        .with_seed(9);
    let other = Compressor::from_model(NET.init(1), other);
    let found = texts(build(other, QUARTER, 101, 0.5), &place.path);
    for part in [
        "L1NormPruner, `stem.weight`: `sparse_ratio`",
        "DynamicLayerwiseDistiller: `origin_loss_lambda` was 1.0, is 0.5",
        "DynamicLayerwiseDistiller: `teachers.0.values` was",
        "evaluator: `seed` was 3, is 9",
        "evaluator: `state of the optimizer` was momentum.moment_1",
    ] {
        assert!(
            found.iter().any(|one| one.starts_with(part)),
            "{part}: {found:?}"
        );
    }
}

/// Adds a pruner that differs from that of the registry in one setting.
fn other_pruner(name: &str, chain: Chain, rules: &ConfigList<PruningSettings>) -> Built {
    let all = PrunerConfig::new().with_keep_at_least_one(false);
    macro_rules! of {
        ($pruner:ident, $config:expr) => {
            Ok($pruner::from_compressor(chain, rules, $config)?)
        };
    }
    match name {
        "LevelPruner" => of!(LevelPruner, all),
        "L1NormPruner" => of!(L1NormPruner, all),
        "L2NormPruner" => of!(L2NormPruner, all),
        "FpgmPruner" => of!(FpgmPruner, all),
        "LampPruner" => of!(LampPruner, all),
        "TaylorPruner" => of!(TaylorPruner, TaylorConfig::new(SCORED).with_pruner(all)),
        "FisherPruner" => of!(FisherPruner, FisherConfig::new(SCORED).with_pruner(all)),
        "ActivationPruner" => {
            of!(
                ActivationPruner,
                ActivationConfig::new(SCORED).with_pruner(all)
            )
        }
        "ApozPruner" => of!(ApozPruner, ApozConfig::new(SCORED).with_pruner(all)),
        "SlimPruner" => of!(SlimPruner, SlimConfig::new(SCORED).with_pruner(all)),
        "MovementPruner" => of!(
            MovementPruner,
            MovementConfig::new(0, SCORED).with_pruner(all)
        ),
        other => panic!("add a case for `{other}`"),
    }
}

#[test]
fn no_pruner_forgets_its_configuration() {
    let place = Place::new();
    let rules = |text: &str| ConfigList::from_json(text).unwrap();
    for entry in pruners::<Net, Batch>() {
        let fuse =
            |text: &str, steps: usize| -> Built { Ok((entry.fuse)(chain(), &rules(text), steps)?) };
        leave(fuse(HALF, SCORED), &place.path);
        assert!(fuse(HALF, SCORED).unwrap().resume(&place.path).is_ok());
        let of = |found: Vec<Difference>, setting: &str| {
            let right = |one: &Difference| one.algorithm == entry.name && one.setting == setting;
            assert!(!found.is_empty() && found.iter().all(right), "{found:?}");
        };
        of(
            differences(fuse(QUARTER, SCORED), &place.path),
            "sparse_ratio",
        );
        if entry.needs.data() {
            let setting = match entry.needs {
                pruning::Needs::Movement => "cooldown_begin_step",
                _ => "training_steps",
            };
            of(differences(fuse(HALF, SCORED - 1), &place.path), setting);
        }
        let setting = match entry.needs {
            pruning::Needs::Weights => "keep_at_least_one",
            _ => "pruner.keep_at_least_one",
        };
        let other = other_pruner(entry.name, chain(), &rules(HALF));
        of(differences(other, &place.path), setting);
    }
}

/// Adds a quantizer that differs from that of the registry in one setting; its name.
fn other_quantizer(
    name: &str,
    chain: Chain,
    rules: &ConfigList<QuantizationSettings>,
) -> (&'static str, Built) {
    macro_rules! of {
        ($setting:literal, $quantizer:ident, $config:expr) => {
            (
                $setting,
                $quantizer::from_compressor(chain, rules, $config).map_err(Into::into),
            )
        };
    }
    match name {
        "QatQuantizer" => of!(
            "start_step",
            QatQuantizer,
            QatConfig::new().with_start_step(2)
        ),
        "PtqQuantizer" => of!("batches", PtqQuantizer, PtqConfig::new().with_batches(3)),
        "AdaRoundQuantizer" => {
            of!(
                "steps",
                AdaRoundQuantizer,
                AdaRoundConfig::new().with_steps(7)
            )
        }
        "LsqQuantizer" => of!(
            "learning_rate",
            LsqQuantizer,
            LsqConfig::new().with_learning_rate(Some(1e-3))
        ),
        "LsqPlusQuantizer" => of!(
            "round_zero_points",
            LsqPlusQuantizer,
            LsqPlusConfig::new().with_round_zero_points(false)
        ),
        "DoReFaQuantizer" => of!("seed", DoReFaQuantizer, DoReFaConfig::new().with_seed(4)),
        "BnnQuantizer" => of!(
            "clamp_parameters",
            BnnQuantizer,
            BnnConfig::new()
                .with_any_dtype(true)
                .with_clamp_parameters(false)
        ),
        other => panic!("add a case for `{other}`"),
    }
}

#[test]
fn no_quantizer_forgets_its_configuration() {
    let place = Place::new();
    let rules = |dtype: &str, fuse: bool| {
        let text = format!(
            r#"[{{"op_types": ["Conv2d"], "target_names": ["weight"], "quant_dtype": "{dtype}",
                "fuse": {fuse}}}]"#
        );
        ConfigList::from_json(&text).unwrap()
    };
    for entry in quantizers::<Net, Batch>() {
        let fuse =
            |dtype: &str, fuse: bool| -> Built { Ok((entry.fuse)(chain(), &rules(dtype, fuse))?) };
        leave(fuse("int8", false), &place.path);
        assert!(fuse("int8", false).unwrap().resume(&place.path).is_ok());
        let has = |found: &[Difference], setting: &str| {
            let right = |one: &Difference| one.algorithm == entry.name && one.setting == setting;
            assert!(found.iter().any(right), "{}: {found:?}", entry.name);
        };
        match entry.name {
            // Every type is read as one bit.
            "BnnQuantizer" => assert!(fuse("int4", false).unwrap().resume(&place.path).is_ok()),
            _ => has(
                &differences(fuse("int4", false), &place.path),
                "quant_dtype",
            ),
        }
        has(&differences(fuse("int8", true), &place.path), "fused");
        let (setting, other) = other_quantizer(entry.name, chain(), &rules("int8", false));
        let found = differences(other, &place.path);
        has(&found, setting);
        assert_eq!(found.len(), 1, "{found:?}");
    }
}

/// Adds a distiller that differs from that of the registry in one setting; its name.
fn other_distiller(
    name: &str,
    chain: Chain,
    rules: &ConfigList<DistillationSettings>,
) -> (&'static str, Built) {
    let teacher = Teacher::of_logits(&NET.init(100), teach);
    macro_rules! of {
        ($setting:literal, $distiller:ident, $config:expr) => {
            (
                $setting,
                $distiller::from_teachers(chain, rules, teacher, $config).map_err(Into::into),
            )
        };
    }
    match name {
        "DynamicLayerwiseDistiller" => of!(
            "origin_loss_lambda",
            DynamicLayerwiseDistiller,
            DistillConfig::new(0.5)
        ),
        "Adaptive1dLayerwiseDistiller" => of!(
            "seed",
            Adaptive1dLayerwiseDistiller,
            AdaptiveConfig::new().with_seed(1)
        ),
        "FitNetsDistiller" => of!("seed", FitNetsDistiller, FitNetsConfig::new().with_seed(1)),
        "AttentionDistiller" => of!(
            "origin_loss_lambda",
            AttentionDistiller,
            AttentionConfig::new().with_origin_loss_lambda(0.5)
        ),
        "RelationalDistiller" => of!(
            "angle_weight",
            RelationalDistiller,
            RelationalConfig::new().with_angle_weight(0.5)
        ),
        "LogitsDistiller" => of!(
            "temperature",
            LogitsDistiller,
            LogitsConfig::new().with_temperature(3.0)
        ),
        "DkdDistiller" => {
            let labels = |batch: &Batch| batch.labels.clone();
            let config = DkdConfig::new().with_beta(3.0);
            let built = DkdDistiller::from_teachers(chain, rules, teacher, labels, config);
            ("beta", built.map_err(Into::into))
        }
        other => panic!("add a case for `{other}`"),
    }
}

#[test]
fn no_distiller_forgets_its_configuration() {
    let place = Place::new();
    let rules = |needs: Needs, lambda: f64| {
        let layers = match needs {
            distillation::Needs::Logits => r#""op_names": ["head"]"#,
            _ => r#""op_types": ["Conv2d"]"#,
        };
        ConfigList::from_json(&format!(r#"[{{{layers}, "lambda": {lambda}}}]"#)).unwrap()
    };
    let supervision =
        |seed: u64| Supervision::new(&NET.init(seed), teach, |batch: &Batch| batch.labels.clone());
    for entry in distillers::<Net, Net, Batch>() {
        let fuse = |lambda: f64, teacher: u64| -> Built {
            Ok((entry.fuse)(
                chain(),
                &rules(entry.needs, lambda),
                &supervision(teacher),
            )?)
        };
        leave(fuse(0.1, 100), &place.path);
        assert!(fuse(0.1, 100).unwrap().resume(&place.path).is_ok());
        let of = |found: Vec<Difference>, setting: &str| {
            let right = |one: &Difference| one.algorithm == entry.name && one.setting == setting;
            assert!(!found.is_empty() && found.iter().all(right), "{found:?}");
        };
        of(differences(fuse(0.2, 100), &place.path), "lambda");
        of(
            differences(fuse(0.1, 101), &place.path),
            "teachers.0.values",
        );
        let (setting, other) = other_distiller(entry.name, chain(), &rules(entry.needs, 0.1));
        of(differences(other, &place.path), setting);
    }
}
