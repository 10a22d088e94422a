//! A run that was stopped and resumed ends bit for bit like one that was not.
//!
//! Dropout draws from the one random generator that a device has, so the tests of this file take
//! turns.

use std::error::Error as StdError;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress::Error;
use burn_compress::prelude::*;
use burn_compress_tests::nets::{Batch, Net, NetConfig, Outcome, bits, evaluator};
use rstest::rstest;
use tempfile::TempDir;

type Chain = Compressor<Net, Batch>;
type Built = Result<Chain, Box<dyn StdError>>;

/// Three epochs of seven batches and three more.
const STEPS: usize = 24;

static TURN: Mutex<()> = Mutex::new(());

fn take_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

const NET: NetConfig = NetConfig {
    stem: 6,
    width: 8,
    dropout: 0.3,
};
const PRUNE: &str = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]"#;
const QUANTIZE: &str = r#"[
    {"op_types": ["Conv2d"], "quant_dtype": "int8",
     "target_settings": {"weight": {"granularity": "out_channel"}}},
    {"op_types": ["Linear"], "quant_dtype": "int4", "quant_scheme": "affine"}
]"#;
const DISTILL: &str = r#"[{"op_types": ["Conv2d"], "lambda": 0.1}]"#;

fn pruned(seed: u64) -> Built {
    let chain = TaylorPruner::new(
        NET.init(seed),
        &ConfigList::from_json(PRUNE)?,
        evaluator(STEPS).with_evaluation(5, |net: &Net| f64::from(mean(net))),
        TaylorConfig::new(2),
    )?;
    Ok(AgpPruner::new(chain, AgpConfig::new(4, 5))?)
}

fn quantized(chain: Chain) -> Built {
    let config = QatConfig::new().with_start_step(3);
    Ok(QatQuantizer::from_compressor(
        chain,
        &ConfigList::from_json(QUANTIZE)?,
        config,
    )?)
}

fn distilled(chain: Chain) -> Built {
    Ok(DynamicLayerwiseDistiller::from_compressor(
        chain,
        &ConfigList::from_json(DISTILL)?,
        &NET.init(100),
        |teacher: &Net, batch: &Batch| teacher.forward(batch.images.clone()),
        DistillConfig::new(0.7),
    )?)
}

/// Pruner, quantizer and distiller over a network with the weights of `seed`.
fn fused(seed: u64) -> Chain {
    pruned(seed)
        .and_then(quantized)
        .and_then(distilled)
        .unwrap()
}

fn mean(net: &Net) -> f32 {
    let weights: Vec<f32> = net.head.weight.val().into_data().try_to_vec().unwrap();
    weights.iter().sum::<f32>() / weights.len() as f32
}

#[test]
fn stopped_at_any_step_it_ends_bit_for_bit_the_same() {
    let _turn = take_turn();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.checkpoint");
    let budget = Budget::steps(STEPS);
    let whole = Outcome::of(&fused(1).compress(budget.clone()).unwrap());
    assert_eq!(whole.history.steps.len(), STEPS);
    assert_eq!(
        whole
            .history
            .evaluations
            .iter()
            .map(|e| e.0)
            .collect::<Vec<_>>(),
        [5, 10, 15, 20, 24]
    );
    for stop in 0..=STEPS {
        let mut chain = fused(1);
        chain.advance(&budget, Some(stop)).unwrap();
        chain.save_checkpoint(&path).unwrap();
        drop(chain);
        // Other weights and other parameter ids, all of which the checkpoint replaces.
        let resumed = fused(2 + stop as u64).resume(&path).unwrap();
        let found = Outcome::of(&resumed.compress(budget.clone()).unwrap());
        assert_eq!(found.difference(&whole), [""; 0], "stopped at {stop}");
    }
}

#[test]
fn dropout_draws_the_same_only_because_of_the_seed() {
    // The counterpart of the test above: dropout does matter there.
    let _turn = take_turn();
    let budget = Budget::steps(3);
    let losses = |seed: u64| -> Vec<f64> {
        let evaluator = evaluator(STEPS).with_seed(seed);
        let chain = Compressor::from_model(NET.init(1), evaluator);
        let history = chain.compress(budget.clone()).unwrap().history().clone();
        history.steps.iter().map(|record| record.loss).collect()
    };
    assert_eq!(losses(3), losses(3));
    assert_ne!(losses(3), losses(4));
}

