//! At most one read a step, none between steps that are logged together.

use burn::module::Module;
use burn::optim::AdamConfig;
use burn::train::Learner;
use burn_compress::distillation::registry::{Needs, Supervision, distillers};
use burn_compress::prelude::*;
use burn_compress::pruning::registry::pruners;
use burn_compress::quantization::registry::quantizers;
use burn_compress::{Error, reads};
use burn_compress_tests::chains::{self, Chain, HALF, teach};
use burn_compress_tests::nets::{Batch, Net, NetConfig, Outcome, batches, evaluator};
use rstest::rstest;

const STEPS: usize = 16;
/// Masks after steps 2, 5, 8 and 11, and those of the last update after step 12.
const DECISIONS: u64 = 5;
const QUANTIZE: &str = r#"[
    {"op_types": ["Conv2d"], "quant_dtype": "int8",
     "target_settings": {"weight": {"granularity": "out_channel"}}},
    {"op_types": ["Linear"], "quant_dtype": "int8"}
]"#;
const DISTILL: &str = r#"[{"op_types": ["Conv2d"], "lambda": 0.1, "apply_method": "mse"}]"#;

fn chain(log_every: usize) -> Chain {
    let evaluator = evaluator(STEPS).with_log_every(log_every);
    Compressor::from_model(NetConfig::default().init(1), evaluator)
}

fn quantized(chain: Chain) -> Chain {
    let quantizer = QatConfig::new().with_start_step(4);
    chains::quantize(chain, QUANTIZE, quantizer).unwrap()
}

fn distilled(chain: Chain) -> Chain {
    chains::distill(chain, DISTILL, &NetConfig::default().init(100), 0.5).unwrap()
}

/// Taylor pruning by AGP, quantization-aware training and distillation.
fn whole(log_every: usize) -> Chain {
    let chain = chains::prune_by_schedule(chain(log_every), HALF, AgpConfig::new(3, 4)).unwrap();
    distilled(quantized(chain))
}

/// The reads of this thread while `part` runs.
fn reads_of<T>(part: impl FnOnce() -> T) -> (T, u64) {
    let before = reads::count();
    let result = part();
    (result, reads::count() - before)
}

fn advance(chain: &mut Chain, stop: Option<usize>) -> u64 {
    let (done, reads) = reads_of(|| chain.advance(&Budget::steps(STEPS), stop));
    done.unwrap();
    reads
}

#[rstest]
#[case::each_step(1, STEPS as u64)]
// After steps 5, 10, 15 and 16.
#[case::every_fifth(5, 4)]
#[case::the_last(1000, 1)]
fn a_whole_chain_reads_once_for_what_is_logged_and_once_a_decision(
    #[case] log_every: usize,
    #[case] logged: u64,
) {
    let mut chain = whole(log_every);
    let observed = chain.calibration().unwrap().len();
    assert!(observed > 10, "{observed} targets are observed");
    assert_eq!(advance(&mut chain, None), logged + DECISIONS);
}

#[test]
fn nothing_is_read_between_logged_steps() {
    let mut chain = distilled(quantized(chain(4)));
    // What is left to be read when a run stops is read then.
    assert_eq!(advance(&mut chain, Some(4)), 1);
    assert_eq!(advance(&mut chain, Some(7)), 1);
    assert_eq!(advance(&mut chain, Some(8)), 1);
    assert_eq!(advance(&mut chain, None), 2);
}

#[test]
fn the_run_is_the_same_however_often_it_reads() {
    let run = |log_every| {
        let compressed = whole(log_every).compress(Budget::steps(STEPS)).unwrap();
        Outcome::of(&compressed)
    };
    let each_step = run(1);
    assert_eq!(each_step.history.steps.len(), STEPS);
    for log_every in [3, 7, 100] {
        let difference = run(log_every).difference(&each_step);
        assert!(difference.is_empty(), "{log_every}: {difference:?}");
    }
}

