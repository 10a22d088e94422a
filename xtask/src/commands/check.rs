//! `cargo xtask check`: what must be clean before a change is taken, the cheapest first.

use anyhow::Result;

use super::{Cargo, book};

/// Runs every check and stops at the first that fails.
pub fn run() -> Result<()> {
    book::check()?;
    commands().iter().try_for_each(Cargo::run)
}

fn commands() -> [Cargo; 3] {
    [
        Cargo::new("fmt --all --check"),
        Cargo::new(
            "clippy --workspace --all-targets --features burn-compress-examples/ort -- -D warnings",
        ),
        Cargo::new("doc --workspace --no-deps").env("RUSTDOCFLAGS", "-D warnings"),
    ]
}
