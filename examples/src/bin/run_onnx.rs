//! A network of digits in an ONNX file, as the main job writes it, run by onnxruntime: its accuracy on
//! the test digits and the time of a forward pass.
//!
//! ```text
//! cargo run --release -p burn-compress-examples --features ort --bin run_onnx -- small.onnx
//! ```

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::ensure;
use burn::tensor::Device;
use burn_compress_examples::cli::{self, exit_code};
use burn_compress_examples::digits::{Digits, Split};
use burn_compress_examples::onnxruntime::{Network, Runtime};
use clap::Parser;
use comfy_table::Table;

/// Options of the program.
#[derive(Parser, Debug)]
struct Args {
    /// The network
    file: PathBuf,

    /// Threads of a forward pass
    #[arg(long, default_value_t = 1, value_parser = cli::steps)]
    threads: usize,

    /// Forward passes at each batch, of which the median counts
    #[arg(long, default_value_t = 51, value_parser = cli::steps)]
    rounds: usize,
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = Runtime::load()?;
    let mut network = Network::open(&runtime, &args.file, args.threads)?;
    let test = Digits::load()?.test;
    let accuracy = accuracy(&mut network, &test)?;
    println!("accuracy on {} digits: {accuracy:.2} %", test.len());

    let mut table = Table::new();
    table.set_header(["batch", "median, us", "us a digit"]);
    for batch in [1, 64] {
        let microseconds = median(&mut network, &test, batch, args.rounds)?;
        let each = microseconds / batch as f64;
        table.add_row([
            batch.to_string(),
            format!("{microseconds:.0}"),
            format!("{each:.1}"),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// Percentage of the digits that are recognised.
fn accuracy(network: &mut Network, split: &Split) -> anyhow::Result<f64> {
    let batch = split.head(split.len(), &Device::flex());
    let logits = network.run::<4, 2>(&batch.images)?;
    ensure!(
        logits.dims()[0] == split.len(),
        "the network gives {} rows for {} digits",
        logits.dims()[0],
        split.len()
    );
    let found: Vec<i64> = logits.argmax(1).into_data().iter().collect();
    let labels = split.digits().iter().map(|digit| i64::from(digit.label));
    let right = found
        .iter()
        .zip(labels)
        .filter(|(found, label)| **found == *label);
    Ok(100.0 * right.count() as f64 / split.len() as f64)
}

/// Median time of a forward pass, in microseconds.
fn median(
    network: &mut Network,
    split: &Split,
    batch: usize,
    rounds: usize,
) -> anyhow::Result<f64> {
    let images = split.head(batch, &Device::flex()).images;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds.div_ceil(10) {
        network.run::<4, 2>(&images)?;
    }
    for _ in 0..rounds {
        let start = Instant::now();
        network.run::<4, 2>(&images)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(times[rounds / 2])
}
