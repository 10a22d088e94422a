//! Compressors on compressors, budgets, and runs that end where they should not.

use burn_compress::prelude::*;
use burn_compress_tests::chains::{self, HALF, id};
use burn_compress_tests::nets::{Net, bits, evaluator};

use crate::fixtures::{DISTILL, NET, QUANTIZE, STEPS, chain, distill, prune, quantize};
use crate::table::{Cases, ensure};

pub fn fill(cases: &mut Cases) {
    taken(cases);
    scheduled(cases);
    budgets(cases);
    runs(cases);
}

/// Targets that another compressor of the same mode has.
fn taken(cases: &mut Cases) {
    let parts = ["`stem.weight`", "pruning", "exclude `stem`"];
    cases.refused("two pruners on one layer", "TargetTaken", parts, || {
        chains::prune(prune(HALF)?, HALF, PrunerConfig::new())?;
        Ok(())
    });
    let parts = ["`stem.", "quantization", "exclude `stem`"];
    cases.refused("two quantizers on one layer", "TargetTaken", parts, || {
        chains::quantize(quantize(QUANTIZE)?, QUANTIZE, QatConfig::new())?;
        Ok(())
    });
    cases.refused(
        "a learned quantizer on another",
        "TargetTaken",
        parts,
        || {
            let config = ConfigList::from_json(QUANTIZE)?;
            LsqQuantizer::from_compressor(quantize(QUANTIZE)?, &config, LsqConfig::new())?;
            Ok(())
        },
    );
    let parts = ["`stem._output_0`", "distillation", "exclude `stem`"];
    cases.refused("two distillers on one layer", "TargetTaken", parts, || {
        chains::distill(distill(DISTILL)?, DISTILL, &NET.init(3), 1.0)?;
        Ok(())
    });
    cases.refused(
        "a movement pruner on a norm pruner",
        "TargetTaken",
        ["pruning"],
        || {
            let config = ConfigList::from_json(HALF)?;
            MovementPruner::from_compressor(prune(HALF)?, &config, MovementConfig::new(0, 2))?;
            Ok(())
        },
    );
    cases.right("two pruners on layers of their own", || {
        let first = prune(r#"[{"op_names": ["stem"], "sparse_ratio": 0.5}]"#)?;
        let rules = r#"[{"op_names": ["block.conv1"], "sparse_ratio": 0.5}]"#;
        let chain = chains::prune(first, rules, PrunerConfig::new())?;
        let masks = chain.compress(Budget::none())?.masks();
        let halved = |path: &str| masks[&id(path)].sparsity() == 0.5;
        ensure(
            halved("stem.weight") && halved("block.conv1.weight"),
            "not both are halved",
        )
    });
    cases.right("an evaluator beside one that is there", || {
        let chain = chain().with_evaluator(Evaluator::new());
        chain.compress(Budget::steps(1))?;
        Ok(())
    });
}

/// Schedules without a pruner that they could drive.
fn scheduled(cases: &mut Cases) {
    type Make = fn() -> Result<chains::Chain, Box<dyn std::error::Error>>;
    let newest: [(&str, Make, &str); 6] = [
        ("an empty chain", || Ok(chain()), "an empty chain"),
        ("a quantizer", || quantize(QUANTIZE), "QatQuantizer"),
        (
            "a distiller",
            || distill(DISTILL),
            "DynamicLayerwiseDistiller",
        ),
        (
            "another schedule",
            || Ok(AgpPruner::new(prune(HALF)?, AgpConfig::new(1, 2))?),
            "AgpPruner",
        ),
        (
            "a movement pruner",
            || {
                let config = ConfigList::from_json(HALF)?;
                let options = MovementConfig::new(0, 2);
                Ok(MovementPruner::from_compressor(chain(), &config, options)?)
            },
            "MovementPruner",
        ),
        (
            "a pruner below a quantizer",
            || chains::quantize(prune(HALF)?, QUANTIZE, QatConfig::new()),
            "QatQuantizer",
        ),
    ];
    for (name, make, found) in newest {
        let parts = ["AgpPruner", found, "fuse a pruner first"];
        cases.refused(
            format!("AgpPruner on {name}"),
            "NothingToSchedule",
            parts,
            move || {
                AgpPruner::new(make()?, AgpConfig::new(1, 2))?;
                Ok(())
            },
        );
        let parts = ["LinearPruner", found];
        cases.refused(
            format!("LinearPruner on {name}"),
            "NothingToSchedule",
            parts,
            move || {
                LinearPruner::new(make()?, LinearScheduleConfig::new(1, 2))?;
                Ok(())
            },
        );
    }
}

/// Budgets that are too short for what a compressor wants to do.
fn budgets(cases: &mut Cases) {
    let agp = || -> Result<chains::Chain, Box<dyn std::error::Error>> {
        Ok(AgpPruner::new(prune(HALF)?, AgpConfig::new(2, 3))?)
    };
    for steps in [0, 1, 5] {
        let parts = [
            "AgpPruner".to_owned(),
            "step 6".to_owned(),
            format!("{steps} steps"),
        ];
        cases.refused(
            format!("{steps} steps for a schedule of 6"),
            "Budget",
            parts,
            move || {
                agp()?.compress(Budget::steps(steps))?;
                Ok(())
            },
        );
    }
    cases.refused(
        "no epoch for a schedule",
        "Budget",
        ["AgpPruner", "at least 6"],
        move || {
            agp()?.compress(Budget::epochs(0))?;
            Ok(())
        },
    );
    cases.refused(
        "no steps for a Taylor pruner",
        "Budget",
        ["TaylorPruner", "0 steps"],
        || {
            let config = ConfigList::from_json(HALF)?;
            let chain = TaylorPruner::from_compressor(chain(), &config, TaylorConfig::new(2))?;
            chain.compress(Budget::none())?;
            Ok(())
        },
    );
    cases.refused("fewer steps than are done", "Budget", ["3", "2"], || {
        let mut chain = chain();
        chain.advance(&Budget::steps(3), None)?;
        chain.compress(Budget::steps(2))?;
        Ok(())
    });
    cases.right("no budget without an algorithm", || {
        let before = bits(chain().model());
        let compressed = chain().compress(Budget::none())?;
        ensure(bits(compressed.model()) == before, "the model has changed")
    });
    cases.right("epochs that are many", || {
        let mut chain = chain();
        chain.advance(&Budget::epochs(usize::MAX), Some(1))?;
        ensure(
            chain.history().steps.len() == 1,
            "more steps than asked for",
        )
    });
    cases.right("a stop behind the end", || {
        let mut chain = chain();
        chain.advance(&Budget::steps(2), Some(usize::MAX))?;
        ensure(
            chain.history().steps.len() == 2,
            "more steps than the budget",
        )
    });
    cases.right("a stop that is behind already", || {
        let mut chain = chain();
        chain.advance(&Budget::steps(3), Some(2))?;
        chain.advance(&Budget::steps(3), Some(1))?;
        ensure(chain.history().steps.len() == 2, "the run went back")
    });
}

/// Algorithms that cannot be taken apart, and checkpoints that cannot be written.
fn runs(cases: &mut Cases) {
    for (name, every) in [("a folder that does not exist", 1), ("the last step", 2)] {
        let parts = ["nowhere", "checkpoint"];
        cases.refused(
            format!("a run with checkpoints to {name}"),
            "Checkpoint",
            parts,
            move || {
                let path = std::env::temp_dir()
                    .join("nowhere")
                    .join("deep")
                    .join("file");
                chain().compress(Budget::steps(2).with_checkpoint(path, every))?;
                Ok(())
            },
        );
    }
    let parts = ["`with_checkpoint`", "0 steps", "at least 1"];
    cases.refused("a checkpoint every 0 steps", "Budget", parts, || {
        let path = std::env::temp_dir().join("never-written");
        chain().compress(Budget::steps(1).with_checkpoint(path, 0))?;
        Ok(())
    });
    let parts = ["`with_evaluation`", "0 steps", "at least 1"];
    cases.refused("an evaluation every 0 steps", "Budget", parts, || {
        let evaluator = evaluator(STEPS).with_evaluation(0, |_: &Net| 0.0);
        Compressor::from_model(NET.init(1), evaluator).compress(Budget::steps(1))?;
        Ok(())
    });
    cases.right("the newest algorithm, taken off", || {
        let mut chain = chains::quantize(prune(HALF)?, QUANTIZE, QatConfig::new())?;
        chain.chain().pop();
        chain.chain().pop();
        ensure(
            chain.chain().pop().is_none() && chain.algorithms().is_empty(),
            "something is left",
        )
    });
    cases.right("a model that was compressed, compressed again", || {
        let once = prune(HALF)?.compress(Budget::none())?;
        let again = Compressor::from_model(once.into_model(), evaluator(STEPS));
        ensure(!again.masks().is_empty(), "the masks are lost")
    });
    cases.right("a pruner on what is pruned already decides anew", || {
        let once = prune(HALF)?.compress(Budget::none())?;
        let again = Compressor::from_model(once.into_model(), evaluator(STEPS));
        let rules = r#"[{"op_names": ["stem"], "sparse_ratio": 0.25}]"#;
        let again = chains::prune(again, rules, PrunerConfig::new())?;
        let masks = again.compress(Budget::none())?.masks();
        let (stem, other) = (
            &masks[&id("stem.weight")],
            &masks[&id("block.conv1.weight")],
        );
        ensure(
            stem.sparsity() == 0.25 && other.sparsity() >= 0.5,
            "masks of before",
        )
    });
    cases.right("unwrapping in the middle of a run", || {
        let mut chain = chains::quantize(prune(HALF)?, QUANTIZE, QatConfig::new())?;
        chain.advance(&Budget::steps(STEPS), Some(1))?;
        let plain: Net = chain.unwrap_model();
        let masked = plain_zeros(&plain);
        ensure(masked < 0.1, format!("{masked} of the weights are zero"))
    });
}

/// The fraction of zeros in the stem.
fn plain_zeros(net: &Net) -> f64 {
    let values: Vec<f32> = net.stem.weight.val().into_data().iter().collect();
    let zeros = values.iter().filter(|value| **value == 0.0).count();
    zeros as f64 / values.len() as f64
}
