//! Requests that could be accepted and not be done: each is refused, or done.

use std::fs;

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::activation::softmax;
use burn::tensor::{DType, Device, Tensor};
use burn_compress::Compressor;
use burn_compress::prelude::*;
use burn_compress_tests::chains::{self, Chain, HALF, id};
use burn_compress_tests::nets::{bits, dummy_input, evaluator};
use tempfile::TempDir;

use crate::fixtures::{
    Mlp, NET, QUANTIZE, STEPS, chain, mlp, mlp_evaluator, prune, quantize, rows, small,
};
use crate::table::{Attempt, Cases, ensure};

pub fn fill(cases: &mut Cases) {
    files(cases);
    caches(cases);
    settings(cases);
    frozen(cases);
    precision(cases);
    heads(cases);
    goals(cases);
    values(cases);
    early(cases);
    resumed(cases);
}

/// What a file would hold of another model.
fn files(cases: &mut Cases) {
    let parts = ["stem", "the state that came with the model"];
    cases.refused(
        "a quantized small model saved with no state",
        "State",
        parts,
        || {
            let folder = TempDir::new()?;
            let rules =
                r#"[{"op_names": ["stem"], "target_names": ["weight"], "quant_dtype": "int4"}]"#;
            let config = ConfigList::from_json(rules)?;
            let chain = PtqQuantizer::from_compressor(prune(HALF)?, &config, PtqConfig::new())?;
            let small = ModelSpeedup::new(chain.compress(Budget::none())?, dummy_input());
            let small = small.speedup_model()?;
            save_small(
                &small.model,
                &Default::default(),
                folder.path().join("net.small"),
            )?;
            Ok(())
        },
    );
    cases.right("a small model saved through a link", || {
        let folder = TempDir::new()?;
        let (file, link) = (folder.path().join("run-3"), folder.path().join("latest"));
        fs::write(&file, "older")?;
        std::os::unix::fs::symlink(&file, &link)?;
        let small = small()?;
        save_small(&small.model, &small.state, &link)?;
        let is_link = fs::symlink_metadata(&link)?.is_symlink();
        let (model, _) = load_small(crate::fixtures::net(), &file)?;
        ensure(
            is_link && bits(&model) == bits(&small.model),
            "the link was replaced",
        )
    });
    cases.right("a checkpoint saved through a link", || {
        let folder = TempDir::new()?;
        let (file, link) = (folder.path().join("run-3"), folder.path().join("latest"));
        std::os::unix::fs::symlink(&file, &link)?;
        chain().save_checkpoint(&link)?;
        let is_link = fs::symlink_metadata(&link)?.is_symlink();
        chain().resume(&file)?;
        ensure(is_link, "the link was replaced")
    });
}

