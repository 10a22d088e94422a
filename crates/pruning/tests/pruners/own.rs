//! Importances and sources of a user's own, beside the built-in ones.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn_compress_core::{
    AlgorithmState, BoxError, Budget, Configuration, Error, FlatTensor, Masks, Method, Run,
    parameters,
};
use burn_compress_pruning::scores::{L1Norm, Taylor};
use burn_compress_pruning::sources::{
    Accumulator, Collector, Gradients, Outputs, ScoreSource, Scored,
};
use burn_compress_pruning::{
    AgpConfig, AgpPruner, Blocks, Importance, L1NormPruner, Phase, Pruner, PrunerConfig,
    PruningError, TaylorConfig, TaylorPruner, Timing,
};
use indexmap::{IndexMap, IndexSet};
use rstest::rstest;
use serde::Serialize;

use crate::nets::{Chain, cause, chain, count, removed, rules};

const CONVS: &str = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]"#;

/// Channels whose weights spread least around their mean go first.
struct Spread;

impl Importance for Spread {
    fn score(&self, values: &[f32], blocks: &Blocks) -> Vec<f32> {
        blocks.reduce(values, |block| {
            let mean = block.iter().sum::<f32>() / block.len() as f32;
            block.iter().map(|value| (value - mean).powi(2)).sum()
        })
    }
}

/// A norm of any order, which is part of the configuration.
#[derive(Serialize)]
struct Norm {
    order: i32,
}

impl Importance for Norm {
    fn score(&self, values: &[f32], blocks: &Blocks) -> Vec<f32> {
        let sums = blocks.sums(values, |value| value.abs().powi(self.order));
        sums.into_iter().map(|sum| sum as f32).collect()
    }

    fn configuration(&self) -> Configuration {
        Configuration::of(self)
    }
}

/// The weights, summed over training steps.
#[derive(Serialize)]
struct SummedWeights {
    training_steps: usize,
}

struct WeightSums {
    paths: IndexSet<String>,
    sums: Accumulator,
}

impl ScoreSource for SummedWeights {
    fn timing(&self) -> Timing {
        Timing::after(self.training_steps)
    }

    fn collector<M: Module + 'static, I: 'static>(
        &self,
        scored: &Scored<'_, M, I>,
    ) -> Result<Box<dyn Collector<M, I>>, PruningError> {
        let (paths, sums) = (scored.paths(), Accumulator::new(scored));
        Ok(Box::new(WeightSums { paths, sums }))
    }
}

impl<M: Module, I> Collector<M, I> for WeightSums {
    fn gradients(
        &mut self,
        _gradients: &GradientsParams,
        run: Run<'_, M>,
        phase: Phase,
    ) -> Result<(), BoxError> {
        if phase.collects {
            self.sums.add(parameters(run.model, &self.paths));
        }
        Ok(())
    }

    fn values(&self, _model: &M) -> Result<IndexMap<String, Vec<f32>>, BoxError> {
        let values = |(path, sum): (&String, &FlatTensor)| Ok((path.clone(), sum.to_vec()?));
        self.sums.sums().iter().map(values).collect()
    }

    fn clear(&mut self) {
        self.sums.clear();
    }

    fn state(&self) -> Result<AlgorithmState, BoxError> {
        self.sums.state()
    }

    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        self.sums.load_state(state)
    }
}

fn masks(chain: Chain) -> Masks {
    chain.compress(Budget::steps(3)).unwrap().masks()
}

fn spread() -> Chain {
    Pruner::with(Spread)
        .from_compressor(chain(), rules(CONVS))
        .unwrap()
}

#[test]
fn an_own_importance_prunes_coupled_channels_to_the_ratio() {
    let chain = spread();
    assert_eq!(chain.algorithms(), ["Spread"]);
    let masks = masks(chain);
    assert_eq!(count(&masks, "stem.weight"), 4);
    assert_eq!(
        removed(&masks, "stem.weight"),
        removed(&masks, "norm.gamma")
    );
    let grouped = removed(&masks, "grouped.weight");
    assert_eq!(grouped[..6].iter().filter(|r| **r).count(), 3);
    assert_eq!(grouped, removed(&masks, "block.weight"));
}

#[test]
fn an_own_pruner_of_a_built_in_importance_is_the_built_in_pruner() {
    let (list, options) = (rules(CONVS), PrunerConfig::new());
    let own = Pruner::with(L1Norm).from_compressor(chain(), &list);
    let built_in = L1NormPruner::from_compressor(chain(), &list, options);
    assert_eq!(masks(own.unwrap()), masks(built_in.unwrap()));
    let own = Pruner::over(Gradients::taylor(2), Taylor::new(2).unwrap());
    let own = own.from_compressor(chain(), &list);
    let built_in = TaylorPruner::from_compressor(chain(), &list, TaylorConfig::new(2));
    assert_eq!(masks(own.unwrap()), masks(built_in.unwrap()));
}

