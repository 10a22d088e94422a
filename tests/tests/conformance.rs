//! Every registered algorithm under the same tests: alone, and fused with each algorithm of the
//! other kinds.
//!
//! A chain trains for a few steps and must leave what its algorithms promise: masks that reach the
//! ratio, scales that can be used, a loss that is not the task's alone. The same chain, stopped in
//! the middle and resumed from its checkpoint, must end bit for bit the same, and where channels
//! were masked the model must become smaller without becoming another function.

use std::error::Error as StdError;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use burn_compress::distillation::registry::{self as distillation, Lesson, Needs, distillers};
use burn_compress::prelude::*;
use burn_compress::pruning::registry::{self as pruning, pruners};
use burn_compress::quantization::registry::{self as quantization, quantizers};
use burn_compress_tests::chains::{Built, Chain, HALF, assert_says, prune, teach};
use burn_compress_tests::nets::{Batch, Net, NetConfig, Outcome, dummy_input, evaluator};

type Pruner = pruning::Entry<Net, Batch>;
type Quantizer = quantization::Entry<Net, Batch>;
type Distiller = distillation::Entry<Net, Net, Batch>;

const STEPS: usize = 6;
/// Steps over which a pruner collects its score.
const SCORED: usize = 3;
const RATIO: f64 = 0.5;
const QUANTIZE: &str = r#"[{
    "op_types": ["Conv2d"], "target_names": ["_input_", "weight"], "quant_dtype": "int8",
    "quant_scheme": "symmetric"
}]"#;
/// A binary grid has no zero, so the input of a layer loses its removed channels to ones.
const BINARIZE: &str =
    r#"[{"op_types": ["Conv2d"], "target_names": ["weight"], "quant_dtype": "int1"}]"#;
/// The batch norms of the stem and of two convolutions of the block are folded into them.
const FOLDED: &str = r#"[{
    "op_types": ["Conv2d"], "target_names": ["_input_", "weight"], "quant_dtype": "int8",
    "quant_scheme": "symmetric", "fuse": true
}]"#;
const FOLDED_BINARY: &str = r#"[{
    "op_types": ["Conv2d"], "target_names": ["weight"], "quant_dtype": "int1", "fuse": true
}]"#;
const HIDDEN: &str = r#"[{"op_types": ["Conv2d"], "lambda": 0.1}]"#;
const LOGITS: &str = r#"[{"op_names": ["head"], "lambda": 0.1}]"#;

fn chain() -> Chain {
    Compressor::from_model(NetConfig::default().init(1), evaluator(STEPS))
}

/// The algorithms of a chain, at most one of a kind.
#[derive(Clone, Copy, Default)]
struct Fusion<'a> {
    pruner: Option<&'a Pruner>,
    quantizer: Option<&'a Quantizer>,
    distiller: Option<&'a Distiller>,
    /// Whether the quantizer folds batch norms.
    folds: bool,
}

