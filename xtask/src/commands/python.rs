//! Virtual environments of Python in the target directory, made once with packages of fixed versions.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::target;

/// Prints the versions of the packages that it gets as arguments, as they are written for pip. What
/// follows a `+` names a build of the same version.
const VERSIONS: &str = "import importlib.metadata as m, sys
for name in sys.argv[1:]:
    print(name + '==' + m.version(name).split('+')[0])";

/// Where a virtual environment is, and what it is made with.
#[derive(Args, Debug)]
pub struct PythonArgs {
    /// Python that the virtual environment is made with.
    #[arg(long, default_value = "python3")]
    python: String,

    /// Folder of the virtual environment; one in the target directory when absent.
    #[arg(long)]
    folder: Option<PathBuf>,
}

impl Default for PythonArgs {
    fn default() -> Self {
        Self {
            python: "python3".to_string(),
            folder: None,
        }
    }
}

/// What a virtual environment holds.
#[derive(Debug, Clone, Copy)]
pub struct Packages<'a> {
    /// Each with its version, as in `numpy==2.4.6`, so that everybody has the same.
    pub names: &'a [&'a str],
    /// Whether the packages that these depend on are installed as well.
    pub with_dependencies: bool,
}

impl PythonArgs {
    /// The Python of a virtual environment with these packages, which is made unless it is there.
    ///
    /// `name` is that of the folder in the target directory. `check` is run with the finished
    /// environment, a Python program that fails where something is not as it has to be.
    ///
    /// # Errors
    ///
    /// If there is no Python, a package cannot be installed, or the check fails.
    pub fn environment(&self, name: &str, packages: Packages, check: &str) -> Result<PathBuf> {
        let folder = match &self.folder {
            Some(folder) => folder.clone(),
            None => target()?.join(name),
        };
        let python = python_of(&folder);
        if !is_complete(&python, packages.names, check) {
            let folder = folder.to_string_lossy();
            start(Command::new(&self.python).args(["-m", "venv", &folder]))?;
            let mut pip = Command::new(&python);
            pip.args(["-m", "pip", "install", "--quiet"])
                .arg("--disable-pip-version-check");
            if !packages.with_dependencies {
                pip.arg("--no-deps");
            }
            start(pip.args(packages.names))?;
        }
        if !is_complete(&python, packages.names, check) {
            bail!(
                "`{}` has no working {}",
                python.display(),
                packages.names.join(", ")
            );
        }
        Ok(python)
    }
}

/// The first line that a Python program prints.
///
/// # Errors
///
/// If Python cannot be started, or the program fails or prints nothing.
pub fn ask(python: &Path, program: &str) -> Result<String> {
    let output = Command::new(python)
        .args(["-c", program])
        .output()
        .with_context(|| format!("`{}` could not be started", python.display()))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    match printed.lines().next() {
        Some(line) if output.status.success() => Ok(line.to_owned()),
        _ => bail!(
            "`{}` failed ({}): {}",
            python.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    }
}

fn python_of(folder: &Path) -> PathBuf {
    match cfg!(windows) {
        true => folder.join("Scripts").join("python.exe"),
        false => folder.join("bin").join("python"),
    }
}

/// Whether a Python has all packages in these versions and passes the check.
fn is_complete(python: &Path, packages: &[&str], check: &str) -> bool {
    let names = packages
        .iter()
        .map(|package| package.split("==").next().unwrap_or(package));
    let versions = Command::new(python)
        .args(["-c", VERSIONS])
        .args(names)
        .stderr(Stdio::null())
        .output();
    let has_all = versions.is_ok_and(|output| {
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success() && found.lines().eq(packages.iter().copied())
    });
    let mut checked = Command::new(python);
    checked.args(["-c", check]).stdout(Stdio::null());
    has_all && checked.status().is_ok_and(|status| status.success())
}

/// Shows a command, and runs it.
fn start(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    eprintln!("==> {shown}");
    // What a user wants of stdout is the lines at the end.
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
        let python = Path::new("no-such-python");
        assert!(!is_complete(python, &["numpy==2.4.6"], ""));
        let error = ask(python, "print(1)").unwrap_err().to_string();
        assert!(error.contains("no-such-python"), "{error}");
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        let error = start(&mut Command::new("no-such-python")).unwrap_err();
        assert!(format!("{error:#}").contains("no-such-python"), "{error:#}");
    }
}
