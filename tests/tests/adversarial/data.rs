//! Data, losses, weights and learning rates that are not finite, and batches of no size.

use burn::module::Param;
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor};
use burn_compress::Compressor;
use burn_compress::config::Settings;
use burn_compress::prelude::*;

use crate::fixtures::{Mlp, mlp_evaluator, rows};
use crate::table::{Attempt, Cases};

type Chain = Compressor<Mlp, Tensor<2>>;
type Fuse = fn(Chain) -> Result<Chain, Box<dyn std::error::Error>>;

fn rules<S: Settings>(text: &str) -> ConfigList<S> {
    ConfigList::from_json(text).expect("rules that fit")
}

const HIDDEN: &str = r#"[{"op_names": ["fc1"], "sparse_ratio": 0.5}]"#;
const QUANTIZE: &str = r#"[{"op_types": ["Linear"], "quant_dtype": "int8"}]"#;

/// The compressors that look at values.
const FUSE: [(&str, Fuse); 9] = [
    ("no compressor", |chain| Ok(chain)),
    ("TaylorPruner", |chain| {
        Ok(TaylorPruner::from_compressor(
            chain,
            rules(HIDDEN),
            TaylorConfig::new(2),
        )?)
    }),
    ("FisherPruner", |chain| {
        Ok(FisherPruner::from_compressor(
            chain,
            rules(HIDDEN),
            FisherConfig::new(2),
        )?)
    }),
    ("SlimPruner", |chain| {
        Ok(SlimPruner::from_compressor(
            chain,
            rules(HIDDEN),
            SlimConfig::new(2),
        )?)
    }),
    ("QatQuantizer", |chain| {
        Ok(QatQuantizer::from_compressor(
            chain,
            rules(QUANTIZE),
            QatConfig::new(),
        )?)
    }),
    ("LsqQuantizer", |chain| {
        Ok(LsqQuantizer::from_compressor(
            chain,
            rules(QUANTIZE),
            LsqConfig::new(),
        )?)
    }),
    ("LsqPlusQuantizer", |chain| {
        Ok(LsqPlusQuantizer::from_compressor(
            chain,
            rules(QUANTIZE),
            LsqPlusConfig::new(),
        )?)
    }),
    ("DoReFaQuantizer", |chain| {
        Ok(DoReFaQuantizer::from_compressor(
            chain,
            rules(QUANTIZE),
            DoReFaConfig::new(),
        )?)
    }),
    ("DynamicLayerwiseDistiller", |chain| {
        let predict = |net: &Mlp, x: &Tensor<2>| net.forward(x.clone());
        let config = rules(r#"[{"op_names": ["fc1"]}]"#);
        Ok(DynamicLayerwiseDistiller::from_compressor(
            chain,
            &config,
            &Mlp::new(),
            predict,
            DistillConfig::new(1.0),
        )?)
    }),
];

fn run(chain: Chain) -> Attempt {
    chain.compress(Budget::steps(3))?;
    Ok(())
}

pub fn fill(cases: &mut Cases) {
    for (name, fuse) in FUSE {
        for value in [f32::NAN, f32::INFINITY] {
            // What looks at inputs finds it first, all others the loss.
            let looks = [
                "QatQuantizer",
                "DoReFaQuantizer",
                "LsqQuantizer",
                "LsqPlusQuantizer",
            ];
            let quantizes = looks.contains(&name);
            let variant = if quantizes {
                "Observation"
            } else {
                "LossNotFinite"
            };
            let part = if quantizes {
                "`fc1._input_0`"
            } else {
                "step 1"
            };
            let case = format!("{name}: a batch of {value}");
            cases.refused(case, variant, [part, "finite"], move || {
                let batches = vec![rows(0.3), rows(0.3) * value];
                run(fuse(Compressor::from_model(
                    Mlp::new(),
                    mlp_evaluator(batches),
                ))?)
            });
        }
        let (variant, part) = match name {
            "DynamicLayerwiseDistiller" => ("Empty", "`fc1`"),
            name if name.ends_with("Quantizer") => ("Observation", "empty batches"),
            _ => ("LossNotFinite", "check the data"),
        };
        cases.refused(
            format!("{name}: a batch of no rows"),
            variant,
            [part],
            move || {
                let none = Tensor::<2>::zeros([0, 4], &Device::flex());
                run(fuse(Compressor::from_model(
                    Mlp::new(),
                    mlp_evaluator(vec![none]),
                ))?)
            },
        );
        let parts = ["epoch 0", "no batch"];
        cases.refused(
            format!("{name}: no batches"),
            "NoBatches",
            parts,
            move || {
                run(fuse(Compressor::from_model(
                    Mlp::new(),
                    mlp_evaluator(vec![]),
                ))?)
            },
        );
    }
    losses(cases);
    weights(cases);
}

fn with_loss(loss: impl Fn(&Mlp, &Tensor<2>) -> Tensor<1> + Send + Sync + 'static) -> Attempt {
    let evaluator = mlp_evaluator(vec![rows(0.3)]).with_loss(loss);
    run(Compressor::from_model(Mlp::new(), evaluator))
}

fn losses(cases: &mut Cases) {
    cases.refused(
        "a loss of two numbers",
        "LossShape",
        ["[6]", "mean"],
        || with_loss(|net, x| net.forward(x.clone()).flatten(0, 1)),
    );
    cases.refused("a loss of no number", "LossShape", ["[0]", "mean"], || {
        with_loss(|_, _| Tensor::zeros([0], &Device::flex()))
    });
    cases.refused(
        "a loss that depends on nothing",
        "LossDetached",
        ["no parameter"],
        || with_loss(|_, _| Tensor::from_floats([1.0], &Device::flex())),
    );
    cases.refused(
        "a loss that is detached",
        "LossDetached",
        ["no parameter"],
        || with_loss(|net, x| net.forward(x.clone()).mean().detach()),
    );
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let parts = ["step 0".to_owned(), "learning rate".to_owned()];
        cases.refused(
            format!("a loss of {value}"),
            "LossNotFinite",
            parts,
            move || with_loss(move |net, x| net.forward(x.clone()).mean() * 0.0 + value),
        );
    }
    cases.refused(
        "a learning rate that blows up",
        "LossNotFinite",
        ["step", "learning rate"],
        || {
            let evaluator = Evaluator::new()
                .with_data(|_| vec![rows(3.0)])
                .with_optimizer(SgdConfig::new().init())
                .with_learning_rate(1e30)
                .with_loss(|net: &Mlp, x: &Tensor<2>| net.forward(x.clone()).square().mean());
            run(Compressor::from_model(Mlp::new(), evaluator))
        },
    );
}

