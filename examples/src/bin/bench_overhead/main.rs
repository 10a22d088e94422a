//! Cost of a training step under compression, beside the plain step of the same network.
//!
//! The plain step is a loop that a user of Burn writes: forward, backward, optimizer, and one read of
//! the loss. All variants of a network alternate step by step in one process, so that what slows the
//! machine down for a while slows all of them, and each round gives a ratio to the plain step. Masks
//! are in place and simulated rounding has begun before the first round.
//!
//! - `digits`: the network of the main job, on its data;
//! - `resnet18`: of the zoo, 1000 classes, on random images of 64 pixels, 16 in a batch.
//!
//! Every network and batch has a process of its own on every device, and the memory of a variant is
//! that of a process that trains nothing else. With `--peers` the same work is done by NNI and
//! `torch.ao` on PyTorch (`examples/peers/overhead.py`), in turns of their own, right after.

mod chains;
mod draw;
mod measure;
mod rounds;
mod row;
mod table;
mod variant;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, ensure};
use burn_compress_examples::cli::{self, DeviceName, exit_code};
use burn_compress_examples::file::{writable, write_whole};
use clap::builder::{PathBufValueParser, TypedValueParser, ValueParser};
use clap::{Parser, ValueEnum};

use row::Row;
use variant::Variant;

/// The script that measures other libraries.
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/overhead.py");
/// Batches of the digits.
const BATCHES: [usize; 3] = [16, 64, 256];
/// Images in a batch of the zoo's network.
const ZOO_BATCH: usize = 16;

/// Options of the measurement.
#[derive(Parser, Clone, Debug)]
struct Args {
    /// Where to compute
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [DeviceName::Flex])]
    devices: Vec<DeviceName>,

    /// Networks to measure [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    models: Vec<Network>,

    /// Batches of the digits [default: 16,64,256]
    #[arg(long, value_delimiter = ',', value_parser = cli::steps)]
    batch: Vec<usize>,

    /// What to measure beside the plain step [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    variants: Vec<Variant>,

    /// The most rounds; each variant makes one step in each
    #[arg(long, default_value_t = 31, value_parser = cli::steps)]
    rounds: usize,

    /// Seconds after which no further round of a network and a batch begins, once there are three
    #[arg(long, default_value_t = 120.0)]
    seconds: f64,

    /// Threads to compute with on a CPU
    #[arg(long, default_value_t = 1, value_parser = cli::steps)]
    threads: usize,

    /// Where to write the rows as JSON [default: nowhere]
    #[arg(long, value_name = "FILE", value_parser = output())]
    json: Option<PathBuf>,

    /// Where to draw the ratios [default: nowhere]
    #[arg(long, value_name = "SVG", value_parser = output())]
    figure: Option<PathBuf>,

    /// A Python with PyTorch and NNI, which do the same work right after
    #[arg(long, value_name = "PYTHON")]
    peers: Option<PathBuf>,

    /// Measure here and print the rows as JSON
    #[arg(long, hide = true)]
    here: bool,

    /// Measure the memory of the one variant here and print its bytes
    #[arg(long, hide = true)]
    memory: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Digits,
    #[value(name = "resnet18")]
    ResNet18,
}

/// A network and a batch, measured in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Case {
    network: Network,
    batch: usize,
}

impl Args {
    fn cases(&self) -> Vec<Case> {
        let networks = match self.models.is_empty() {
            true => Network::value_variants(),
            false => &self.models,
        };
        let mut cases = Vec::new();
        for &network in networks {
            let batches = match (network, self.batch.is_empty()) {
                (Network::Digits, false) => &self.batch[..],
                (Network::Digits, true) => &BATCHES,
                (Network::ResNet18, _) => &[ZOO_BATCH],
            };
            cases.extend(batches.iter().map(|&batch| Case { network, batch }));
        }
        cases
    }

    /// The plain step, and what is measured beside it.
    fn variants(&self) -> Vec<Variant> {
        let mut variants = vec![Variant::Plain];
        for &variant in Variant::value_variants() {
            let is_chosen = self.variants.is_empty() || self.variants.contains(&variant);
            if is_chosen && variant != Variant::Plain {
                variants.push(variant);
            }
        }
        variants
    }
}

fn output() -> ValueParser {
    PathBufValueParser::new().try_map(writable).into()
}

/// The name of a value on the command line.
fn name(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_string())
}

fn main() -> ExitCode {
    exit_code(run(&Args::parse()))
}

