//! Losses of a user's.

use burn_compress_core::{BoxError, Budget, Compressor, Configuration, Error};
use rstest::rstest;

use super::*;
use crate::feature::{FeatureLoss, FeaturePair, HiddenState, Learnables, check_feature_loss};
use crate::logit::{LogitLoss, LogitPair, check_logit_loss};
use crate::{
    DistillConfig, DistillationError, DynamicLayerwiseDistiller, FeatureDistiller, LogitDistiller,
    Teacher, TeacherAggregation, TeacherCache, Teachers,
};

/// The mean of the squared errors, scaled.
struct Squares(f64);

impl FeatureLoss for Squares {
    fn loss(&self, pair: &FeaturePair, _: &mut Learnables) -> Result<Tensor<1>, BoxError> {
        let error = pair.student.values() - pair.teacher.values();
        Ok((error.clone() * error).mean() * self.0)
    }

    fn is_distance(&self) -> bool {
        self.0 >= 0.0
    }

    fn configuration(&self) -> Configuration {
        Configuration::default().with("scale", &self.0)
    }
}

/// A projection of the channels of images, and a scale that is trained with it.
struct Projected;

impl FeatureLoss for Projected {
    fn loss(&self, pair: &FeaturePair, learnables: &mut Learnables) -> Result<Tensor<1>, BoxError> {
        let [samples, channels, positions] = pair.student.sizes();
        let rows = pair
            .student
            .channels_last()
            .reshape([samples * positions, channels]);
        let projected = learnables
            .linear(rows, pair.teacher.channels(), 5)?
            .flatten(0, 1);
        let scale = learnables.get_or_make("scale", &[1], || vec![1.0])?;
        let scaled = projected.clone() * scale.tensor_for(&projected);
        Ok((scaled - pair.teacher.channels_last().flatten(0, 2))
            .square()
            .mean())
    }

    fn check_pair(&self, pair: &FeaturePair) -> Result<(), DistillationError> {
        match pair.student.sizes()[2] == pair.teacher.sizes()[2] {
            true => Ok(()),
            false => Err(pair.incomparable("as many positions are needed")),
        }
    }
}

/// Squared errors between logits, those of the target class apart.
struct Regression {
    target: f64,
}

impl LogitLoss for Regression {
    fn loss(&self, pair: &LogitPair) -> Result<Tensor<1>, BoxError> {
        let error = (pair.student.clone() - pair.teacher.clone()).square();
        let target = error
            .clone()
            .gather(1, pair.labels()?.unsqueeze_dim::<2>(1));
        Ok(error.mean() + target.mean() * self.target)
    }

    fn needs_labels(&self) -> bool {
        true
    }

    fn configuration(&self) -> Configuration {
        Configuration::default().with("target", &self.target)
    }
}

const SECOND: &str = r#"[{"op_names": ["second"], "lambda": 2}]"#;
const FC: &str = r#"[{"op_names": ["fc"]}]"#;

fn squares(scale: f64, json: &str) -> Result<Compressor<Net, Batch>, Error> {
    let (config, teacher) = (rules(json), net(3, 2));
    let distiller = FeatureDistiller::with(Squares(scale)).with_origin_loss_lambda(0.5);
    distiller.from_compressor(chain(3), &config, &teacher, logits)
}

fn regression(target: f64) -> Result<Compressor<Net, Batch>, Error> {
    let distiller = LogitDistiller::with(Regression { target }).with_labels(labels);
    distiller.new(net(3, 1), rules(FC), evaluator(), &net(5, 2), logits)
}

fn projected() -> Result<Compressor<Net, Batch>, Error> {
    let (config, teacher) = (rules(SECOND), net(5, 2));
    FeatureDistiller::with(Projected).new(net(3, 1), &config, evaluator(), &teacher, logits)
}

#[test]
fn a_user_s_loss_is_weighed_as_a_built_in_one() {
    let chain = squares(1.0, SECOND).unwrap();
    assert_eq!(chain.algorithms(), ["Squares"]);
    let user = chain.compress(Budget::steps(4)).unwrap();
    let (config, teacher) = (rules(SECOND), net(3, 2));
    let options = DistillConfig::new(0.5);
    let built_in = DynamicLayerwiseDistiller::from_compressor(
        chain_of_three(),
        &config,
        &teacher,
        logits,
        options,
    );
    let built_in = built_in.unwrap().compress(Budget::steps(4)).unwrap();
    assert_eq!(losses(&user), losses(&built_in));
    assert_eq!(bits(&user.unwrap_model()), bits(&built_in.unwrap_model()));
}

