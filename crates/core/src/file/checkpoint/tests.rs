mod forged;

use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::Param;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, SgdConfig};
use burn::tensor::{Device, Tensor, TensorData};

use crate::{
    Budget, Calibration, CalibrationEntry, Compressor, Error, Evaluator, Grid, Mask, Masks,
    QuantScheme, RoundGradient, Target, TargetId,
};

type Chain = Compressor<Linear, Tensor<2>>;

const ROWS: [[f32; 2]; 6] = [
    [1.0, -0.5],
    [0.25, 2.0],
    [-1.5, 0.75],
    [0.5, 0.5],
    [2.0, -1.0],
    [-0.75, 1.25],
];

#[derive(Clone)]
struct Rows;

impl Batcher<[f32; 2], Tensor<2>> for Rows {
    fn batch(&self, items: Vec<[f32; 2]>, device: &Device) -> Tensor<2> {
        let size = items.len();
        Tensor::from_data(TensorData::new(items.concat(), [size, 2]), device)
    }
}

/// Three batches of two rows, in another order each epoch.
fn shuffled() -> Arc<dyn DataLoader<Tensor<2>>> {
    DataLoaderBuilder::new(Rows)
        .batch_size(2)
        .shuffle(11)
        .set_device(Device::flex())
        .build(InMemDataset::new(ROWS.to_vec()))
}

fn weight() -> TargetId {
    TargetId::new("", Target::param("weight"))
}

fn entry() -> CalibrationEntry {
    CalibrationEntry {
        dtype: "int8".into(),
        scheme: QuantScheme::Symmetric,
        qmin: -127.0,
        qmax: 127.0,
        grid: Grid::new([2, 1]),
        gradient: RoundGradient::StraightThrough,
        enabled: true,
        scale: Some(vec![0.1, 1.0 / 3.0]),
        zero_point: Some(vec![0.0, 0.0]),
        minimum: None,
        maximum: Some(vec![0.7, f32::MIN_POSITIVE]),
    }
}

/// A masked and rounded linear layer that learns with Adam.
fn chain() -> Chain {
    let device = Device::flex();
    let mut linear = LinearConfig::new(2, 3).init(&device);
    let values = [[0.5, -1.25, 0.75], [1.5, 0.25, -0.5]];
    linear.weight = Param::from_data(TensorData::from(values), &device);
    linear.bias = Some(Param::from_data(TensorData::from([0.1, 0.2, 0.3]), &device));
    let evaluator = Evaluator::new()
        .with_data_loader(shuffled())
        .with_optimizer(AdamConfig::new().init())
        .with_learning_rate(0.05)
        .with_loss(|model: &Linear, batch: &Tensor<2>| {
            model.forward(batch.clone()).powi_scalar(2).mean()
        });
    let mut chain = Compressor::from_model(linear, evaluator);
    let mask = Mask::new(vec![1.0, 0.0, 1.0, 1.0, 1.0, 0.0], [2, 3]).unwrap();
    chain
        .update_masks(&Masks::from([(weight(), mask)]))
        .unwrap();
    chain
        .update_calibration(&Calibration::from([(weight(), entry())]))
        .unwrap();
    chain
}

/// Raw parameters and losses, to the last bit.
fn bits(chain: &Chain) -> (Vec<u32>, Vec<u64>) {
    let model = chain.model();
    let bias = model.bias.as_ref().map(|bias| bias.base());
    let parts = [Some(model.weight.base().reshape([6])), bias];
    let values = parts.into_iter().flatten();
    let values = values.flat_map(|part| part.into_data().try_to_vec::<f32>().unwrap());
    let steps = chain.history().steps.iter();
    (
        values.map(f32::to_bits).collect(),
        steps.map(|record| record.loss.to_bits()).collect(),
    )
}

fn whole() -> Chain {
    let mut chain = chain();
    chain.advance(&Budget::steps(8), None).unwrap();
    chain
}

#[test]
fn a_run_is_resumed_wherever_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let expected = bits(&whole());
    // 3 and 6 are between two epochs.
    for stop in 0..=8 {
        let mut first = chain();
        first.advance(&Budget::steps(8), Some(stop)).unwrap();
        first.save_checkpoint(&path).unwrap();
        let mut second = chain().resume(&path).unwrap();
        assert_eq!(bits(&second), bits(&first), "stopped after {stop}");
        assert_eq!(second.masks(), first.masks());
        let calibration = second.calibration().unwrap();
        assert_eq!(calibration, Calibration::from([(weight(), entry())]));
        second.advance(&Budget::steps(8), None).unwrap();
        assert_eq!(bits(&second), expected, "stopped after {stop}");
    }
}

