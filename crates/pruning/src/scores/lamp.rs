//! LAMP: the magnitude of a weight beside those of its tensor that are not smaller.
//!
//! Magnitudes of different layers cannot be compared; LAMP scores can. The score of a weight is the
//! relative distortion of its layer when it and all smaller ones are removed. Choose it to rank the
//! weights of a whole model together, with one `global_group_id` in all rules: the sparsity of each
//! layer then follows by itself. The largest weight of a tensor scores 1 and all others less, so no
//! tensor is emptied while another has more than its largest weight left.
//!
//! ```text
//! score(u) = w_u^2 / sum over v with |w_v| >= |w_u| of w_v^2       (one element a block, the default)
//! score(b) = n_b / sum over blocks c with n_c >= n_b of n_c        (when a granularity is given)
//! n_b      = sum over w in block b of w^2
//! ```
//!
//! Among equal magnitudes the earlier element counts as the smaller one. The score of zero is 0.
//!
//! # References
//!
//! Lee, Park, Mo, Ahn, Shin: Layer-adaptive Sparsity for the Magnitude-based Pruning, 2021,
//! <https://arxiv.org/abs/2010.07611>, equation 4. The paper scores single weights; blocks enter
//! here with their squared norm, of which a single weight is the case of one element.

use burn_compress_core::Constructors;

use crate::importance::{Importance, Scale};
use crate::{Blocks, Granularity, Pruner, PrunerConfig};

/// The squared norm of each block, divided by those that are not smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lamp;

impl Importance for Lamp {
    fn score(&self, data: &[f32], blocks: &Blocks) -> Vec<f32> {
        let norms = blocks.sums(data, |w| w.powi(2));
        // From the largest down, so that the sum holds all that are not smaller.
        // The bits of numbers that are not negative ascend as they do.
        let keys = norms.iter().enumerate();
        let mut order: Vec<(u64, usize)> = keys.map(|(at, norm)| (norm.to_bits(), at)).collect();
        order.sort_unstable();
        let mut scores = vec![0.0; norms.len()];
        let mut sum = 0.0;
        for (_, block) in order.into_iter().rev() {
            sum += norms[block];
            // A NaN passes on, for the generation of masks to find it.
            scores[block] = match sum == 0.0 {
                true => 0.0,
                false => (norms[block] / sum) as f32,
            };
        }
        scores
    }

    fn default_granularity(&self) -> Granularity {
        Granularity::Default
    }

    fn scale(&self) -> Scale {
        Scale::Common
    }
}

/// Prunes the elements that matter least to their own tensor.
///
/// Meant for rules with a `global_group_id`; in a single tensor it ranks as
/// [`LevelPruner`](crate::LevelPruner) does. Without a schedule the masks are generated once,
/// before the first training step.
///
/// ```
/// use burn::module::{Module, Param};
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator};
/// use burn_compress_pruning::{LampPruner, PrunerConfig};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     large: Linear,
///     small: Linear,
/// }
///
/// let device = Device::flex();
/// let linear = |weight: [f32; 3]| {
///     let mut linear = LinearConfig::new(3, 1).with_bias(false).init(&device);
///     linear.weight = Param::from_tensor(Tensor::<1>::from_floats(weight, &device).unsqueeze_dim(1));
///     linear
/// };
/// // Every weight of `small` is smaller than any of `large`, yet each layer keeps some.
/// let model = Net { large: linear([10.0, 50.0, 90.0]), small: linear([0.1, 0.2, 0.9]) };
/// let config = ConfigList::from_json(
///     r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5, "global_group_id": "model"}]"#,
/// )?;
/// let pruner = LampPruner::new(model, &config, Evaluator::<Net, ()>::new(), PrunerConfig::new())?;
/// let masks = pruner.compress(Budget::none())?.masks();
/// assert_eq!(masks[0].values(), [0.0, 1.0, 1.0]);
/// assert_eq!(masks[1].values(), [0.0, 0.0, 1.0]);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type LampPruner = Constructors<Pruner<Lamp>, PrunerConfig>;

impl From<PrunerConfig> for Pruner<Lamp> {
    fn from(config: PrunerConfig) -> Self {
        Pruner::with(Lamp).built_in("LampPruner", &config, config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_weight_is_divided_by_those_that_are_not_smaller() {
        // Squares 4, 1, 9, 0: 4 / 13, 1 / 14, 9 / 9, 0 / 14.
        let elements = Blocks::elements(&[2, 2]).unwrap();
        let scores = Lamp.score(&[2.0, -1.0, -3.0, 0.0], &elements);
        assert_eq!(scores, [4.0 / 13.0, 1.0 / 14.0, 1.0, 0.0]);
    }

    #[test]
    fn among_equals_the_earlier_is_the_smaller() {
        let elements = Blocks::elements(&[3]).unwrap();
        let scores = Lamp.score(&[1.0, -1.0, 1.0], &elements);
        assert_eq!(scores, [1.0 / 3.0, 0.5, 1.0]);
    }

    #[test]
    fn blocks_enter_with_their_squared_norms() {
        // Rows of squared norm 25, 1 and 100.
        let rows = Blocks::new(&[3, 2], &[1, -1]).unwrap();
        let scores = Lamp.score(&[3.0, 4.0, 0.0, 1.0, 6.0, 8.0], &rows);
        assert_eq!(scores, [0.2, 1.0 / 126.0, 1.0]);
    }

    #[test]
    fn the_scale_of_a_tensor_does_not_matter() {
        let elements = Blocks::elements(&[4]).unwrap();
        let data = [0.5, -2.0, 1.0, 4.0];
        let large = data.map(|w| w * 1024.0);
        assert_eq!(Lamp.score(&data, &elements), Lamp.score(&large, &elements));
    }

    #[test]
    fn zeros_score_zero() {
        let elements = Blocks::elements(&[2]).unwrap();
        assert_eq!(Lamp.score(&[0.0, 0.0], &elements), [0.0, 0.0]);
    }
}
