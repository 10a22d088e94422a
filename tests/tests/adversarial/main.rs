//! Entry points of the library times kinds of bad input, counted by what becomes of them.
//!
//! Every case says what it must lead to: a typed error with a variant and with parts of its message,
//! the path and what to do among them, or the right result. Nothing may be accepted silently, panic,
//! or lead to something else.

mod algorithms;
mod chains;
mod checkpoints;
mod data;
mod evaluators;
mod fixtures;
mod functions;
mod lists;
mod masks;
mod models;
mod promises;
mod scales;
mod selection;
mod small_models;
mod speedup;
mod table;
mod teachers;
mod trainees;

use std::io::{self, Write};

use table::{Class, Table};

/// The fewest cases that the table must have.
const CASES: usize = 300;

#[test]
fn bad_input_is_refused_or_harmless() {
    let mut table = Table::default();
    table.run("configuration: layers and targets", selection::fill);
    table.run("configuration: settings", lists::fill);
    table.run("algorithms: their own options", algorithms::fill);
    table.run("evaluator, dummy input", evaluators::fill);
    table.run("chains, budgets, runs", chains::fill);
    table.run("masks", masks::fill);
    table.run("scales", scales::fill);
    table.run("checkpoints", checkpoints::fill);
    table.run("speedup", speedup::fill);
    table.run("files of small models", small_models::fill);
    table.run("teachers and their cache", teachers::fill);
    table.run("data and values", data::fill);
    table.run("models", models::fill);
    table.run("trainee", trainees::fill);
    table.run("what must not be silent", promises::fill);
    table.run("functions by themselves", functions::fill);
    // Past the harness, which keeps what macros print to itself while a test passes.
    let _ = writeln!(io::stderr(), "\n{table}");
    assert!(table.len() >= CASES, "{} cases", table.len());
    for class in [Class::Silent, Class::Panic, Class::Wrong] {
        assert_eq!(table.count(class), 0, "{class:?}:\n{table}");
    }
}