#[rstest]
#[case::once(&[9])]
#[case::often(&[1, 2, 7, 8, 14, 20, 23])]
fn it_may_stop_more_than_once(#[case] stops: &[usize]) {
    let _turn = take_turn();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.checkpoint");
    let budget = Budget::steps(STEPS);
    let whole = Outcome::of(&fused(1).compress(budget.clone()).unwrap());
    let mut chain = fused(1);
    for &stop in stops {
        chain.advance(&budget, Some(stop)).unwrap();
        chain.save_checkpoint(&path).unwrap();
        chain = fused(7).resume(&path).unwrap();
    }
    assert_eq!(
        Outcome::of(&chain.compress(budget).unwrap()).difference(&whole),
        [""; 0]
    );
}

#[test]
fn advancing_in_parts_is_advancing_at_once() {
    let _turn = take_turn();
    let budget = Budget::steps(STEPS);
    let whole = Outcome::of(&fused(1).compress(budget.clone()).unwrap());
    let mut chain = fused(1);
    for stop in [3, 7, 8, 21] {
        chain.advance(&budget, Some(stop)).unwrap();
    }
    assert_eq!(
        Outcome::of(&chain.compress(budget).unwrap()).difference(&whole),
        [""; 0]
    );
}

#[test]
fn a_chain_that_has_already_run_takes_over_the_checkpoint_alone() {
    let _turn = take_turn();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.checkpoint");
    let budget = Budget::steps(STEPS);
    let whole = Outcome::of(&fused(1).compress(budget.clone()).unwrap());
    let mut chain = fused(1);
    chain.advance(&budget, Some(10)).unwrap();
    chain.save_checkpoint(&path).unwrap();
    // Back to step 10, with the same chain.
    chain.advance(&budget, Some(17)).unwrap();
    let chain = chain.resume(&path).unwrap();
    assert_eq!(
        Outcome::of(&chain.compress(budget).unwrap()).difference(&whole),
        [""; 0]
    );
}

#[test]
fn checkpoints_are_left_at_every_interval() {
    let _turn = take_turn();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.checkpoint");
    let budget = Budget::epochs(3).with_checkpoint(&path, 5);
    let whole = Outcome::of(&fused(1).compress(budget.clone()).unwrap());
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "one file, replaced"
    );
    let without = Outcome::of(&fused(1).compress(Budget::epochs(3)).unwrap());
    assert_eq!(
        without.difference(&whole),
        [""; 0],
        "saving changes nothing"
    );
    // Three epochs are 21 steps: the last multiple of 5 is 20.
    let mut chain = fused(2).resume(&path).unwrap();
    let before = bits(chain.model());
    chain.advance(&budget, Some(20)).unwrap();
    assert!(
        before == bits(chain.model()),
        "the checkpoint is that of step 20"
    );
    let compressed = chain.compress(Budget::epochs(3)).unwrap();
    assert_eq!(compressed.history().steps.len(), 21);
    assert_eq!(Outcome::of(&compressed).difference(&whole), [""; 0]);
}

/// Digits from 0 to 27 in batches of four, in another order each epoch.
fn shuffled() -> Arc<dyn DataLoader<Tensor<2>>> {
    struct Column;

    impl Batcher<usize, Tensor<2>> for Column {
        fn batch(&self, items: Vec<usize>, device: &Device) -> Tensor<2> {
            let values: Vec<f32> = items.iter().map(|&item| item as f32 / 28.0).collect();
            Tensor::from_data(TensorData::new(values, [items.len(), 1]), device)
        }
    }

    let dataset = InMemDataset::new((0..28).collect());
    DataLoaderBuilder::new(Column)
        .batch_size(4)
        .shuffle(5)
        .build(dataset)
}

#[derive(Module, Debug)]
struct Line {
    fc: Linear,
}

/// A line through the shuffled digits; with a data loader that is as new as the chain.
fn line() -> Compressor<Line, Tensor<2>> {
    let device = Device::flex();
    let mut fc = LinearConfig::new(1, 1).init(&device);
    fc.weight = Param::from_data(TensorData::from([[0.25f32]]), &device);
    fc.bias = Some(Param::from_data(TensorData::from([0.5f32]), &device));
    let evaluator = Evaluator::new()
        .with_data_loader(shuffled())
        .with_optimizer(burn::optim::AdamConfig::new().init())
        .with_learning_rate(1e-2)
        .with_loss(|line: &Line, x: &Tensor<2>| line.fc.forward(x.clone()).square().mean());
    Compressor::from_model(Line { fc }, evaluator)
}

