//! Every registered algorithm under the same tests: alone, and fused with each algorithm of the
//! other kinds.
//!
//! A chain trains for a few steps and must leave what its algorithms promise: masks that reach the
//! ratio, scales that can be used, a loss that is not the task's alone. The same chain, stopped in
//! the middle and resumed from its checkpoint, must end bit for bit the same, and where channels
//! were masked the model must become smaller without becoming another function.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};

use burn_compress::distillation::registry::{self as distillation, Lesson, Needs, distillers};
use burn_compress::prelude::*;
use burn_compress::pruning::registry::{self as pruning, pruners};
use burn_compress::quantization::registry::{self as quantization, quantizers};
use burn_compress_tests::chains::{Built, Chain, HALF, teach};
use burn_compress_tests::nets::{Batch, Net, NetConfig, Outcome, dummy_input, evaluator};

type Pruner = pruning::Entry<Net, Batch>;
type Quantizer = quantization::Entry<Net, Batch>;
type Distiller = distillation::Entry<Net, Net, Batch>;

const STEPS: usize = 6;
/// Steps over which a pruner collects its score.
const SCORED: usize = 3;
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

    /// A line of hashes of everything that the chain leaves.
    fn freeze(&self, file: &Path, steps: usize) -> Result<String, Box<dyn StdError>> {
        let budget = Budget::steps(steps);
        let compressed = self.build()?.compress(budget.clone())?;
        let outcome = Outcome::of(&compressed);
        let mut tensors = Hash::new();
        for (name, bits) in &outcome.tensors {
            tensors.text(name);
            bits.iter().for_each(|&bits| tensors.add(u64::from(bits)));
        }
        let mut masks = Hash::new();
        for (id, mask) in &outcome.masks {
            masks.text(&id.to_string());
            mask.shape().iter().for_each(|&size| masks.add(size as u64));
            mask.values()
                .iter()
                .for_each(|&v| masks.add(u64::from(v.to_bits())));
        }
        let mut scales = Hash::new();
        for (id, entry) in &outcome.calibration {
            scales.text(&id.to_string());
            for values in [
                &entry.scale,
                &entry.zero_point,
                &entry.minimum,
                &entry.maximum,
            ] {
                let values = values.iter().flat_map(|values| values.iter());
                scales.text("|");
                values.for_each(|v| scales.add(u64::from((*v as f32).to_bits())));
            }
        }
        let mut losses = Hash::new();
        for record in &outcome.history.steps {
            losses.text(&format!("{:?} {:?}", record.loss, record.task_loss));
        }
        let mut stopped = self.build()?;
        stopped.advance(&budget, Some(steps / 2))?;
        stopped.save_checkpoint(file)?;
        let checkpoint = Hash::of(&std::fs::read(file)?);
        let resumed = self.build()?.resume(file)?.compress(budget)?;
        if !Outcome::of(&resumed).difference(&outcome).is_empty() {
            return Err("resumed, it differs".into());
        }
        let mut small_hash = "-".to_string();
        let mut small_file = "-".to_string();
        if self.pruner.is_none_or(|pruner| pruner.channels) {
            let mut hash = Hash::new();
            match ModelSpeedup::new(compressed, dummy_input()).speedup_model() {
                Ok(small) => {
                    for batch in burn_compress_tests::nets::batches(11, 0) {
                        let logits = small.model.forward(batch.images).into_data();
                        for v in logits.try_to_vec::<f32>().unwrap() {
                            hash.add(u64::from(v.to_bits()));
                        }
                    }
                    small_hash = hash.done();
                    save_small(&small.model, &small.state, file)?;
                    small_file = Hash::of(&std::fs::read(file)?);
                }
                Err(error) => {
                    small_hash = format!("error:{}", Hash::of(error.to_string().as_bytes()))
                }
            }
        }
        Ok(format!(
            "tensors={} masks={} scales={} losses={} small={small_hash} checkpoint={checkpoint} file={small_file}",
            tensors.done(),
            masks.done(),
            scales.done(),
            losses.done()
        ))
    }
}

/// FNV-1a.
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, value: u64) {
        for byte in value.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn text(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.add(u64::from(byte)));
    }

    fn of(bytes: &[u8]) -> String {
        let mut hash = Self::new();
        bytes.iter().for_each(|&byte| hash.add(u64::from(byte)));
        hash.done()
    }

    fn done(self) -> String {
        format!("{:016x}", self.0)
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

fn conform<'a>(what: &str, fusions: impl IntoIterator<Item = Fusion<'a>>) {
    let file = scratch(what);
    let steps = if what == "alone" { 20 } else { STEPS };
    let mut lines = Vec::new();
    for fusion in fusions {
        let line = fusion
            .freeze(&file, steps)
            .unwrap_or_else(|error| format!("ERROR {error}"));
        lines.push(format!(
            "{what}: {}{} {line}",
            fusion.name(),
            if fusion.folds { " folded" } else { "" }
        ));
    }
    let _ = std::fs::remove_file(&file);
    let out = PathBuf::from(std::env::var("GOLDEN_OUT").expect("GOLDEN_OUT"));
    let name = what.replace([' ', '+', '&'], "_");
    std::fs::write(out.join(format!("{name}.txt")), lines.join("\n") + "\n").unwrap();
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
