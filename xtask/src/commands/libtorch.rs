//! `cargo xtask libtorch`: the library that Burn's feature `tch` is built with, out of a Python package.
//!
//! The package brings the library for NVIDIA's GPUs, which makes up most of it and needs some 5 GB of
//! further packages to be loaded. Without `--cuda` it is left out: what stays computes on the CPU.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::python::{Packages, PythonArgs, ask};

/// The one version that `tch`, through which Burn 0.22 reaches the library, is made for.
const TORCH: &str = "torch==2.9.0";

/// What the library for the CPU is linked with all the same where the package is one for NVIDIA.
const CUDA_RUNTIME: [&str; 2] = [
    "nvidia-cuda-cupti-cu12==12.8.90",
    "nvidia-cuda-runtime-cu12==12.8.90",
];

/// Prints the folder of the package, without loading it.
const FIND_FOLDER: &str = "import importlib.util as u
print(u.find_spec('torch').submodule_search_locations[0])";

/// Fails where the package has no library.
const CHECK: &str = "import glob, importlib.util as u, os
lib = os.path.join(u.find_spec('torch').submodule_search_locations[0], 'lib')
assert glob.glob(os.path.join(lib, '*torch_cpu.*')), f'no libtorch_cpu in {lib}'";

/// The variable that names the folder of the library for the build.
const LIBTORCH: &str = "LIBTORCH";

/// Set by users who build with the PyTorch of a Python of their own.
const USE_PYTORCH: &str = "LIBTORCH_USE_PYTORCH";

/// The variable with the folders in which programs look for libraries.
const LIBRARY_PATH: &str = match cfg!(target_os = "macos") {
    true => "DYLD_LIBRARY_PATH",
    false if cfg!(windows) => "PATH",
    false => "LD_LIBRARY_PATH",
};

/// Arguments of `cargo xtask libtorch`.
#[derive(Args, Debug, Default)]
pub struct LibtorchArgs {
    #[command(flatten)]
    python: PythonArgs,

    /// Installs what NVIDIA's GPUs need as well, about 7 GB instead of 0.7.
    #[arg(long)]
    cuda: bool,
}

impl LibtorchArgs {
    /// Makes the virtual environment, unless it is there, and prints the lines that a shell needs.
    ///
    /// # Errors
    ///
    /// If there is no Python, or a package cannot be installed.
    pub fn run(self) -> Result<()> {
        let folder = self.folder()?;
        println!("export {LIBTORCH}={}", folder.display());
        println!(
            "export {LIBRARY_PATH}={}${{{LIBRARY_PATH}:+:${LIBRARY_PATH}}}",
            folder.join("lib").display()
        );
        println!("unset {USE_PYTORCH}");
        Ok(())
    }

    /// The folder of the library, which is installed unless it is there.
    fn folder(&self) -> Result<PathBuf> {
        let is_for_cuda = cfg!(all(target_os = "linux", target_arch = "x86_64"));
        let mut names = vec![TORCH];
        if is_for_cuda && !self.cuda {
            names.extend(CUDA_RUNTIME);
        }
        let packages = Packages {
            names: &names,
            with_dependencies: self.cuda,
        };
        let name = match self.cuda {
            true => "libtorch-cuda-venv",
            false => "libtorch-venv",
        };
        let python = self.python.environment(name, packages, CHECK)?;
        let folder = PathBuf::from(ask(&python, FIND_FOLDER)?);
        if !self.cuda {
            remove_cuda(&folder.join("lib"))?;
        }
        Ok(folder)
    }
}

/// The variables for a build with the feature `tch` and for the program that it makes.
///
/// None where the shell names a library; otherwise one for the CPU is installed unless it is there.
///
/// # Errors
///
/// If it cannot be installed.
pub fn variables() -> Result<Vec<(&'static str, OsString)>> {
    if [LIBTORCH, USE_PYTORCH]
        .iter()
        .any(|name| env::var_os(name).is_some())
    {
        return Ok(Vec::new());
    }
    let folder = LibtorchArgs::default().folder()?;
    let mut paths = vec![folder.join("lib")];
    if let Some(known) = env::var_os(LIBRARY_PATH) {
        paths.extend(env::split_paths(&known));
    }
    let paths = env::join_paths(paths).context("a folder of libraries has a separator in it")?;
    Ok(vec![(LIBTORCH, folder.into()), (LIBRARY_PATH, paths)])
}

/// Removes the libraries for NVIDIA's GPUs: with them in the folder, the build is one for GPUs and
/// cannot be started without all of them.
fn remove_cuda(lib: &Path) -> Result<()> {
    let entries = fs::read_dir(lib).with_context(|| format!("{} is no folder", lib.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if ["cuda", "nvrtc", "nvshmem"]
            .iter()
            .any(|part| name.contains(part))
        {
            fs::remove_file(&path)
                .with_context(|| format!("{} cannot be removed", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_gpus_are_removed_and_no_others() {
        let lib = env::temp_dir().join(format!("xtask-libtorch-{}", std::process::id()));
        fs::create_dir_all(&lib).unwrap();
        let kept = [
            "libc10.so",
            "libgomp.so.1",
            "libtorch.so",
            "libtorch_cpu.so",
        ];
        let removed = ["libc10_cuda.so", "libcaffe2_nvrtc.so", "libtorch_cuda.so"];
        for name in kept.iter().chain(&removed) {
            fs::write(lib.join(name), "").unwrap();
        }
        remove_cuda(&lib).unwrap();
        let found = fs::read_dir(&lib).unwrap();
        let mut found: Vec<_> = found.map(|entry| entry.unwrap().file_name()).collect();
        found.sort();
        assert_eq!(found, kept);
        fs::remove_dir_all(&lib).unwrap();
        assert!(remove_cuda(&lib).is_err());
    }

    #[test]
    fn the_version_is_that_of_tch() {
        let lock = include_str!("../../../Cargo.lock");
        assert!(lock.contains("name = \"torch-sys\"\nversion = \"0.22.0\""));
        assert_eq!(TORCH, "torch==2.9.0");
    }
}
