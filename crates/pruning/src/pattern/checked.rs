//! Checks of patterns: of their numbers, and of the targets that they fit.

use std::str::FromStr;

use super::Pattern;
use crate::{Axes, PruningError};

impl Pattern {
    /// Keeps `kept` of every `of` elements.
    ///
    /// # Errors
    ///
    /// When nothing would be kept or nothing removed.
    pub fn new(kept: usize, of: usize) -> Result<Self, PruningError> {
        match 0 < kept && kept < of {
            true => Ok(Self { kept, of }),
            false => Err(invalid(&format!("{kept}:{of}"))),
        }
    }

    /// The dim along which elements of a target of `shape` are consecutive.
    pub(crate) fn dim(self, shape: &[usize], axes: Axes) -> Result<usize, PruningError> {
        let dim = match axes {
            Axes::Parameter { input, .. } => input.filter(|&dim| dim < shape.len()),
            Axes::Activation { .. } => None,
        };
        let dim = dim.ok_or(PruningError::PatternTarget { pattern: self })?;
        match shape[dim].is_multiple_of(self.of) {
            true => Ok(dim),
            false => Err(PruningError::PatternSize {
                pattern: self,
                dim,
                shape: shape.to_vec(),
            }),
        }
    }
}

fn invalid(text: &str) -> PruningError {
    PruningError::Setting {
        key: "pattern",
        value: format!("`{text}`"),
        expected: "\"N:M\" with N from 1 to M - 1, as \"2:4\" to keep 2 of 4 elements",
    }
}

impl FromStr for Pattern {
    type Err = PruningError;

    fn from_str(text: &str) -> Result<Self, PruningError> {
        let parts = text.split_once(':').and_then(|(kept, of)| {
            let (kept, of) = (kept.trim().parse().ok()?, of.trim().parse().ok()?);
            Self::new(kept, of).ok()
        });
        parts.ok_or_else(|| invalid(text))
    }
}

impl TryFrom<String> for Pattern {
    type Error = PruningError;

    fn try_from(text: String) -> Result<Self, PruningError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("")]
    #[case("2")]
    #[case("2:2")]
    #[case("0:4")]
    #[case("-1:4")]
    #[case("2:4:8")]
    #[case("a:b")]
    fn what_is_no_pattern_is_refused(#[case] text: &str) {
        let error = text.parse::<Pattern>().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("`pattern` is `{text}`")),
            "{error}"
        );
        let text = serde_json::to_string(text).unwrap();
        assert!(serde_json::from_str::<Pattern>(&text).is_err());
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        let pattern: Pattern = serde_json::from_str("\" 1: 4\"").unwrap();
        assert_eq!(serde_json::to_string(&pattern).unwrap(), "\"1:4\"");
    }

    #[test]
    fn a_part_of_the_goal_removes_the_integer_part() {
        let pattern = Pattern::new(1, 4).unwrap();
        let kept = [0.0, 0.3, 0.34, 0.67, 1.0].map(|factor| pattern.scaled(factor).kept());
        assert_eq!(kept, [4, 4, 3, 2, 1]);
    }

    #[test]
    fn the_input_dim_must_be_there_and_divide() {
        let pattern = Pattern::new(2, 4).unwrap();
        let axes = |output, input| Axes::Parameter { output, input };
        assert_eq!(pattern.dim(&[8, 3], axes(Some(1), Some(0))).unwrap(), 0);
        let error = pattern.dim(&[8, 3, 3, 3], axes(Some(0), Some(1)));
        assert_eq!(
            error.unwrap_err().to_string(),
            "pattern 2:4 does not divide dim 1 of the shape [8, 3, 3, 3]; exclude the layer or use \
             another pattern"
        );
        for axes in [axes(Some(0), None), Axes::Activation { channel: 0 }] {
            let error = pattern.dim(&[8], axes).unwrap_err();
            assert!(
                matches!(error, PruningError::PatternTarget { .. }),
                "{error}"
            );
        }
    }
}
