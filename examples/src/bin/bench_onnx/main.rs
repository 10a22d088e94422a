//! Compressed networks where they are deployed: sizes of their files, and the time of a forward pass in
//! onnxruntime and in Burn, on one thread.
//!
//! - `digits`: the network of the main job, pruned, quantized and distilled;
//! - `resnet18`, `mobilenet_v2`: of the zoo, with random weights, half of the channels of each
//!   convolution removed and calibrated on random images of 224 pixels.
//!
//! Whatever is compared runs in turns in one process, so that what slows the machine down for a while
//! slows all of it.

mod contest;
mod networks;
mod row;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use burn_compress_examples::cli::{self, exit_code};
use burn_compress_examples::onnxruntime::Runtime;
use clap::{Parser, ValueEnum};

use row::{Row, tables};

/// Options of the measurement.
#[derive(Parser, Debug)]
struct Args {
    /// Networks to measure [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    models: Vec<Network>,

    /// Training steps of the main job
    #[arg(long, default_value_t = 460, value_parser = cli::steps)]
    steps: usize,

    /// The most rounds; each candidate runs once in each
    #[arg(long, default_value_t = 51, value_parser = cli::steps)]
    rounds: usize,

    /// Seconds after which no further round of a network and a batch begins, once there are three
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,

    /// Pixels of a side of the images of the zoo
    #[arg(long, default_value_t = 224, value_parser = cli::steps)]
    size: usize,

    /// Seed of weights and images
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Where to write the rows as JSON [default: nowhere]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[value(rename_all = "snake_case")]
enum Network {
    Digits,
    #[value(name = "resnet18")]
    ResNet18,
    MobilenetV2,
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = Runtime::load()?;
    let all = Network::value_variants();
    let models = if args.models.is_empty() {
        all
    } else {
        &args.models
    };
    let mut rows: Vec<Row> = Vec::new();
    for &network in models {
        eprintln!("==> {network:?}");
        rows.push(match network {
            Network::Digits => networks::digits(args, &runtime)?,
            Network::ResNet18 => networks::resnet18(args, &runtime)?,
            Network::MobilenetV2 => networks::mobilenet_v2(args, &runtime)?,
        });
    }
    println!("{}", tables(&rows));
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&serde_json::json!({ "rows": rows }))?;
        std::fs::write(file, json + "\n")
            .with_context(|| format!("{} could not be written", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
        let args = Args::parse_from(["bench", "--models", "resnet18,mobilenet_v2"]);
        assert_eq!(args.models, [Network::ResNet18, Network::MobilenetV2]);
    }
}
