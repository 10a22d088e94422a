//! What removing half of a network costs and gives, for every network of the zoo.
//!
//! Half of the channels of every convolution, linear layer and embedding but those that make the
//! output or that no cut removes, and half of all heads of attention, are masked by L1 norms, with random
//! weights and random statistics of the norms, and cut.
//! Every network has a process of its own, in which all its times are taken: CPU time of each part,
//! in forward passes of the dense network for one input and in milliseconds per million parameters.
//!
//! Prints what was cut, what it cost, and the first reason for each network that was refused.

mod measure;
mod row;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use burn::tensor::Device;
use burn_compress_zoo::{Scale, Zoo};
use clap::Parser;

use measure::Measure;
use row::{Outcome, Row, tables};

/// Options of the measurement.
#[derive(Parser, Debug)]
struct Args {
    /// Networks to measure [default: all]
    #[arg(long, value_delimiter = ',', value_parser = zoo)]
    models: Vec<Zoo>,

    /// Measure versions of a few thousand parameters
    #[arg(long)]
    tiny: bool,

    /// Measurements of each latency
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    repeats: u64,

    /// Seed of weights, statistics and inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Where to write the rows as JSON [default: nowhere]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Measure one network here and print its row as JSON
    #[arg(long, hide = true)]
    row: bool,
}

fn zoo(name: &str) -> Result<Zoo, String> {
    Zoo::named(name).ok_or_else(|| {
        let names: Vec<_> = Zoo::ALL.iter().map(|zoo| zoo.name()).collect();
        format!("expected one of {}", names.join(", "))
    })
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let models = match args.models.is_empty() {
        true => Zoo::ALL,
        false => &args.models,
    };
    if args.row {
        for &zoo in models {
            println!("{}", serde_json::to_string(&measure(zoo, &args)?)?);
        }
        return Ok(());
    }
    let mut rows = Vec::new();
    for &zoo in models {
        eprintln!("==> {}", zoo.name());
        rows.push(in_a_process(zoo, &args)?);
    }
    for table in tables(&rows) {
        println!("{table}\n");
    }
    for zoo in models.iter().filter(|zoo| !zoo.fixed().is_empty()) {
        let (name, count) = (zoo.name(), zoo.fixed().len());
        println!("{name}: {count} layers keep their channels, which no cut removes\n");
    }
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&serde_json::json!({ "rows": rows }))?;
        std::fs::write(file, json + "\n")
            .with_context(|| format!("{} could not be written", file.display()))?;
    }
    Ok(())
}

/// The row of a network, from this process.
fn measure(zoo: Zoo, args: &Args) -> anyhow::Result<Row> {
    let device = Device::flex();
    device.seed(args.seed);
    let scale = if args.tiny { Scale::Tiny } else { Scale::Full };
    let measure = Measure {
        zoo,
        size: zoo.input_size(scale),
        repeats: args.repeats as usize,
        seed: args.seed,
    };
    zoo.with(scale, &device, measure)
}

/// The row of a network, from a process of its own.
fn in_a_process(zoo: Zoo, args: &Args) -> anyhow::Result<Row> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--row", "--models", zoo.name()]);
    command.args(["--repeats", &args.repeats.to_string()]);
    command.args(["--seed", &args.seed.to_string()]);
    if args.tiny {
        command.arg("--tiny");
    }
    let output = command.stderr(Stdio::piped()).output()?;
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout)?);
    }
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !message.trim().is_empty(),
        "the process of {} ended with {}",
        zoo.name(),
        output.status
    );
    Ok(Row {
        model: zoo.name().into(),
        parameters: zoo.parameters() as u64,
        forward: 0.0,
        result: Outcome::Refused(format!("ended: {}", message.trim().replace('\n', " "))),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
        assert!(Args::try_parse_from(["bench", "--models", "alexnet"]).is_err());
        let args = Args::parse_from(["bench", "--models", "resnet18,unet"]);
        assert_eq!(args.models, [Zoo::ResNet18, Zoo::UNet]);
    }

    #[test]
    fn a_tiny_network_is_measured() {
        let args = Args::parse_from(["bench", "--tiny", "--repeats", "1"]);
        let row = measure(Zoo::ResNet18, &args).unwrap();
        let Outcome::Cut(cut) = row.result else {
            panic!("{row:?}");
        };
        assert!(cut.error <= 1e-6);
        assert_eq!(Some(cut.parameters), cut.expected_parameters);
        assert_eq!(Some(cut.macs), cut.expected_macs);
        assert_eq!((cut.sparsity.min, cut.sparsity.max), (0.5, 0.5));
        assert!(cut.latency[0] > 0.0 && cut.latency[1] > 0.0);
    }
}
