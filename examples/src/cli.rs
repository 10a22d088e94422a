//! The command line that all example programs share.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use burn::tensor::Device;
#[cfg(any(feature = "wgpu", feature = "vulkan"))]
use burn::tensor::DeviceKind;
use burn_compress::report::Platform;
use clap::builder::{PathBufValueParser, TypedValueParser, ValueParser};
use clap::{Parser, ValueEnum};

use crate::configs::QuantRules;
use crate::digits::Augmentation;
use crate::file::writable;

/// Options of an example program.
#[derive(Parser, Clone, Debug, PartialEq)]
#[command(allow_negative_numbers = true)]
pub struct Args {
    /// Fraction of the weights to remove, from 0 up to but not including 1
    #[arg(long, default_value_t = 0.8, value_parser = sparsity)]
    pub sparsity: f64,

    /// Seed of the first run
    #[arg(long, default_value_t = 0, value_parser = seed)]
    pub seed: u64,

    /// Number of runs, each with the seed after the last one's
    #[arg(long, default_value_t = 1, value_parser = runs)]
    pub seeds: u64,

    /// Optimizer steps of the compression
    #[arg(long, default_value_t = 460, value_parser = steps)]
    pub steps: usize,

    /// Epochs of the dense network
    #[arg(long, default_value_t = 15, value_parser = steps)]
    pub epochs: usize,

    /// Train on the digits as they are, without moving a quarter of them by up to one pixel
    #[arg(long)]
    pub no_shift: bool,

    /// What is quantized, and how
    #[arg(long, value_enum, default_value_t = QuantRules::Onnxruntime)]
    pub rules: QuantRules,

    /// Where to write the results as JSON [default: nowhere]
    #[arg(long, value_name = "FILE", value_parser = output())]
    pub json: Option<PathBuf>,

    /// Where to draw the first run [default: target/figures/NAME.svg]
    #[arg(long, value_name = "FILE", value_parser = output())]
    pub figure: Option<PathBuf>,

    /// Where to write the report of the first run [default: target/reports/NAME.html]
    #[arg(long, value_name = "FILE", value_parser = output())]
    pub report: Option<PathBuf>,

    /// Where to write the small network of the first run [default: target/onnx/NAME.onnx]
    #[cfg(feature = "onnx")]
    #[arg(long, value_name = "FILE", value_parser = output())]
    pub onnx: Option<PathBuf>,

    /// Where to compute
    #[arg(long, value_enum, default_value_t = DeviceName::Flex)]
    pub device: DeviceName,
}

impl Args {
    /// The seeds of the runs, in order.
    pub fn seeds(&self) -> Range<u64> {
        self.seed..self.seed.saturating_add(self.seeds)
    }

    /// How the training digits are varied.
    pub fn augmentation(&self) -> Augmentation {
        match self.no_shift {
            true => Augmentation::None,
            false => Augmentation::Shift,
        }
    }

    /// Where the program called `name` draws its figure.
    pub fn figure(&self, name: &str) -> PathBuf {
        match &self.figure {
            Some(path) => path.clone(),
            None => PathBuf::from("target/figures").join(format!("{name}.svg")),
        }
    }

    /// Where the program called `name` writes its report.
    pub fn report(&self, name: &str) -> PathBuf {
        match &self.report {
            Some(path) => path.clone(),
            None => PathBuf::from("target/reports").join(format!("{name}.html")),
        }
    }

    /// Where the program called `name` writes its small network.
    #[cfg(feature = "onnx")]
    pub fn onnx(&self, name: &str) -> PathBuf {
        match &self.onnx {
            Some(path) => path.clone(),
            None => PathBuf::from("target/onnx").join(format!("{name}.onnx")),
        }
    }

    /// Checks what the command line alone does not show: that the program called `name` can write its
    /// files, and that none replaces another.
    ///
    /// # Errors
    ///
    /// A file that cannot be written, or that would be written twice.
    pub fn check_outputs(&self, name: &str) -> anyhow::Result<()> {
        let mut files: Vec<(&str, PathBuf)> = Vec::new();
        files.extend(self.json.clone().map(|path| ("the results", path)));
        files.push(("the figure", self.figure(name)));
        files.push(("the report", self.report(name)));
        #[cfg(feature = "onnx")]
        files.push(("the network", self.onnx(name)));
        for (index, (what, path)) in files.iter().enumerate() {
            if let Some((first, _)) = files[..index].iter().find(|(_, known)| known == path) {
                return Err(anyhow!(
                    "{first} and {what} have one file, {}; give them two",
                    path.display()
                ));
            }
            if let Err(reason) = writable(path.clone()) {
                return Err(anyhow!("{what} in {}: {reason}", path.display()));
            }
        }
        Ok(())
    }

    /// The device, without autodiff.
    ///
    /// # Errors
    ///
    /// Names the cargo feature to add if the device was not compiled in.
    pub fn device(&self) -> anyhow::Result<Device> {
        self.device.open()
    }

    /// What the program runs on.
    pub fn platform(&self) -> Platform {
        Platform::new(self.device.name())
    }
}

