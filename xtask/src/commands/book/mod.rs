//! `cargo xtask book`: the book, checked and built.

mod links;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::Cargo;

/// The version of mdBook that is installed; any is taken that is found.
const VERSION: &str = "0.5.4";

/// Checks the text and builds it into `book` in the target directory.
///
/// # Errors
///
/// If the text is not sound, mdBook cannot be installed, or it warns.
pub fn run() -> Result<()> {
    check()?;
    let program = mdbook()?;
    let output = super::target()?.join("book");
    let mut command = Command::new(&program);
    command.arg("build").arg(book());
    command.arg("--dest-dir").arg(&output);
    eprintln!("==> {command:?}");
    let built = command
        .output()
        .with_context(|| format!("`{}` could not be started", program.display()))?;
    let messages = String::from_utf8_lossy(&built.stderr);
    eprint!("{messages}");
    ensure!(built.status.success(), "mdBook failed ({})", built.status);
    ensure!(!warns(&messages), "mdBook warned");
    println!("{}", output.join("index.html").display());
    Ok(())
}

/// Checks chapters, includes and links; needs no mdBook.
///
/// # Errors
///
/// All that was found, a line each.
pub fn check() -> Result<()> {
    let found = links::check(&book().join("src"), &programs())?;
    if !found.is_empty() {
        bail!("the book:\n{}", found.join("\n"));
    }
    Ok(())
}

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn book() -> PathBuf {
    workspace().join("book")
}

/// The programs of the chapters, and what they print.
fn programs() -> PathBuf {
    workspace().join("examples/src/bin/book")
}

/// Whether mdBook reported anything above the level `info`.
fn warns(messages: &str) -> bool {
    let words = messages.split_whitespace();
    words.into_iter().any(|word| {
        let word = word.trim_matches(|letter: char| !letter.is_ascii_alphabetic());
        word == "WARN" || word == "ERROR"
    })
}

/// The mdBook of the search path, or that of the target directory, which is installed unless it is
/// there.
fn mdbook() -> Result<PathBuf> {
    let on_path = PathBuf::from("mdbook");
    if Command::new(&on_path).arg("--version").output().is_ok() {
        return Ok(on_path);
    }
    let root = super::target()?.join("mdbook");
    let program = root
        .join("bin")
        .join(format!("mdbook{}", std::env::consts::EXE_SUFFIX));
    if !program.exists() {
        Cargo::new("install mdbook --locked --no-default-features --features search")
            .arg("--version")
            .arg(VERSION)
            .arg("--root")
            .arg(root.to_string_lossy())
            .run()?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_mdbook_are_found() {
        assert!(warns("2026-01-01 [WARN] (mdbook::utils::fs): something"));
        assert!(warns(" WARN something"));
        assert!(!warns(" INFO Book building has started"));
    }

    #[test]
    fn the_book_is_sound() {
        check().unwrap();
    }
}