fn run(args: &Args) -> anyhow::Result<()> {
    let cases = args.cases();
    if args.memory || args.here {
        let (Some(&case), Some(&device)) = (cases.first(), args.devices.first()) else {
            return Ok(());
        };
        match args.memory {
            true => println!("{}", measure::memory(args, case, device)?.unwrap_or(0)),
            false => println!(
                "{}",
                serde_json::to_string(&measure::rows(args, case, device)?)?
            ),
        }
        return Ok(());
    }
    for device in &args.devices {
        device.open()?;
    }
    let mut rows = Vec::new();
    for case in cases {
        for &device in &args.devices {
            rows.extend(measured(args, case, device)?);
        }
        if let Some(python) = &args.peers {
            rows.extend(peers(args, case, python)?);
        }
        // What is there is told early: a whole run takes long.
        println!(
            "{}\n",
            table::of_case(&rows, &name(&case.network), case.batch)
        );
    }
    for line in table::between_libraries(&rows) {
        println!("{line}");
    }
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&serde_json::json!({ "rows": rows }))?;
        write_whole(file, (json + "\n").as_bytes())?;
    }
    if let Some(file) = &args.figure {
        draw::save(&rows, file)?;
        println!("figure: {}", file.display());
    }
    Ok(())
}

/// The rows of a case on a device, from processes of their own.
fn measured(args: &Args, case: Case, device: DeviceName) -> anyhow::Result<Vec<Row>> {
    let what = format!(
        "{} {} on {}",
        name(&case.network),
        case.batch,
        device.name()
    );
    eprintln!("==> {what}");
    let start = |variants: &[Variant], mode: &str| {
        let mut command = Command::new(std::env::current_exe()?);
        let variants: Vec<String> = variants.iter().map(name).collect();
        command
            .args([
                "--devices",
                &device.name(),
                "--models",
                &name(&case.network),
            ])
            .args(["--batch", &case.batch.to_string()])
            .args(["--variants", &variants.join(",")])
            .args(["--rounds", &args.rounds.to_string()])
            .args(["--seconds", &args.seconds.to_string()])
            .args(["--threads", &args.threads.to_string()])
            .arg(mode);
        output_of(args, command).with_context(|| what.clone())
    };
    let variants = args.variants();
    let mut rows: Vec<Row> = serde_json::from_slice(&start(&variants, "--here")?)?;
    if device.is_cpu() {
        for (row, variant) in rows.iter_mut().zip(&variants) {
            if variant.is_weighed() {
                let bytes = start(&[*variant], "--memory")?;
                let bytes: u64 = String::from_utf8_lossy(&bytes).trim().parse()?;
                row.memory = (bytes > 0).then_some(bytes);
            }
        }
    }
    Ok(rows)
}

/// The rows of other libraries.
fn peers(args: &Args, case: Case, python: &PathBuf) -> anyhow::Result<Vec<Row>> {
    let network = name(&case.network);
    eprintln!("==> {network} {} by other libraries", case.batch);
    let mut rows = Vec::new();
    let on_gpu = args.devices.iter().any(|device| !device.is_cpu());
    let on_cpu = args.devices.iter().any(|device| device.is_cpu());
    for (device, is_wanted) in [("cpu", on_cpu), ("cuda", on_gpu)] {
        if !is_wanted {
            continue;
        }
        let mut command = Command::new(python);
        command
            .arg(PEERS)
            .args(["--model", &network, "--batch", &case.batch.to_string()])
            .args(["--rounds", &args.rounds.to_string()])
            .args(["--seconds", &args.seconds.to_string()])
            .args(["--threads", &args.threads.to_string()])
            .args(["--device", device]);
        let found = output_of(args, command).context("examples/peers/overhead.py")?;
        rows.extend(serde_json::from_slice::<Vec<Row>>(&found)?);
    }
    Ok(rows)
}

/// What a process writes to stdout, computing with the chosen number of threads.
fn output_of(args: &Args, mut command: Command) -> anyhow::Result<Vec<u8>> {
    let threads = args.threads.to_string();
    for variable in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"] {
        command.env(variable, &threads);
    }
    let command = command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "the process ended with {}",
        output.status
    );
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
        let args = Args::parse_from(["bench", "--batch", "16,64", "--variants", "Q,P+Q+D"]);
        let batches: Vec<usize> = args.cases().iter().map(|case| case.batch).collect();
        assert_eq!(batches, [16, 64, ZOO_BATCH]);
        let variants = [Variant::Plain, Variant::Quantizer, Variant::Fused];
        assert_eq!(args.variants(), variants);
        assert!(Args::try_parse_from(["bench", "--batch", "0"]).is_err());
        assert!(Args::try_parse_from(["bench", "--variants", "Z"]).is_err());
    }

    #[test]
    fn everything_is_measured_by_default() {
        let args = Args::parse_from(["bench"]);
        assert_eq!(args.cases().len(), 4);
        assert_eq!(args.variants().len(), Variant::value_variants().len());
    }

    #[test]
    fn the_script_of_the_peers_is_there() {
        assert!(std::path::Path::new(PEERS).is_file());
    }
}
