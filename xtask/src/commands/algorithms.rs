//! `cargo xtask algorithms`: the accuracy of every algorithm at a fixed budget.

use std::{fs, path::Path, process::Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::Cargo;

const BEGIN: &str = "<!-- algorithms -->";
const END: &str = "<!-- end of algorithms -->";

/// Arguments of `cargo xtask algorithms`.
#[derive(Args, Debug)]
pub struct AlgorithmsArgs {
    /// Runs of each algorithm.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,

    /// Training steps of each run; the program's own default when absent.
    #[arg(long)]
    steps: Option<u64>,

    /// Writes the tables into the README as well.
    #[arg(long)]
    write: bool,
}

impl AlgorithmsArgs {
    /// Runs all algorithms and prints the tables.
    ///
    /// # Errors
    ///
    /// If the program fails, or the README has no place for the tables.
    pub fn run(self) -> Result<()> {
        let mut cargo = Cargo::new("run --release -p burn-compress-examples --bin algorithms --")
            .arg("--seeds")
            .arg(self.seeds.to_string());
        if let Some(steps) = self.steps {
            cargo = cargo.arg("--steps").arg(steps.to_string());
        }
        eprintln!("==> {cargo}");
        let output = cargo
            .command()
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("`{cargo}` could not be started"))?;
        ensure!(
            output.status.success(),
            "`{cargo}` failed ({})",
            output.status
        );
        let tables = String::from_utf8(output.stdout).context("the tables are no text")?;
        print!("{tables}");
        if self.write {
            let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
            let text = fs::read_to_string(&readme).context("README.md")?;
            fs::write(&readme, replace(&text, &tables)?).context("README.md")?;
        }
        Ok(())
    }
}

/// `text` with `tables` between the two marks.
fn replace(text: &str, tables: &str) -> Result<String> {
    let missing = || format!("README.md needs the lines `{BEGIN}` and `{END}`");
    let (before, rest) = text.split_once(BEGIN).with_context(missing)?;
    let (_, after) = rest.split_once(END).with_context(missing)?;
    Ok(format!("{before}{BEGIN}\n{tables}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_replaced_between_the_marks() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let expected = format!("a\n{BEGIN}\nnew\n{END}\nb\n");
        assert_eq!(replace(&text, "new\n").unwrap(), expected);
        assert!(replace("a\nb\n", "new\n").is_err());
    }
}
