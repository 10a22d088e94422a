//! N:M masks.

use std::fmt::Display;
use std::hash::Hash;

use super::ranking;
use super::target::MaskTarget;
use crate::{Pattern, PruningError};

/// The elements that stay: of every `pattern.of()` consecutive ones along the input dim, those of
/// the largest scores.
pub(super) fn keep<K: Clone + Eq + Hash + Display>(
    target: &MaskTarget<K>,
    pattern: Pattern,
) -> Result<Vec<bool>, PruningError> {
    let shape = target.blocks.shape();
    if target.blocks.block_len() != 1 {
        let (first, second) = ("pattern", "granularity");
        return Err(PruningError::Conflict { first, second });
    }
    let dim = pattern.dim(shape, target.axes)?;
    let scores = target.scores.as_deref().unwrap_or_default();
    let inner: usize = shape[dim + 1..].iter().product();
    let (of, removed) = (pattern.of(), pattern.of() - pattern.kept());
    let mut keep = vec![true; scores.len()];
    let Some(last) = removed.checked_sub(1) else {
        return Ok(keep);
    };
    // Keys with the place in the group behind them, so that no two are equal.
    let mut group: Vec<(u64, usize)> = Vec::with_capacity(of);
    // Elements at the same place in all other dims, one group of consecutive ones after another.
    for block in (0..scores.len()).step_by(of * inner) {
        for first in block..block + inner {
            let places = (0..of).map(|place| first + place * inner);
            group.clear();
            group.extend(places.map(|at| {
                let kept = target.pruned.as_ref().is_some_and(|pruned| !pruned[at]);
                (ranking::key(scores[at], kept), at)
            }));
            let (less, largest, _) = group.select_nth_unstable(last);
            keep[largest.1] = false;
            less.iter().for_each(|&(_, at)| keep[at] = false);
        }
    }
    Ok(keep)
}

#[cfg(test)]
mod tests {
    use crate::mask::{MaskConfig, MaskTarget, generate};
    use crate::{Axes, Blocks, PruningError, PruningSettings};

    const LINEAR: Axes = Axes::Parameter {
        output: Some(1),
        input: Some(0),
    };

    fn target(pattern: &str, shape: &[usize], scores: &[f32]) -> MaskTarget<String> {
        let settings = PruningSettings {
            pattern: Some(pattern.parse().unwrap()),
            ..Default::default()
        };
        MaskTarget::new("w".to_string(), Blocks::elements(shape).unwrap(), settings)
            .with_scores(scores.to_vec())
            .with_axes(LINEAR)
    }

    fn keep(target: MaskTarget<String>) -> Vec<bool> {
        generate(&[target], MaskConfig::new()).unwrap()["w"]
            .keep()
            .to_vec()
    }

    #[test]
    fn consecutive_elements_are_those_of_one_dot_product() {
        // [in, out] = [4, 2]: the first column holds 1, 4, 2, 3, the second 8, 5, 7, 6.
        let scores = [1.0, 8.0, 4.0, 5.0, 2.0, 7.0, 3.0, 6.0];
        let expected = [false, true, true, false, false, true, true, false];
        assert_eq!(keep(target("2:4", &[4, 2], &scores)), expected);
        // Two groups a column: 1, 4 | 2, 3 and 8, 5 | 7, 6.
        let expected = [false, true, true, false, false, true, true, false];
        assert_eq!(keep(target("1:2", &[4, 2], &scores)), expected);
        // Along dim 1 of a convolution's weight [out, in, kernel] = [1, 4, 2] it is the same.
        let axes = Axes::Parameter {
            output: Some(0),
            input: Some(1),
        };
        let conv = target("3:4", &[1, 4, 2], &scores).with_axes(axes);
        let expected = [false, true, true, false, true, true, true, true];
        assert_eq!(keep(conv), expected);
    }

    #[test]
    fn a_tie_goes_against_the_element_that_is_pruned() {
        let tie = || target("1:2", &[2, 1], &[1.0, 1.0]);
        assert_eq!(keep(tie()), [false, true]);
        assert_eq!(keep(tie().with_current(&[true, false])), [true, false]);
    }

    #[test]
    fn a_part_of_the_goal_removes_fewer() {
        let scores = [1.0, 2.0, 3.0, 4.0];
        let mut target = target("1:4", &[4, 1], &scores);
        target.settings = target.settings.scaled(0.5);
        assert_eq!(keep(target), [false, true, true, true]);
    }

    #[test]
    fn shapes_and_blocks_must_fit() {
        let error = |target| generate(&[target], MaskConfig::new()).unwrap_err();
        assert_eq!(
            error(target("2:4", &[6, 1], &[0.0; 6])).to_string(),
            "w: pattern 2:4 does not divide dim 0 of the shape [6, 1]; exclude the layer or use \
             another pattern"
        );
        let mut rows = target("2:4", &[4, 2], &[0.0; 4]);
        rows.blocks = Blocks::new(&[4, 2], &[1, -1]).unwrap();
        let PruningError::Target { source, .. } = error(rows) else {
            panic!("the error must name its target");
        };
        assert!(matches!(*source, PruningError::Conflict { .. }));
    }
}
