//! Numbers that JSON cannot hold, in rules that are built in code.

use burn_compress::prelude::*;
use burn_compress::quantization::ObserverKind;
use burn_compress_tests::chains;

use crate::fixtures::{chain, rule};
use crate::table::Cases;

pub(super) fn fill(cases: &mut Cases) {
    type Set = fn(&mut PruningSettings, f64);
    let keys: [(&str, Set); 4] = [
        ("sparse_ratio", |settings, value| {
            settings.sparse_ratio = Some(value)
        }),
        ("sparse_threshold", |settings, value| {
            settings.sparse_ratio = None;
            settings.sparse_threshold = Some(value);
        }),
        ("max_sparse_ratio", |settings, value| {
            settings.max_sparse_ratio = Some(value)
        }),
        ("min_sparse_ratio", |settings, value| {
            settings.min_sparse_ratio = Some(value)
        }),
    ];
    for (key, set) in keys {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let parts = [
                "rule 0".to_owned(),
                "stem".to_owned(),
                format!("`{key}` is {value}"),
            ];
            cases.refused(
                format!("{key}: {value} in code"),
                "Invalid",
                parts,
                move || {
                    let mut settings = PruningSettings {
                        sparse_ratio: Some(0.5),
                        ..PruningSettings::default()
                    };
                    set(&mut settings, value);
                    L1NormPruner::from_compressor(chain(), rule(settings), PrunerConfig::new())?;
                    Ok(())
                },
            );
        }
    }
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.5] {
        let parts = [
            "stem".to_owned(),
            format!("`lambda` is {value}"),
            "finite".to_owned(),
        ];
        cases.refused(
            format!("lambda: {value} in code"),
            "Invalid",
            parts,
            move || {
                let settings = DistillationSettings {
                    lambda: Some(value),
                    ..DistillationSettings::default()
                };
                let config = rule(settings);
                let options = DistillConfig::new(1.0);
                DynamicLayerwiseDistiller::from_compressor(
                    chain(),
                    &config,
                    &crate::fixtures::net(),
                    chains::teach,
                    options,
                )?;
                Ok(())
            },
        );
    }
    for percent in [f64::NAN, f64::INFINITY, 50.0, 100.1] {
        let parts = ["stem", "`observer`", "percentage"];
        cases.refused(
            format!("percentile: {percent} in code"),
            "Invalid",
            parts,
            move || {
                let settings = QuantizationSettings {
                    observer: Some(ObserverKind::Percentile(percent)),
                    ..QuantizationSettings::default()
                };
                QatQuantizer::from_compressor(chain(), rule(settings), QatConfig::new())?;
                Ok(())
            },
        );
    }
    cases.refused("NaN written as JSON", "Write", ["JSON"], || {
        let settings = PruningSettings {
            sparse_ratio: Some(f64::NAN),
            ..PruningSettings::default()
        };
        rule(settings).to_json()?;
        Ok(())
    });
    cases.refused("no rules in code", "NoRules", ["no rules"], || {
        let config = ConfigList::<PruningSettings>::new(Vec::new());
        L1NormPruner::from_compressor(chain(), &config, PrunerConfig::new())?;
        Ok(())
    });
    cases.refused(
        "a rule without a selector in code",
        "NoSelector",
        ["rule 0"],
        || {
            let config = ConfigList::<QuantizationSettings>::new(vec![Rule::new()]);
            QatQuantizer::from_compressor(chain(), &config, QatConfig::new())?;
            Ok(())
        },
    );
}