fn chain_of_three() -> Compressor<Net, Batch> {
    chain(3)
}

#[test]
fn labels_and_lambda_reach_a_user_s_logit_loss() {
    let chain = regression(3.0).unwrap();
    assert_eq!(chain.algorithms(), ["Regression"]);
    let compressed = chain.compress(Budget::steps(1)).unwrap();
    let (student, teacher) = (
        logits(&net(3, 1).valid(), &batch(0)),
        logits(&net(5, 2).valid(), &batch(0)),
    );
    let error: Vec<f32> = values((student - teacher).square());
    // The labels are 0, 1, 0, 1.
    let target = (error[0] + error[3] + error[4] + error[7]) / 4.0;
    let mean = error.iter().sum::<f32>() / 8.0;
    let (loss, task) = losses(&compressed)[0];
    let expected = task + f64::from(mean + 3.0 * target);
    assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
}

type Make = fn() -> Result<Compressor<Net, Batch>, Error>;

#[rstest]
#[case::plain("plain", || squares(2.0, SECOND))]
#[case::learnables("learnables", projected)]
#[case::logits("logits", || regression(1.0))]
fn a_stopped_run_goes_on_bit_for_bit(#[case] name: &str, #[case] make: Make) {
    let budget = Budget::steps(6);
    let whole = make().unwrap().compress(budget.clone()).unwrap();
    let file = format!("burn-compress-{}-user-{name}", std::process::id());
    let path = std::env::temp_dir().join(file);
    let mut stopped = make().unwrap();
    stopped.advance(&budget, Some(2)).unwrap();
    stopped.save_checkpoint(&path).unwrap();
    let resumed = make().unwrap().resume(&path);
    std::fs::remove_file(&path).unwrap();
    let resumed = resumed.unwrap().compress(budget).unwrap();
    assert_eq!(losses(&resumed), losses(&whole));
    assert_eq!(bits(&resumed.unwrap_model()), bits(&whole.unwrap_model()));
}

#[test]
fn other_settings_do_not_resume() {
    let path = std::env::temp_dir().join(format!("burn-compress-{}-settings", std::process::id()));
    let mut saved = squares(1.0, SECOND).unwrap();
    saved.advance(&Budget::steps(6), Some(2)).unwrap();
    saved.save_checkpoint(&path).unwrap();
    let other = squares(3.0, SECOND).unwrap().resume(&path);
    let same = squares(1.0, SECOND).unwrap().resume(&path);
    std::fs::remove_file(&path).unwrap();
    let error = other.unwrap_err().to_string();
    assert!(
        error.contains("Squares: `scale` was 1.0, is 3.0"),
        "{error}"
    );
    assert!(same.is_ok());
}

#[test]
fn what_a_user_s_loss_learns_is_trained() {
    let compressed = projected().unwrap().compress(Budget::steps(60)).unwrap();
    let of_projection = |(loss, task): &(f64, f64)| loss - task;
    let losses = losses(&compressed);
    let begin = of_projection(&losses[0]);
    let end = of_projection(&losses[59]);
    assert!(end < 0.5 * begin, "{begin} {end}");
}

#[test]
fn each_link_has_learnables_of_its_own() {
    let json = r#"[{"op_names": ["second"], "link": ["first", "second"]}]"#;
    // As many positions in all of them.
    struct Averaged;
    impl FeatureLoss for Averaged {
        fn loss(&self, pair: &FeaturePair, made: &mut Learnables) -> Result<Tensor<1>, BoxError> {
            let mean = |state: &HiddenState| state.channels_last().mean_dim(1);
            let [samples, channels, _] = pair.student.sizes();
            let rows = mean(&pair.student).reshape([samples, channels]);
            let width = pair.teacher.channels();
            let taught = mean(&pair.teacher).reshape([samples, width]);
            Ok((made.linear(rows, width, 1)? - taught).square().mean())
        }

        fn check_pair(&self, _: &FeaturePair) -> Result<(), DistillationError> {
            Ok(())
        }
    }
    let distiller = FeatureDistiller::with(Averaged);
    let chain = distiller.new(net(3, 1), rules(json), evaluator(), &net(3, 2), logits);
    let mut chain = chain.unwrap();
    chain.advance(&Budget::steps(4), Some(1)).unwrap();
    let path = std::env::temp_dir().join(format!("burn-compress-{}-links", std::process::id()));
    chain.save_checkpoint(&path).unwrap();
    let saved = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let text = String::from_utf8_lossy(&saved);
    for link in ["first", "second"] {
        let name = format!("second._output_0/0/{link}._output_0/weight");
        assert!(text.contains(&name), "{name}");
    }
}