/// A network of which one weight is `value`.
fn spoiled(value: f32) -> Mlp {
    let mut net = Mlp::new();
    net.fc1.weight = Param::from_tensor(net.fc1.weight.val().slice_fill([0..1, 0..1], value));
    net
}

/// Weights that are not finite, at every compressor that looks at them.
fn weights(cases: &mut Cases) {
    let evaluator = || mlp_evaluator(vec![rows(0.3)]);
    type Make = fn(Chain) -> Result<Chain, Box<dyn std::error::Error>>;
    let pruners: [(&str, Make); 4] = [
        ("L1NormPruner", |chain| {
            Ok(L1NormPruner::from_compressor(
                chain,
                rules(HIDDEN),
                PrunerConfig::new(),
            )?)
        }),
        ("L2NormPruner", |chain| {
            Ok(L2NormPruner::from_compressor(
                chain,
                rules(HIDDEN),
                PrunerConfig::new(),
            )?)
        }),
        ("FpgmPruner", |chain| {
            Ok(FpgmPruner::from_compressor(
                chain,
                rules(HIDDEN),
                PrunerConfig::new(),
            )?)
        }),
        ("LampPruner", |chain| {
            let rules = rules(
                r#"[{"op_names": ["fc1"], "sparse_ratio": 0.5, "granularity": "out_channel"}]"#,
            );
            Ok(LampPruner::from_compressor(
                chain,
                &rules,
                PrunerConfig::new(),
            )?)
        }),
    ];
    for (name, fuse) in pruners {
        let parts = ["fc1.weight", "value 0 is NaN", "loaded whole"];
        cases.refused(
            format!("{name}: a weight of NaN"),
            "NotFinite",
            parts,
            move || {
                let chain = Compressor::from_model(spoiled(f32::NAN), evaluator());
                fuse(chain)?.compress(Budget::none())?;
                Ok(())
            },
        );
    }
    for value in [f32::NAN, f32::INFINITY] {
        let parts = ["`fc1.weight`", "finite"];
        cases.refused(
            format!("PtqQuantizer: a weight of {value}"),
            "NotFinite",
            parts,
            move || {
                let config = rules(
                    r#"[{"op_names": ["fc1"], "target_names": ["weight"], "quant_dtype": "int8"}]"#,
                );
                let options = PtqConfig::new();
                let chain = PtqQuantizer::new(spoiled(value), &config, evaluator(), options)?;
                chain.compress(Budget::none())?;
                Ok(())
            },
        );
    }
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        cases.refused(
            format!("a weight of {value} in a layer that nothing prunes"),
            "NotFinite",
            ["`fc2.bias`"],
            move || {
                let config = rules(HIDDEN);
                let mut net = Mlp::new();
                let spoil = |bias: Param<Tensor<1>>| bias.map(|bias| bias * 0.0 + value);
                net.fc2.bias = net.fc2.bias.clone().map(spoil);
                let options = PrunerConfig::new();
                let chain = L1NormPruner::new(net, &config, evaluator(), options)?;
                chain.compress(Budget::none())?;
                Ok(())
            },
        );
    }
}
