//! The comparison of one case: what was compared and what differed.

use std::collections::BTreeSet;
use std::fmt::Debug;

use super::array::Array;
use super::case::{Case, Tolerance};

/// Mismatches that are kept for each tensor.
const MISMATCHES_SHOWN: usize = 3;

/// Collects every comparison of a case.
///
/// A case passes when nothing differs and every tensor that it expects was compared.
#[derive(Debug)]
pub struct Checks {
    tolerance: Tolerance,
    compared: BTreeSet<String>,
    failures: Vec<String>,
}

impl Checks {
    /// An empty comparison with the tolerance of the case.
    pub fn new(case: &Case) -> Self {
        Self {
            tolerance: case.file.tolerance,
            compared: BTreeSet::new(),
            failures: Vec::new(),
        }
    }

    /// Compares an array with the expected tensor of that name.
    pub fn array(&mut self, case: &Case, name: &str, got: &Array) {
        match case.array(name) {
            Ok(expected) => self.pair(name, got, expected, None),
            Err(error) => self.failures.push(error.to_string()),
        }
    }

    /// Compares as [`Checks::array`] does, only where `selected` is 1.
    pub fn array_where(&mut self, case: &Case, name: &str, got: &Array, selected: &Array) {
        match case.array(name) {
            Ok(expected) => self.pair(name, got, expected, Some(selected)),
            Err(error) => self.failures.push(error.to_string()),
        }
    }

    fn pair(&mut self, name: &str, got: &Array, expected: &Array, selected: Option<&Array>) {
        self.compared.insert(name.to_owned());
        // A single value has the shape `[1]` or as many dims of size 1 as its target.
        let single = got.values.len() == 1 && expected.values.len() == 1;
        if got.shape != expected.shape && !single {
            self.failures.push(format!(
                "{name}: the shape is {:?}, expected {:?}",
                got.shape, expected.shape
            ));
            return;
        }
        let mut different = 0;
        let mut shown = Vec::new();
        for (index, (got_value, expected_value)) in
            got.values.iter().zip(&expected.values).enumerate()
        {
            if selected.is_some_and(|selected| selected.values.get(index) == Some(&0.0)) {
                continue;
            }
            let agrees = match expected.integer {
                true => got_value == expected_value,
                false => self.agrees(f64::from(*got_value), f64::from(*expected_value)),
            };
            if !agrees {
                different += 1;
                if shown.len() < MISMATCHES_SHOWN {
                    shown.push(format!("[{index}] {got_value} instead of {expected_value}"));
                }
            }
        }
        if different > 0 {
            self.failures.push(format!(
                "{name}: {different} of {} values differ: {}",
                expected.values.len(),
                shown.join(", ")
            ));
        }
    }

    /// Compares a number.
    pub fn number(&mut self, name: &str, got: f64, expected: f64) {
        self.compared.insert(name.to_owned());
        if !self.agrees(got, expected) {
            self.failures
                .push(format!("{name}: {got} instead of {expected}"));
        }
    }

    /// Compares what must be equal.
    pub fn equal<T: PartialEq + Debug>(&mut self, name: &str, got: T, expected: T) {
        self.compared.insert(name.to_owned());
        if got != expected {
            self.failures
                .push(format!("{name}: {got:?} instead of {expected:?}"));
        }
    }

    /// Records that something expected is missing or that something is there too much.
    pub fn fail(&mut self, message: impl Into<String>) {
        self.failures.push(message.into());
    }

    fn agrees(&self, got: f64, expected: f64) -> bool {
        let limit = self.tolerance.float_abs + self.tolerance.float_rel * expected.abs();
        (got - expected).abs() <= limit
    }

    /// Whether nothing differs so far.
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty()
    }

    /// How many tensors and values were compared.
    pub fn len(&self) -> usize {
        self.compared.len()
    }

    /// Whether nothing was compared.
    pub fn is_empty(&self) -> bool {
        self.compared.is_empty()
    }

    /// What went wrong, empty for a case that passes. An expected tensor that was not compared is a
    /// failure too.
    pub fn finish(mut self, case: &Case) -> Vec<String> {
        for name in case.expected_tensors() {
            if !self.compared.contains(name) {
                self.failures
                    .push(format!("{name}: expected by the case, but not compared"));
            }
        }
        if self.compared.is_empty() {
            self.failures.push("nothing was compared".to_owned());
        }
        self.failures
    }
}