#[test]
fn own_pruners_are_fused_and_named() {
    let stem = rules(r#"[{"op_names": ["stem"], "sparse_ratio": 0.5}]"#);
    let others = rules(r#"[{"op_names": ["grouped", "block"], "sparse_ratio": 0.5}]"#);
    let chain = Pruner::over(Outputs::magnitudes(2), Spread)
        .with_name("OutputSpread")
        .from_compressor(chain(), &stem)
        .unwrap();
    let chain = Pruner::over(SummedWeights { training_steps: 2 }, Norm { order: 3 })
        .from_compressor(chain, &others)
        .unwrap();
    assert_eq!(chain.algorithms(), ["OutputSpread", "Norm"]);
    let masks = masks(chain);
    assert_eq!(count(&masks, "stem.weight"), 4);
    assert_eq!(count(&masks, "block.weight"), 6);
}

/// Stopped in the middle of an interval, with half of a score collected.
#[test]
fn an_own_source_is_scheduled_and_resumed_bit_for_bit() {
    let scheduled = || {
        let source = SummedWeights { training_steps: 2 };
        let pruner = Pruner::over(source, Norm { order: 2 });
        let pruner = pruner.from_compressor(chain(), rules(CONVS)).unwrap();
        AgpPruner::new(pruner, AgpConfig::new(3, 3)).unwrap()
    };
    let budget = Budget::steps(9);
    let through = scheduled().compress(budget.clone()).unwrap();
    let path = format!("{}/own.checkpoint", env!("CARGO_TARGET_TMPDIR"));
    let mut stopped = scheduled();
    stopped.advance(&budget, Some(7)).unwrap();
    let half = count(&stopped.masks(), "stem.weight");
    assert!(half > 0 && half < 4, "{half}");
    stopped.save_checkpoint(&path).unwrap();
    let resumed = scheduled().resume(&path).unwrap().compress(budget).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(through.masks(), resumed.masks());
    assert_eq!(count(&through.masks(), "stem.weight"), 4);
    let steps = |history: &burn_compress_core::History| {
        let steps = history.steps.iter();
        steps.map(|step| step.loss.to_bits()).collect::<Vec<_>>()
    };
    assert_eq!(steps(through.history()), steps(resumed.history()));
}

#[rstest]
#[case::importance(2, 3, true, "`order` was 2, is 3")]
#[case::source(3, 2, true, "`source.training_steps` was 2, is 3")]
#[case::pruner(2, 2, false, "`pruner.keep_at_least_one` was true, is false")]
fn another_configuration_does_not_resume(
    #[case] steps: usize,
    #[case] order: i32,
    #[case] keep: bool,
    #[case] expected: &str,
) {
    let made = |training_steps, order, keep| {
        let config = PrunerConfig::new().with_keep_at_least_one(keep);
        Pruner::over(SummedWeights { training_steps }, Norm { order })
            .with_config(config)
            .from_compressor(chain(), rules(CONVS))
            .unwrap()
    };
    let path = format!(
        "{}/own-{steps}-{order}.checkpoint",
        env!("CARGO_TARGET_TMPDIR")
    );
    let mut first = made(2, 2, true);
    first.advance(&Budget::steps(3), Some(1)).unwrap();
    first.save_checkpoint(&path).unwrap();
    let error = made(steps, order, keep).resume(&path).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    assert!(error.to_string().contains(expected), "{error}");
}

/// Scores that break a law.
struct Broken(fn(usize) -> Vec<f32>);

impl Importance for Broken {
    fn score(&self, _values: &[f32], blocks: &Blocks) -> Vec<f32> {
        self.0(blocks.count())
    }
}

#[rstest]
#[case::few(|_| vec![0.0], true, "stem.weight: `Broken` gave 1 scores for 8 blocks")]
#[case::many(|count| vec![0.0; count + 1], false, "`Broken` gave 9 scores for 8 blocks")]
#[case::none(|count| vec![f32::NAN; count], true, "stem.weight: score 0 is NaN, by `Broken`")]
#[case::infinite(|count| vec![f32::INFINITY; count], false, "score 0 is inf, by `Broken`")]
fn a_broken_law_is_an_error_of_the_pruner_at_its_target(
    #[case] scores: fn(usize) -> Vec<f32>,
    #[case] coupled: bool,
    #[case] expected: &str,
) {
    let pruner = Pruner::with(Broken(scores))
        .with_config(PrunerConfig::new().with_coupled(coupled))
        .from_compressor(chain(), rules(CONVS))
        .unwrap();
    let error = pruner.compress(Budget::none()).unwrap_err();
    let Error::Algorithm { source, .. } = error else {
        panic!("{error}");
    };
    let source = source.downcast_ref::<PruningError>().unwrap();
    assert!(source.to_string().contains(expected), "{source}");
    assert!(source.to_string().starts_with("stem.weight: "), "{source}");
}

#[test]
fn a_source_over_no_steps_is_rejected() {
    let pruner = Pruner::over(SummedWeights { training_steps: 0 }, Spread);
    let error = pruner.from_compressor(chain(), rules(CONVS)).unwrap_err();
    assert!(
        cause(&error)
            .to_string()
            .starts_with("`training_steps` is 0"),
        "{error}"
    );
}
