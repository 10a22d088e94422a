//! `cargo xtask bench`: the main job on several backends, compared in one table; `cargo xtask bench
//! scaling`: how the time of what is done once grows with the model; `cargo xtask bench speedup`: what
//! removing half of each network of the zoo costs and gives; `cargo xtask bench onnx`: compressed
//! networks in onnxruntime and in Burn; `cargo xtask bench overhead`: what compressing costs in a
//! training step; `cargo xtask bench backends`: what steps cost on each backend.
//!
//! The job is built once with the features of all chosen backends and run on one after the other,
//! round by round, so that a drift of the machine meets them all. Round `r` uses seed `r` on every
//! device. The table shows medians.

mod backends;
mod overhead;

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde::{Deserialize, Serialize};

use super::{Cargo, libtorch, onnx};

const PACKAGE: &str = "burn-compress-examples";
const JOB: &str = "prune_quantize_distill";
const SCALING: &str = "scaling";
const SPEEDUP: &str = "bench_speedup";
const ONNX: &str = "bench_onnx";

/// Arguments of `cargo xtask bench`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    other: Option<Bench>,

    /// Backends to compare; times are relative to the first.
    #[arg(long, value_delimiter = ',', default_value = "flex")]
    devices: Vec<Device>,

    /// Training steps of the job; its own default when absent.
    #[arg(long)]
    steps: Option<usize>,

    /// Rounds; every device runs once in each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    repeats: u64,

    /// Writes the rows to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What is measured in place of the main job.
#[derive(Subcommand, Debug)]
enum Bench {
    /// Building pruners, generating masks, cutting and loading, by layers and by channels.
    Scaling(ScalingArgs),
    /// Every network of the zoo, pruned by half and cut.
    Speedup(ModelsArgs),
    /// Three networks, pruned and quantized, in onnxruntime and in Burn.
    Onnx(ModelsArgs),
    /// A training step under compression beside the plain step.
    Overhead(overhead::OverheadArgs),
    /// Steps of training, inference and the main job on several backends.
    Backends(backends::BackendsArgs),
}

/// Arguments of `cargo xtask bench scaling`.
#[derive(Args, Debug)]
struct ScalingArgs {
    /// How the program is built; exponents are those of a release in `dev` too.
    #[arg(long, default_value = "release")]
    profile: String,

    /// Options of the program, behind `--`.
    #[arg(last = true)]
    options: Vec<String>,
}

impl ScalingArgs {
    fn run(&self) -> Result<()> {
        run(SCALING, &self.profile, self.options.clone())
    }
}

/// Arguments of `cargo xtask bench speedup` and `cargo xtask bench onnx`.
#[derive(Args, Debug)]
struct ModelsArgs {
    /// Networks to measure; all when absent.
    #[arg(long, value_delimiter = ',')]
    models: Vec<String>,

    /// Writes the rows to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// How the program is built.
    #[arg(long, default_value = "release")]
    profile: String,

    /// Options of the program, behind `--`.
    #[arg(last = true)]
    options: Vec<String>,
}

impl ModelsArgs {
    fn speedup(&self) -> Result<()> {
        self.check()?;
        run(SPEEDUP, &self.profile, self.program_options())
    }

    /// The library of the runtime is the one of `cargo xtask onnx` unless the shell names another.
    fn onnx(&self) -> Result<()> {
        self.check()?;
        let library = match env::var_os(onnx::LIBRARY) {
            Some(path) => PathBuf::from(path),
            None => onnx::library(&onnx::OnnxArgs::default().python()?)?,
        };
        let path = executable_of(&build_with(ONNX, &["flex", "ort"], &self.profile), ONNX)?;
        let mut command = Command::new(&path);
        // One thread for Burn as for the runtime.
        command
            .env("RAYON_NUM_THREADS", "1")
            .env(onnx::LIBRARY, library);
        start(ONNX, command.args(self.program_options()))
    }

    fn check(&self) -> Result<()> {
        match &self.json {
            Some(file) => check_writable(file)
                .with_context(|| format!("{} cannot be written", file.display())),
            None => Ok(()),
        }
    }

    fn program_options(&self) -> Vec<String> {
        let mut options = self.options.clone();
        if !self.models.is_empty() {
            options.extend(["--models".to_owned(), self.models.join(",")]);
        }
        if let Some(file) = &self.json {
            options.extend(["--json".to_owned(), file.display().to_string()]);
        }
        options
    }
}

/// Builds a program and runs it on `flex`.
fn run(program: &str, profile: &str, options: Vec<String>) -> Result<()> {
    let path = build(program, &[Device::Flex], profile)?;
    start(program, Command::new(path).args(options))
}

fn start(program: &str, command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{program} could not be started"))?;
    ensure!(status.success(), "{program} failed ({status})");
    Ok(())
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    Flex,
    Wgpu,
    Vulkan,
    Cuda,
    Tch,
    TchCuda,
}