#[test]
fn teachers_caches_and_masked_channels_work_as_for_built_in_ones() {
    let loss = |teachers: Teachers<Batch>| {
        let distiller = FeatureDistiller::with(Squares(1.0)).with_origin_loss_lambda(0.0);
        let chain = distiller.from_teachers(chain(3), rules(SECOND), teachers);
        losses(&chain.unwrap().compress(Budget::steps(1)).unwrap())[0].0
    };
    let teacher = |seed: u64| Teacher::new(&net(3, seed), logits);
    let (one, other) = (loss(teacher(2).into()), loss(teacher(3).into()));
    let both = Teachers::new([teacher(2), teacher(3).with_weight(3.0)]);
    assert!((loss(both) - (one + 3.0 * other) / 4.0).abs() < 1e-6);
    let mean =
        Teachers::new([teacher(2), teacher(3)]).with_aggregation(TeacherAggregation::Outputs);
    assert!(loss(mean) < (one + other) / 2.0);
    let path =
        std::env::temp_dir().join(format!("burn-compress-{}-user-cache", std::process::id()));
    for _ in 0..2 {
        let cache = TeacherCache::open(&path, |batch: &Batch| batch.keys.clone()).unwrap();
        assert_eq!(loss(teacher(2).with_cache(cache).into()), one);
    }
    std::fs::remove_file(&path).unwrap();
    let kept = r#"[{"op_names": ["second"], "channels": "kept"}]"#;
    let error = squares(1.0, kept)
        .unwrap()
        .compress(Budget::steps(1))
        .unwrap_err();
    assert!(
        error.to_string().contains("no pruner of the chain"),
        "{error}"
    );
}

/// A loss that gives these values.
struct Gives(Vec<f32>, bool);

impl Gives {
    fn loss(&self, student: Tensor<1>) -> Tensor<1> {
        let values = Tensor::<1>::from_floats(&self.0[..], &student.device());
        values + student.sum() * 0.0
    }
}

impl FeatureLoss for Gives {
    fn loss(&self, pair: &FeaturePair, _: &mut Learnables) -> Result<Tensor<1>, BoxError> {
        Ok(self.loss(pair.student.values()))
    }

    fn is_distance(&self) -> bool {
        self.1
    }
}

impl LogitLoss for Gives {
    fn loss(&self, pair: &LogitPair) -> Result<Tensor<1>, BoxError> {
        Ok(self.loss(pair.student.clone().flatten(0, 1)))
    }

    fn is_distance(&self) -> bool {
        self.1
    }
}

fn refused(chain: Result<Compressor<Net, Batch>, Error>) -> String {
    let error = chain.and_then(|chain| chain.compress(Budget::steps(1)));
    error.unwrap_err().to_string()
}

