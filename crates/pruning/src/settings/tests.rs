use super::*;
use crate::Axes;
use crate::PruningError;
use burn::module::ParamId;
use burn_compress_core::config::{ConfigList, Settings};
use burn_compress_core::layer::{LayerInfo, LayerKind, LayerRole, ParamInfo, PortChannels};
use rstest::rstest;

fn layer(kind: &str, params: &[(&str, &[usize])]) -> LayerInfo {
    let params = params.iter().map(|(name, shape)| ParamInfo {
        name: name.to_string(),
        shape: shape.to_vec(),
        id: ParamId::new(),
    });
    LayerInfo {
        path: "layer".to_string(),
        kind: kind.to_string(),
        wrapped: false,
        params: params.collect(),
    }
}

fn linear() -> LayerInfo {
    layer("Linear", &[("weight", &[12, 16]), ("bias", &[16])])
}

fn read(text: &str) -> PruningSettings {
    serde_json::from_str(text).unwrap()
}

#[test]
fn group_ids_are_strings_or_integers() {
    assert_eq!(
        read(r#"{"global_group_id": 3, "dependency_group_id": "add"}"#),
        PruningSettings {
            global_group_id: Some("3".to_string()),
            dependency_group_id: Some("add".to_string()),
            ..Default::default()
        }
    );
    assert!(serde_json::from_str::<PruningSettings>(r#"{"global_group_id": 0.5}"#).is_err());
}

#[test]
fn an_unknown_key_is_an_error() {
    let error = serde_json::from_str::<PruningSettings>(r#"{"sparsity": 0.5}"#).unwrap_err();
    assert!(error.to_string().contains("sparse_ratio"), "{error}");
}

#[test]
fn what_is_written_is_read_back_and_absent_keys_stay_absent() {
    let text = r#"{"sparse_ratio":0.5,"granularity":[[2],"back",-1],"apply_method":"add"}"#;
    assert_eq!(serde_json::to_string(&read(text)).unwrap(), text);
    let text = r#"{"align":{"module_name":"conv1","target_name":"weight","dims":[0]}}"#;
    assert_eq!(serde_json::to_string(&read(text)).unwrap(), text);
}

#[rstest]
#[case(r#"{"sparse_ratio": 0.0}"#)]
#[case(r#"{"sparse_ratio": 1}"#)]
#[case(r#"{"sparse_threshold": -0.5, "min_sparse_ratio": 0.2, "max_sparse_ratio": 0.2}"#)]
#[case(r#"{"sparse_ratio": 0.5, "dependency_group_id": 0, "global_group_id": 0}"#)]
#[case(r#"{"sparse_threshold": 0.5, "dependency_group_id": 0, "internal_metric_block": 2}"#)]
#[case(r#"{"align": {"target_name": "weight", "dims": [0]}, "granularity": "per_channel"}"#)]
#[case(r#"{"align": {"target_name": "weight", "dims": [0]}, "sparse_threshold": 0.1}"#)]
#[case(r#"{"pattern": "2:4"}"#)]
#[case(r#"{"pattern": "2:4", "granularity": "default", "apply_method": "mul"}"#)]
#[case(r#"{"sparse_ratio": 0.5, "round_to": 8, "activation": "relu"}"#)]
#[case(r#"{"sparse_ratio": 0.5, "global_group_id": 0, "internal_metric_block": 2, "round_to": 8}"#)]
fn good_settings(#[case] text: &str) {
    read(text).check().unwrap();
}

#[rstest]
#[case(r#"{}"#, "nothing to prune to")]
#[case(r#"{"granularity": "out_channel"}"#, "nothing to prune to")]
#[case(
    r#"{"sparse_ratio": 1.01}"#,
    "`sparse_ratio` is 1.01; expected a number from 0 to 1"
)]
#[case(r#"{"sparse_ratio": -0.1}"#, "`sparse_ratio` is -0.1")]
#[case(
    r#"{"sparse_ratio": 0.5, "sparse_threshold": 0.5}"#,
    "exclude each other"
)]
#[case(
    r#"{"sparse_ratio": 0.5, "max_sparse_ratio": 0.0}"#,
    "`max_sparse_ratio` is 0"
)]
#[case(
    r#"{"sparse_ratio": 0.5, "min_sparse_ratio": 1.0}"#,
    "`min_sparse_ratio` is 1"
)]
#[case(
    r#"{"sparse_ratio": 0.5, "min_sparse_ratio": 0.4, "max_sparse_ratio": 0.3}"#,
    "at most `max_sparse_ratio`"
)]
#[case(
    r#"{"sparse_ratio": 0.5, "internal_metric_block": 2}"#,
    "without `dependency_group_id` or `global_group_id`"
)]
#[case(
    r#"{"sparse_ratio": 0.5, "round_to": 0}"#,
    "`round_to` is 0; expected at least 1"
)]
#[case(
    r#"{"pattern": "2:4", "sparse_ratio": 0.5}"#,
    "`pattern` and `sparse_ratio` exclude each other"
)]
#[case(
    r#"{"pattern": "2:4", "global_group_id": 1}"#,
    "`pattern` and `global_group_id`"
)]
#[case(r#"{"pattern": "2:4", "round_to": 2}"#, "`pattern` and `round_to`")]
#[case(
    r#"{"pattern": "2:4", "granularity": "out_channel"}"#,
    "`pattern` and `granularity`"
)]
#[case(
    r#"{"align": {"target_name": "weight", "dims": [0]}, "round_to": 2}"#,
    "`round_to` has no effect without"
)]
#[case(
    r#"{"align": {"target_name": "weight", "dims": [0]}, "activation": "relu"}"#,
    "`activation` has no effect without"
)]
#[case(
    r#"{"sparse_ratio": 0.5, "dependency_group_id": 0, "internal_metric_block": 0}"#,
    "`internal_metric_block` is 0"
)]
#[case(
    r#"{"sparse_threshold": 0.5, "global_group_id": 0}"#,
    "exclude each other"
)]
#[case(
    r#"{"sparse_ratio": 0.5, "align": {"target_name": "weight", "dims": [0]}}"#,
    "`sparse_ratio` and `align` exclude each other"
)]
#[case(
    r#"{"min_sparse_ratio": 0.5, "align": {"target_name": "weight", "dims": [0]}}"#,
    "`min_sparse_ratio` has no effect without"
)]
fn bad_settings(#[case] text: &str, #[case] message: &str) {
    let error = read(text).check().unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

#[test]
fn nan_and_infinity_are_refused() {
    for value in [f64::NAN, f64::INFINITY] {
        for settings in [
            PruningSettings {
                sparse_ratio: Some(value),
                ..Default::default()
            },
            PruningSettings {
                sparse_threshold: Some(value),
                ..Default::default()
            },
            PruningSettings {
                sparse_ratio: Some(0.5),
                max_sparse_ratio: Some(value),
                ..Default::default()
            },
        ] {
            assert!(
                matches!(settings.check(), Err(PruningError::Setting { .. })),
                "{settings:?}"
            );
        }
    }
}

#[test]
fn a_goal_replaces_another_kind_of_goal() {
    let ratio = read(r#"{"sparse_ratio": 0.5, "global_group_id": 1, "max_sparse_ratio": 0.9}"#);
    let align = read(r#"{"align": {"target_name": "weight", "dims": [0]}}"#);
    let threshold = read(r#"{"sparse_threshold": 0.1}"#);

    assert_eq!(ratio.clone().merge(&align), align);
    assert_eq!(align.clone().merge(&ratio), ratio);
    let merged = read(r#"{"sparse_ratio": 0.5}"#).merge(&threshold);
    assert_eq!(merged, threshold);
    align.merge(&threshold).check().unwrap();
    // The group of a ratio goes with it, and the parts of the group.
    let parts = read(
        r#"{"sparse_ratio": 0.5, "global_group_id": 1, "internal_metric_block": 2,
            "max_sparse_ratio": 0.9}"#,
    );
    assert_eq!(
        parts.merge(&threshold),
        read(r#"{"sparse_threshold": 0.1, "max_sparse_ratio": 0.9}"#)
    );
    let wider = ratio.merge(&read(r#"{"max_sparse_ratio": 0.95}"#));
    assert_eq!(
        wider,
        read(r#"{"sparse_ratio": 0.5, "global_group_id": 1, "max_sparse_ratio": 0.95}"#)
    );
}

#[test]
fn a_pattern_replaces_a_goal_of_blocks_and_the_other_way_round() {
    let ratio = read(
        r#"{"sparse_ratio": 0.5, "global_group_id": 1, "round_to": 2, "granularity": "in_channel"}"#,
    );
    let pattern = read(r#"{"pattern": "2:4"}"#);
    assert_eq!(ratio.clone().merge(&pattern), pattern);
    assert_eq!(pattern.merge(&ratio), ratio);
}

#[test]
fn a_pattern_must_fit_the_parameter() {
    let weight = Target::param("weight");
    read(r#"{"pattern": "2:4"}"#)
        .validate(&linear(), &weight)
        .unwrap();
    let error = read(r#"{"pattern": "2:8"}"#).validate(&linear(), &weight);
    assert!(
        error
            .unwrap_err()
            .contains("does not divide dim 0 of the shape [12, 16]")
    );
    assert!(serde_json::from_str::<PruningSettings>(r#"{"pattern": "4:4"}"#).is_err());
}

#[rstest]
#[case(linear(), &["weight", "bias"])]
#[case(layer("Conv2d", &[("weight", &[8, 3, 3, 3])]), &["weight"])]
#[case(layer("ConvTranspose1d", &[("weight", &[4, 8, 3]), ("bias", &[8])]), &["weight", "bias"])]
#[case(layer("BatchNorm", &[("gamma", &[8]), ("beta", &[8])]), &["gamma", "beta"])]
#[case(layer("Embedding", &[("weight", &[20, 8])]), &["weight"])]
#[case(layer("LayerNorm", &[("gamma", &[8]), ("beta", &[8])]), &[])]
fn default_targets(#[case] layer: LayerInfo, #[case] names: &[&str]) {
    let names: Vec<Target> = names.iter().map(|name| Target::param(*name)).collect();
    assert_eq!(PruningSettings::default_targets(&layer), names);
}

#[test]
fn a_registered_type_is_pruned_as_its_row_has_it() {
    let kind = LayerKind::new("RowsOfDense", LayerRole::Weighted);
    let kind = kind.with_param("weight", Some(1), Some(0));
    let registered = kind.with_channels(PortChannels::Last).register();
    registered.unwrap();
    let layer = layer("RowsOfDense", &[("weight", &[12, 16]), ("bias", &[16])]);
    let targets = ["weight", "bias"].map(Target::param);
    assert_eq!(PruningSettings::default_targets(&layer), targets);
    let bias = PruningSettings::template(&layer, &targets[1]);
    assert_eq!(bias.align.unwrap().dims, [1]);
    let axes = Axes::of("RowsOfDense", &Target::Output(0), 3);
    assert_eq!(axes, Axes::Activation { channel: 2 });
}

#[test]
fn a_bias_follows_the_output_channels_of_its_weight() {
    let shortcuts = read(r#"{"sparse_ratio": 0.5, "granularity": "in_channel"}"#);
    let bias = Target::param("bias");
    let of = |layer: &LayerInfo, name: &str, explicit| {
        PruningSettings::resolve(layer, &Target::param(name), &shortcuts, explicit)
    };
    assert_eq!(of(&linear(), "weight", None), shortcuts);
    // The weight of a linear layer is [in, out].
    assert_eq!(
        of(&linear(), "bias", None),
        read(r#"{"align": {"target_name": "weight", "dims": [1]}}"#)
    );
    let norm = layer("BatchNorm", &[("gamma", &[8]), ("beta", &[8])]);
    assert_eq!(
        of(&norm, "beta", None),
        read(r#"{"align": {"target_name": "gamma", "dims": [0]}}"#)
    );
    let own = read(r#"{"sparse_ratio": 0.25}"#);
    assert_eq!(of(&linear(), "bias", Some(&own)), own);
    assert_eq!(shortcuts.validate(&linear(), &bias), Ok(()));
    // A group of thresholds is one of the weights.
    let group = read(r#"{"sparse_threshold": 0.5, "dependency_group_id": 1}"#);
    assert_eq!(group.validate(&linear(), &bias), Ok(()));
    let range = read(r#"{"sparse_ratio": 1.5}"#).validate(&linear(), &bias);
    assert!(range.unwrap_err().starts_with("`sparse_ratio` is 1.5"));
}

#[test]
fn a_granularity_must_fit_the_parameter() {
    let weight = Target::param("weight");
    let settings = read(r#"{"sparse_ratio": 0.5, "granularity": [5, 1]}"#);
    assert_eq!(
        settings.validate(&linear(), &weight).unwrap_err(),
        "block size 5 does not divide dim 0 of size 12 in the shape [12, 16]; use a divisor or -1"
    );
    let settings = read(r#"{"sparse_ratio": 0.5, "granularity": "per_channel"}"#);
    let error = settings.validate(&linear(), &weight).unwrap_err();
    assert!(error.contains("`per_channel`"), "{error}");
}

#[test]
fn scaling_by_one_changes_nothing() {
    let settings = read(
        r#"{"sparse_threshold": 0.1, "min_sparse_ratio": 0.3, "max_sparse_ratio": 0.7,
            "granularity": "in_channel"}"#,
    );
    assert_eq!(settings.scaled(1.0), settings);
    let half = settings.scaled(0.5);
    assert_eq!(half.sparse_threshold, Some(0.05));
    assert_eq!(
        (half.min_sparse_ratio, half.max_sparse_ratio),
        (Some(0.15), Some(0.35))
    );
    half.check().unwrap();
}

#[test]
fn a_configuration_selects_weights_by_goal_and_biases_by_alignment() {
    let layers = [
        LayerInfo {
            path: "fc".to_string(),
            ..linear()
        },
        LayerInfo {
            path: "norm".to_string(),
            ..layer("BatchNorm", &[("gamma", &[16]), ("beta", &[16])])
        },
    ];
    let config = ConfigList::from_json(
        r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5, "granularity": "out_channel"},
            {"op_types": ["BatchNorm"], "target_settings": {"gamma": {"sparse_ratio": 0.25}}}]"#,
    )
    .unwrap();
    let selected = PruningSettings::select(&config, &layers).unwrap();
    let settings: Vec<_> = selected
        .iter()
        .map(|s| (s.id().to_string(), s.settings.clone()))
        .collect();
    assert_eq!(
        settings,
        [
            (
                "fc.weight",
                r#"{"sparse_ratio": 0.5, "granularity": "out_channel"}"#
            ),
            (
                "fc.bias",
                r#"{"align": {"target_name": "weight", "dims": [1]}}"#
            ),
            ("norm.gamma", r#"{"sparse_ratio": 0.25}"#),
            (
                "norm.beta",
                r#"{"align": {"target_name": "gamma", "dims": [0]}}"#
            ),
        ]
        .map(|(id, text)| (id.to_string(), read(text)))
    );

    let bias = r#"{"bias": {"max_sparse_ratio": 0.5}}"#;
    let text =
        format!(r#"[{{"op_types": ["Linear"], "sparse_ratio": 0.5, "target_settings": {bias}}}]"#);
    let config = ConfigList::from_json(&text).unwrap();
    let error = PruningSettings::select(&config, &layers)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("fc.bias: `max_sparse_ratio` has no effect without"),
        "{error}"
    );
}