impl Device {
    /// What the job calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Cuda => "cuda",
            Self::Tch => "tch",
            Self::TchCuda => "tch-cuda",
        }
    }

    /// The cargo feature that brings it.
    fn feature(self) -> &'static str {
        match self {
            Self::TchCuda => "tch",
            other => other.name(),
        }
    }
}

/// What the job writes with `--json`; only the parts compared here.
#[derive(Deserialize, Debug)]
struct Report {
    runs: Vec<Run>,
}

#[derive(Deserialize, Debug, Clone)]
struct Run {
    accuracy: Accuracy,
    latency_ratio: LatencyRatio,
    max_relative_error: f64,
}

/// Test accuracy in percent.
#[derive(Deserialize, Serialize, Debug, Clone, PartialEq)]
struct Accuracy {
    dense: f64,
    simulated: f64,
    small: f64,
    reloaded: f64,
}

/// Latency of the small model over that of the dense one, at batch sizes 1 and 64.
#[derive(Deserialize, Serialize, Debug, Clone, PartialEq)]
struct LatencyRatio {
    b1: f64,
    b64: f64,
}

/// All that was measured on one device.
struct Measured {
    device: Device,
    runs: Vec<Run>,
    seconds: Vec<f64>,
}

/// One line of the table: medians, except the error, which is the largest.
#[derive(Serialize, Debug, PartialEq)]
struct Row {
    device: &'static str,
    runs: usize,
    accuracy: Accuracy,
    latency_ratio: LatencyRatio,
    max_relative_error: f64,
    wall_seconds: f64,
    /// Wall time over that of the first device.
    wall_ratio: f64,
}

impl BenchArgs {
    /// Builds the job, runs it, prints the table and writes the rows.
    pub fn run(self) -> Result<()> {
        match &self.other {
            Some(Bench::Scaling(scaling)) => return scaling.run(),
            Some(Bench::Speedup(models)) => return models.speedup(),
            Some(Bench::Onnx(models)) => return models.onnx(),
            Some(Bench::Overhead(overhead)) => return overhead.run(),
            Some(Bench::Backends(backends)) => return backends.run(),
            None => {}
        }
        if let Some(file) = &self.json {
            check_writable(file)
                .with_context(|| format!("{} cannot be written", file.display()))?;
        }
        let job = build(JOB, &self.devices, "release")?;
        let mut measured: Vec<Measured> = self
            .devices
            .iter()
            .map(|&device| Measured {
                device,
                runs: Vec::new(),
                seconds: Vec::new(),
            })
            .collect();
        for seed in 0..self.repeats {
            for on in &mut measured {
                eprint!("==> {JOB} on {}, seed {seed}: ", on.device.name());
                let start = Instant::now();
                let report = self.run_job(&job, on.device, seed)?;
                let seconds = start.elapsed().as_secs_f64();
                eprintln!("{seconds:.1} s");
                on.runs.extend(report.runs);
                on.seconds.push(seconds);
            }
        }
        let rows = rows(&measured)?;
        println!("{}", table(&rows));
        if let Some(file) = &self.json {
            let json = serde_json::to_string_pretty(&serde_json::json!({ "rows": rows }))?;
            fs::write(file, json + "\n")
                .with_context(|| format!("{} could not be written", file.display()))?;
        }
        Ok(())
    }

