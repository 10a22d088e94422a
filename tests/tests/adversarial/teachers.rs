//! Teachers that cannot teach, and caches of what they gave.

use std::fs;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor};
use burn_compress::Compressor;
use burn_compress::distillation::TeacherAggregation;
use burn_compress::prelude::*;
use burn_compress_tests::chains;
use burn_compress_tests::nets::{Batch, Net, NetConfig};
use tempfile::TempDir;

use crate::fixtures::{Mlp, NET, chain, mlp, rows};
use crate::table::{Attempt, Cases, ensure};

type Logits = Compressor<Mlp, Tensor<2>>;

/// Soft targets of these teachers for [`Mlp`].
fn logits(teachers: impl Into<Teachers<Tensor<2>>>) -> Result<Logits, Box<dyn std::error::Error>> {
    let config = ConfigList::from_json(r#"[{"op_names": ["fc2"]}]"#)?;
    Ok(LogitsDistiller::from_teachers(
        mlp(),
        &config,
        teachers,
        LogitsConfig::new(),
    )?)
}

fn teacher() -> Teacher<Tensor<2>> {
    Teacher::of_logits(&Mlp::new(), |net: &Mlp, x: &Tensor<2>| {
        net.forward(x.clone())
    })
}

/// A run of two steps.
fn run(chain: Logits) -> Attempt {
    chain.compress(Budget::steps(2))?;
    Ok(())
}

pub fn fill(cases: &mut Cases) {
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let parts = [
            "LogitsDistiller".to_owned(),
            format!("`weight` is {weight}"),
        ];
        cases.refused(
            format!("a teacher of weight {weight}"),
            "Setting",
            parts,
            move || {
                logits(teacher().with_weight(weight))?;
                Ok(())
            },
        );
    }
    cases.refused(
        "no teacher",
        "NoTeacher",
        ["LogitsDistiller", "at least one"],
        || {
            logits(Teachers::new([]))?;
            Ok(())
        },
    );
    cases.refused(
        "a teacher of hidden states for logits",
        "NoLogits",
        ["`Teacher::of_logits`"],
        || {
            let teacher = Teacher::new(&Mlp::new(), |net: &Mlp, x: &Tensor<2>| {
                net.forward(x.clone())
            });
            logits(teacher)?;
            Ok(())
        },
    );
    let parts = ["`stem`", "`fc9`", "correct the name"];
    cases.refused(
        "a layer of a link that no rule has",
        "UnusedLayer",
        parts,
        || {
            let config = ConfigList::from_json(r#"[{"op_names": ["fc1"]}]"#)?;
            let teacher = Teacher::new(&Mlp::new(), |net: &Mlp, x: &Tensor<2>| {
                net.forward(x.clone())
            })
            .with_layer("stem", "fc9");
            let options = DistillConfig::new(1.0);
            DynamicLayerwiseDistiller::from_teachers(mlp(), &config, teacher, options)?;
            Ok(())
        },
    );
    outputs(cases);
    batches(cases);
    caches(cases);
}

/// Logits and hidden states of other shapes.
fn outputs(cases: &mut Cases) {
    cases.refused(
        "logits of more classes",
        "Logits",
        ["`fc2._output_0`", "[2, 3]", "[2, 6]"],
        || {
            let teacher = Teacher::of_logits(&Mlp::new(), |net: &Mlp, x: &Tensor<2>| {
                net.fc1.forward(x.clone())
            });
            run(logits(teacher)?)
        },
    );
    cases.refused(
        "logits of fewer rows",
        "Logits",
        ["`fc2._output_0`", "[2, 3]", "[1, 3]"],
        || {
            let teacher = Teacher::of_logits(&Mlp::new(), |net: &Mlp, x: &Tensor<2>| {
                net.forward(x.clone().slice([0..1, 0..4]))
            });
            run(logits(teacher)?)
        },
    );
    let parts = ["[2, 3]", "[2, 6]", "losses"];
    cases.refused(
        "a mean of outputs of two shapes",
        "TeacherShapes",
        parts,
        || {
            let other = Teacher::of_logits(&Mlp::new(), |net: &Mlp, x: &Tensor<2>| {
                net.fc1.forward(x.clone())
            });
            let teachers =
                Teachers::new([teacher(), other]).with_aggregation(TeacherAggregation::Outputs);
            run(logits(teachers)?)
        },
    );
    let wide = NetConfig { stem: 6, ..NET };
    let parts = ["`stem`", "[8, 4, 6, 6]", "[8, 6, 6, 6]", "equal shape"];
    cases.refused(
        "hidden states of a wider teacher",
        "Shape",
        parts,
        move || {
            let rules = r#"[{"op_names": ["stem"]}]"#;
            let chain = chains::distill(chain(), rules, &wide.init(2), 1.0)?;
            chain.compress(Budget::steps(1))?;
            Ok(())
        },
    );
    cases.refused(
        "a link to a layer with other positions",
        "Incomparable",
        ["`stem`", "head"],
        || {
            let rules = ConfigList::from_json(r#"[{"op_names": ["stem"], "link": "head"}]"#)?;
            let options = AttentionConfig::new();
            let chain = AttentionDistiller::from_compressor(
                chain(),
                &rules,
                &NET.init(2),
                chains::teach,
                options,
            )?;
            chain.compress(Budget::steps(1))?;
            Ok(())
        },
    );
    let parts = ["teacher layer `block.conv1`", "its `Wrapper`"];
    cases.refused(
        "a teacher that skips the linked layer",
        "NoHiddenState",
        parts,
        || {
            let rules = ConfigList::from_json(r#"[{"op_names": ["block.conv1"]}]"#)?;
            let predict = |teacher: &Net, batch: &Batch| teacher.stem.forward(batch.images.clone());
            let options = DistillConfig::new(1.0);
            let chain = DynamicLayerwiseDistiller::from_compressor(
                chain(),
                &rules,
                &NET.init(2),
                predict,
                options,
            )?;
            chain.compress(Budget::steps(1))?;
            Ok(())
        },
    );
    cases.refused(
        "a teacher of infinite logits",
        "LossValue",
        ["LogitsDistiller: ", "`fc2`", "finite"],
        || {
            let teacher = Teacher::of_logits(&Mlp::new(), |net: &Mlp, x: &Tensor<2>| {
                net.forward(x.clone()) * f32::INFINITY
            });
            run(logits(teacher)?)
        },
    );
}

/// Labels and batches that a loss cannot be computed on.
fn batches(cases: &mut Cases) {
    let labelled = |labels: fn() -> Tensor<1, Int>| -> Attempt {
        let config = ConfigList::from_json(r#"[{"op_names": ["fc2"]}]"#)?;
        let predict = |net: &Mlp, x: &Tensor<2>| net.forward(x.clone());
        let labels = move |_: &Tensor<2>| labels();
        let options = DkdConfig::new();
        let chain =
            DkdDistiller::from_compressor(mlp(), &config, &Mlp::new(), predict, labels, options)?;
        chain.compress(Budget::steps(1))?;
        Ok(())
    };
    for (name, labels, part) in [
        (
            "a label that is no class",
            (|| Tensor::from_ints([0, 3], &Device::flex())) as fn() -> Tensor<1, Int>,
            "label of row 1 is 3",
        ),
        (
            "a negative label",
            || Tensor::from_ints([-1, 0], &Device::flex()),
            "label of row 0 is -1",
        ),
        (
            "too few labels",
            || Tensor::from_ints([0], &Device::flex()),
            "there are 1 labels",
        ),
        (
            "too many labels",
            || Tensor::from_ints([0; 3], &Device::flex()),
            "there are 3 labels",
        ),
        (
            "no labels",
            || Tensor::<1, Int>::zeros([0], &Device::flex()),
            "there are 0 labels",
        ),
    ] {
        let parts = [part, "2 rows of 3"];
        cases.refused(
            format!("DkdDistiller: {name}"),
            "Labels",
            parts,
            move || labelled(labels),
        );
    }
    for samples in [1, 2] {
        let parts = [
            "`fc1`".to_owned(),
            format!("{samples} samples"),
            "need 3".to_owned(),
        ];
        let name = format!("RelationalDistiller: a batch of {samples}");
        cases.refused(name, "BatchTooSmall", parts, move || {
            let config = ConfigList::from_json(r#"[{"op_names": ["fc1"]}]"#)?;
            let batch = rows(0.3).slice([0..samples, 0..4]);
            let evaluator = crate::fixtures::mlp_evaluator(vec![batch]);
            let predict = |net: &Mlp, x: &Tensor<2>| net.forward(x.clone());
            let options = RelationalConfig::new();
            let chain = RelationalDistiller::new(
                Mlp::new(),
                &config,
                evaluator,
                &Mlp::new(),
                predict,
                options,
            )?;
            chain.compress(Budget::steps(1))?;
            Ok(())
        });
    }
}

/// A run with a cache in this file.
fn cached(
    path: &Path,
    network: Mlp,
    key: impl Fn(&Tensor<2>) -> Vec<u64> + Send + 'static,
) -> Attempt {
    let cache = TeacherCache::open(path, key)?;
    let teacher = Teacher::of_logits(&network, |net: &Mlp, x: &Tensor<2>| net.forward(x.clone()));
    run(logits(teacher.with_cache(cache))?)
}

/// A key for each row: the bits of its first value.
pub fn first_values(x: &Tensor<2>) -> Vec<u64> {
    let column = x.clone().slice([0..x.dims()[0], 0..1]);
    let values: Vec<f32> = column.into_data().iter().collect();
    values
        .into_iter()
        .map(|value| u64::from(value.to_bits()))
        .collect()
}

/// What becomes of a cache that is used again, changed before.
fn reused(change: impl FnOnce(&Path) -> Attempt) -> Attempt {
    let folder = TempDir::new()?;
    let path = folder.path().join("teacher.cache");
    cached(&path, Mlp::new(), first_values)?;
    change(&path)?;
    cached(&path, Mlp::new(), first_values)
}

fn caches(cases: &mut Cases) {
    cases.right("a cache that is used again", || reused(|_| Ok(())));
    for eighth in 0..8 {
        let name = format!("a cache cut off after {eighth} eighths");
        cases.refused(name, "Cache", ["teacher.cache"], move || {
            reused(|path| {
                let bytes = fs::read(path)?;
                Ok(fs::write(path, &bytes[..bytes.len() * eighth / 8])?)
            })
        });
    }
    for part in 0..8 {
        let name = format!("a cache with a bit flipped after {part} of 7 parts");
        cases.refused(name, "Cache", ["teacher.cache"], move || {
            reused(|path| {
                let mut bytes = fs::read(path)?;
                let at = (bytes.len() - 1) * part / 7;
                bytes[at] ^= 16;
                Ok(fs::write(path, bytes)?)
            })
        });
    }
    for (name, content) in [("text", "a teacher\n"), ("JSON", r#"{"teacher": 1}"#)] {
        cases.refused(
            format!("a cache of {name}"),
            "Cache",
            ["teacher.cache"],
            move || reused(|path| Ok(fs::write(path, content.repeat(20))?)),
        );
    }
    cases.refused(
        "a cache that is a folder",
        "Cache",
        ["teacher.cache"],
        || {
            reused(|path| {
                fs::remove_file(path)?;
                Ok(fs::create_dir(path)?)
            })
        },
    );
    cases.refused(
        "a cache that is a checkpoint",
        "Cache",
        ["teacher.cache"],
        || reused(|path| Ok(mlp().save_checkpoint(path)?)),
    );
    cases.refused(
        "a cache in a folder that does not exist",
        "Cache",
        ["teacher.cache"],
        || {
            let folder = TempDir::new()?;
            cached(
                &folder.path().join("none").join("teacher.cache"),
                Mlp::new(),
                first_values,
            )
        },
    );
    let parts = ["teacher.cache", "another teacher", "delete this one"];
    cases.refused(
        "a cache of a teacher with other weights",
        "ForeignCache",
        parts,
        || {
            let folder = TempDir::new()?;
            let path = folder.path().join("teacher.cache");
            cached(&path, Mlp::new(), first_values)?;
            let mut other = Mlp::new();
            other.fc2.bias = other
                .fc2
                .bias
                .clone()
                .map(|bias| bias.map(|bias| bias + 1.0));
            cached(&path, other, first_values)
        },
    );
    for (name, key) in [
        ("no keys", (|_| vec![]) as fn(&Tensor<2>) -> Vec<u64>),
        ("a key too many", |_| vec![1, 2, 3]),
    ] {
        cases.refused(
            format!("a cache with {name}"),
            "Algorithm",
            ["LogitsDistiller"],
            move || {
                let folder = TempDir::new()?;
                cached(&folder.path().join("teacher.cache"), Mlp::new(), key)
            },
        );
    }
    cases.right("a cache of one sample twice in a batch", || {
        let folder = TempDir::new()?;
        let path = folder.path().join("teacher.cache");
        let row = rows(0.3).slice([0..1, 0..4]);
        let batch = Tensor::cat(vec![row.clone(), row], 0);
        let cache = TeacherCache::open(&path, first_values)?;
        let teacher = teacher().with_cache(cache);
        let config = ConfigList::from_json(r#"[{"op_names": ["fc2"]}]"#)?;
        let evaluator = crate::fixtures::mlp_evaluator(vec![batch]);
        let chain = Compressor::from_model(Mlp::new(), evaluator);
        let chain = LogitsDistiller::from_teachers(chain, &config, teacher, LogitsConfig::new())?;
        chain.compress(Budget::steps(1))?;
        ensure(
            TeacherCache::open(&path, first_values)?.len() == 1,
            "another number of samples",
        )
    });
}
