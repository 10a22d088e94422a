//! The comparison of one case: what was compared and what differed.

use std::collections::BTreeSet;

use burn::tensor::Tensor;
use serde_json::Value;

use super::case::{Case, Numbers, Tolerance};

/// Mismatches that are kept for each tensor.
const MISMATCHES_SHOWN: usize = 3;

/// What the library gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Got {
    shape: Option<Vec<usize>>,
    values: Vec<f64>,
}

impl From<f64> for Got {
    fn from(value: f64) -> Self {
        vec![value].into()
    }
}

impl From<f32> for Got {
    fn from(value: f32) -> Self {
        f64::from(value).into()
    }
}

impl From<usize> for Got {
    fn from(value: usize) -> Self {
        (value as f64).into()
    }
}

impl From<Vec<f64>> for Got {
    fn from(values: Vec<f64>) -> Self {
        Self {
            shape: None,
            values,
        }
    }
}

impl From<Vec<f32>> for Got {
    fn from(values: Vec<f32>) -> Self {
        let values: Vec<f64> = values.into_iter().map(f64::from).collect();
        values.into()
    }
}

impl From<&[bool]> for Got {
    fn from(values: &[bool]) -> Self {
        let values: Vec<f64> = values.iter().map(|&v| f64::from(u8::from(v))).collect();
        values.into()
    }
}

impl<const D: usize> From<Tensor<D>> for Got {
    fn from(tensor: Tensor<D>) -> Self {
        let shape = tensor.dims().to_vec();
        let values: Vec<f64> = tensor.into_data().convert::<f64>().iter().collect();
        Self {
            shape: Some(shape),
            values,
        }
    }
}

/// Collects every comparison of a case.
///
/// A case passes when nothing differs and everything that it expects was compared, but for what is
/// documented to be another quantity.
#[derive(Debug)]
pub struct Checks<'a> {
    case: &'a Case,
    tolerance: Tolerance,
    compared: BTreeSet<String>,
    documented: BTreeSet<String>,
    failures: Vec<String>,
}

impl<'a> Checks<'a> {
    /// An empty comparison.
    pub fn new(case: &'a Case, tolerance: Tolerance) -> Self {
        Self {
            case,
            tolerance,
            compared: BTreeSet::new(),
            documented: BTreeSet::new(),
            failures: Vec::new(),
        }
    }

    /// Whether the case expects something at a JSON pointer.
    pub fn expects(&self, pointer: &str) -> bool {
        self.case.expected.pointer(pointer).is_some()
    }

    /// Compares with the number, tensor or list at a JSON pointer, where the case has one.
    pub fn compare(&mut self, pointer: &str, got: impl Into<Got>) {
        let Some(value) = self.case.expected.pointer(pointer) else {
            return;
        };
        self.compared.insert(pointer.to_owned());
        let got = got.into();
        match expectation(value) {
            Some(expected) => self.pair(pointer, &got, &expected),
            None => self.fail(format!("{pointer}: {value} is no number and no tensor")),
        }
    }

    /// Compares a number that there may be none of, which a file writes as `null`.
    pub fn compare_or_none(&mut self, pointer: &str, got: Option<f64>) {
        match (self.case.expected.pointer(pointer), got) {
            (None, _) => {}
            (Some(Value::Null), None) => self.mark(pointer),
            (Some(_), Some(got)) => self.compare(pointer, got),
            (Some(expected), None) => {
                self.mark(pointer);
                self.fail(format!("{pointer}: none instead of {expected}"));
            }
        }
    }

    /// Counts what is at a JSON pointer as compared; `holds` is what came out, and `message` why not.
    pub fn require(&mut self, pointer: &str, holds: bool, message: impl FnOnce() -> String) {
        if !self.expects(pointer) {
            return;
        }
        self.mark(pointer);
        if !holds {
            self.fail(format!("{pointer}: {}", message()));
        }
    }

    /// Leaves out what is documented to be another quantity than the library's.
    pub fn documented(&mut self, pointer: &str) {
        if self.expects(pointer) {
            self.documented.insert(pointer.to_owned());
        }
    }

    /// Records what went wrong.
    pub fn fail(&mut self, message: impl Into<String>) {
        self.failures.push(message.into());
    }

    /// Whether a number is within the tolerance of another one.
    pub fn agrees(&self, got: f64, expected: f64) -> bool {
        (got - expected).abs() <= self.tolerance.abs + self.tolerance.rel * expected.abs()
    }

    fn mark(&mut self, pointer: &str) {
        self.compared.insert(pointer.to_owned());
    }

