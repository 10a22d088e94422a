//! Random schedules, good and bad.

use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Budget, Compressor, Error, Evaluator};
use burn_compress_pruning::{
    AgpConfig, AgpPruner, L1NormPruner, LinearConfig as LinearSchedule, LinearPruner,
    MovementConfig, MovementPruner, PrunerConfig, PruningError, PruningSettings, Schedule,
    ScheduleKind, TaylorConfig, TaylorPruner,
};
use proptest::prelude::*;

use crate::nets::cause;

type Chain = Compressor<Linear, ()>;

/// Output channels.
const CHANNELS: usize = 11;

fn chain() -> Chain {
    let device = Device::flex();
    let evaluator = Evaluator::new()
        .with_data(|_| [()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(1e-3)
        .with_loss(|model: &Linear, ()| {
            let x = Tensor::<2>::ones([1, 3], &model.weight.val().device());
            model.forward(x).square().mean()
        });
    Compressor::from_model(LinearConfig::new(3, CHANNELS).init(&device), evaluator)
}

fn rules(ratio: f64) -> ConfigList<PruningSettings> {
    let text = format!(
        r#"[{{"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": {ratio},
            "granularity": "out_channel"}}]"#
    );
    ConfigList::from_json(&text).unwrap()
}

fn alone() -> PrunerConfig {
    PrunerConfig::new().with_coupled(false)
}

/// A pruner of the weights, or one that collects over some steps, under a schedule.
fn scheduled(
    ratio: f64,
    steps: Option<usize>,
    agp: bool,
    interval: usize,
    times: usize,
) -> Result<Chain, Error> {
    let chain = match steps {
        None => L1NormPruner::from_compressor(chain(), rules(ratio), alone())?,
        Some(steps) => {
            let options = TaylorConfig::new(steps).with_pruner(alone());
            TaylorPruner::from_compressor(chain(), rules(ratio), options)?
        }
    };
    match agp {
        true => AgpPruner::new(chain, AgpConfig::new(interval, times)),
        false => LinearPruner::new(chain, LinearSchedule::new(interval, times)),
    }
}

fn removed(chain: &Chain) -> usize {
    let masks = chain.masks();
    masks.values().next().map_or(0, |mask| mask.removed() / 3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_update_reaches_its_part_and_the_last_one_the_goal(
        ratio in 0.0f64..=1.0,
        agp in any::<bool>(),
        interval in 1usize..4,
        times in 1usize..5,
        steps in prop::option::of(1usize..4),
    ) {
        prop_assume!(steps.is_none_or(|steps| steps <= interval));
        let mut chain = scheduled(ratio, steps, agp, interval, times).unwrap();
        let last = interval * times;
        let budget = Budget::steps(last + 2);
        let kind = if agp { ScheduleKind::Agp } else { ScheduleKind::Linear };
        let schedule = Schedule::new(kind, interval, times).unwrap();
        let count = |part: f64| ((CHANNELS as f64 * (ratio * part)) as usize).min(CHANNELS - 1);
        let mut before = 0;
        for step in 1..=last + 2 {
            chain.advance(&budget, Some(step)).unwrap();
            let now = removed(&chain);
            prop_assert!(now >= before, "step {}: {} after {}", step, now, before);
            before = now;
            // What is collected in part of an interval enters the masks in the next one.
            let complete = steps.is_none_or(|steps| steps == interval);
            if complete || step >= last {
                prop_assert_eq!(now, count(schedule.progress(step)), "step {}", step);
            }
        }
        prop_assert_eq!(before, count(1.0));
    }

    /// A run that is too short is refused before it starts.
    #[test]
    fn a_run_reaches_the_goal_or_is_refused(
        interval in 1usize..4,
        times in 1usize..4,
        steps in 0usize..12,
    ) {
        let chain = scheduled(0.5, None, true, interval, times).unwrap();
        let result = chain.compress(Budget::steps(steps));
        let last = interval * times;
        match result {
            Ok(compressed) => {
                prop_assert!(steps >= last);
                prop_assert_eq!(compressed.masks()[0].removed(), 15);
            }
            Err(error) => {
                let text = error.to_string();
                prop_assert!(steps < last);
                prop_assert!(text.contains("AgpPruner") && text.contains(&last.to_string()), "{text}");
            }
        }
    }

    #[test]
    fn bad_numbers_are_typed_errors(
        agp in any::<bool>(),
        interval in 0usize..4,
        times in 0usize..4,
        steps in prop::option::of(0usize..6),
    ) {
        let fits = interval > 0 && times > 0;
        match scheduled(0.5, steps, agp, interval, times) {
            Ok(_) => prop_assert!(fits && steps.is_none_or(|s| s > 0 && s <= interval)),
            Err(error) => match cause(&error) {
                PruningError::Schedule { .. } => prop_assert!(!fits && steps != Some(0)),
                PruningError::Setting { key: "training_steps", .. } => {
                    prop_assert_eq!(steps, Some(0));
                }
                PruningError::Setting { key: "interval", .. } => {
                    prop_assert!(fits && steps.is_some_and(|steps| steps > interval));
                }
                error => prop_assert!(false, "{error}"),
            },
        }
    }

    #[test]
    fn bad_numbers_of_movement_are_typed_errors(
        warmup in 0usize..4,
        cooldown in 0usize..4,
        scale in prop::sample::select(vec![0.0, 1.0, -1.0, f64::NAN, f64::INFINITY]),
        rate in prop::sample::select(vec![0.0, 1e-2, -1.0, f64::NAN, f64::INFINITY]),
    ) {
        let options = MovementConfig::new(warmup, cooldown)
            .with_regular_scale(scale)
            .with_learning_rate(rate)
            .with_pruner(alone());
        let good = warmup < cooldown && [0.0, 1.0].contains(&scale) && rate == 1e-2;
        match MovementPruner::from_compressor(chain(), rules(0.5), options) {
            Ok(_) => prop_assert!(good),
            Err(error) => {
                let typed = matches!(cause(&error), PruningError::Setting { .. });
                prop_assert!(typed && !good, "{error}");
            }
        }
    }
}