/// Ends a program: an error goes to the terminal as one line.
pub fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A device that Burn can compute on.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// CPU, in Rust
    Flex,
    /// The best adapter that wgpu finds
    Wgpu,
    /// The best adapter that Vulkan finds
    Vulkan,
    /// First CUDA device
    Cuda,
    /// CPU, by LibTorch
    Tch,
    /// First CUDA device, by LibTorch
    TchCuda,
}

impl DeviceName {
    #[allow(deprecated)] // Burn 0.22 still ships LibTorch, and announces its end for 0.23.
    /// The device, without autodiff.
    ///
    /// # Errors
    ///
    /// Names the cargo feature to add if the device was not compiled in.
    pub fn open(self) -> anyhow::Result<Device> {
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Ok(Device::wgpu(DeviceKind::DefaultDevice)),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Ok(Device::vulkan(DeviceKind::DefaultDevice)),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(Device::cuda(0)),
            #[cfg(feature = "tch")]
            Self::Tch => Ok(Device::libtorch()),
            #[cfg(feature = "tch")]
            Self::TchCuda => Ok(Device::libtorch_cuda(0)),
            #[allow(unreachable_patterns)] // Reached unless every feature is on.
            absent => {
                let feature = absent.feature();
                Err(anyhow!(
                    "this program was built without the device `{}`; build it with `--features \
                     {feature}`",
                    absent.name(),
                ))
            }
        }
    }

    /// Whether the processor computes.
    pub fn is_cpu(self) -> bool {
        matches!(self, Self::Flex | Self::Tch)
    }

    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().into())
    }

    fn feature(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Cuda => "cuda",
            Self::Tch | Self::TchCuda => "tch",
        }
    }
}

/// Parses the path of a file that can be written.
fn output() -> ValueParser {
    PathBufValueParser::new().try_map(writable).into()
}

/// Parses a fraction to remove.
///
/// # Errors
///
/// If it is no number in the range, which is named.
pub fn sparsity(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 up to but not including 1".into()),
    }
}

/// Parses a number of optimizer steps or epochs.
///
/// # Errors
///
/// If it is no whole number above 0.
pub fn steps(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(value) if value > 0 => Ok(value),
        _ => Err("expected a whole number, at least 1".into()),
    }
}

/// Parses a number of runs.
///
/// # Errors
///
/// If it is no whole number above 0.
pub fn runs(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(value) if value > 0 => Ok(value),
        _ => Err("expected a whole number, at least 1".into()),
    }
}

fn seed(text: &str) -> Result<u64, String> {
    let expected = |_| format!("expected a whole number from 0 to {}", u64::MAX);
    text.parse().map_err(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once(&"example").chain(options))
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.sparsity, 0.8);
        assert_eq!(args.seeds().collect::<Vec<_>>(), [0]);
        assert_eq!((args.steps, args.epochs), (460, 15));
        assert_eq!(args.json, None);
        assert_eq!(args.figure("x"), PathBuf::from("target/figures/x.svg"));
        assert_eq!(args.report("x"), PathBuf::from("target/reports/x.html"));
        assert_eq!(args.device, DeviceName::Flex);
    }

    #[test]
    fn seeds_count_on_from_the_first() {
        let args = parse(&["--seed", "7", "--seeds", "3"]).unwrap();
        assert_eq!(args.seeds().collect::<Vec<_>>(), [7, 8, 9]);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for options in [
            ["--sparsity", "1"],
            ["--sparsity", "-0.1"],
            ["--sparsity", "-1"],
            ["--sparsity", "nan"],
            ["--seed", "-1"],
            ["--seeds", "0"],
            ["--seeds", "-1"],
            ["--steps", "0"],
            ["--steps", "-1"],
            ["--epochs", "0"],
            ["--device", "abacus"],
        ] {
            let text = parse(&options).unwrap_err().to_string();
            let names = options.iter().all(|part| text.contains(part));
            let expects = text.contains("expected a") || text.contains("possible values");
            assert!(names && expects, "{text}");
        }
    }

    #[test]
    fn files_that_cannot_be_written_are_refused() {
        let folder = std::env::temp_dir();
        let folder = folder.to_str().unwrap();
        let onnx = cfg!(feature = "onnx").then_some("--onnx");
        for option in ["--json", "--figure", "--report"].into_iter().chain(onnx) {
            let text = parse(&[option, folder]).unwrap_err().to_string();
            assert!(
                text.contains(option) && text.contains("cannot be written"),
                "{text}"
            );
        }
        let both = parse(&["--json", "target/x", "--figure", "target/x"]).unwrap();
        assert!(both.check_outputs("name").is_err());
        assert!(parse(&[]).unwrap().check_outputs("name").is_ok());
    }

    #[cfg(feature = "flex")]
    #[test]
    fn flex_is_compiled_in() {
        assert_eq!(parse(&[]).unwrap().device().unwrap(), Device::flex());
    }

    #[cfg(not(feature = "tch"))]
    #[test]
    fn an_absent_device_names_its_feature() {
        let error = parse(&["--device", "tch-cuda"])
            .unwrap()
            .device()
            .unwrap_err();
        let message = error.to_string();
        assert!(message.contains("`tch-cuda`"), "{message}");
        assert!(message.contains("--features tch`"), "{message}");
    }
}
