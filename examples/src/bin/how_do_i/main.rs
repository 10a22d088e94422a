//! Short programs, one a file, for what people do most.
//!
//! | how do I | file |
//! |---|---|
//! | prune and fine-tune | `prune.rs` |
//! | quantize to int8 with training | `int8_with_training.rs` |
//! | quantize to int8 without training | `int8_without_training.rs` |
//! | quantize for a runtime that computes in integers | `for_a_runtime.rs` |
//! | distil | `distil.rs` |
//! | prune and quantize in one run | `prune_and_quantize.rs` |
//! | fuse all three | `fuse.rs` |
//! | train with Burn's `Learner` | `learner.rs` |
//! | read the rules from TOML | `toml.rs` |
//! | see which layers bear pruning | `sensitivity.rs` |
//! | see what a cut will remove, before the run | `plan.rs` |
//! | follow a run, and keep its history | `watch.rs` |
//! | get a report with figures | `report.rs` |
//! | stop and resume | `resume.rs` |
//! | save here and load there | `save.rs` |
//! | go on training a small model | `fine_tune.rs` |
//!
//! `cargo run -p burn-compress-examples --bin how_do_i` runs all of them.

mod distil;
mod fine_tune;
mod for_a_runtime;
mod fuse;
mod int8_with_training;
mod int8_without_training;
mod learner;
mod plan;
mod prune;
mod prune_and_quantize;
mod report;
mod resume;
mod save;
mod sensitivity;
mod setup;
mod toml;
mod watch;

use burn_compress::prelude::Error;

type Program = fn() -> Result<(), Error>;

fn main() -> Result<(), Error> {
    let programs: [(&str, Program); 16] = [
        ("prune", prune::run),
        ("int8_with_training", int8_with_training::run),
        ("int8_without_training", int8_without_training::run),
        ("for_a_runtime", for_a_runtime::run),
        ("distil", distil::run),
        ("prune_and_quantize", prune_and_quantize::run),
        ("fuse", fuse::run),
        ("learner", learner::run),
        ("toml", toml::run),
        ("sensitivity", sensitivity::run),
        ("plan", plan::run),
        ("watch", watch::run),
        ("report", report::run),
        ("resume", resume::run),
        ("save", save::run),
        ("fine_tune", fine_tune::run),
    ];
    for (name, run) in programs {
        run()?;
        println!("{name}: done");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_program_runs() {
        super::main().unwrap();
    }
}
