//! Scores in the order in which blocks are removed.

/// The blocks of one target or one part of it, as keys that ascend in the order of removal.
///
/// Equal keys are removed in the order of their blocks, so that a smallest set of any size is found
/// in linear time, without sorting.
pub(super) struct Ranking {
    keys: Vec<u64>,
}

impl Ranking {
    /// Ranks by score; at equal scores, pruned blocks come first, then lower indices.
    pub(super) fn new(scores: &[f32], pruned: Option<&[bool]>) -> Self {
        let keys = match pruned {
            None => scores.iter().map(|&score| key(score, false)).collect(),
            Some(pruned) => scores
                .iter()
                .zip(pruned)
                .map(|(&score, pruned)| key(score, !pruned))
                .collect(),
        };
        Self { keys }
    }

    /// Number of blocks with a score below `threshold`, which is rounded to single precision as the
    /// scores are.
    pub(super) fn below(&self, threshold: f64) -> usize {
        let threshold = threshold as f32;
        let scores = self.keys.iter().map(|&key| score(key));
        scores.filter(|&score| score < threshold).count()
    }

    /// The mask that removes the `count` least important blocks.
    pub(super) fn without_smallest(&self, count: usize) -> Vec<bool> {
        let Some(last) = count.checked_sub(1) else {
            return vec![true; self.keys.len()];
        };
        let mut keys = self.keys.clone();
        let (less, &mut largest, _) = keys.select_nth_unstable(last);
        let mut equal = count - less.iter().filter(|&&key| key < largest).count();
        let keep = self.keys.iter().map(|&key| {
            let removed = key < largest || (key == largest && equal > 0);
            equal -= usize::from(removed && key == largest);
            !removed
        });
        keep.collect()
    }

    /// The key of each block.
    pub(super) fn keys(&self) -> &[u64] {
        &self.keys
    }

    /// The keys, least important first.
    pub(super) fn sorted(mut self) -> Vec<u64> {
        self.keys.sort_unstable();
        self.keys
    }
}

/// A number that is smaller the earlier a block is removed: by a score that is not NaN, where -0
/// equals 0, then by whether the block is kept at present.
pub(super) fn key(score: f32, kept: bool) -> u64 {
    // Adding 0 turns -0 into 0.
    let bits = (score + 0.0).to_bits();
    let ascending = match bits >> 31 {
        0 => bits | 1 << 31,
        _ => !bits,
    };
    u64::from(ascending) << 1 | u64::from(kept)
}

/// The score that a key was made of.
pub(super) fn score(key: u64) -> f32 {
    let ascending = (key >> 1) as u32;
    f32::from_bits(match ascending >> 31 {
        0 => !ascending,
        _ => ascending & !(1 << 31),
    })
}

/// Whether a key is that of a block that is kept at present.
pub(super) fn is_kept(key: u64) -> bool {
    key & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_scores_remove_pruned_blocks_first_then_lower_indices() {
        let scores = [0.0, 2.0, -0.0, 0.0, 1.0];
        let removed = |ranking: &Ranking, count| -> Vec<usize> {
            let keep = ranking.without_smallest(count).into_iter().enumerate();
            keep.filter(|(_, keep)| !keep).map(|(at, _)| at).collect()
        };
        let ranking = Ranking::new(&scores, None);
        assert!(removed(&ranking, 0).is_empty());
        assert_eq!(removed(&ranking, 2), [0, 2]);
        assert_eq!(removed(&ranking, 4), [0, 2, 3, 4]);
        let ranking = Ranking::new(&scores, Some(&[false, false, false, true, false]));
        assert_eq!(removed(&ranking, 1), [3]);
        assert_eq!(removed(&ranking, 2), [0, 3]);
        assert_eq!(removed(&ranking, 5), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_threshold_keeps_the_score_that_equals_it() {
        // 0.7 in single precision is less than 0.7 in double precision.
        let ranking = Ranking::new(&[0.7, 0.6], None);
        assert_eq!(ranking.below(0.7), 1);
    }

    #[test]
    fn keys_ascend_with_the_scores() {
        let scores = [
            f32::NEG_INFINITY,
            -1e30,
            -1.0,
            -f32::MIN_POSITIVE / 2.0,
            0.0,
            f32::MIN_POSITIVE / 2.0,
            1.0,
            1e30,
            f32::INFINITY,
        ];
        for pair in scores.windows(2) {
            assert!(key(pair[0], true) < key(pair[1], false), "{pair:?}");
            assert!(key(pair[0], false) < key(pair[0], true));
        }
        for value in scores {
            assert_eq!(score(key(value, true)).to_bits(), value.to_bits());
        }
        assert_eq!(key(-0.0, false), key(0.0, false));
    }

    /// The mask of a stable sort by score and by whether the block is kept.
    fn by_sorting(scores: &[f32], pruned: Option<&[bool]>, count: usize) -> Vec<bool> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        let is_kept = |at: usize| pruned.is_some_and(|pruned| !pruned[at]);
        let compare = |a: &usize, b: &usize| {
            let scores = scores[*a].partial_cmp(&scores[*b]).unwrap();
            scores.then(is_kept(*a).cmp(&is_kept(*b)))
        };
        order.sort_by(compare);
        let mut keep = vec![true; scores.len()];
        order[..count].iter().for_each(|&at| keep[at] = false);
        keep
    }

    proptest! {
        #[test]
        fn the_smallest_are_those_of_a_stable_sort(
            blocks in prop::collection::vec((-4i8..5, any::<bool>()), 0..200),
            known in any::<bool>(),
            part in 0.0f64..=1.0,
        ) {
            // Few values, so that most are equal to others; -0 among them.
            let value = |value: i8| if value == -4 { -0.0 } else { f32::from(value) };
            let scores: Vec<f32> = blocks.iter().map(|&(v, _)| value(v)).collect();
            let pruned: Vec<bool> = blocks.iter().map(|&(_, pruned)| pruned).collect();
            let pruned = known.then_some(&pruned[..]);
            let count = (scores.len() as f64 * part) as usize;
            let ranking = Ranking::new(&scores, pruned);
            prop_assert_eq!(
                ranking.without_smallest(count),
                by_sorting(&scores, pruned, count)
            );
        }
    }
}
