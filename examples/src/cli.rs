//! The command line that all example programs share.

use std::ops::Range;
use std::path::PathBuf;

use anyhow::anyhow;
use burn::tensor::Device;
#[cfg(any(feature = "wgpu", feature = "vulkan"))]
use burn::tensor::DeviceKind;
use clap::{Parser, ValueEnum};

use crate::digits::Augmentation;

/// Options of an example program.
#[derive(Parser, Clone, Debug, PartialEq)]
pub struct Args {
    /// Fraction of the weights to remove, from 0 up to but not including 1
    #[arg(long, default_value_t = 0.8, value_parser = sparsity)]
    pub sparsity: f64,

    /// Seed of the first run
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Number of runs, each with the seed after the last one's
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,

    /// Optimizer steps of the compression
    #[arg(long, default_value_t = 460, value_parser = steps)]
    pub steps: usize,

    /// Train on the digits as they are, without moving a quarter of them by up to one pixel
    #[arg(long)]
    pub no_shift: bool,

    /// Where to write the results as JSON [default: nowhere]
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Where to draw the first run [default: target/figures/NAME.svg]
    #[arg(long, value_name = "FILE")]
    pub figure: Option<PathBuf>,

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

    /// The device, without autodiff.
    ///
    /// # Errors
    ///
    /// Names the cargo feature to add if the device was not compiled in.
    pub fn device(&self) -> anyhow::Result<Device> {
        self.device.open()
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
                    absent
                        .to_possible_value()
                        .map_or_else(String::new, |v| v.get_name().into()),
                ))
            }
        }
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

fn sparsity(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..1.0).contains(&value) => Ok(value),
        _ => Err("expected a number from 0 up to but not including 1".into()),
    }
}

fn steps(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(value) if value > 0 => Ok(value),
        _ => Err("expected a number of steps, at least 1".into()),
    }
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
        assert_eq!(args.steps, 460);
        assert_eq!(args.json, None);
        assert_eq!(args.figure("x"), PathBuf::from("target/figures/x.svg"));
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
            ["--sparsity", "nan"],
            ["--seeds", "0"],
            ["--steps", "0"],
            ["--device", "abacus"],
        ] {
            assert!(parse(&options).is_err(), "{options:?}");
        }
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
