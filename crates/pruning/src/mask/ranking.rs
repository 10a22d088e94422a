//! Scores in the order in which blocks are removed.

use std::cmp::Ordering;

/// The blocks of one target or one part of it, least important first.
pub(super) struct Ranking {
    scores: Vec<f32>,
    order: Vec<usize>,
}

impl Ranking {
    /// Ranks by score; at equal scores, pruned blocks come first, then lower indices.
    pub(super) fn new(scores: Vec<f32>, pruned: Option<&[bool]>) -> Self {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        let is_kept = |i: usize| pruned.is_some_and(|pruned| !pruned[i]);
        order.sort_by(|&a, &b| compare(scores[a], scores[b]).then(is_kept(a).cmp(&is_kept(b))));
        Self { scores, order }
    }

    /// Block indices, least important first.
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    /// The score of a block.
    pub(super) fn score(&self, block: usize) -> f32 {
        self.scores[block]
    }

    /// How many blocks score less than `threshold`, which is rounded to single precision as the
    /// scores are.
    pub(super) fn below(&self, threshold: f64) -> usize {
        let threshold = threshold as f32;
        self.scores
            .iter()
            .filter(|&&score| score < threshold)
            .count()
    }

    /// The mask that removes the `count` least important blocks.
    pub(super) fn without_smallest(&self, count: usize) -> Vec<bool> {
        let mut keep = vec![true; self.scores.len()];
        for &block in &self.order[..count] {
            keep[block] = false;
        }
        keep
    }
}

/// Compares scores that are not NaN; -0 equals 0.
pub(super) fn compare(a: f32, b: f32) -> Ordering {
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_remove_pruned_blocks_first_then_lower_indices() {
        let scores = vec![0.0, 2.0, -0.0, 0.0, 1.0];
        assert_eq!(Ranking::new(scores.clone(), None).order(), [0, 2, 3, 4, 1]);
        let pruned = [false, false, false, true, false];
        let ranking = Ranking::new(scores, Some(&pruned));
        assert_eq!(ranking.order(), [3, 0, 2, 4, 1]);
        assert_eq!(
            ranking.without_smallest(2),
            [false, true, true, false, true]
        );
    }

    #[test]
    fn a_threshold_keeps_the_score_that_equals_it() {
        // 0.7 in single precision is less than 0.7 in double precision.
        let ranking = Ranking::new(vec![0.7, 0.6], None);
        assert_eq!(ranking.below(0.7), 1);
    }
}