#[rstest]
#[case::steps(Budget::steps(21))]
#[case::epochs(Budget::epochs(3))]
fn a_shuffling_data_loader_goes_on_with_the_order_it_had(#[case] budget: Budget) {
    let _turn = take_turn();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.checkpoint");
    let whole = line().compress(budget.clone()).unwrap();
    assert_eq!(whole.history().steps.len(), 21);
    for stop in [1, 6, 7, 8, 13, 14, 20] {
        let mut chain = line();
        chain.advance(&budget, Some(stop)).unwrap();
        chain.save_checkpoint(&path).unwrap();
        let resumed = line()
            .resume(&path)
            .unwrap()
            .compress(budget.clone())
            .unwrap();
        assert_eq!(resumed.history(), whole.history(), "stopped at {stop}");
        assert_eq!(
            bits(resumed.model()),
            bits(whole.model()),
            "stopped at {stop}"
        );
    }
}

#[test]
fn a_metric_that_is_not_a_number_does_not_spoil_the_checkpoint() {
    let _turn = take_turn();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.checkpoint");
    let chain = || {
        let evaluator = evaluator(STEPS).with_evaluation(1, |_: &Net| f64::NAN);
        Compressor::from_model(NET.init(1), evaluator)
    };
    let mut stopped = chain();
    stopped.advance(&Budget::steps(4), Some(2)).unwrap();
    stopped.save_checkpoint(&path).unwrap();
    let compressed = chain()
        .resume(&path)
        .unwrap()
        .compress(Budget::steps(4))
        .unwrap();
    let evaluations = &compressed.history().evaluations;
    assert_eq!(evaluations.len(), 4);
    assert!(evaluations.iter().all(|(_, metric)| metric.is_nan()));
}

/// A checkpoint of the fused chain after 9 steps.
fn written(path: &Path) -> Vec<u8> {
    let mut chain = fused(1);
    chain.advance(&Budget::steps(STEPS), Some(9)).unwrap();
    chain.save_checkpoint(path).unwrap();
    fs::read(path).unwrap()
}

/// What a chain says about the checkpoint at `path`.
fn refusal(chain: Chain, path: &Path) -> String {
    match chain.resume(path) {
        Err(error @ Error::Checkpoint { .. }) => {
            let text = error.to_string();
            assert!(text.contains(&path.display().to_string()), "{text}");
            text
        }
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("the checkpoint was accepted"),
    }
}

#[test]
fn damaged_checkpoints_are_refused() {
    let _turn = take_turn();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.checkpoint");
    let bytes = written(&path);
    let chain = || fused(2);
    for length in [0, 1, 8, 16, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        refusal(chain(), &path);
    }
    // One bit anywhere: in the header, the metadata, the model, the optimizer, the masks.
    for part in 0..24 {
        let at = (bytes.len() - 1) * part / 23;
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        fs::write(&path, &damaged).unwrap();
        refusal(chain(), &path);
    }
    let mut longer = bytes.clone();
    longer.extend([0; 64]);
    fs::write(&path, &longer).unwrap();
    refusal(chain(), &path);
    fs::write(&path, &bytes).unwrap();
    assert!(chain().resume(&path).is_ok());
}

#[test]
fn foreign_and_missing_files_are_refused() {
    let _turn = take_turn();
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("none");
    refusal(fused(1), &missing);
    refusal(fused(1), folder.path());
    let text = folder.path().join("text");
    fs::write(&text, "step 9 of 24\n".repeat(40)).unwrap();
    refusal(fused(1), &text);
    let model = folder.path().join("model.bpk");
    NET.init(1).save_file(&model).unwrap();
    let text = refusal(fused(1), &model);
    assert!(
        text.contains("not a checkpoint of a compression run"),
        "{text}"
    );
}

