//! `cargo xtask bench`: the main job on several backends, compared in one table; `cargo xtask bench
//! scaling`: how the time of what is done once grows with the model; `cargo xtask bench speedup`: what
//! removing half of each network of the zoo costs and gives.
//!
//! The job is built once with the features of all chosen backends and run on one after the other,
//! round by round, so that a drift of the machine meets them all. Round `r` uses seed `r` on every
//! device. The table shows medians.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde::{Deserialize, Serialize};

use super::Cargo;

const PACKAGE: &str = "burn-compress-examples";
const JOB: &str = "prune_quantize_distill";
const SCALING: &str = "scaling";
const SPEEDUP: &str = "bench_speedup";

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
    Speedup(SpeedupArgs),
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

/// Arguments of `cargo xtask bench speedup`.
#[derive(Args, Debug)]
struct SpeedupArgs {
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

impl SpeedupArgs {
    fn run(&self) -> Result<()> {
        if let Some(file) = &self.json {
            check_writable(file)
                .with_context(|| format!("{} cannot be written", file.display()))?;
        }
        run(SPEEDUP, &self.profile, self.program_options())
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
    let status = Command::new(&path)
        .args(options)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{} could not be started", path.display()))?;
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
            Some(Bench::Speedup(speedup)) => return speedup.run(),
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
fn build(program: &str, devices: &[Device], profile: &str) -> Result<PathBuf> {
    let build = build_command(program, devices, profile);
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
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn parse(line: &[&str]) -> BenchArgs {
        Line::parse_from(line).args
    }

    /// A report of one run; fields that are not compared are there too.
    fn report_of(small: f64, b1: f64, error: f64) -> Vec<Run> {
        let json = format!(
            r#"{{"runs":[{{"seed":0,
                "accuracy":{{"dense":98.0,"simulated":{small},"small":{small},"reloaded":{small}}},
                "params":{{"dense":100,"small":40}},
                "latency_ratio":{{"b1":{b1},"b64":4.0}},
                "max_relative_error":{error}}}]}}"#
        );
        report(&json).unwrap().runs
    }

    #[test]
    fn a_file_for_the_rows_is_left_as_it_is() {
        let file = std::env::temp_dir().join(format!("xtask-rows-{}", std::process::id()));
        check_writable(&file).unwrap();
        assert!(!file.exists());
        fs::write(&file, "rows").unwrap();
        check_writable(&file).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"rows");
        assert!(check_writable(&file.join("below")).is_err());
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn devices_are_separated_by_commas() {
        let args = parse(&["bench", "--devices", "flex,wgpu", "--steps", "20"]);
        assert_eq!(args.devices, [Device::Flex, Device::Wgpu]);
        assert_eq!((args.steps, args.repeats), (Some(20), 3));
        assert_eq!(parse(&["bench"]).devices, [Device::Flex]);
        assert!(Line::try_parse_from(["bench", "--devices", "abacus"]).is_err());
        assert!(Line::try_parse_from(["bench", "--repeats", "0"]).is_err());
    }

    #[test]
    fn scaling_takes_the_options_of_its_program_behind_dashes() {
        let args = parse(&[
            "bench",
            "scaling",
            "--profile",
            "dev",
            "--",
            "--repeats",
            "3",
        ]);
        let Some(Bench::Scaling(scaling)) = args.other else {
            panic!("scaling is a bench of its own");
        };
        assert_eq!(scaling.profile, "dev");
        assert_eq!(scaling.options, ["--repeats", "3"]);
        assert!(Line::try_parse_from(["bench", "--steps", "3", "scaling"]).is_err());
    }

    #[test]
    fn speedup_passes_models_and_file_on() {
        let line = [
            "bench",
            "speedup",
            "--models",
            "resnet18,unet",
            "--json",
            "rows.json",
            "--",
            "--tiny",
        ];
        let Some(Bench::Speedup(speedup)) = parse(&line).other else {
            panic!("speedup is a bench of its own");
        };
        assert_eq!(speedup.profile, "release");
        assert_eq!(
            speedup.program_options(),
            ["--tiny", "--models", "resnet18,unet", "--json", "rows.json"]
        );
    }

    #[test]
    fn the_job_is_built_once_with_the_features_of_all_devices() {
        assert_eq!(
            build_command(
                JOB,
                &[Device::Wgpu, Device::Tch, Device::TchCuda],
                "release"
            )
            .to_string(),
            "cargo build --no-default-features --message-format json-render-diagnostics \
             --profile release --package burn-compress-examples \
             --bin prune_quantize_distill --features tch,wgpu"
        );
    }

    #[test]
    fn the_job_gets_steps_only_when_they_are_given() {
        let args = |line: &[&str]| -> Vec<String> {
            parse(line)
                .job_command(Path::new("job"), Device::Wgpu, 2, Path::new("r.json"))
                .get_args()
                .map(|arg| arg.to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!(
            args(&["bench"]),
            [
                "--device", "wgpu", "--seed", "2", "--json", "r.json", "--figure", "r.svg"
            ]
        );
        assert_eq!(args(&["bench", "--steps", "20"])[4..6], ["--steps", "20"]);
    }

    #[test]
    fn the_executable_is_read_from_the_messages_of_cargo() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"burn"},"executable":null}"#,
            "\nnot a message\n",
            r#"{"target":{"name":"prune_quantize_distill"},"executable":"dir/job"}"#,
        );
        assert_eq!(executable(JOB, messages), Some(PathBuf::from("dir/job")));
        assert_eq!(executable(SCALING, messages), None);
        assert_eq!(executable(JOB, ""), None);
    }

    #[test]
    fn rows_hold_medians_and_the_largest_error() {
        let measured = [
            Measured {
                device: Device::Flex,
                runs: [report_of(90.0, 1.0, 1e-7), report_of(80.0, 2.0, 3e-7)].concat(),
                seconds: vec![10.0, 30.0, 14.0],
            },
            Measured {
                device: Device::Wgpu,
                runs: report_of(70.0, 3.0, 0.0),
                seconds: vec![7.0],
            },
        ];
        let rows = rows(&measured).unwrap();
        assert_eq!((rows[0].device, rows[0].runs), ("flex", 2));
        assert_eq!(rows[0].accuracy.small, 85.0);
        assert_eq!(rows[0].latency_ratio, LatencyRatio { b1: 1.5, b64: 4.0 });
        assert_eq!(rows[0].max_relative_error, 3e-7);
        assert_eq!((rows[0].wall_seconds, rows[0].wall_ratio), (14.0, 1.0));
        assert_eq!((rows[1].wall_seconds, rows[1].wall_ratio), (7.0, 0.5));

        let shown = table(&rows).to_string();
        assert_eq!(shown.lines().count(), 4);
        assert!(
            shown.contains("| wgpu   |    1 |   98.00 |       70.00 |"),
            "{shown}"
        );
    }

    #[test]
    fn a_report_that_cannot_be_compared_is_refused() {
        assert!(report("{}").is_err());
        assert!(report(r#"{"runs":[]}"#).is_err());
        let error = report(r#"{"runs":[{"accuracy":{"dense":1.0}}]}"#).unwrap_err();
        assert!(format!("{error:#}").contains("simulated"));
    }
}
