//! One file a task, and what they share: running a command that is shown before it starts.

pub mod algorithms;
pub mod bench;
pub mod book;
pub mod check;
pub mod fuzz;
pub mod libtorch;
pub mod onnx;
pub mod python;
pub mod test;

use std::path::{Path, PathBuf};
use std::{env, fmt, process::Command};

use anyhow::{Context, Result, bail};

/// A `cargo` command line together with the environment variables set for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Cargo {
    args: Vec<String>,
    envs: Vec<(&'static str, String)>,
}

impl Cargo {
    /// `cargo <args>`, split at white space.
    pub fn new(args: &str) -> Self {
        Self {
            args: args.split_whitespace().map(str::to_owned).collect(),
            envs: Vec::new(),
        }
    }

    /// Appends one argument, which may hold white space.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets an environment variable for this command only.
    pub fn env(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.envs.push((key, value.into()));
        self
    }

    /// The process, ready to be started.
    pub fn command(&self) -> Command {
        // Cargo tells the programs it runs which cargo it is.
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .args(&self.args)
            .envs(self.envs.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Prints the command and runs it.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or ends with a failure; both name the command.
    pub fn run(&self) -> Result<()> {
        eprintln!("==> {self}");
        let status = self
            .command()
            .status()
            .with_context(|| format!("`{self}` could not be started"))?;
        if !status.success() {
            bail!("`{self}` failed ({status})");
        }
        Ok(())
    }
}

impl fmt::Display for Cargo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.envs {
            write!(f, "{key}={value:?} ")?;
        }
        write!(f, "cargo {}", self.args.join(" "))
    }
}

/// The target directory, in which this program lies.
///
/// # Errors
///
/// If the path of the program is not known.
pub fn target() -> Result<PathBuf> {
    let program = env::current_exe().context("the path of xtask is not known")?;
    let target = program.parent().and_then(Path::parent);
    Ok(target
        .context("xtask lies in no target directory")?
        .to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let command = Cargo::new("doc  --no-deps")
            .arg("--workspace")
            .env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(
            command.to_string(),
            r#"RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace"#
        );
    }

    #[test]
    fn a_failure_names_the_command() {
        let error = Cargo::new("no-such-subcommand").run().unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`cargo no-such-subcommand` failed")
        );
    }

    #[test]
    fn a_success_is_one() {
        Cargo::new("--version").run().unwrap();
    }
}
