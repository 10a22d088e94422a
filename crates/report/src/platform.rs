//! What a run was made on.
//!
//! Processors with other vector instructions add numbers in another order, and another number of
//! threads splits them otherwise. The sums differ in the last digit, and by the end of a run the
//! networks do: a seed gives the same run only on the same platform.

use std::fmt;
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

/// The version of Burn that the workspace is bound to.
const BURN: &str = "0.22.1";

/// What the numbers of a run depend on beside its seed and its options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// Version of Burn.
    pub burn: String,
    /// Name of the device on the command line.
    pub device: String,
    /// Architecture of the processor, as Rust names it.
    pub architecture: String,
    /// Vector instructions of the processor that Burn makes use of.
    pub instructions: Vec<String>,
    /// Threads that Burn computes with on the CPU: those of the processor, or `RAYON_NUM_THREADS`.
    pub threads: usize,
}

impl Platform {
    /// The platform that the program runs on, with the device of this name.
    pub fn new(device: impl Into<String>) -> Self {
        Self {
            burn: BURN.to_string(),
            device: device.into(),
            architecture: std::env::consts::ARCH.to_string(),
            instructions: instructions().into_iter().map(str::to_string).collect(),
            threads: threads(),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Burn {} on {}, {}",
            self.burn, self.device, self.architecture
        )?;
        if !self.instructions.is_empty() {
            write!(f, " with {}", self.instructions.join(", "))?;
        }
        match self.threads {
            1 => write!(f, ", 1 thread"),
            threads => write!(f, ", {threads} threads"),
        }
    }
}

fn threads() -> usize {
    let set = std::env::var("RAYON_NUM_THREADS").ok();
    let set = set.and_then(|number| number.parse().ok());
    set.filter(|&number| number > 0)
        .unwrap_or_else(|| available_parallelism().map_or(1, usize::from))
}

/// Lists those of the features that the processor has.
macro_rules! detected {
    ($detect:ident: $($feature:tt),+) => {{
        let all = [$(($feature, std::arch::$detect!($feature))),+];
        all.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect()
    }};
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> Vec<&'static str> {
    detected!(is_x86_feature_detected: "sse4.2", "avx", "avx2", "fma", "avx512f", "avx512bw")
}

#[cfg(target_arch = "aarch64")]
fn instructions() -> Vec<&'static str> {
    detected!(is_aarch64_feature_detected: "neon", "sve", "fp16")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instructions() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_workspace() {
        let manifest = include_str!("../../../Cargo.toml");
        assert!(manifest.contains(&format!("burn = {{ version = \"={BURN}\"")));
    }

    #[test]
    fn a_platform_is_one_line() {
        let platform = Platform {
            burn: "0.22.1".into(),
            device: "flex".into(),
            architecture: "x86_64".into(),
            instructions: vec!["avx2".into(), "fma".into()],
            threads: 4,
        };
        assert_eq!(
            platform.to_string(),
            "Burn 0.22.1 on flex, x86_64 with avx2, fma, 4 threads"
        );
        assert!(Platform::new("flex").threads > 0);
    }
}