#[rstest]
#[case(vec![1.0, 2.0], false, "has 2 numbers")]
#[case(vec![f32::NAN], false, "is NaN, but must be finite")]
#[case(vec![f32::INFINITY], false, "is inf, but must be finite")]
#[case(vec![-2.0], true, "is -2, but must be at least 0")]
fn broken_laws_name_distiller_and_layer(
    #[case] values: Vec<f32>,
    #[case] is_distance: bool,
    #[case] expected: &str,
) {
    let gives = || Gives(values.clone(), is_distance);
    let features = FeatureDistiller::with(gives());
    let features = features.new(net(3, 1), rules(SECOND), evaluator(), &net(3, 2), logits);
    let classes = LogitDistiller::with(gives());
    let classes = classes.new(net(3, 1), rules(FC), evaluator(), &net(3, 2), logits);
    for (error, layer) in [(refused(features), "second"), (refused(classes), "fc")] {
        assert!(error.starts_with("Gives: "), "{error}");
        assert!(
            error.contains(&format!("student layer `{layer}`")),
            "{error}"
        );
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_negative_loss_is_no_error_unless_it_is_a_distance() {
    let distiller = FeatureDistiller::with(Gives(vec![-2.0], false));
    let chain = distiller.new(net(3, 1), rules(SECOND), evaluator(), &net(3, 2), logits);
    let compressed = chain.unwrap().compress(Budget::steps(1)).unwrap();
    let (loss, task) = losses(&compressed)[0];
    assert!((loss - task + 4.0).abs() < 1e-6, "{loss} {task}");
}

#[test]
fn data_that_are_not_finite_are_no_fault_of_the_distiller() {
    let evaluator = evaluator().with_loss(|net: &Net, batch: &Batch| task(net, batch) * f32::NAN);
    let distiller = FeatureDistiller::with(Gives(vec![f32::NAN], false));
    let chain = distiller.new(net(3, 1), rules(SECOND), evaluator, &net(3, 2), logits);
    let error = chain.unwrap().compress(Budget::steps(1)).unwrap_err();
    assert!(matches!(error, Error::LossNotFinite { .. }), "{error}");
}

#[rstest]
#[case(
    r#"[{"op_names": ["second"], "apply_method": "kl"}]"#,
    "`apply_method`"
)]
#[case(
    r#"[{"op_names": ["second"], "link": "first"}]"#,
    "layers of equal shape"
)]
#[case(r#"[{"op_names": ["second"], "link": "third"}]"#, "third")]
fn rules_that_do_not_fit(#[case] json: &str, #[case] expected: &str) {
    let error = refused(squares(1.0, json));
    assert!(error.starts_with("Squares: "), "{error}");
    assert!(error.contains(expected), "{error}");
}

#[test]
fn labels_that_are_missing_are_found_before_the_run() {
    let distiller = LogitDistiller::with(Regression { target: 1.0 });
    let chain = distiller.new(net(3, 1), rules(FC), evaluator(), &net(3, 2), logits);
    let error = chain.unwrap_err().to_string();
    assert!(
        error.contains("Regression: ") && error.contains("with_labels"),
        "{error}"
    );
    let labels = |_: &Batch| Tensor::from_ints([0, 1, 2, 0], &Device::flex());
    let distiller = LogitDistiller::with(Regression { target: 1.0 }).with_labels(labels);
    let chain = distiller.new(net(3, 1), rules(FC), evaluator(), &net(3, 2), logits);
    let error = refused(chain);
    assert!(
        error.contains("Regression: the label of row 2 is 2"),
        "{error}"
    );
}

#[test]
fn a_state_of_another_rank_is_named() {
    let state = HiddenState::new(
        "a._output_0".parse().unwrap(),
        Tensor::<3>::ones([1, 2, 3], &Device::flex()),
        1,
    );
    let state = state.unwrap();
    let error = state.tensor::<4>().unwrap_err();
    let expected = DistillationError::Rank {
        layer: "a".into(),
        shape: vec![1, 2, 3],
        expected: 4,
    };
    assert_eq!(error, expected);
    assert!(HiddenState::new("a._output_0".parse().unwrap(), state.samples(), 2).is_err());
}

#[test]
fn laws_are_tested_outside_of_a_run() {
    let state = |values: [[f32; 2]; 2]| {
        let values = Tensor::<2>::from_floats(values, &Device::flex());
        HiddenState::new("a._output_0".parse().unwrap(), values, 1).unwrap()
    };
    let pair = FeaturePair::new(
        state([[1.0, 2.0], [3.0, 4.0]]),
        state([[0.0, 1.0], [1.0, 0.0]]),
    );
    assert!(check_feature_loss(&Squares(1.0), &pair).is_ok());
    let broken = |loss: Gives| check_feature_loss(&loss, &pair).unwrap_err().to_string();
    assert!(broken(Gives(vec![1.0, 1.0], false)).contains("2 numbers"));
    assert!(broken(Gives(vec![1.0], true)).contains("0 where student and teacher are equal"));
    assert!(broken(Gives(vec![-1.0], true)).contains("at least 0"));
    let logits = LogitPair::new(pair.student.samples(), pair.teacher.samples());
    assert!(check_logit_loss(&Gives(vec![1.0], false), &logits).is_ok());
    assert!(check_logit_loss(&Gives(vec![1.0], true), &logits).is_err());
    let labels = Tensor::from_ints([0, 1], &Device::flex());
    let labelled = logits.with_labels(labels).unwrap();
    assert!(check_logit_loss(&Regression { target: 1.0 }, &labelled).is_ok());
}
