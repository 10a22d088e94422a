//! The network of the main job as an ONNX file: what onnxruntime computes in integers against the
//! simulation, and with its optimizations against without.
//!
//! It needs a Python with `onnx` and `onnxruntime`, which `BURN_COMPRESS_PYTHON` names:
//!
//! ```text
//! cargo run --release -p burn-compress-examples --bin verify_onnx -- --seeds 5
//! ```

use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Context;
use burn_compress::prelude::*;
use burn_compress_examples::deployed::{Deployed, Differences};
use burn_compress_examples::{fused, pipeline};
use burn_compress_testkit::onnx::OnnxRuntime;
use comfy_table::Table;

fn main() -> ExitCode {
    let rows = Mutex::new(Vec::new());
    let code = pipeline::run("verify_onnx", |setup| {
        let runtime = OnnxRuntime::find().context("no Python with onnxruntime")?;
        let chain = fused::prune_quantize_distill(setup)?;
        let outcome = setup.finish(chain, Budget::steps(setup.steps))?;
        let deployed = Deployed::of(setup, &outcome.small.model, &runtime)?;
        println!("{}", deployed.report);
        let row = (setup.seed, deployed);
        println!("{}", table(std::slice::from_ref(&row)));
        if let Ok(mut rows) = rows.lock() {
            rows.push(row);
        }
        Ok(outcome)
    });
    if let Ok(rows) = rows.lock() {
        println!("{}", table(&rows));
        for (seed, deployed) in rows.iter() {
            let operators = deployed.operators.iter();
            let operators: Vec<String> = operators.map(|(name, n)| format!("{n} {name}")).collect();
            println!("seed {seed}: {}", operators.join(", "));
        }
    }
    code
}

fn table(rows: &[(u64, Deployed)]) -> Table {
    let mut table = Table::new();
    table.set_header([
        "seed",
        "bytes",
        "simulated",
        "int8",
        "other argmax, codes, steps",
        "against unoptimized",
    ]);
    let differences = |found: &Differences| {
        let Differences {
            argmax,
            codes,
            steps,
        } = found;
        format!("{argmax}, {codes:.2} %, {steps}")
    };
    for (seed, deployed) in rows {
        table.add_row([
            seed.to_string(),
            deployed.bytes.to_string(),
            format!("{:.2} %", deployed.simulated),
            format!("{:.2} %", deployed.executed),
            differences(&deployed.from_simulation),
            differences(&deployed.from_unoptimized),
        ]);
    }
    table
}
