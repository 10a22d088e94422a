//! What does not fit is refused, by name.

use burn_compress_core::{Budget, Compressor, Error};
use rstest::rstest;

use super::*;
use crate::registry::Supervision;
use crate::{
    DistillConfig, DkdConfig, DkdDistiller, DynamicLayerwiseDistiller, LogitsConfig,
    LogitsDistiller, RelationalConfig, RelationalDistiller, Teacher, Teachers, distillers,
};

fn refused(chain: Result<Compressor<Net, Batch>, Error>) -> String {
    let error = chain.and_then(|chain| chain.compress(Budget::steps(1)));
    error.unwrap_err().to_string()
}

#[rstest]
#[case(
    "LogitsDistiller",
    r#"{"op_names": ["fc"], "link": "fc"}"#,
    "`link` of layer `fc`"
)]
#[case(
    "LogitsDistiller",
    r#"{"op_names": ["fc"], "apply_method": "kl"}"#,
    "`apply_method`"
)]
#[case(
    "LogitsDistiller",
    r#"{"op_names": ["fc"], "channels": "kept"}"#,
    "`channels`"
)]
#[case(
    "DkdDistiller",
    r#"{"op_names": ["fc"], "channel_dim": 1}"#,
    "`channel_dim`"
)]
#[case("DkdDistiller", r#"{"op_names": ["fc", "first"]}"#, "first._output_0")]
#[case("DkdDistiller", r#"{"op_names": ["first"]}"#, "[4, 3, 4, 4]")]
#[case(
    "AttentionDistiller",
    r#"{"op_names": ["first"], "apply_method": "mse"}"#,
    "attention maps"
)]
#[case("AttentionDistiller", r#"{"op_names": ["fc"]}"#, "several positions")]
#[case(
    "AttentionDistiller",
    r#"{"op_names": ["first"], "link": "second"}"#,
    "[4, 5, 2, 2]"
)]
#[case(
    "AttentionDistiller",
    r#"{"op_names": ["first"], "channel_dim": 4}"#,
    "`channel_dim` is 4"
)]
#[case(
    "AttentionDistiller",
    r#"{"op_names": ["first"], "link": "fc", "channel_dim": 3}"#,
    "`channel_dim` is 3, but must be a dimension of the hidden state of teacher layer `fc`"
)]
#[case(
    "RelationalDistiller",
    r#"{"op_names": ["fc"], "apply_method": "kl"}"#,
    "angles are"
)]
#[case(
    "Adaptive1dLayerwiseDistiller",
    r#"{"op_names": ["fc"], "link": ["fc", "first"]}"#,
    "2 links"
)]
#[case(
    "Adaptive1dLayerwiseDistiller",
    r#"{"op_names": ["fc"], "channels": "kept"}"#,
    "`channels`"
)]
#[case(
    "Adaptive1dLayerwiseDistiller",
    r#"{"op_names": ["fc"], "channel_dim": 1}"#,
    "last dimension"
)]
#[case(
    "Adaptive1dLayerwiseDistiller",
    r#"{"op_names": ["first"]}"#,
    "but the last must be equal"
)]
#[case(
    "FitNetsDistiller",
    r#"{"op_names": ["first"], "apply_method": "kl"}"#,
    "squared error"
)]
#[case(
    "FitNetsDistiller",
    r#"{"op_names": ["first"], "link": ["first", "second"]}"#,
    "2 links"
)]
#[case(
    "FitNetsDistiller",
    r#"{"op_names": ["first"], "link": "fc"}"#,
    "as many dimensions"
)]
#[case(
    "DynamicLayerwiseDistiller",
    r#"{"op_names": ["first"]}"#,
    "layers of equal shape"
)]
#[case(
    "DynamicLayerwiseDistiller",
    r#"{"op_names": ["first"], "link": "third"}"#,
    "third"
)]
fn rules_that_do_not_fit(#[case] name: &str, #[case] rule: &str, #[case] expected: &str) {
    let entry = distillers()
        .into_iter()
        .find(|entry| entry.name == name)
        .unwrap();
    let supervision = Supervision::new(&net(5, 2), logits, labels);
    let error = refused((entry.fuse)(
        chain(3),
        &rules(&format!("[{rule}]")),
        &supervision,
    ));
    assert!(error.contains(expected), "{error}");
    assert!(error.contains(name), "{error}");
}

const FC: &str = r#"[{"op_names": ["fc"]}]"#;

#[rstest]
#[case(LogitsConfig::new().with_temperature(0.0), "`temperature` is 0")]
#[case(LogitsConfig::new().with_temperature(f64::NAN), "`temperature` is NaN")]
#[case(LogitsConfig::new().with_alpha(-1.0), "`alpha` is -1")]
#[case(LogitsConfig::new().with_origin_loss_lambda(f64::INFINITY), "`origin_loss_lambda` is inf")]
fn settings_out_of_range(#[case] config: LogitsConfig, #[case] expected: &str) {
    let chain = LogitsDistiller::new(
        net(3, 1),
        rules(FC),
        evaluator(),
        &net(3, 2),
        logits,
        config,
    );
    let error = refused(chain);
    assert!(error.contains(expected), "{error}");
}

