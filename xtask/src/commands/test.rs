//! `cargo xtask test`: all tests of the workspace, or those of one crate.

use anyhow::Result;
use clap::Args;

use super::Cargo;

/// Arguments of `cargo xtask test`.
#[derive(Args, Debug)]
pub struct TestArgs {
    /// Only this package, e.g. `burn-compress-core`.
    #[arg(long = "crate", value_name = "NAME")]
    package: Option<String>,
}

impl TestArgs {
    /// Runs the tests, documentation tests included.
    pub fn run(self) -> Result<()> {
        self.command().run()
    }

    fn command(&self) -> Cargo {
        match &self.package {
            None => Cargo::new("test --workspace"),
            Some(name) => Cargo::new("test --package").arg(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: TestArgs,
    }

    fn command(line: &[&str]) -> String {
        Line::parse_from(line).args.command().to_string()
    }

    #[test]
    fn the_whole_workspace_unless_a_crate_is_named() {
        assert_eq!(command(&["test"]), "cargo test --workspace");
        assert_eq!(
            command(&["test", "--crate", "burn-compress-core"]),
            "cargo test --package burn-compress-core"
        );
    }
}