#[test]
fn checkpoints_of_other_chains_are_refused_with_the_difference() {
    let _turn = take_turn();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.checkpoint");
    written(&path);

    let text = refusal(pruned(1).and_then(quantized).unwrap(), &path);
    for word in [
        "[\"AgpPruner\", \"QatQuantizer\", \"DynamicLayerwiseDistiller\"]",
        "this chain is",
    ] {
        assert!(text.contains(word), "{text}");
    }
    let other_order = pruned(1).and_then(distilled).and_then(quantized).unwrap();
    refusal(other_order, &path);

    // The same algorithms on fewer layers, then on more.
    let fewer = |chain: Chain| -> Built {
        let rules = r#"[{"op_names": ["stem"], "quant_dtype": "int8"}]"#;
        Ok(QatQuantizer::from_compressor(
            chain,
            &ConfigList::from_json(rules)?,
            QatConfig::new(),
        )?)
    };
    let text = refusal(
        pruned(1).and_then(fewer).and_then(distilled).unwrap(),
        &path,
    );
    assert!(text.contains("which is no target of this chain"), "{text}");
    let mut small = pruned(1).and_then(fewer).and_then(distilled).unwrap();
    small.advance(&Budget::steps(STEPS), Some(1)).unwrap();
    small.save_checkpoint(&path).unwrap();
    let text = refusal(fused(1), &path);
    assert!(text.contains("it lacks `"), "{text}");
}

#[test]
fn a_checkpoint_of_a_wider_model_is_refused() {
    let _turn = take_turn();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.checkpoint");
    let chain = |width: usize| {
        let net = NetConfig { width, ..NET }.init(1);
        let config = ConfigList::from_json(QUANTIZE).unwrap();
        QatQuantizer::new(net, &config, evaluator(STEPS), QatConfig::new()).unwrap()
    };
    let mut wide = chain(12);
    wide.advance(&Budget::steps(4), Some(2)).unwrap();
    wide.save_checkpoint(&path).unwrap();
    let text = refusal(chain(8), &path);
    assert!(text.contains("block.conv1"), "{text}");
}

#[test]
fn a_shorter_budget_than_that_of_the_checkpoint_is_an_error() {
    let _turn = take_turn();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.checkpoint");
    written(&path);
    // The last update of the pruning schedule is after step 20.
    let error = fused(2)
        .resume(&path)
        .unwrap()
        .compress(Budget::steps(12))
        .unwrap_err();
    assert!(matches!(error, Error::Budget { .. }), "{error}");
    assert!(error.to_string().contains("20"), "{error}");
    let plain = |steps: usize| {
        let mut chain = Compressor::from_model(NET.init(1), evaluator(STEPS));
        chain.advance(&Budget::steps(steps), None).unwrap();
        chain
    };
    plain(9).save_checkpoint(&path).unwrap();
    let error = plain(0)
        .resume(&path)
        .unwrap()
        .compress(Budget::steps(5))
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Budget { .. }), "{text}");
    assert!(text.contains('9') && text.contains('5'), "{text}");
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let _turn = take_turn();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.checkpoint");
    let before = written(&path);
    let error = fused(1)
        .save_checkpoint(folder.path().join("none").join("file"))
        .unwrap_err();
    assert!(matches!(error, Error::Checkpoint { .. }), "{error}");

    // A chain whose algorithm cannot tell its state.
    let mut chain = fused(1);
    chain.push(Stateless);
    let error = chain.save_checkpoint(&path).unwrap_err();
    assert!(
        error.to_string().contains("Stateless: no state today"),
        "{error}"
    );
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let nowhere = folder.path().join("none").join("file");
    let error = fused(1)
        .compress(Budget::steps(STEPS).with_checkpoint(nowhere, 5))
        .unwrap_err();
    assert!(matches!(error, Error::Checkpoint { .. }), "{error}");
    // What is left over from a save that was killed does not stop the next one.
    fs::write(folder.path().join("run.checkpoint.tmp"), "half").unwrap();
    fused(1).save_checkpoint(&path).unwrap();
    assert!(fused(2).resume(&path).is_ok());
}

struct Stateless;

impl burn_compress::Algorithm<Net, Batch> for Stateless {
    fn name(&self) -> &'static str {
        "Stateless"
    }

    fn mode(&self) -> burn_compress::Mode {
        burn_compress::Mode::Pruning
    }

    fn state(&self) -> Result<burn_compress::AlgorithmState, burn_compress::BoxError> {
        Err("no state today".into())
    }

    fn into_any(self: Box<Self>) -> Box<dyn std::any::Any> {
        self
    }
}