#[test]
fn weights_out_of_range() {
    let dkd = |config| {
        let teacher = net(3, 2);
        refused(DkdDistiller::new(
            net(3, 1),
            rules(FC),
            evaluator(),
            &teacher,
            logits,
            labels,
            config,
        ))
    };
    assert!(dkd(DkdConfig::new().with_beta(-2.0)).contains("`beta` is -2"));
    assert!(dkd(DkdConfig::new().with_alpha(f64::NAN)).contains("`alpha` is NaN"));
    assert!(dkd(DkdConfig::new().with_temperature(-1.0)).contains("`temperature` is -1"));
    let relational = |config| {
        let teacher = net(3, 2);
        let chain =
            RelationalDistiller::new(net(3, 1), rules(FC), evaluator(), &teacher, logits, config);
        refused(chain)
    };
    let config = RelationalConfig::new();
    assert!(relational(config.with_distance_weight(-1.0)).contains("`distance_weight`"));
    let config = RelationalConfig::new();
    assert!(relational(config.with_angle_weight(-1.0)).contains("`angle_weight`"));
}

#[test]
fn teachers_that_cannot_teach() {
    let logits_from = |teachers: Teachers<Batch>| {
        let config = LogitsConfig::new();
        refused(LogitsDistiller::from_teachers(
            chain(3),
            rules(FC),
            teachers,
            config,
        ))
    };
    let silent = || Teacher::new(&net(3, 2), logits);
    let speaking = || Teacher::of_logits(&net(3, 2), logits);
    assert!(logits_from(Teachers::new([])).contains("no teacher"));
    let error = logits_from(Teachers::new([speaking(), silent()]));
    assert!(error.contains("teacher 1 gives no logits"), "{error}");
    let error = logits_from(Teachers::from(speaking().with_weight(0.0)));
    assert!(error.contains("`weight` is 0"), "{error}");
    let error = logits_from(Teachers::from(speaking().with_layer("body", "first")));
    assert!(error.contains("no rule links to `body`"), "{error}");
}

#[test]
fn labels_that_do_not_fit() {
    let with = |labels: fn(&Batch) -> Tensor<1, Int>| {
        let config = DkdConfig::new();
        let teacher = net(3, 2);
        let chain =
            DkdDistiller::from_compressor(chain(3), rules(FC), &teacher, logits, labels, config);
        refused(chain)
    };
    assert!(with(|_| Tensor::from_ints([0], &Device::flex())).contains("4 rows of 2"));
    let error = with(|_| Tensor::from_ints([0, 1, 2, 0], &Device::flex()));
    assert!(error.contains("the label of row 2 is 2"), "{error}");
}

#[test]
fn a_batch_too_small_for_relations() {
    let single = evaluator().with_data(|_| {
        let mut batch = batch(0);
        batch.images = batch.images.narrow(0, 0, 2);
        vec![batch]
    });
    let with = |config: RelationalConfig| {
        let teacher = net(3, 2);
        let chain = RelationalDistiller::new(
            net(3, 1),
            rules(FC),
            single.clone(),
            &teacher,
            logits,
            config,
        );
        chain.and_then(|chain| chain.compress(Budget::steps(1)))
    };
    let error = with(RelationalConfig::new()).unwrap_err().to_string();
    assert!(error.contains("2 samples, but relations need 3"), "{error}");
    assert!(with(RelationalConfig::new().with_angle_weight(0.0)).is_ok());
}

#[test]
fn a_target_has_one_distiller() {
    let supervision = Supervision::new(&net(3, 2), logits, labels);
    let entries = distillers();
    let once = (entries[0].fuse)(chain(3), &rules(FC), &supervision).unwrap();
    let twice = refused((entries[5].fuse)(once, &rules(FC), &supervision));
    assert!(
        twice.contains("`fc._output_0` is already the target"),
        "{twice}"
    );
}

#[test]
fn outputs_that_a_layer_does_not_have() {
    let rules = r#"[{"op_names": ["first"], "target_names": ["_output_1"]}]"#;
    let chain = DynamicLayerwiseDistiller::new(
        net(3, 1),
        super::rules(rules),
        evaluator(),
        &net(3, 2),
        logits,
        DistillConfig::new(1.0),
    );
    let error = refused(chain);
    let expected = "there is no `first._output_1`: `first` has one output, `_output_0`";
    assert!(error.contains(expected), "{error}");
    assert!(!error.contains("Wrapper"), "{error}");
}
