//! Running a property over its cases, and counting what they were.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

pub type Outcome = Result<(), TestCaseError>;

/// What a property counts over its cases.
#[derive(Default)]
pub struct Tally(RefCell<BTreeMap<&'static str, u64>>);

impl Tally {
    pub fn add(&self, what: &'static str, count: u64) {
        *self.0.borrow_mut().entry(what).or_default() += count;
    }

    pub fn get(&self, what: &'static str) -> u64 {
        self.0.borrow().get(what).copied().unwrap_or_default()
    }
}

/// Checks a property and prints what was counted.
pub fn check<S: Strategy>(
    name: &str,
    cases: u32,
    strategy: S,
    property: impl Fn(S::Value, &Tally) -> Outcome,
) -> Tally {
    let mut config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(2026);
    }
    let tally = Tally::default();
    let result = TestRunner::new(config).run(&strategy, |case| {
        property(case, &tally)?;
        tally.add("cases", 1);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{name}: {error}");
    }
    eprintln!("{name}: {:?}", tally.0.borrow());
    tally
}