#[test]
fn a_run_goes_on_between_two_epochs() {
    let expected = bits(&whole());
    for stop in [0, 3, 6, 8] {
        let mut chain = chain();
        chain.advance(&Budget::steps(8), Some(stop)).unwrap();
        chain.advance(&Budget::steps(8), None).unwrap();
        assert_eq!(bits(&chain), expected, "stopped after {stop}");
    }
}

#[test]
fn looking_at_the_data_does_not_change_that_of_a_resumed_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let looked = || {
        let chain = chain();
        chain
            .evaluator()
            .forward(&[chain.model()], 2, || Ok(()))
            .unwrap();
        chain
    };
    let mut expected = looked();
    expected.advance(&Budget::steps(8), None).unwrap();
    for stop in [2, 3, 5] {
        let mut first = looked();
        first.advance(&Budget::steps(8), Some(stop)).unwrap();
        first.save_checkpoint(&path).unwrap();
        let mut second = looked().resume(&path).unwrap();
        second.advance(&Budget::steps(8), None).unwrap();
        assert_eq!(bits(&second), bits(&expected), "stopped after {stop}");
    }
}

#[test]
fn a_file_of_another_chain_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    chain().save_checkpoint(&path).unwrap();
    let reason = |chain: Chain| match chain.resume(&path) {
        Err(Error::Checkpoint { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let plain = || Compressor::from_model(chain().unwrap_model(), chain().evaluator().clone());
    assert!(reason(plain()).contains("holds `weight`"));
    let mut more = chain();
    more.chain()
        .watch(&[TargetId::new("", Target::param("bias"))])
        .unwrap();
    assert!(reason(more).contains("lacks `bias`"));
}

/// Why a checkpoint of [`chain`] is not resumed with this evaluator.
fn refused(
    path: &std::path::Path,
    evaluator: impl Fn(Evaluator<Linear, Tensor<2>>) -> Evaluator<Linear, Tensor<2>>,
) -> Vec<String> {
    let mut other = chain();
    other.evaluator = evaluator(other.evaluator.clone());
    other.inner.evaluator = other.evaluator.erased();
    match other.resume(path) {
        Err(Error::Changed { differences, .. }) => {
            differences.iter().map(ToString::to_string).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_evaluator_is_refused_with_every_difference() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut first = chain();
    first.advance(&Budget::steps(8), Some(3)).unwrap();
    first.save_checkpoint(&path).unwrap();

    let found = refused(&path, |e| e.with_optimizer(SgdConfig::new().init()));
    assert!(found[0].contains("state of the optimizer"), "{found:?}");
    let other = AdamConfig::new().with_epsilon(1e-3).init();
    assert_eq!(refused(&path, |e| e.with_optimizer(other.clone())).len(), 1);
    let found = refused(&path, |e| e.with_learning_rate(0.01).with_seed(5));
    let expected = [
        "evaluator: `seed` was not set, is 5",
        "evaluator: `learning rate of step 1` was 0.05, is 0.01",
    ];
    assert_eq!(found, expected);
    let none = |_| Evaluator::new();
    let expected = ["evaluator: `optimizer and learning rate` was set, is not set"];
    assert_eq!(refused(&path, none), expected);
}

#[test]
fn accepted_changes_count_from_the_next_step_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut first = chain();
    first.advance(&Budget::steps(8), Some(3)).unwrap();
    first.save_checkpoint(&path).unwrap();
    let mut other = chain();
    other.evaluator = other
        .evaluator
        .clone()
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.01);
    other.inner.evaluator = other.evaluator.erased();
    let mut resumed = other.resume_with_changes(&path).unwrap();
    assert_eq!(bits(&resumed), bits(&first));
    resumed.advance(&Budget::steps(8), Some(4)).unwrap();
    let rates = resumed
        .history()
        .steps
        .iter()
        .map(|step| step.learning_rate);
    assert_eq!(rates.collect::<Vec<_>>(), [0.05, 0.05, 0.05, 0.01]);
    resumed.save_checkpoint(&path).unwrap();
    assert!(chain().resume(&path).is_err());
    let compressed = resumed.finish_early().unwrap();
    let [warning] = compressed.warnings() else {
        panic!("{:?}", compressed.warnings());
    };
    assert!(warning.contains("is resumed with changes"), "{warning}");
    assert!(warning.contains("optimizer"), "{warning}");
}
