//! The options that algorithms have beside their rules.

use burn::tensor::Tensor;
use burn_compress::config::Settings;
use burn_compress::prelude::*;
use burn_compress::pruning::{Schedule, ScheduleKind};
use burn_compress::quantization::{LsqInit, QuantDtype};
use burn_compress_tests::chains::{self, HALF};
use burn_compress_tests::nets::{Batch, Net};

use crate::fixtures::{DISTILL, NET, QUANTIZE, chain, prune};
use crate::table::Cases;

/// Numbers that are no weight of a loss.
const NO_WEIGHTS: [f64; 4] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0];
/// Numbers that are not positive and finite.
const NOT_POSITIVE: [f64; 5] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0];

fn rules<S: Settings>(text: &str) -> ConfigList<S> {
    ConfigList::from_json(text).expect("rules that fit")
}

pub fn fill(cases: &mut Cases) {
    pruners(cases);
    schedules(cases);
    quantizers(cases);
    distillers(cases);
}

fn pruners(cases: &mut Cases) {
    let half = || rules::<PruningSettings>(HALF);
    let steps = ["`training_steps` is 0", "at least 1"];
    cases.refused("TaylorPruner: no steps", "Setting", steps, move || {
        TaylorPruner::from_compressor(chain(), half(), TaylorConfig::new(0))?;
        Ok(())
    });
    cases.refused("FisherPruner: no steps", "Setting", steps, move || {
        FisherPruner::from_compressor(chain(), half(), FisherConfig::new(0))?;
        Ok(())
    });
    cases.refused("ActivationPruner: no steps", "Setting", steps, move || {
        ActivationPruner::from_compressor(chain(), half(), ActivationConfig::new(0))?;
        Ok(())
    });
    cases.refused("ApozPruner: no steps", "Setting", steps, move || {
        ApozPruner::from_compressor(chain(), half(), ApozConfig::new(0))?;
        Ok(())
    });
    cases.refused("SlimPruner: no steps", "Setting", steps, move || {
        SlimPruner::from_compressor(chain(), half(), SlimConfig::new(0))?;
        Ok(())
    });
    for value in NO_WEIGHTS {
        let part = [
            format!("`regular_scale` is {value}"),
            "at least 0".to_owned(),
        ];
        let name = format!("SlimPruner: regular_scale {value}");
        cases.refused(name, "Setting", part.clone(), move || {
            let options = SlimConfig::new(2).with_regular_scale(value);
            SlimPruner::from_compressor(chain(), half(), options)?;
            Ok(())
        });
        let name = format!("MovementPruner: regular_scale {value}");
        cases.refused(name, "Setting", part, move || {
            let options = MovementConfig::new(1, 3).with_regular_scale(value);
            MovementPruner::from_compressor(chain(), half(), options)?;
            Ok(())
        });
    }
    for value in NOT_POSITIVE {
        let part = [format!("`learning_rate` is {value}"), "above 0".to_owned()];
        let name = format!("SlimPruner: learning_rate {value}");
        cases.refused(name, "Setting", part.clone(), move || {
            let options = SlimConfig::new(2).with_learning_rate(value);
            SlimPruner::from_compressor(chain(), half(), options)?;
            Ok(())
        });
        let name = format!("MovementPruner: learning_rate {value}");
        cases.refused(name, "Setting", part, move || {
            let options = MovementConfig::new(1, 3).with_learning_rate(value);
            MovementPruner::from_compressor(chain(), half(), options)?;
            Ok(())
        });
    }
    for (warmup, cooldown) in [(3, 3), (4, 3), (0, 0)] {
        let name = format!("MovementPruner: warm-up {warmup}, cool-down {cooldown}");
        let parts = ["`warmup_step`", "less than `cooldown_begin_step`"];
        cases.refused(name, "Setting", parts, move || {
            let options = MovementConfig::new(warmup, cooldown);
            MovementPruner::from_compressor(chain(), half(), options)?;
            Ok(())
        });
    }
    // More steps than there will ever be.
    cases.refused(
        "TaylorPruner: usize::MAX steps",
        "Budget",
        ["TaylorPruner", "at least"],
        move || {
            let options = TaylorConfig::new(usize::MAX);
            TaylorPruner::from_compressor(chain(), half(), options)?.compress(Budget::steps(3))?;
            Ok(())
        },
    );
    cases.refused(
        "MovementPruner: usize::MAX steps",
        "Budget",
        ["MovementPruner"],
        move || {
            let options = MovementConfig::new(usize::MAX - 1, usize::MAX);
            MovementPruner::from_compressor(chain(), half(), options)?
                .compress(Budget::steps(3))?;
            Ok(())
        },
    );
}