impl Fusion<'_> {
    fn name(&self) -> String {
        let names = [
            self.pruner.map(|entry| entry.name),
            self.quantizer.map(|entry| entry.name),
            self.distiller.map(|entry| entry.name),
        ];
        names.into_iter().flatten().collect::<Vec<_>>().join(" + ")
    }

    fn build(&self) -> Built {
        let mut chain = chain();
        if let Some(pruner) = self.pruner {
            chain = (pruner.fuse)(chain, &ConfigList::from_json(HALF)?, SCORED)?;
        }
        if let Some(quantizer) = self.quantizer {
            let (rules, _) = quantization_of(quantizer, self.folds);
            chain = (quantizer.fuse)(chain, &ConfigList::from_json(rules)?)?;
            let folded = chain.foldings().len();
            if folded != if self.folds { 3 } else { 0 } {
                return Err(format!("{folded} batch norms are folded").into());
            }
        }
        if let Some(distiller) = self.distiller {
            let rules = match distiller.needs {
                Needs::Logits => LOGITS,
                _ => HIDDEN,
            };
            let lesson = Lesson::new(&NetConfig::default().init(100), teach, |batch: &Batch| {
                batch.labels.clone()
            });
            chain = (distiller.fuse)(chain, &ConfigList::from_json(rules)?, &lesson)?;
        }
        Ok(chain)
    }

    /// Puts the chain through all tests; the first that it fails, in words.
    fn test(&self, file: &Path) -> Result<(), Box<dyn StdError>> {
        let budget = Budget::steps(STEPS);
        let compressed = self.build()?.compress(budget.clone())?;
        let outcome = Outcome::of(&compressed);
        self.promises(&outcome)?;

        let mut stopped = self.build()?;
        stopped.advance(&budget, Some(STEPS / 2))?;
        stopped.save_checkpoint(file)?;
        let resumed = self.build()?.resume(file)?.compress(budget)?;
        let difference = Outcome::of(&resumed).difference(&outcome);
        if !difference.is_empty() {
            return Err(format!("resumed, it differs in {difference:?}").into());
        }
        if self.pruner.is_some_and(|pruner| pruner.channels) {
            let small = ModelSpeedup::new(compressed, dummy_input()).speedup_model()?;
            let width = small.model.block.conv1.weight.dims()[0];
            if width != 4 {
                return Err(format!("{width} of 8 channels are left, not 4").into());
            }
        }
        Ok(())
    }

    fn promises(&self, outcome: &Outcome) -> Result<(), Box<dyn StdError>> {
        let selected = |id: &TargetId| {
            let weight = id.target == Target::Param("weight".into());
            weight && !["plain", "head"].contains(&id.layer.as_str())
        };
        if let Some(pruner) = self.pruner {
            let masks: Vec<_> = outcome
                .masks
                .iter()
                .filter(|(id, _)| selected(id))
                .collect();
            if masks.len() != 4 {
                return Err(format!("4 convolutions are to be pruned, not {}", masks.len()).into());
            }
            for (id, mask) in masks {
                let removed = mask.values().iter().filter(|&&value| value == 0.0).count();
                let block = match pruner.channels {
                    true => mask.values().len() / mask.shape()[0],
                    false => 1,
                };
                let goal = RATIO * mask.values().len() as f64;
                if (removed as f64 - goal).abs() > block as f64 {
                    return Err(format!("{removed} elements of `{id}` are gone, not {goal}").into());
                }
            }
        }
        if let Some(quantizer) = self.quantizer {
            let (_, targets) = quantization_of(quantizer, self.folds);
            let usable = outcome.calibration.values().filter(|entry| {
                let scale = entry.scale.as_deref().unwrap_or_default();
                let usable = scale.iter().all(|&scale| scale.is_finite() && scale > 0.0);
                entry.enabled && usable && !scale.is_empty()
            });
            let usable = usable.count();
            if usable != targets {
                return Err(format!("{usable} of {targets} targets are quantized").into());
            }
        }
        let steps = &outcome.history.steps;
        if steps.len() != STEPS || steps.iter().any(|record| !record.loss.is_finite()) {
            return Err(format!("{} steps of {STEPS} have a finite loss", steps.len()).into());
        }
        if self.distiller.is_some() && steps.iter().any(|record| record.loss == record.task_loss) {
            return Err("the teacher has no part in the loss".into());
        }
        Ok(())
    }
}

/// The rules for a quantizer, and how many targets of the 4 convolutions they select.
fn quantization_of(quantizer: &Quantizer, folds: bool) -> (&'static str, usize) {
    match (quantizer.name, folds) {
        ("BnnQuantizer", false) => (BINARIZE, 4),
        ("BnnQuantizer", true) => (FOLDED_BINARY, 4),
        (_, false) => (QUANTIZE, 8),
        (_, true) => (FOLDED, 8),
    }
}

/// Tests all `fusions` and prints how many they are.
fn conform<'a>(what: &str, fusions: impl IntoIterator<Item = Fusion<'a>>) {
    let file = scratch(what);
    let (mut passed, mut failed) = (0, Vec::new());
    for fusion in fusions {
        match fusion.test(&file) {
            Ok(()) => passed += 1,
            Err(error) => failed.push(format!("{}: {error}", fusion.name())),
        }
    }
    let _ = std::fs::remove_file(&file);
    // Past the harness, which keeps what macros print to itself while a test passes.
    let _ = writeln!(
        io::stderr(),
        "conformance, {what}: {passed} passed, {} failed",
        failed.len()
    );
    assert!(failed.is_empty(), "{what}:\n{}", failed.join("\n"));
    assert!(passed > 0);
}

