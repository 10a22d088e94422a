//! `cargo xtask onnx`: a Python with onnx and onnxruntime for the tests of exported files, and the library
//! of the runtime.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::python::{Packages, PythonArgs, ask};

/// The packages, each of one version, so that a test compares with the same runtime everywhere.
const PACKAGES: [&str; 3] = ["onnx==1.23.2", "onnxruntime==1.32.0", "numpy==2.4.6"];

/// Fails where one of them cannot be loaded.
const CHECK: &str = "import onnx, onnxruntime, numpy";

/// Prints the path of the library of the runtime, which has a version in its name on some systems.
const FIND_LIBRARY: &str = "import glob, os, onnxruntime
folder = os.path.join(os.path.dirname(onnxruntime.__file__), 'capi')
names = ['libonnxruntime.so*', 'libonnxruntime*.dylib', 'onnxruntime.dll']
print(sorted(path for name in names for path in glob.glob(os.path.join(folder, name)))[0])";

/// The variable that names the Python for tests.
const PYTHON: &str = "BURN_COMPRESS_PYTHON";

/// The variable that names the library of the runtime for programs.
pub const LIBRARY: &str = "ORT_DYLIB_PATH";

/// Arguments of `cargo xtask onnx`.
#[derive(Args, Debug, Default)]
pub struct OnnxArgs {
    #[command(flatten)]
    python: PythonArgs,
}

impl OnnxArgs {
    /// Makes the virtual environment, unless it is there, and prints the lines that a shell needs.
    ///
    /// # Errors
    ///
    /// If there is no Python, or a package cannot be installed.
    pub fn run(self) -> Result<()> {
        let python = self.python()?;
        println!("export {PYTHON}={}", python.display());
        println!("export {LIBRARY}={}", library(&python)?.display());
        Ok(())
    }

    /// The Python of the virtual environment, which is made unless it is there.
    ///
    /// # Errors
    ///
    /// If there is no Python, or a package cannot be installed.
    pub fn python(&self) -> Result<PathBuf> {
        let packages = Packages {
            names: &PACKAGES,
            with_dependencies: true,
        };
        self.python.environment("onnx-venv", packages, CHECK)
    }
}

/// The library of the onnxruntime that a Python has.
///
/// # Errors
///
/// If it has none.
pub fn library(python: &Path) -> Result<PathBuf> {
    let found = ask(python, FIND_LIBRARY).context("there is no onnxruntime")?;
    Ok(PathBuf::from(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_without_the_runtime_has_no_library() {
        assert!(library(Path::new("no-such-python")).is_err());
    }
}