fn schedules(cases: &mut Cases) {
    for (interval, times) in [(0, 3), (2, 0), (0, 0)] {
        let parts = [
            format!("{times} updates"),
            format!("{interval} steps"),
            "at least 1".into(),
        ];
        let name = format!("AgpPruner: {times} updates every {interval} steps");
        cases.refused(name, "Schedule", parts.clone(), move || {
            AgpPruner::new(prune(HALF)?, AgpConfig::new(interval, times))?;
            Ok(())
        });
        let name = format!("LinearPruner: {times} updates every {interval} steps");
        cases.refused(name, "Schedule", parts.clone(), move || {
            LinearPruner::new(prune(HALF)?, LinearScheduleConfig::new(interval, times))?;
            Ok(())
        });
        let name = format!("Schedule: {times} updates every {interval} steps");
        cases.refused(name, "Schedule", parts, move || {
            Schedule::new(ScheduleKind::Agp, interval, times)?;
            Ok(())
        });
    }
    for (interval, times) in [(usize::MAX, 2), (2, usize::MAX), (usize::MAX, usize::MAX)] {
        let name = format!("AgpPruner: {times} updates every {interval} steps, never reached");
        cases.refused(name, "Budget", ["AgpPruner", "at least"], move || {
            let chain = AgpPruner::new(prune(HALF)?, AgpConfig::new(interval, times))?;
            chain.compress(Budget::steps(3))?;
            Ok(())
        });
    }
    let parts = ["`interval` is 3", "training steps"];
    cases.refused(
        "AgpPruner: faster than Taylor collects",
        "Setting",
        parts,
        || {
            let chain = TaylorPruner::from_compressor(chain(), rules(HALF), TaylorConfig::new(4))?;
            AgpPruner::new(chain, AgpConfig::new(3, 2))?;
            Ok(())
        },
    );
    cases.refused(
        "a schedule that is read with 0 updates",
        "Error",
        ["at least 1"],
        || {
            serde_json::from_str::<Schedule>(r#"{"kind": "agp", "interval": 2, "times": 0}"#)?;
            Ok(())
        },
    );
    cases.refused(
        "a schedule that is read with another key",
        "Error",
        ["steps"],
        || {
            let text = r#"{"kind": "agp", "interval": 2, "times": 1, "steps": 2}"#;
            serde_json::from_str::<Schedule>(text)?;
            Ok(())
        },
    );
}

fn quantizers(cases: &mut Cases) {
    let int8 = || rules::<QuantizationSettings>(QUANTIZE);
    let weights = || {
        rules::<QuantizationSettings>(
            r#"[{"op_names": ["stem"], "target_names": ["weight"], "quant_dtype": "int4"}]"#,
        )
    };
    cases.refused(
        "PtqQuantizer: no batches",
        "Setting",
        ["`batches` is 0", "one batch"],
        move || {
            PtqQuantizer::from_compressor(chain(), int8(), PtqConfig::new().with_batches(0))?;
            Ok(())
        },
    );
    let parts = ["`batches` is 0", "one batch"];
    cases.refused(
        "AdaRoundQuantizer: no batches",
        "Setting",
        parts,
        move || {
            let options = AdaRoundConfig::new().with_batches(0);
            AdaRoundQuantizer::from_compressor(chain(), weights(), options)?;
            Ok(())
        },
    );
    let parts = ["`steps` is 0", "at least one step"];
    cases.refused("AdaRoundQuantizer: no steps", "Setting", parts, move || {
        let options = AdaRoundConfig::new().with_steps(0);
        AdaRoundQuantizer::from_compressor(chain(), weights(), options)?;
        Ok(())
    });
    for value in NOT_POSITIVE {
        let parts = [format!("`learning_rate` is {value}"), "positive".to_owned()];
        let name = format!("AdaRoundQuantizer: learning_rate {value}");
        cases.refused(name, "Setting", parts.clone(), move || {
            let options = AdaRoundConfig::new().with_learning_rate(value);
            AdaRoundQuantizer::from_compressor(chain(), weights(), options)?;
            Ok(())
        });
        let name = format!("LsqQuantizer: learning_rate {value}");
        cases.refused(name, "Setting", parts.clone(), move || {
            let options = LsqConfig::new().with_learning_rate(Some(value));
            LsqQuantizer::from_compressor(chain(), int8(), options)?;
            Ok(())
        });
        let name = format!("LsqPlusQuantizer: learning_rate {value}");
        cases.refused(name, "Setting", parts, move || {
            let options = LsqPlusConfig::new().with_learning_rate(Some(value));
            LsqPlusQuantizer::from_compressor(chain(), int8(), options)?;
            Ok(())
        });
        let parts = [format!("`init` is {value}"), "positive".to_owned()];
        let name = format!("LsqQuantizer: init {value}");
        cases.refused(name, "Setting", parts.clone(), move || {
            let options = LsqConfig::new().with_init(LsqInit::Constant(value));
            LsqQuantizer::from_compressor(chain(), int8(), options)?;
            Ok(())
        });
        let name = format!("LsqPlusQuantizer: init {value}");
        cases.refused(name, "Setting", parts, move || {
            let options = LsqPlusConfig::new().with_init(LsqInit::Constant(value));
            LsqPlusQuantizer::from_compressor(chain(), int8(), options)?;
            Ok(())
        });
    }
    for value in NO_WEIGHTS {
        let parts = [
            format!("`regularization` is {value}"),
            "not be negative".to_owned(),
        ];
        let name = format!("AdaRoundQuantizer: regularization {value}");
        cases.refused(name, "Setting", parts, move || {
            let options = AdaRoundConfig::new().with_regularization(value);
            AdaRoundQuantizer::from_compressor(chain(), weights(), options)?;
            Ok(())
        });
    }
    for (name, rules_of, variant, parts) in [
        (
            "the weight of a norm",
            r#"[{"op_names": ["bn"], "target_names": ["gamma"]}]"#,
            "Rounding",
            &["any layer", "no weight"][..],
        ),
        (
            "a plain layer",
            r#"[{"op_names": ["plain"], "target_names": ["weight"]}]"#,
            "Rounding",
            &["`plain`", "Wrapper<Linear>"],
        ),
    ] {
        cases.refused(
            format!("AdaRoundQuantizer: {name}"),
            variant,
            parts,
            move || {
                let options = AdaRoundConfig::new();
                AdaRoundQuantizer::from_compressor(chain(), rules(rules_of), options)?;
                Ok(())
            },
        );
    }
    for (quantizer, fuse) in [
        ("LsqQuantizer", lsq as fn(&str) -> crate::table::Attempt),
        ("LsqPlusQuantizer", lsq_plus),
        ("DoReFaQuantizer", dorefa),
    ] {
        let name = format!("{quantizer}: an observer");
        let parts = [quantizer, "`observer`"];
        cases.refused(name, "Setting", parts, move || {
            fuse(r#"[{"op_types": ["Conv2d"], "observer": "min_max"}]"#)
        });
    }
    let parts = ["LsqQuantizer", "`quant_scheme` is affine", "no zero point"];
    cases.refused("LsqQuantizer: affine", "Setting", parts, || {
        lsq(r#"[{"op_types": ["Conv2d"], "quant_scheme": "affine"}]"#)
    });
    cases.refused(
        "LsqQuantizer: int1",
        "Setting",
        ["LsqQuantizer", "int1"],
        || lsq(r#"[{"op_types": ["Conv2d"], "quant_dtype": "int1"}]"#),
    );
    cases.refused(
        "LsqPlusQuantizer: int1",
        "Setting",
        ["LsqPlusQuantizer", "int1"],
        || lsq_plus(r#"[{"op_types": ["Conv2d"], "quant_dtype": "int1"}]"#),
    );
    cases.refused(
        "BnnQuantizer: int8",
        "Setting",
        ["BnnQuantizer", "int8"],
        || {
            BnnQuantizer::from_compressor(chain(), rules(QUANTIZE), BnnConfig::new())?;
            Ok(())
        },
    );
    for bits in [0, 9, 255] {
        let parts = [format!("int{bits}"), "1 to 8 bits".to_owned()];
        cases.refused(
            format!("QuantDtype::int({bits})"),
            "UnknownDtype",
            parts,
            move || {
                QuantDtype::int(bits)?;
                Ok(())
            },
        );
    }
    for (name, run) in [
        ("LsqQuantizer", lsq_run as fn() -> crate::table::Attempt),
        ("LsqPlusQuantizer", lsq_plus_run),
    ] {
        let parts = [name, "at least one step"];
        cases.refused(
            format!("{name}: a run without training"),
            "Budget",
            parts,
            run,
        );
    }
    for start in [4, usize::MAX] {
        let parts = ["QatQuantizer", "with_start_step"];
        cases.refused(
            format!("QatQuantizer: start step {start} of 4"),
            "Budget",
            parts,
            move || {
                let options = QatConfig::new().with_start_step(start);
                chains::quantize(chain(), QUANTIZE, options)?.compress(Budget::steps(4))?;
                Ok(())
            },
        );
    }
    cases.refused(
        "QatQuantizer: a run without training",
        "Budget",
        ["QatQuantizer"],
        || {
            chains::quantize(chain(), QUANTIZE, QatConfig::new())?.compress(Budget::none())?;
            Ok(())
        },
    );
}

fn lsq(text: &str) -> crate::table::Attempt {
    LsqQuantizer::from_compressor(chain(), &ConfigList::from_json(text)?, LsqConfig::new())?;
    Ok(())
}

fn lsq_plus(text: &str) -> crate::table::Attempt {
    let options = LsqPlusConfig::new();
    LsqPlusQuantizer::from_compressor(chain(), &ConfigList::from_json(text)?, options)?;
    Ok(())
}

fn dorefa(text: &str) -> crate::table::Attempt {
    DoReFaQuantizer::from_compressor(chain(), &ConfigList::from_json(text)?, DoReFaConfig::new())?;
    Ok(())
}

fn lsq_run() -> crate::table::Attempt {
    let chain = LsqQuantizer::from_compressor(chain(), rules(QUANTIZE), LsqConfig::new())?;
    chain.compress(Budget::none())?;
    Ok(())
}

fn lsq_plus_run() -> crate::table::Attempt {
    let options = LsqPlusConfig::new();
    let chain = LsqPlusQuantizer::from_compressor(chain(), rules(QUANTIZE), options)?;
    chain.compress(Budget::none())?;
    Ok(())
}

const LOGITS: &str = r#"[{"op_names": ["head"]}]"#;

fn labels(batch: &Batch) -> Tensor<1, burn::tensor::Int> {
    batch.labels.clone()
}

/// A distiller with options that carry one number.
type WithNumber = fn(f64) -> crate::table::Attempt;

fn distillers(cases: &mut Cases) {
    let origins: [(&str, WithNumber); 7] = [
        ("DynamicLayerwiseDistiller", |value| {
            let options = DistillConfig::new(value);
            let (teacher, config) = (NET.init(2), rules(DISTILL));
            DynamicLayerwiseDistiller::from_compressor(
                chain(),
                &config,
                &teacher,
                chains::teach,
                options,
            )?;
            Ok(())
        }),
        ("Adaptive1dLayerwiseDistiller", |value| {
            let options = AdaptiveConfig::new().with_origin_loss_lambda(value);
            let (teacher, config) = (NET.init(2), rules(DISTILL));
            Adaptive1dLayerwiseDistiller::from_compressor(
                chain(),
                &config,
                &teacher,
                chains::teach,
                options,
            )?;
            Ok(())
        }),
        ("FitNetsDistiller", |value| {
            let options = FitNetsConfig::new().with_origin_loss_lambda(value);
            let (teacher, config) = (NET.init(2), rules(DISTILL));
            FitNetsDistiller::from_compressor(chain(), &config, &teacher, chains::teach, options)?;
            Ok(())
        }),
        ("AttentionDistiller", |value| {
            let options = AttentionConfig::new().with_origin_loss_lambda(value);
            let (teacher, config) = (NET.init(2), rules(DISTILL));
            AttentionDistiller::from_compressor(
                chain(),
                &config,
                &teacher,
                chains::teach,
                options,
            )?;
            Ok(())
        }),
        ("RelationalDistiller", |value| {
            relational(RelationalConfig::new().with_origin_loss_lambda(value))
        }),
        ("LogitsDistiller", |value| {
            logits(LogitsConfig::new().with_origin_loss_lambda(value))
        }),
        ("DkdDistiller", |value| {
            dkd(DkdConfig::new().with_origin_loss_lambda(value))
        }),
    ];
    for (name, fuse) in origins {
        for value in NO_WEIGHTS {
            let parts = [name.to_owned(), "lambda".to_owned(), value.to_string()];
            let case = format!("{name}: origin_loss_lambda {value}");
            cases.refused(case, "Setting", parts, move || fuse(value));
        }
    }
    let weights: [(&str, &str, WithNumber); 5] = [
        ("LogitsDistiller", "alpha", |value| {
            logits(LogitsConfig::new().with_alpha(value))
        }),
        ("DkdDistiller", "alpha", |value| {
            dkd(DkdConfig::new().with_alpha(value))
        }),
        ("DkdDistiller", "beta", |value| {
            dkd(DkdConfig::new().with_beta(value))
        }),
        ("RelationalDistiller", "distance_weight", |value| {
            relational(RelationalConfig::new().with_distance_weight(value))
        }),
        ("RelationalDistiller", "angle_weight", |value| {
            relational(RelationalConfig::new().with_angle_weight(value))
        }),
    ];
    for (name, key, fuse) in weights {
        for value in NO_WEIGHTS {
            let parts = [
                name.to_owned(),
                format!("`{key}` is {value}"),
                "finite".to_owned(),
            ];
            cases.refused(
                format!("{name}: {key} {value}"),
                "Setting",
                parts,
                move || fuse(value),
            );
        }
    }
    let temperatures: [(&str, WithNumber); 2] = [
        ("LogitsDistiller", |value| {
            logits(LogitsConfig::new().with_temperature(value))
        }),
        ("DkdDistiller", |value| {
            dkd(DkdConfig::new().with_temperature(value))
        }),
    ];
    for (name, fuse) in temperatures {
        for value in NOT_POSITIVE {
            let parts = [name.to_owned(), format!("`temperature` is {value}")];
            let case = format!("{name}: temperature {value}");
            cases.refused(case, "Setting", parts, move || fuse(value));
        }
    }
    cases.refused(
        "LogitsDistiller: two outputs",
        "OneOutput",
        ["stem", "_output_"],
        || {
            let config = rules(r#"[{"op_types": ["Conv2d"]}]"#);
            let options = LogitsConfig::new();
            LogitsDistiller::from_compressor(
                chain(),
                &config,
                &NET.init(2),
                chains::teach,
                options,
            )?;
            Ok(())
        },
    );
    cases.refused(
        "FitNetsDistiller: two links",
        "Links",
        ["stem", "2 links", "one"],
        || {
            let config = rules(r#"[{"op_names": ["stem"], "link": ["stem", "block.conv1"]}]"#);
            let options = FitNetsConfig::new();
            FitNetsDistiller::from_compressor(
                chain(),
                &config,
                &NET.init(2),
                chains::teach,
                options,
            )?;
            Ok(())
        },
    );
    let parts = ["`apply_method`", "`stem`", "remove it"];
    cases.refused("AttentionDistiller: a loss", "UnusedSetting", parts, || {
        let config = rules(r#"[{"op_names": ["stem"], "apply_method": "mse"}]"#);
        let options = AttentionConfig::new();
        AttentionDistiller::from_compressor(
            chain(),
            &config,
            &NET.init(2),
            chains::teach,
            options,
        )?;
        Ok(())
    });
    let parts = ["`channels`", "`stem`", "remove it"];
    cases.refused(
        "FitNetsDistiller: kept channels",
        "UnusedSetting",
        parts,
        || {
            let config = rules(r#"[{"op_names": ["stem"], "channels": "kept"}]"#);
            let options = FitNetsConfig::new();
            FitNetsDistiller::from_compressor(
                chain(),
                &config,
                &NET.init(2),
                chains::teach,
                options,
            )?;
            Ok(())
        },
    );
}

fn logits(options: LogitsConfig) -> crate::table::Attempt {
    let (teacher, config) = (NET.init(2), rules(LOGITS));
    LogitsDistiller::from_compressor(chain(), &config, &teacher, chains::teach, options)?;
    Ok(())
}

fn dkd(options: DkdConfig) -> crate::table::Attempt {
    let (teacher, config) = (NET.init(2), rules(LOGITS));
    DkdDistiller::from_compressor(chain(), &config, &teacher, chains::teach, labels, options)?;
    Ok(())
}

fn relational(options: RelationalConfig) -> crate::table::Attempt {
    let (teacher, config) = (NET.init(2), rules(DISTILL));
    let predict = |teacher: &Net, batch: &Batch| chains::teach(teacher, batch);
    RelationalDistiller::from_compressor(chain(), &config, &teacher, predict, options)?;
    Ok(())
}