fn scratch(what: &str) -> PathBuf {
    let name = format!("burn-compress-conformance-{}-{what}", std::process::id()).replace(' ', "-");
    std::env::temp_dir().join(name)
}

#[test]
fn alone() {
    let (p, q, d) = (pruners(), quantizers(), distillers());
    let pruner = |entry| Fusion {
        pruner: Some(entry),
        ..Fusion::default()
    };
    let quantizer = |entry| Fusion {
        quantizer: Some(entry),
        ..Fusion::default()
    };
    let distiller = |entry| Fusion {
        distiller: Some(entry),
        ..Fusion::default()
    };
    let all = p.iter().map(pruner).chain(q.iter().map(quantizer));
    conform("alone", all.chain(d.iter().map(distiller)));
}

#[test]
fn pruners_with_quantizers() {
    let (p, q) = (pruners(), quantizers());
    let pairs = p.iter().flat_map(|pruner| {
        q.iter().map(move |quantizer| Fusion {
            pruner: Some(pruner),
            quantizer: Some(quantizer),
            ..Fusion::default()
        })
    });
    conform("P+Q", pairs);
}

#[test]
fn pruners_with_quantizers_that_fold() {
    let (p, q) = (pruners(), quantizers());
    // What a pruner reads at the output of a convolution is not there when that is folded.
    let readers = |pruner: &&Pruner| pruner.needs != pruning::Needs::Outputs;
    let pairs = p.iter().filter(readers).flat_map(|pruner| {
        q.iter().map(move |quantizer| Fusion {
            pruner: Some(pruner),
            quantizer: Some(quantizer),
            folds: true,
            ..Fusion::default()
        })
    });
    let alone = q.iter().map(|quantizer| Fusion {
        quantizer: Some(quantizer),
        folds: true,
        ..Fusion::default()
    });
    conform("Q and P+Q with folded norms", alone.chain(pairs));
}

#[test]
fn pruners_with_distillers() {
    let (p, d) = (pruners(), distillers());
    let pairs = p.iter().flat_map(|pruner| {
        d.iter().map(move |distiller| Fusion {
            pruner: Some(pruner),
            distiller: Some(distiller),
            ..Fusion::default()
        })
    });
    conform("P+D", pairs);
}

#[test]
fn quantizers_with_distillers() {
    let (q, d) = (quantizers(), distillers());
    let pairs = q.iter().flat_map(|quantizer| {
        d.iter().map(move |distiller| Fusion {
            quantizer: Some(quantizer),
            distiller: Some(distiller),
            ..Fusion::default()
        })
    });
    conform("Q+D", pairs);
}

#[test]
fn pruners_with_quantizers_and_distillers() {
    let (p, q, d) = (pruners(), quantizers(), distillers());
    let pairs = p
        .iter()
        .flat_map(|pruner| q.iter().map(move |quantizer| (pruner, quantizer)));
    let triples = pairs.flat_map(|(pruner, quantizer)| {
        d.iter().map(move |distiller| Fusion {
            pruner: Some(pruner),
            quantizer: Some(quantizer),
            distiller: Some(distiller),
            ..Fusion::default()
        })
    });
    conform("P+Q+D", triples);
}

#[test]
fn binary_inputs_of_pruned_channels_are_refused() {
    let chain = prune(chain(), HALF, PrunerConfig::new()).unwrap();
    let quantizers = quantizers::<Net, Batch>();
    let binary = quantizers.iter().find(|entry| entry.name == "BnnQuantizer");
    let config = ConfigList::from_json(QUANTIZE).unwrap();
    let chain = (binary.unwrap().fuse)(chain, &config).unwrap();
    let compressed = chain.compress(Budget::steps(STEPS)).unwrap();
    let error = ModelSpeedup::new(compressed, dummy_input()).speedup_model();
    assert_says(&error.unwrap_err(), &["conv1._input_0", "no zero"]);
}