#[test]
fn a_checkpoint_between_logged_steps_has_the_whole_history() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chain.ckpt");
    let straight = Outcome::of(&whole(1).compress(Budget::steps(STEPS)).unwrap());
    let mut first = whole(100);
    let budget = Budget::steps(STEPS).with_checkpoint(&file, 5);
    first.advance(&budget, Some(6)).unwrap();
    let resumed = whole(100).resume(&file).unwrap();
    assert_eq!(resumed.history().steps.len(), 5);
    let resumed = resumed.compress(Budget::steps(STEPS)).unwrap();
    assert_eq!(
        Outcome::of(&resumed).difference(&straight),
        Vec::<String>::new()
    );
}

#[rstest]
#[case::each_step(1, STEPS as u64)]
#[case::every_fifth(5, 4)]
fn a_trainee_reads_as_often(#[case] log_every: usize, #[case] logged: u64) -> Result<(), Error> {
    let trainee = whole(log_every).into_trainee(STEPS)?;
    let mut learner = Learner::new(trainee, AdamConfig::new().init(), 1e-3);
    let batches: Vec<Batch> = (0..STEPS).flat_map(|epoch| batches(5, epoch)).collect();
    let ((), reads) = reads_of(|| {
        for batch in batches.into_iter().take(STEPS) {
            let output = learner.train_step(batch);
            learner.lr_step();
            learner.optimizer_step(output.grads);
        }
    });
    assert_eq!(learner.model().error(), None);
    assert_eq!(reads, logged + DECISIONS);
    let compressed = learner.model().valid().finish()?;
    assert_eq!(compressed.history().steps.len(), STEPS);
    let losses = compressed.history().steps.iter().map(|step| step.loss);
    assert!(losses.into_iter().all(f64::is_finite));
    Ok(())
}

/// After the first step, in which scales and projections may begin with what is seen.
fn later_reads(name: &str, mut chain: Chain) -> u64 {
    advance(&mut chain, Some(1));
    let reads = advance(&mut chain, None);
    assert_eq!(chain.history().steps.len(), STEPS, "{name}");
    reads
}

#[test]
fn each_quantizer_reads_once_a_step() {
    for entry in quantizers::<Net, Batch>() {
        let rules = r#"[{"op_types": ["Conv2d"], "target_names": ["_input_", "weight"]}]"#;
        let chain = (entry.fuse)(chain(1), &ConfigList::from_json(rules).unwrap()).unwrap();
        assert_eq!(
            later_reads(entry.name, chain),
            STEPS as u64 - 1,
            "{}",
            entry.name
        );
    }
}

#[test]
fn each_distiller_reads_once_a_step() {
    for entry in distillers::<Net, Net, Batch>() {
        let rules = match entry.needs {
            Needs::Logits => r#"[{"op_names": ["head"], "lambda": 0.1}]"#,
            _ => r#"[{"op_types": ["Conv2d"], "lambda": 0.1}]"#,
        };
        let teacher = NetConfig::default().init(100);
        let supervision = Supervision::new(&teacher, teach, |batch: &Batch| batch.labels.clone());
        let rules = ConfigList::from_json(rules).unwrap();
        let chain = (entry.fuse)(chain(1), &rules, &supervision).unwrap();
        assert_eq!(
            later_reads(entry.name, chain),
            STEPS as u64 - 1,
            "{}",
            entry.name
        );
    }
}

#[test]
fn each_pruner_reads_once_more_for_a_decision() {
    for entry in pruners::<Net, Batch>() {
        let rules = ConfigList::from_json(HALF).unwrap();
        let mut chain = (entry.fuse)(chain(1), &rules, 3).unwrap();
        let reads = advance(&mut chain, None);
        // Movement decides after each step of its growth, the others once.
        let decisions = reads - STEPS as u64;
        assert!((1..=3).contains(&decisions), "{}: {decisions}", entry.name);
    }
}