    fn run_job(&self, job: &Path, device: Device, seed: u64) -> Result<Report> {
        // Beside the program, hence inside the target directory.
        let file = job.with_file_name(format!("{JOB}-{}-{seed}.json", device.name()));
        let output = self
            .job_command(job, device, seed, &file)
            .envs(libraries(&[device])?)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{} could not be started", job.display()))?;
        if !output.status.success() {
            bail!(
                "{JOB} on {} failed ({}):\n{}",
                device.name(),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let json = fs::read_to_string(&file)
            .with_context(|| format!("{JOB} wrote no report to {}", file.display()))?;
        fs::remove_file(&file)?;
        report(&json)
    }

    fn job_command(&self, job: &Path, device: Device, seed: u64, file: &Path) -> Command {
        let mut command = Command::new(job);
        command.args(["--device", device.name(), "--seed", &seed.to_string()]);
        if let Some(steps) = self.steps {
            command.args(["--steps", &steps.to_string()]);
        }
        command.arg("--json").arg(file);
        command.arg("--figure").arg(file.with_extension("svg"));
        command
    }
}

/// Finds out before the job runs whether its rows can be written, and leaves the file as it is.
fn check_writable(file: &Path) -> io::Result<()> {
    let is_new = !file.try_exists()?;
    fs::File::options().append(true).create(true).open(file)?;
    match is_new {
        true => fs::remove_file(file),
        false => Ok(()),
    }
}

/// Builds a program and returns the path of its executable, as cargo reports it.
/// The command that starts `program`, built with the features of the devices; checks before that
/// `json` can be written.
fn built(program: &str, devices: &[Device], profile: &str, json: Option<&Path>) -> Result<Command> {
    if let Some(file) = json {
        check_writable(file).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    let mut command = Command::new(build(program, devices, profile)?);
    command.envs(libraries(devices)?);
    Ok(command)
}

/// The last options of a program: where its rows go, and what stood behind `--`.
fn rows_and_options(json: Option<&Path>, options: &[String]) -> Vec<String> {
    let rows = json.map(|file| ["--json".to_owned(), file.display().to_string()]);
    let rows = rows.into_iter().flatten();
    rows.chain(options.iter().cloned()).collect()
}

fn build(program: &str, devices: &[Device], profile: &str) -> Result<PathBuf> {
    let mut build = build_command(program, devices, profile);
    for (name, value) in libraries(devices)? {
        build = build.env(name, value.to_string_lossy());
    }
    executable_of(&build, program)
}

/// Variables with which programs for these devices are built and started.
fn libraries(devices: &[Device]) -> Result<Vec<(&'static str, OsString)>> {
    match devices.iter().any(|device| device.feature() == "tch") {
        true => libtorch::variables(),
        false => Ok(Vec::new()),
    }
}

fn executable_of(build: &Cargo, program: &str) -> Result<PathBuf> {
    eprintln!("==> {build}");
    let output = build
        .command()
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("`{build}` could not be started"))?;
    ensure!(
        output.status.success(),
        "`{build}` failed ({})",
        output.status
    );
    executable(program, &String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("`{build}` named no executable"))
}

fn build_command(program: &str, devices: &[Device], profile: &str) -> Cargo {
    let mut features: Vec<_> = devices.iter().map(|device| device.feature()).collect();
    features.sort_unstable();
    features.dedup();
    build_with(program, &features, profile)
}

fn build_with(program: &str, features: &[&str], profile: &str) -> Cargo {
    Cargo::new("build --no-default-features --message-format json-render-diagnostics")
        .arg("--profile")
        .arg(profile)
        .arg("--package")
        .arg(PACKAGE)
        .arg("--bin")
        .arg(program)
        .arg("--features")
        .arg(features.join(","))
}

/// The executable of a program in cargo's messages, one JSON object a line.
fn executable(program: &str, messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == program)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

fn report(json: &str) -> Result<Report> {
    let report: Report =
        serde_json::from_str(json).with_context(|| format!("{JOB} wrote an unknown report"))?;
    ensure!(
        !report.runs.is_empty(),
        "{JOB} wrote a report without a run"
    );
    Ok(report)
}

fn rows(measured: &[Measured]) -> Result<Vec<Row>> {
    let first = measured.first().context("no device was named")?;
    let reference = median(first.seconds.iter().copied())?;
    measured
        .iter()
        .map(|on| {
            let of = |value: fn(&Run) -> f64| median(on.runs.iter().map(value));
            let wall_seconds = median(on.seconds.iter().copied())?;
            Ok(Row {
                device: on.device.name(),
                runs: on.runs.len(),
                accuracy: Accuracy {
                    dense: of(|run| run.accuracy.dense)?,
                    simulated: of(|run| run.accuracy.simulated)?,
                    small: of(|run| run.accuracy.small)?,
                    reloaded: of(|run| run.accuracy.reloaded)?,
                },
                latency_ratio: LatencyRatio {
                    b1: of(|run| run.latency_ratio.b1)?,
                    b64: of(|run| run.latency_ratio.b64)?,
                },
                max_relative_error: on
                    .runs
                    .iter()
                    .map(|run| run.max_relative_error)
                    .fold(0.0, f64::max),
                wall_seconds,
                wall_ratio: wall_seconds / reference,
            })
        })
        .collect()
}

/// The middle value, or the mean of the two middle ones.
fn median(values: impl Iterator<Item = f64>) -> Result<f64> {
    let mut values: Vec<f64> = values.collect();
    ensure!(
        !values.is_empty(),
        "there is no value to take the median of"
    );
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    Ok(if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    })
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "device",
        "runs",
        "dense %",
        "simulated %",
        "small %",
        "reloaded %",
        "latency b1",
        "latency b64",
        "max rel. error",
        "wall s",
        "wall ratio",
    ]);
    for row in rows {
        let accuracy = &row.accuracy;
        table.add_row([
            row.device.to_owned(),
            row.runs.to_string(),
            format!("{:.2}", accuracy.dense),
            format!("{:.2}", accuracy.simulated),
            format!("{:.2}", accuracy.small),
            format!("{:.2}", accuracy.reloaded),
            format!("{:.2}", row.latency_ratio.b1),
            format!("{:.2}", row.latency_ratio.b64),
            format!("{:.1e}", row.max_relative_error),
            format!("{:.1}", row.wall_seconds),
            format!("{:.2}", row.wall_ratio),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests;
