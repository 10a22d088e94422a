//! What is trained is what the formulas say.

use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress_core::{Budget, Compressed};

use super::*;
use crate::dkd::decoupled;
use crate::logits::soft_targets;
use crate::registry::{Needs, Supervision};
use crate::{
    AttentionConfig, AttentionDistiller, DkdConfig, DkdDistiller, FitNetsConfig, FitNetsDistiller,
    LogitsConfig, LogitsDistiller, RelationalConfig, RelationalDistiller, distillers,
};

/// Hidden states of the first convolution, `[4, width, 4, 4]`.
fn first(net: &Net) -> Tensor<4> {
    net.first.forward(batch(0).images)
}

fn scalar(tensor: Tensor<1>) -> f64 {
    f64::from(tensor.into_scalar::<f32>())
}

#[track_caller]
fn assert_total(compressed: &Compressed<Net>, expected: f64) {
    let (loss, _) = losses(compressed)[0];
    assert!(
        (loss - expected).abs() < 1e-5 * expected.abs().max(1.0),
        "{loss} for {expected}"
    );
}

fn student() -> Net {
    chain(3).unwrap_model().valid()
}

#[test]
fn soft_targets_are_weighted() {
    let (teacher, config) = (net(5, 2), LogitsConfig::new().with_temperature(2.0));
    let config = config.with_alpha(0.5).with_origin_loss_lambda(0.25);
    let chain = LogitsDistiller::from_compressor(
        chain(3),
        rules(r#"[{"op_names": ["fc"], "lambda": 3}]"#),
        &teacher,
        logits,
        config,
    );
    let compressed = chain.unwrap().compress(Budget::steps(1)).unwrap();
    let (student, teacher) = (student(), teacher.valid());
    let said = [&student, &teacher].map(|net| logits(net, &batch(0)));
    let [student_logits, teacher_logits] = said;
    let soft = scalar(soft_targets(student_logits, teacher_logits, 2.0));
    let task = scalar(task(&student, &batch(0)));
    assert_total(&compressed, 0.25 * task + 3.0 * 0.5 * soft);
}

#[test]
fn target_and_other_classes_are_weighted_and_warm_up() {
    let teacher = net(5, 2);
    let config = DkdConfig::new().with_beta(2.0).with_warmup_steps(4);
    let chain = DkdDistiller::from_compressor(
        chain(3),
        rules(r#"[{"op_names": ["fc"]}]"#),
        &teacher,
        logits,
        labels,
        config,
    );
    let mut chain = chain.unwrap();
    let budget = Budget::steps(2);
    chain.advance(&budget, Some(1)).unwrap();
    let before = chain.model().valid();
    let compressed = chain.compress(budget).unwrap();
    // Nothing at the first step, a quarter at the second.
    let (first, first_task) = losses(&compressed)[0];
    assert_eq!(first, first_task);
    let targets = Tensor::from_data(
        [[false, true], [true, false], [false, true], [true, false]],
        &Device::flex(),
    );
    let said = [&before, &teacher.valid()].map(|net| logits(net, &batch(1)));
    let [student_logits, teacher_logits] = said;
    let [target, others] = decoupled(student_logits, teacher_logits, targets, 4.0);
    let expected = scalar(target) + 2.0 * scalar(others);
    let (loss, task) = losses(&compressed)[1];
    assert!(
        (loss - task - expected / 4.0).abs() < 1e-5,
        "{loss} {task} {expected}"
    );
}

#[test]
fn attention_crosses_widths() {
    let teacher = net(5, 2);
    let chain = AttentionDistiller::from_compressor(
        chain(3),
        rules(r#"[{"op_names": ["first"], "lambda": 2}]"#),
        &teacher,
        logits,
        AttentionConfig::new().with_origin_loss_lambda(0.0),
    );
    let compressed = chain.unwrap().compress(Budget::steps(1)).unwrap();
    // By hand: energy over channels, normalised over the 16 positions.
    let map = |net: &Net| {
        let energy: Tensor<2> = first(net).square().sum_dim(1).reshape([4, 16]);
        let norm = energy.clone().square().sum_dim(1).sqrt();
        energy / norm
    };
    let difference = map(&student()) - map(&teacher.valid());
    assert_total(&compressed, 2.0 * scalar(difference.square().sum()) / 4.0);
}

#[test]
fn relations_cross_layers() {
    let teacher = net(5, 2);
    let config = RelationalConfig::new().with_distance_weight(2.0);
    let chain = RelationalDistiller::from_compressor(
        chain(3),
        rules(r#"[{"op_names": ["fc"], "link": "first"}]"#),
        &teacher,
        logits,
        config.with_angle_weight(3.0).with_origin_loss_lambda(0.0),
    );
    let compressed = chain.unwrap().compress(Budget::steps(1)).unwrap();
    let (student, teacher) = (student(), first(&teacher.valid()).reshape([4, 80]));
    let embedded = logits(&student, &batch(0));
    let distance = crate::relational::distance_loss(embedded.clone(), teacher.clone());
    let angle = crate::relational::angle_loss(embedded, teacher);
    assert_total(&compressed, 2.0 * scalar(distance) + 3.0 * scalar(angle));
}

#[test]
fn hints_alone_train_the_regressor() {
    let teacher = net(6, 2);
    let chain = FitNetsDistiller::from_compressor(
        chain(3),
        rules(r#"[{"op_names": ["second"]}]"#),
        &teacher,
        logits,
        FitNetsConfig::new()
            .with_origin_loss_lambda(0.0)
            .with_seed(3),
    );
    let compressed = chain.unwrap().compress(Budget::steps(60)).unwrap();
    let losses = losses(&compressed);
    let [(begin, _), .., (end, _)] = losses[..] else {
        panic!("sixty steps");
    };
    assert!(end < 0.3 * begin, "{begin} {end}");
}

#[test]
fn every_distiller_trains_by_its_name() {
    for entry in distillers::<Net, Net, Batch>() {
        let layers = match entry.needs {
            Needs::Logits => "fc",
            _ => "second",
        };
        let rules = rules(&format!(r#"[{{"op_names": ["{layers}"]}}]"#));
        let supervision = Supervision::new(&net(3, 2), logits, labels);
        let chain = (entry.fuse)(chain(3), &rules, &supervision).unwrap();
        assert_eq!(chain.algorithms(), [entry.name]);
        let compressed = chain.compress(Budget::steps(3)).unwrap();
        for (loss, task) in losses(&compressed) {
            assert!(loss > task, "{}: {loss} {task}", entry.name);
        }
        assert_ne!(
            bits(&compressed.unwrap_model()),
            bits(&student()),
            "{}",
            entry.name
        );
    }
}
