//! Tasks of the workspace, run as `cargo xtask <task>`: `check`, `test`, `fuzz`, `bench`,
//! `algorithms`, `onnx`, `libtorch` and `book`.
//!
//! Plain `cargo` commands behind one name, so that a contributor and the continuous integration run
//! the same ones. Not built on `tracel-xtask`, because that one installs and pins the outside tools
//! it calls, while these tasks need nothing but the Rust toolchain.

mod commands;

use anyhow::Result;
use clap::{Parser, Subcommand};

use commands::{
    algorithms::AlgorithmsArgs, bench::BenchArgs, book, check, fuzz::FuzzArgs,
    libtorch::LibtorchArgs, onnx::OnnxArgs, test::TestArgs,
};

#[derive(Parser, Debug)]
#[command(name = "cargo xtask", about = "Tasks of the burn-compress workspace")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand, Debug)]
enum Task {
    /// Formatting, lints and documentation; stops at the first failure.
    Check,
    /// All tests of the workspace, documentation tests included.
    Test(TestArgs),
    /// Cuts random networks over all operations and compares each with its masked one.
    Fuzz(FuzzArgs),
    /// Runs the main job on several backends and compares them in one table.
    Bench(BenchArgs),
    /// Runs every algorithm at a fixed budget and prints their accuracies.
    Algorithms(AlgorithmsArgs),
    /// Sets up a Python with onnx and onnxruntime, for the tests of exported files.
    Onnx(OnnxArgs),
    /// Sets up the library that Burn's feature `tch` is built with.
    Libtorch(LibtorchArgs),
    /// Checks the links of the book and builds it with mdBook, which is installed unless it is there.
    Book,
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Check => check::run(),
        Task::Test(args) => args.run(),
        Task::Fuzz(args) => args.run(),
        Task::Bench(args) => args.run(),
        Task::Algorithms(args) => args.run(),
        Task::Onnx(args) => args.run(),
        Task::Libtorch(args) => args.run(),
        Task::Book => book::run(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_task_is_required() {
        assert!(Cli::try_parse_from(["xtask"]).is_err());
        assert!(Cli::try_parse_from(["xtask", "publish"]).is_err());
        assert!(matches!(
            Cli::try_parse_from(["xtask", "check"]).unwrap().task,
            Task::Check
        ));
    }
}
