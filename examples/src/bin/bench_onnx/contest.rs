//! One network in all its forms, timed in turns.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress::export::{OnnxConfig, OnnxTarget};
use burn_compress::prelude::*;
use burn_compress_examples::onnxruntime::{Network, Runtime};
use burn_compress_examples::quartiles::Quartiles;

use super::Args;
use super::row::{Latency, Row, Size};

/// Batches whose forward pass is timed.
pub const BATCHES: [usize; 2] = [1, 64];

/// A network to measure.
pub struct Contest<'a, M> {
    pub name: &'static str,
    pub forward: fn(&M, Tensor<4>) -> Tensor<2>,
    /// Images of a batch.
    pub images: &'a dyn Fn(usize) -> Tensor<4>,
    pub dense: M,
    pub compressed: Compressed<M>,
    pub dummy_input: DummyInput<M>,
}

/// A form of the network: what it is called, and one forward pass.
type Candidate<'a> = (
    &'static str,
    Box<dyn FnMut(&Tensor<4>) -> anyhow::Result<Tensor<2>> + 'a>,
);

impl<M: Module + 'static> Contest<'_, M> {
    /// Exports the forms and times them.
    ///
    /// # Errors
    ///
    /// Those of speedup, export and runtime.
    pub fn run(self, args: &Args, runtime: &Runtime) -> anyhow::Result<Row> {
        let small = self.compressed.speedup()?;
        let parameters = small.report.params.small;
        // The small network as if nothing were quantized.
        let masks = small.state.masks.clone();
        let plain = Compressed::from_parts(
            small.model.clone(),
            &masks,
            &Calibration::new(),
            History::default(),
        )?;
        let plain = plain.masked_model();

        let folder = std::env::temp_dir().join(format!("bench-onnx-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let float = OnnxConfig::new().with_target(OnnxTarget::Float);
        let files = [
            ("dense", &self.dense, float.clone()),
            ("small", &plain, float),
            ("int8", &small.model, OnnxConfig::new()),
        ];
        let mut sizes = Vec::new();
        for (form, model, config) in files {
            let file = export_onnx(model, &self.dummy_input, &config)
                .with_context(|| format!("{form} {}", self.name))?;
            let path = folder.join(form);
            file.save(&path)?;
            let bytes = fs::metadata(&path)?.len();
            let form = form.to_string();
            sizes.push(Size { form, bytes });
        }

        let open = |form: &str| Network::open(runtime, &folder.join(form), 1);
        let (mut dense, mut float, mut int8) = (open("dense")?, open("small")?, open("int8")?);
        let forward = self.forward;
        let simulated = &small.model;
        let mut candidates: Vec<Candidate<'_>> = vec![
            ("onnxruntime, dense", Box::new(|x| dense.run(x))),
            ("onnxruntime, small", Box::new(|x| float.run(x))),
            ("onnxruntime, small int8", Box::new(|x| int8.run(x))),
            (
                "Burn, dense",
                Box::new(|x| Ok(forward(&self.dense, x.clone()))),
            ),
            ("Burn, small", Box::new(|x| Ok(forward(&plain, x.clone())))),
            (
                "Burn, small simulated",
                Box::new(|x| Ok(forward(simulated, x.clone()))),
            ),
        ];
        let mut latencies = Vec::new();
        for batch in BATCHES {
            let images = (self.images)(batch);
            latencies.extend(in_turns(&mut candidates, batch, &images, args)?);
        }
        drop(candidates);
        remove(&folder)?;
        Ok(Row {
            network: self.name.to_string(),
            parameters,
            sizes,
            latencies,
        })
    }
}

/// Times the candidates round by round.
fn in_turns(
    candidates: &mut [Candidate<'_>],
    batch: usize,
    images: &Tensor<4>,
    args: &Args,
) -> anyhow::Result<Vec<Latency>> {
    let mut times = vec![Vec::new(); candidates.len()];
    let mut start = None;
    // The first round warms up.
    for round in 0..=args.rounds {
        let elapsed = start.map_or(0.0, |start: Instant| start.elapsed().as_secs_f64());
        if round > 3 && elapsed > args.seconds {
            break;
        }
        for ((_, run), times) in candidates.iter_mut().zip(&mut times) {
            let before = Instant::now();
            run(images)?
                .try_into_data()
                .context("the forward pass failed")?;
            if round > 0 {
                times.push(before.elapsed().as_secs_f64() * 1e6);
            }
        }
        start.get_or_insert_with(Instant::now);
    }
    let names = candidates.iter().map(|(name, _)| *name);
    let latency = |(name, times): (&str, Vec<f64>)| Latency {
        candidate: name.to_string(),
        batch,
        microseconds: Quartiles::of(times),
    };
    Ok(names.zip(times).map(latency).collect())
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    fs::remove_dir_all(folder).with_context(|| format!("{} stays behind", folder.display()))
}