fn caches(cases: &mut Cases) {
    let run = |first: fn(&Tensor<2>) -> Vec<u64>, double: bool| -> Attempt {
        let folder = TempDir::new()?;
        let path = folder.path().join("teacher.cache");
        for again in [false, true] {
            let factor = if again && double { 2.0 } else { 1.0 };
            let teacher = Teacher::of_logits(&Mlp::new(), move |net: &Mlp, x: &Tensor<2>| {
                net.forward(x.clone()) * factor
            });
            let teacher = teacher.with_cache(TeacherCache::open(&path, first)?);
            let config = ConfigList::from_json(r#"[{"op_names": ["fc2"]}]"#)?;
            let chain =
                LogitsDistiller::from_teachers(mlp(), &config, teacher, LogitsConfig::new())?;
            chain.compress(Budget::steps(4))?;
        }
        Ok(())
    };
    let parts = ["teacher.cache", "another answer", "a key of its own"];
    cases.refused(
        "a cache with one key for all samples",
        "CachedAnswer",
        parts,
        move || run(|x| vec![7; x.dims()[0]], false),
    );
    cases.refused(
        "a cache that another `predict` filled",
        "CachedAnswer",
        parts,
        move || run(crate::teachers::first_values, true),
    );
}

/// Settings that have nothing to act on.
fn settings(cases: &mut Cases) {
    let parts = ["`stem`", "`kept`", "no pruner"];
    cases.refused("kept channels without a mask", "NoMask", parts, || {
        let rules = r#"[{"op_names": ["stem"], "channels": "kept"}]"#;
        chains::distill(chain(), rules, &NET.init(2), 1.0)?.compress(Budget::steps(1))?;
        Ok(())
    });
    let parts = ["rule 0", "`observer`", "99.9"];
    cases.refused("a percentile without its number", "Value", parts, || {
        quantize(r#"[{"op_types": ["Conv2d"], "observer": "percentile"}]"#)?;
        Ok(())
    });
    let parts = ["rule 0", "out_chanel", "did you mean `out_channel`"];
    for (mode, build) in [
        ("pruning", prune as fn(&str) -> _),
        ("quantization", quantize),
    ] {
        cases.refused(
            format!("{mode}: a misspelt granularity"),
            "Value",
            parts,
            move || {
                build(r#"[{"op_types": ["Conv2d"], "granularity": "out_chanel"}]"#)?;
                Ok(())
            },
        );
    }
    let parts = ["rule 0", "`stem`", "9 values", "`min_max`"];
    cases.refused("a histogram of a few values", "Invalid", parts, || {
        quantize(
            r#"[{"op_names": ["stem"], "target_names": ["weight"], "granularity": "out_channel",
                 "observer": "histogram"}]"#,
        )?;
        Ok(())
    });
}

fn frozen(cases: &mut Cases) {
    for name in ["TaylorPruner", "FisherPruner"] {
        let parts = [name, "`fc1.weight`", "unfreeze"];
        cases.refused(
            format!("{name}: a frozen layer"),
            "Frozen",
            parts,
            move || {
                let mut net = Mlp::new();
                net.fc1 = net.fc1.no_grad();
                let chain = Compressor::from_model(net, mlp_evaluator(vec![rows(0.3)]));
                let config =
                    ConfigList::from_json(r#"[{"op_names": ["fc1"], "sparse_ratio": 0.5}]"#)?;
                match name {
                    "TaylorPruner" => {
                        TaylorPruner::from_compressor(chain, &config, TaylorConfig::new(1))?
                    }
                    _ => FisherPruner::from_compressor(chain, &config, FisherConfig::new(1))?,
                };
                Ok(())
            },
        );
    }
}

/// Models of other precision are cut.
fn precision(cases: &mut Cases) {
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        cases.right(format!("a speedup of a model of {dtype:?}"), move || {
            let cast = |mut net: Mlp| {
                net.fc1.weight = Param::from_tensor(net.fc1.weight.val().cast(dtype));
                net.fc2.weight = Param::from_tensor(net.fc2.weight.val().cast(dtype));
                for bias in [&mut net.fc1.bias, &mut net.fc2.bias] {
                    *bias = bias
                        .clone()
                        .map(|bias| Param::from_tensor(bias.val().cast(dtype)));
                }
                net
            };
            let net = cast(Mlp::new());
            let x = rows(0.3).cast(dtype);
            let dummy = DummyInput::new(x.clone(), |net: &Mlp, x| net.forward(x));
            let evaluator = mlp_evaluator(vec![x]).with_dummy_input(dummy.clone());
            let config = ConfigList::from_json(r#"[{"op_names": ["fc1"], "sparse_ratio": 0.5}]"#)?;
            let chain = L1NormPruner::new(net, &config, evaluator, PrunerConfig::new())?;
            let small =
                ModelSpeedup::new(chain.compress(Budget::none())?, dummy).speedup_model()?;
            let weight = small.model.fc1.weight.val();
            ensure(
                weight.dims() == [4, 3] && weight.dtype() == dtype,
                "another size or type",
            )
        });
    }
}

/// Attention of two heads of four features.
#[derive(Module, Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
}

impl Attention {
    fn new() -> Self {
        let linear = || LinearConfig::new(8, 8).init(&Device::flex());
        Self {
            q: linear(),
            k: linear(),
            v: linear(),
            out: linear(),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, length, _] = x.dims();
        let heads = |x: Tensor<3>| x.reshape([batch, length, 2, 4]).swap_dims(1, 2);
        let (q, k, v) = (
            heads(self.q.forward(x.clone())),
            heads(self.k.forward(x.clone())),
            heads(self.v.forward(x)),
        );
        let scores = softmax(q.matmul(k.swap_dims(2, 3)) / 2.0, 3);
        self.out
            .forward(scores.matmul(v).swap_dims(1, 2).reshape([batch, length, 8]))
    }
}

/// Heads as blocks of channels, which no cut follows.
fn heads(cases: &mut Cases) {
    for group in ["", r#", "dependency_group_id": "heads""#] {
        let rules = format!(
            r#"[{{"op_names": ["q", "k", "v"], "granularity": [-1, 4], "sparse_ratio": 0.5{group}}}]"#
        );
        let parts = ["`q", "`k", "`v", "\"exclude_op_names\""];
        cases.refused(format!("heads: {rules}"), "Unprunable", parts, move || {
            let x = Tensor::<3>::ones([2, 3, 8], &Device::flex());
            let dummy = DummyInput::new(x, |net: &Attention, x| net.forward(x));
            let evaluator = Evaluator::<_, ()>::new().with_dummy_input(dummy);
            let config = ConfigList::from_json(&rules)?;
            L1NormPruner::new(Attention::new(), &config, evaluator, PrunerConfig::new())?;
            Ok(())
        });
    }
}

/// Goals that would remove nothing.
fn goals(cases: &mut Cases) {
    for (settings, part) in [
        (r#""sparse_ratio": 0.5, "round_to": 16"#, "round_to"),
        (r#""sparse_ratio": 0.5, "round_to": 4"#, "round_to"),
        (
            r#""sparse_ratio": 0.5, "granularity": [-1, -1, -1, -1]"#,
            "granularity",
        ),
    ] {
        let rules = format!(r#"[{{"op_types": ["Conv2d"], {settings}}}]"#);
        let parts = ["stem", "removes none", part];
        cases.refused(
            format!("nothing removed: {settings}"),
            "RemovesNothing",
            parts,
            move || {
                prune(&rules)?.compress(Budget::none())?;
                Ok(())
            },
        );
    }
    let parts = ["stem", "dims [7]"];
    cases.refused(
        "align: a dim that the source lacks",
        "AlignDims",
        parts,
        || {
            let rules = r#"[{"op_names": ["stem"], "sparse_ratio": 0.5},
            {"op_names": ["bn"], "target_names": ["gamma"],
             "align": {"module_name": "stem", "target_name": "weight", "dims": [7]}}]"#;
            chains::prune(chain(), rules, PrunerConfig::new().with_coupled(false))?;
            Ok(())
        },
    );
}

/// Weights that are infinite.
fn values(cases: &mut Cases) {
    type Fuse = fn(
        Compressor<Mlp, Tensor<2>>,
    ) -> Result<Compressor<Mlp, Tensor<2>>, Box<dyn std::error::Error>>;
    const HIDDEN: &str = r#"[{"op_names": ["fc1"], "sparse_ratio": 0.5}]"#;
    let pruners: [(&str, Fuse); 3] = [
        ("L1NormPruner", |chain| {
            let config = ConfigList::from_json(HIDDEN)?;
            Ok(L1NormPruner::from_compressor(
                chain,
                &config,
                PrunerConfig::new(),
            )?)
        }),
        ("L2NormPruner", |chain| {
            let config = ConfigList::from_json(HIDDEN)?;
            Ok(L2NormPruner::from_compressor(
                chain,
                &config,
                PrunerConfig::new(),
            )?)
        }),
        ("FpgmPruner", |chain| {
            let config = ConfigList::from_json(HIDDEN)?;
            Ok(FpgmPruner::from_compressor(
                chain,
                &config,
                PrunerConfig::new(),
            )?)
        }),
    ];
    for (name, fuse) in pruners {
        for value in [f32::INFINITY, f32::NEG_INFINITY] {
            let parts = ["fc1.weight".to_owned(), format!("value 0 is {value}")];
            cases.refused(
                format!("{name}: a weight of {value}"),
                "NotFinite",
                parts,
                move || {
                    let mut net = Mlp::new();
                    let weight = net.fc1.weight.val().slice_fill([0..1, 0..1], value);
                    net.fc1.weight = Param::from_tensor(weight);
                    let chain = Compressor::from_model(net, mlp_evaluator(vec![rows(0.3)]));
                    fuse(chain)?.compress(Budget::none())?;
                    Ok(())
                },
            );
        }
    }
}

/// Runs that are finished before their end.
fn early(cases: &mut Cases) {
    let agp = || -> Result<Chain, Box<dyn std::error::Error>> {
        Ok(AgpPruner::new(prune(HALF)?, AgpConfig::new(2, 2))?)
    };
    cases.refused(
        "finished before the run",
        "NotBegun",
        ["`compress`", "`advance`"],
        move || {
            agp()?.finish()?;
            Ok(())
        },
    );
    for done in [1, 3] {
        let parts = [
            format!("{done} of the 4 steps"),
            "`finish_early`".to_owned(),
        ];
        cases.refused(
            format!("finished after {done} of 4 steps"),
            "Unfinished",
            parts,
            move || {
                let mut chain = agp()?;
                chain.advance(&Budget::steps(4), Some(done))?;
                chain.finish()?;
                Ok(())
            },
        );
    }
    cases.right("finished early on request", move || {
        let mut chain = agp()?;
        chain.advance(&Budget::steps(4), Some(2))?;
        let masks = chain.finish_early()?.masks();
        ensure(masks[&id("stem.weight")].removed() > 0, "no mask")
    });
    for done in [0, 1] {
        let parts = [format!("{done} of the 2 steps")];
        cases.refused(
            format!("a trainee finished after {done} of 2 steps"),
            "Unfinished",
            parts,
            move || {
                let trainee = mlp().into_trainee(2)?;
                crate::trainees::trained(trainee, vec![rows(0.3); done]).finish()?;
                Ok(())
            },
        );
    }
    cases.right("a trainee finished early on request", || {
        let trainee = mlp().into_trainee(2)?;
        let steps = crate::trainees::trained(trainee, [rows(0.3)])
            .finish_early()?
            .history()
            .steps
            .len();
        ensure(steps == 1, format!("{steps} steps"))
    });
}

type Make = fn() -> Result<Chain, Box<dyn std::error::Error>>;

/// Runs that go on with another configuration.
fn resumed(cases: &mut Cases) {
    let chains: [(&str, Make, Make, &[&str]); 7] = [
        (
            "another ratio",
            || prune(r#"[{"op_names": ["stem"], "sparse_ratio": 0.25}]"#),
            || prune(r#"[{"op_names": ["stem"], "sparse_ratio": 0.5}]"#),
            &["sparse_ratio", "0.25", "0.5"],
        ),
        (
            "another integer type",
            || quantize(r#"[{"op_names": ["stem"], "quant_dtype": "int4"}]"#),
            || quantize(r#"[{"op_names": ["stem"], "quant_dtype": "int8"}]"#),
            &["int4", "int8"],
        ),
        (
            "another start step",
            || chains::quantize(chain(), QUANTIZE, QatConfig::new()),
            || chains::quantize(chain(), QUANTIZE, QatConfig::new().with_start_step(2)),
            &["start_step", "2"],
        ),
        (
            "another schedule",
            || Ok(AgpPruner::new(prune(HALF)?, AgpConfig::new(1, 3))?),
            || Ok(AgpPruner::new(prune(HALF)?, AgpConfig::new(3, 1))?),
            &["interval", "times"],
        ),
        (
            "other weights of a distiller",
            || {
                chains::distill(
                    chain(),
                    r#"[{"op_names": ["stem"], "lambda": 1}]"#,
                    &NET.init(2),
                    1.0,
                )
            },
            || {
                chains::distill(
                    chain(),
                    r#"[{"op_names": ["stem"], "lambda": 2}]"#,
                    &NET.init(2),
                    1.0,
                )
            },
            &["lambda"],
        ),
        (
            "another optimizer",
            || {
                Ok(Compressor::from_model(
                    crate::fixtures::net(),
                    evaluator(STEPS),
                ))
            },
            || {
                let evaluator = evaluator(STEPS).with_optimizer(SgdConfig::new().init());
                Ok(Compressor::from_model(crate::fixtures::net(), evaluator))
            },
            &["optimizer"],
        ),
        (
            "another seed",
            || {
                Ok(Compressor::from_model(
                    crate::fixtures::net(),
                    evaluator(STEPS),
                ))
            },
            || {
                let evaluator = evaluator(STEPS).with_seed(99);
                Ok(Compressor::from_model(crate::fixtures::net(), evaluator))
            },
            &["seed"],
        ),
    ];
    for (name, first, second, parts) in chains {
        let resume = move |second: Make| -> Result<Chain, Box<dyn std::error::Error>> {
            let folder = TempDir::new()?;
            let path = folder.path().join("run.checkpoint");
            let mut chain = first()?;
            chain.advance(&Budget::steps(3), Some(1))?;
            chain.save_checkpoint(&path)?;
            Ok(second()?.resume(&path)?)
        };
        let parts: Vec<&str> = ["run.checkpoint"].iter().chain(parts).copied().collect();
        cases.refused(
            format!("resumed with {name}"),
            "Changed",
            parts,
            move || {
                resume(second)?;
                Ok(())
            },
        );
        cases.right(format!("resumed as it was, beside {name}"), move || {
            resume(first)?.compress(Budget::steps(3))?;
            Ok(())
        });
    }
}
