//! The dynamic dimensions of the inputs.

use indexmap::IndexMap;

use crate::{ExportError, OnnxConfig};

/// Input and dimension of every dynamic dimension, by name.
pub(super) type Named = IndexMap<String, Vec<(usize, usize)>>;

/// Name of the first dimension of all inputs.
pub(super) const BATCH: &str = "batch";

/// The dynamic dimensions of inputs of these shapes.
pub(super) fn named(config: &OnnxConfig, shapes: &[Vec<usize>]) -> Result<Named, ExportError> {
    // The batch is named first, whatever dimensions follow.
    let mut named = Named::from([(BATCH.to_string(), Vec::new())]);
    for axis in &config.dynamic_axes {
        let refuse = |reason: String| ExportError::Axis {
            input: axis.input,
            axis: axis.axis,
            name: axis.name.clone(),
            reason,
        };
        let Some(shape) = shapes.get(axis.input) else {
            return Err(refuse(format!("there are {} inputs", shapes.len())));
        };
        let Some(&size) = shape.get(axis.axis) else {
            return Err(refuse(format!("the input has the shape {shape:?}")));
        };
        if axis.name.is_empty() {
            return Err(refuse("the name is empty".to_string()));
        }
        let dim = (axis.input, axis.axis);
        if let Some((name, _)) = named.iter().find(|(_, dims)| dims.contains(&dim)) {
            return Err(refuse(format!(
                "the dimension is dynamic already, as `{name}`"
            )));
        }
        let dims = named.entry(axis.name.clone()).or_default();
        if let Some(&(input, other)) = dims.first()
            && shapes[input][other] != size
        {
            let found = shapes[input][other];
            return Err(refuse(format!(
                "its size is {size}, and dimension {other} of input {input} of that name has {found}"
            )));
        }
        dims.push(dim);
    }
    if config.dynamic_batch {
        for (input, shape) in shapes.iter().enumerate() {
            let taken = named.values().any(|dims| dims.contains(&(input, 0)));
            if taken || shape.is_empty() {
                continue;
            }
            let dims = named.entry(BATCH.to_string()).or_default();
            if let Some(&(first, dim)) = dims.first()
                && shapes[first][dim] != shape[0]
            {
                return Err(ExportError::Axis {
                    input,
                    axis: 0,
                    name: BATCH.to_string(),
                    reason: format!(
                        "its size is {}, and that of input {first} is {}: turn the dynamic batch off \
                         (`with_dynamic_batch(false)`) and name the dynamic dimensions",
                        shape[0], shapes[first][dim]
                    ),
                });
            }
            dims.push((input, 0));
        }
    }
    named.retain(|_, dims| !dims.is_empty());
    Ok(named)
}

/// Pairs of other sizes to capture with, the preferred ones first.
///
/// A batch may always be larger. Other dimensions are made smaller, so that a table that the pass holds
/// is that of the largest size; by large factors, so that convolutions with strides do not come to the
/// same size.
pub(super) fn candidates(size: usize, is_batch: bool) -> Vec<[usize; 2]> {
    let mut found = Vec::new();
    if is_batch {
        found.push([size + 1, size + 2]);
    }
    found.push([size / 2, size / 4 * 3]);
    found.push([size.saturating_sub(1), size.saturating_sub(2)]);
    found.push([size * 2, size * 3]);
    found.push([size + 1, size + 2]);
    let usable = |pair: &[usize; 2]| pair.iter().all(|&x| x > 1 && x != size) && pair[0] != pair[1];
    found.retain(usable);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_smaller_and_never_one() {
        assert_eq!(candidates(128, false)[0], [64, 96]);
        // 6 / 4 * 3 is 3, as 6 / 2 is.
        assert_eq!(candidates(6, false), [[5, 4], [12, 18], [7, 8]]);
        assert_eq!(candidates(2, true)[0], [3, 4]);
        assert_eq!(candidates(2, false)[0], [4, 6]);
    }

    #[test]
    fn dimensions_are_named_once() {
        let shapes = [vec![2, 6], vec![2, 6, 6]];
        let config = OnnxConfig::new()
            .with_dynamic_axis(0, 1, "sequence")
            .with_dynamic_axis(1, 2, "sequence");
        let found = named(&config, &shapes).unwrap();
        assert_eq!(found["sequence"], [(0, 1), (1, 2)]);
        assert_eq!(found["batch"], [(0, 0), (1, 0)]);
        let message = |config: OnnxConfig| named(&config, &shapes).unwrap_err().to_string();
        let twice = config.clone().with_dynamic_axis(0, 1, "tokens");
        assert!(message(twice).contains("dynamic already, as `sequence`"));
        let other = config.with_dynamic_axis(1, 0, "sequence");
        assert!(message(other).contains("its size is 2"), "{shapes:?}");
        let none = OnnxConfig::new().with_dynamic_axis(2, 0, "x");
        assert!(message(none).contains("there are 2 inputs"));
        let none = OnnxConfig::new().with_dynamic_axis(0, 2, "x");
        assert!(message(none).contains("[2, 6]"));
    }
}
