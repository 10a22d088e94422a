//! `cargo xtask bench backends`: what steps cost on each backend.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{Device, built, rows_and_options, start};

const PROGRAM: &str = "bench_backends";

/// Arguments of `cargo xtask bench backends`.
#[derive(Args, Debug)]
pub struct BackendsArgs {
    /// Backends to measure, which are compiled into one program.
    #[arg(long, value_delimiter = ',', default_value = "flex")]
    devices: Vec<Device>,

    /// Threads to compute with on a CPU; all of the processor when absent.
    #[arg(long)]
    threads: Option<usize>,

    /// Writes the times to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// How the program is built.
    #[arg(long, default_value = "release")]
    profile: String,

    /// Options of the program, behind `--`: `--agreement 20` compares results as well.
    #[arg(last = true)]
    options: Vec<String>,
}

impl BackendsArgs {
    /// Builds the program with the features of all devices and runs it.
    ///
    /// # Errors
    ///
    /// A file that cannot be written, and what building and running meet.
    pub fn run(&self) -> Result<()> {
        let mut command = built(PROGRAM, &self.devices, &self.profile, self.json.as_deref())?;
        command.args(self.program_options());
        if let Some(threads) = self.threads {
            // Of Burn, of libtorch, and of the Vulkan driver for the CPU.
            for name in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "LP_NUM_THREADS"] {
                command.env(name, threads.to_string());
            }
        }
        start(PROGRAM, &mut command)
    }

    fn program_options(&self) -> Vec<String> {
        let devices: Vec<_> = self.devices.iter().map(|device| device.name()).collect();
        let mut options = vec!["--devices".to_owned(), devices.join(",")];
        options.extend(rows_and_options(self.json.as_deref(), &self.options));
        options
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::libraries;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BackendsArgs,
    }

    #[test]
    fn the_program_gets_devices_file_and_options() {
        let line = [
            "backends",
            "--devices",
            "flex,tch",
            "--json",
            "rows.json",
            "--",
            "--agreement",
            "20",
        ];
        let args = Line::parse_from(line).args;
        assert_eq!(
            args.program_options().join(" "),
            "--devices flex,tch --json rows.json --agreement 20"
        );
        assert!(Line::try_parse_from(["backends", "--devices", "abacus"]).is_err());
    }

    #[test]
    fn programs_without_libtorch_need_no_variables() {
        assert_eq!(libraries(&[Device::Flex, Device::Wgpu]).unwrap(), []);
    }
}
