//! The plan of a chain before its run, beside what the run cuts.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::SgdConfig;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Tensor};
use burn_compress::prelude::*;
use burn_compress::{Certainty, History};

/// A stem, a residual block and a head.
#[derive(Module, Debug)]
struct Net {
    stem: Conv2d,
    norm: BatchNorm,
    first: Conv2d,
    second: Conv2d,
    head: Linear,
}

impl Net {
    fn new() -> Self {
        let device = Device::flex();
        device.seed(1);
        let conv = |inputs, outputs| {
            Conv2dConfig::new([inputs, outputs], [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(&device)
        };
        Self {
            stem: conv(2, 8),
            norm: BatchNormConfig::new(8).init(&device),
            first: conv(8, 6),
            second: conv(6, 8),
            head: LinearConfig::new(8, 3).init(&device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm.forward(self.stem.forward(x)));
        let x = relu(self.second.forward(relu(self.first.forward(x.clone()))) + x);
        self.head.forward(x.mean_dim(3).mean_dim(2).flatten(1, 3))
    }
}

fn evaluator() -> Evaluator<Net, Tensor<4>> {
    let device = Device::flex();
    device.seed(2);
    let images = Tensor::<4>::random([4, 2, 5, 5], Distribution::Default, &device);
    Evaluator::new()
        .with_dummy_input(DummyInput::new(images.clone(), Net::forward))
        .with_data(move |_| vec![images.clone()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.01)
        .with_loss(|model: &Net, images: &Tensor<4>| model.forward(images.clone()).square().mean())
}

fn half() -> Rule<PruningSettings> {
    on(["Conv2d"]).sparse_ratio(0.5)
}

#[test]
fn a_plan_before_the_training_is_what_the_run_cuts() {
    let chain = TaylorPruner::new(Net::new(), half(), evaluator(), TaylorConfig::new(2)).unwrap();
    let plan = chain.plan().unwrap();
    assert_eq!(plan.certainty(), Certainty::Counted);
    assert_eq!(plan.slices, None);
    // The stream of 8 channels and the 6 inside of the block.
    let groups: Vec<_> = plan
        .groups
        .iter()
        .map(|group| (group.channels, group.removed))
        .collect();
    assert_eq!(groups[..2], [(8, 4), (6, 3)]);
    assert!(plan.groups[..2].iter().all(|group| group.keep.is_none()));
    let text = plan.to_string();
    assert!(text.contains("the run decides which channels go"), "{text}");

    let compressed = chain.compress(Budget::steps(4)).unwrap();
    let dummy = compressed.dummy_input().unwrap().clone();
    let speedup = ModelSpeedup::new(compressed, dummy);
    let after = speedup.plan().unwrap();
    let small = speedup.speedup_model().unwrap();
    assert_eq!(
        (plan.params, plan.macs, plan.bytes, plan.activation_bytes),
        (
            after.params,
            after.macs,
            after.bytes,
            after.activation_bytes
        )
    );
    assert_eq!(
        (plan.params, plan.macs),
        (small.report.params, small.report.macs)
    );
    assert_eq!(after.slices, Some(small.plan));
    for (before, after) in plan.layers.iter().zip(&after.layers) {
        assert_eq!(
            (&before.target, &before.after, before.asked, before.reached),
            (&after.target, &after.after, after.asked, after.reached)
        );
    }
    let asked: Vec<_> = plan
        .layers
        .iter()
        .map(|layer| (layer.asked, layer.reached))
        .collect();
    let (pruned, follows) = ((Some(0.5), 0.5), (None, 0.5));
    assert_eq!(asked, [pruned, follows, pruned, pruned, (None, 0.0)]);
    let report: Vec<_> = (small.report.layers.iter())
        .map(|row| (row.asked, row.reached))
        .collect();
    assert_eq!(report, asked);
}

#[test]
fn a_plan_in_a_file_cuts_the_trained_model_elsewhere() {
    let chain = TaylorPruner::new(Net::new(), half(), evaluator(), TaylorConfig::new(2)).unwrap();
    let compressed = chain.compress(Budget::steps(4)).unwrap();
    let (raw, dummy) = (
        compressed.unwrap_model(),
        compressed.dummy_input().unwrap().clone(),
    );
    let speedup = ModelSpeedup::new(compressed, dummy.clone());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.plan");
    speedup.plan().unwrap().save(&path).unwrap();
    let small = CutPlan::load(&path).unwrap().apply(raw, &dummy).unwrap();
    let other = speedup.speedup_model().unwrap();
    let run = |net: &Net| dummy.run(net, &Device::flex());
    run(&small.model)[0].assert_eq(&run(&other.model)[0], true);
}

#[test]
fn what_the_scores_decide_is_an_estimate_with_its_reason() {
    let chain = |rule: Rule<PruningSettings>| {
        L1NormPruner::new(Net::new(), rule, evaluator(), PrunerConfig::new()).unwrap()
    };
    let plan = chain(half().global_group_id("all")).plan().unwrap();
    let Certainty::Estimated(reason) = plan.certainty() else {
        panic!("{plan}");
    };
    assert!(reason.contains("global group `all`"), "{reason}");
    // Evenly spread scores: about half of each.
    assert!(
        plan.groups[..2]
            .iter()
            .all(|group| group.removed.abs_diff(group.channels / 2) <= 1)
    );
    assert!(plan.to_string().contains("about "), "{plan}");

    let plan = chain(on(["Conv2d"]).sparse_threshold(1e-3)).plan().unwrap();
    assert_eq!(plan.groups[0].removed, 0);
    assert!(matches!(plan.certainty(), Certainty::Estimated(_)));
}

#[test]
fn masks_in_force_are_decided_before_the_run() {
    let chain = L1NormPruner::new(Net::new(), half(), evaluator(), PrunerConfig::new()).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let masks = compressed.masks();
    let model = burn_compress::Compressed::from_parts(
        compressed.unwrap_model(),
        &masks,
        &Calibration::new(),
        History::default(),
    )
    .unwrap()
    .into_model();
    let chain = Compressor::from_model(model, evaluator());
    let plan = chain.plan().unwrap();
    assert_eq!(plan.certainty(), Certainty::Decided);
    let speedup = ModelSpeedup::new(
        compressed.clone(),
        compressed.dummy_input().unwrap().clone(),
    );
    assert_eq!(plan.slices, speedup.plan().unwrap().slices);
}
