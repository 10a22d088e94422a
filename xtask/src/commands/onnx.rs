//! `cargo xtask onnx`: a Python with onnx and onnxruntime for the tests of exported files, and the library
//! of the runtime.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::target;

/// The packages, each of one version, so that a test compares with the same runtime everywhere.
const PACKAGES: [&str; 3] = ["onnx==1.23.2", "onnxruntime==1.32.0", "numpy==2.4.6"];

/// Prints the versions that are installed, one a line, as in [`PACKAGES`].
const VERSIONS: &str = "import importlib.metadata as m, onnx, onnxruntime, numpy
for name in ('onnx', 'onnxruntime', 'numpy'):
    print(f'{name}=={m.version(name)}')";

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
#[derive(Args, Debug)]
pub struct OnnxArgs {
    /// Python that the virtual environment is made with.
    #[arg(long, default_value = "python3")]
    python: String,

    /// Folder of the virtual environment; `onnx-venv` in the target directory when absent.
    #[arg(long)]
    folder: Option<PathBuf>,
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
        let folder = match &self.folder {
            Some(folder) => folder.clone(),
            None => target()?.join("onnx-venv"),
        };
        let python = python_of(&folder);
        if !is_complete(&python) {
            let folder = folder.to_string_lossy();
            start(Command::new(&self.python).args(["-m", "venv", &folder]))?;
            let install = [
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ];
            start(Command::new(&python).args(install).args(PACKAGES))?;
        }
        if !is_complete(&python) {
            bail!("`{}` has not {}", python.display(), PACKAGES.join(", "));
        }
        Ok(python)
    }
}

impl Default for OnnxArgs {
    fn default() -> Self {
        Self {
            python: "python3".to_string(),
            folder: None,
        }
    }
}

/// The library of the onnxruntime that a Python has.
///
/// # Errors
///
/// If it has none.
pub fn library(python: &Path) -> Result<PathBuf> {
    let output = Command::new(python)
        .args(["-c", FIND_LIBRARY])
        .output()
        .with_context(|| format!("`{}` could not be started", python.display()))?;
    let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || found.is_empty() {
        bail!("`{}` has no onnxruntime", python.display());
    }
    Ok(PathBuf::from(found))
}

fn python_of(folder: &Path) -> PathBuf {
    match cfg!(windows) {
        true => folder.join("Scripts").join("python.exe"),
        false => folder.join("bin").join("python"),
    }
}

/// Whether a Python has all packages in these versions.
fn is_complete(python: &Path) -> bool {
    let output = Command::new(python)
        .args(["-c", VERSIONS])
        .stderr(Stdio::null())
        .output();
    output.is_ok_and(|output| {
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success() && found.lines().eq(PACKAGES)
    })
}

fn start(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    eprintln!("==> {shown}");
    // What a user wants of stdout is the one line at the end.
    command.stdout(Stdio::null());
    let status = command
        .status()
        .with_context(|| format!("`{shown}` could not be started"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_lies_beside_the_build() {
        // Tests lie one folder deeper than programs, in `deps`.
        assert!(target().unwrap().join("deps").is_dir());
        let python = python_of(Path::new("venv"));
        assert!(python.starts_with("venv") && python != Path::new("venv"));
    }

    #[test]
    fn a_python_without_the_packages_is_not_complete() {
        assert!(!is_complete(Path::new("no-such-python")));
    }

    #[test]
    fn a_python_without_the_runtime_has_no_library() {
        assert!(library(Path::new("no-such-python")).is_err());
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        let error = start(&mut Command::new("no-such-python")).unwrap_err();
        assert!(format!("{error:#}").contains("no-such-python"), "{error:#}");
    }
}
