//! `cargo xtask bench overhead`: the training step under compression beside the plain step.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{Device, built, rows_and_options, start};
use crate::commands::python::{Packages, PythonArgs};

const PROGRAM: &str = "bench_overhead";

/// The libraries that are measured beside this one.
const PEERS: [&str; 3] = ["torch==2.9.0", "nni==3.0", "numpy==2.4.6"];

/// Fails where a part of them that is measured is missing.
const CHECK: &str = "import torch.ao.quantization.quantize_fx
import nni.compression.distillation, nni.compression.pruning, nni.compression.quantization";

/// Arguments of `cargo xtask bench overhead`.
#[derive(Args, Debug)]
pub struct OverheadArgs {
    /// Backends to measure on.
    #[arg(long, value_delimiter = ',', default_value = "flex")]
    devices: Vec<Device>,

    /// Networks to measure, `digits` and `resnet18`; both when absent.
    #[arg(long, value_delimiter = ',')]
    models: Vec<String>,

    /// Batches of the digits.
    #[arg(long, value_delimiter = ',', default_value = "16,64,256")]
    batch: Vec<usize>,

    /// Writes the rows to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draws the ratios into this file.
    #[arg(
        long,
        value_name = "SVG",
        default_value = "target/figures/bench_overhead.svg"
    )]
    figure: PathBuf,

    /// Measures NNI and torch.ao too, in a virtual environment that is made unless it is there; it takes
    /// some 7 GB.
    #[arg(long)]
    peers: bool,

    /// How the program is built.
    #[arg(long, default_value = "release")]
    profile: String,

    /// Options of the program, behind `--`.
    #[arg(last = true)]
    options: Vec<String>,
}

impl OverheadArgs {
    /// Builds the program with the features of all devices and runs it.
    ///
    /// # Errors
    ///
    /// A file that cannot be written, and what installing, building and running meet.
    pub fn run(&self) -> Result<()> {
        let mut command = built(PROGRAM, &self.devices, &self.profile, self.json.as_deref())?;
        command.args(self.program_options());
        if self.peers {
            let packages = Packages {
                names: &PEERS,
                with_dependencies: true,
            };
            let python = PythonArgs::default().environment("peers-venv", packages, CHECK)?;
            command.arg("--peers").arg(python);
        }
        start(PROGRAM, &mut command)
    }

    fn program_options(&self) -> Vec<String> {
        let devices: Vec<_> = self.devices.iter().map(|device| device.name()).collect();
        let batches: Vec<_> = self.batch.iter().map(usize::to_string).collect();
        let mut options = vec![
            "--devices".to_owned(),
            devices.join(","),
            "--batch".to_owned(),
            batches.join(","),
            "--figure".to_owned(),
            self.figure.display().to_string(),
        ];
        if !self.models.is_empty() {
            options.extend(["--models".to_owned(), self.models.join(",")]);
        }
        options.extend(rows_and_options(self.json.as_deref(), &self.options));
        options
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: OverheadArgs,
    }

    #[test]
    fn the_program_gets_devices_batches_and_files() {
        let line = [
            "overhead",
            "--devices",
            "flex,tch-cuda",
            "--batch",
            "256,1024",
            "--models",
            "digits",
            "--json",
            "rows.json",
            "--peers",
            "--",
            "--rounds",
            "5",
        ];
        let args = Line::parse_from(line).args;
        assert!(args.peers);
        assert_eq!(
            args.program_options().join(" "),
            "--devices flex,tch-cuda --batch 256,1024 --figure target/figures/bench_overhead.svg \
             --models digits --json rows.json --rounds 5"
        );
    }

    #[test]
    fn flex_is_measured_with_the_batches_of_the_bounds() {
        let args = Line::parse_from(["overhead"]).args;
        assert_eq!(args.devices, [Device::Flex]);
        assert_eq!(args.batch, [16, 64, 256]);
        assert!(Line::try_parse_from(["overhead", "--devices", "abacus"]).is_err());
    }
}
