use burn::grad_clipping::GradientClippingConfig;
use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::module::ParamGroup;
use burn::nn::{Linear, LinearConfig};
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{
    AdaGradConfig, AdamConfig, AdamWConfig, LionConfig, MuonConfig, RmsPropConfig, SgdConfig,
};
use burn::tensor::Device;

use super::*;

fn model() -> AnyModel {
    AnyModel::new(LinearConfig::new(3, 5).init(&Device::flex()).train())
}

fn of(optimizer: ModuleOptimizer, schedule: impl Into<ModuleLrScheduler>) -> Profile {
    let model = model();
    let parts = (optimizer, schedule.into());
    Profile::of(parts, &model, &trained(&model), Profile::sampled(10)).unwrap()
}

/// Optimizers that differ in one thing, which no record shows before a step.
fn optimizers() -> Vec<ModuleOptimizer> {
    let momentum = |momentum| MomentumConfig::new().with_momentum(momentum);
    let sgd = SgdConfig::new();
    vec![
        sgd.init(),
        sgd.clone().with_momentum(Some(momentum(0.9))).init(),
        sgd.clone().with_momentum(Some(momentum(0.8))).init(),
        sgd.clone()
            .with_weight_decay(Some(WeightDecayConfig::new(1e-4)))
            .init(),
        sgd.clone()
            .with_gradient_clipping(Some(GradientClippingConfig::Norm(2.0)))
            .init(),
        sgd.with_gradient_clipping(Some(GradientClippingConfig::Value(2.0)))
            .init(),
        AdamConfig::new().init(),
        AdamConfig::new().with_epsilon(1e-8).init(),
        AdamConfig::new().with_beta_1(0.89).init(),
        AdamConfig::new().with_beta_2(0.998).init(),
        AdamConfig::new().with_amsgrad(true).init(),
        AdamConfig::new()
            .with_weight_decay(Some(WeightDecayConfig::new(1e-4)))
            .init(),
        AdamWConfig::new().with_weight_decay(1e-4).init(),
        AdamWConfig::new().with_weight_decay(2e-4).init(),
        AdaGradConfig::new().init(),
        RmsPropConfig::new().init(),
        LionConfig::new().init(),
    ]
}

#[test]
fn every_kind_of_optimizer_and_every_number_is_told_apart() {
    let all: Vec<Profile> = optimizers().into_iter().map(|one| of(one, 0.1)).collect();
    for (at, one) in all.iter().enumerate() {
        for (other_at, other) in all.iter().enumerate() {
            let found = one.differences(other);
            assert_eq!(
                found.is_empty(),
                at == other_at,
                "{at} and {other_at}: {found:?}"
            );
        }
    }
}

#[test]
fn an_optimizer_that_has_stepped_is_the_same() {
    let mut stepped = AdamConfig::new().init();
    let model = model();
    let mut gradients = GradientsParams::new();
    gradients.register(
        model.get::<Linear>().weight.id,
        Tensor::<2>::ones([3, 5], &Device::flex()),
    );
    let model = stepped.step(0.1, model, gradients);
    let profile = |optimizer: ModuleOptimizer| {
        let parts = (optimizer, 0.1.into());
        Profile::of(parts, &model, &trained(&model), vec![1]).unwrap()
    };
    let fresh = profile(AdamConfig::new().init());
    assert_eq!(profile(stepped), fresh);
    let text = serde_json::to_string(&fresh).unwrap();
    assert_eq!(serde_json::from_str::<Profile>(&text).unwrap(), fresh);
}

#[test]
fn differences_name_what_burn_shows() {
    let texts = |now: &Profile, saved: &Profile| -> Vec<String> {
        let found = now.differences(saved);
        found.iter().map(ToString::to_string).collect()
    };
    let adam = of(AdamConfig::new().init(), 0.1);
    let sgd = of(SgdConfig::new().init(), 0.1);
    assert!(sgd.is_other_kind(&adam));
    let found = texts(&sgd, &adam);
    let state = "evaluator: `state of the optimizer` was momentum.moment_1 momentum.moment_2 \
                 momentum.time, is none";
    assert_eq!(found[0], state);
    assert!(
        found[1].contains("step that the optimizer makes"),
        "{found:?}"
    );

    let faster = of(AdamConfig::new().init(), 0.2);
    assert!(!faster.is_other_kind(&adam));
    let expected = ["evaluator: `learning rate of step 1` was 0.1, is 0.2"];
    assert_eq!(texts(&faster, &adam), expected);
    // Equal at first.
    let falling = LinearLrSchedulerConfig::new(0.1, 0.05, 10).init().unwrap();
    let found = texts(&of(AdamConfig::new().init(), falling), &adam);
    assert!(
        found[0].contains("learning rate of step 2` was 0.1"),
        "{found:?}"
    );
}

#[test]
fn a_group_of_parameters_is_named() {
    let bias = ParamGroup::from_path("bias");
    let grouped = AdamConfig::new()
        .init()
        .with_group(bias.clone(), SgdConfig::new().build(), None);
    let adam = of(AdamConfig::new().init(), 0.1);
    let found = of(grouped, 0.1).differences(&adam);
    assert!(
        found
            .iter()
            .all(|one| one.target.as_deref() == Some("bias"))
    );
    assert!(!found.is_empty());
    let rates = ModuleLrScheduler::new(0.1).with_group(bias, 0.05);
    let found = of(AdamConfig::new().init(), rates).differences(&adam);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].target.as_deref(), Some("bias"));
}

#[test]
fn matrices_have_stand_ins_that_are_matrices() {
    let linear = LinearConfig::new(3, 5).with_bias(false);
    let model = AnyModel::new(linear.init(&Device::flex()).train());
    let profile = |config: MuonConfig| {
        let parts = (config.init(), 0.1.into());
        Profile::of(parts, &model, &trained(&model), vec![]).unwrap()
    };
    let other = MuonConfig::new().with_momentum(MomentumConfig::new().with_momentum(0.5));
    let found = profile(other).differences(&profile(MuonConfig::new()));
    assert!(!found.is_empty());
}

#[test]
fn sampled_steps_cover_the_run() {
    assert!(Profile::sampled(0).is_empty());
    assert_eq!(Profile::sampled(3), [1, 2, 3]);
    let many = Profile::sampled(1000);
    assert!(many.len() <= RATES + 1);
    assert_eq!((many[0], many[many.len() - 1]), (1, 1000));
    assert!(many.windows(2).all(|pair| pair[0] < pair[1]));
}