    fn pair(&mut self, pointer: &str, got: &Got, expected: &Numbers) {
        let shapes_differ = got
            .shape
            .as_ref()
            .is_some_and(|shape| *shape != expected.shape && expected.values.len() > 1);
        if shapes_differ || got.values.len() != expected.values.len() {
            let found = match &got.shape {
                Some(shape) => format!("the shape is {shape:?}"),
                None => format!("there are {} values", got.values.len()),
            };
            self.fail(format!("{pointer}: {found}, expected {:?}", expected.shape));
            return;
        }
        let mut different = 0;
        let mut shown = Vec::new();
        for (at, (&got, &wanted)) in got.values.iter().zip(&expected.values).enumerate() {
            let agrees = match expected.exact {
                true => got == wanted,
                false => self.agrees(got, wanted),
            };
            if !agrees {
                different += 1;
                if shown.len() < MISMATCHES_SHOWN {
                    shown.push(format!("[{at}] {got} instead of {wanted}"));
                }
            }
        }
        if different > 0 {
            let all = expected.values.len();
            let shown = shown.join(", ");
            self.fail(format!("{pointer}: {different} of {all} differ: {shown}"));
        }
    }

    /// How many numbers and tensors were compared.
    pub fn len(&self) -> usize {
        self.compared.len()
    }

    /// Whether nothing was compared.
    pub fn is_empty(&self) -> bool {
        self.compared.is_empty()
    }

    /// What went wrong, empty for a case that passes. What is expected and was not compared is a
    /// failure too.
    pub fn finish(mut self) -> Vec<String> {
        let mut missing = Vec::new();
        leaves(&self.case.expected, String::new(), &mut |pointer| {
            if !self.compared.contains(&pointer) && !self.documented.contains(&pointer) {
                missing.push(format!("{pointer}: expected by the case, but not compared"));
            }
        });
        self.failures.extend(missing);
        if self.compared.is_empty() {
            self.failures.push("nothing was compared".to_owned());
        }
        self.failures
    }
}

/// A number, a boolean, a tensor or a list of numbers.
fn expectation(value: &Value) -> Option<Numbers> {
    let one = |value: &Value| match value {
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        value => value.as_f64(),
    };
    match value {
        Value::Object(_) => serde_json::from_value(value.clone()).ok(),
        Value::Array(list) => {
            let values: Vec<f64> = list.iter().map(one).collect::<Option<_>>()?;
            Some(Numbers {
                shape: vec![values.len()],
                exact: !list.is_empty() && list.iter().all(Value::is_boolean),
                values,
            })
        }
        value => Some(Numbers {
            shape: Vec::new(),
            values: vec![one(value)?],
            exact: value.is_boolean(),
        }),
    }
}

/// Calls `found` with the JSON pointer of everything that is one expectation.
fn leaves(value: &Value, pointer: String, found: &mut impl FnMut(String)) {
    match value {
        Value::Object(map) if expectation(value).is_none() => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                leaves(value, format!("{pointer}/{key}"), found);
            }
        }
        Value::Array(list) if expectation(value).is_none() => {
            for (at, value) in list.iter().enumerate() {
                leaves(value, format!("{pointer}/{at}"), found);
            }
        }
        _ => found(pointer),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn case(expected: Value) -> Case {
        serde_json::from_value(json!({"name": "a", "inputs": {}, "expected": expected})).unwrap()
    }

    fn checks(case: &Case) -> Checks<'_> {
        let (abs, rel) = (1e-6, 1e-3);
        Checks::new(case, Tolerance { abs, rel })
    }

    #[test]
    fn everything_has_to_be_compared() {
        let case = case(json!({
            "loss": 2.0, "keep": {"shape": [2], "data": [true, false]}, "peer": 1,
            "at": [{"beta": null}, {"beta": 3.0}]
        }));
        let mut good = checks(&case);
        good.compare("/loss", 2.001);
        good.compare("/keep", &[true, false][..]);
        good.compare_or_none("/at/0/beta", None);
        good.compare_or_none("/at/1/beta", Some(3.0));
        good.compare("/no such key", 5.0);
        good.documented("/peer");
        assert_eq!(good.len(), 4);
        assert_eq!(good.finish(), [""; 0]);

        let mut bad = checks(&case);
        bad.compare("/loss", 2.1);
        bad.compare("/keep", &[true, true][..]);
        bad.compare_or_none("/at/0/beta", Some(1.0));
        let failures = bad.finish();
        let expected = ["/loss", "/keep", "/at/0/beta", "/at/1/beta", "/peer"];
        assert_eq!(failures.len(), expected.len(), "{failures:?}");
        for (failure, pointer) in failures.iter().zip(expected) {
            assert!(failure.starts_with(pointer), "{failures:?}");
        }
    }

    #[test]
    fn nan_and_other_sizes_differ() {
        let case = case(json!({"a": 1.0, "b": {"shape": [2], "data": [1, 2]}}));
        let mut checks = checks(&case);
        checks.compare("/a", f64::NAN);
        checks.compare("/b", vec![1.0_f64]);
        assert_eq!(checks.finish().len(), 2);
    }
}
