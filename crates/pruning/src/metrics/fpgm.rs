//! FPGM: how far a block is from all others of its target.
//!
//! A filter near the geometric median of all filters is one that the others can replace, however
//! large its weights are. Choose it where norms say little: when all filters of a layer have about
//! the same norm, or when the smallest is still large. It needs no data and no gradient. The time
//! is quadratic in the number of blocks.
//!
//! ```text
//! score(i) = sum over blocks j of || v_j - v_i ||_2      (v_i: the values of block i as a vector)
//! ```
//!
//! # References
//!
//! He, Liu, Wang, Hu, Yang: Filter Pruning via Geometric Median for Deep Convolutional Neural
//! Networks Acceleration, 2019, <https://arxiv.org/abs/1811.00250>, equation 6. The paper prunes
//! filters (output channels, the default here); any block is possible but single elements of a
//! tensor with several dims, whose distances are no distances between filters.

use super::Importance;
use crate::constructors::constructors;
use crate::pruner::PrunerConfig;
use crate::signal::Signal;
use crate::{Axes, Blocks, PruningError};

/// The sum of Euclidean distances from each block to all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fpgm;

impl Importance for Fpgm {
    fn score(&self, data: &[f32], blocks: &Blocks) -> Vec<f32> {
        let vectors = blocks.gather(data);
        let len = blocks.block_len();
        let mut sums = vec![0.0f64; blocks.count()];
        for i in 0..sums.len() {
            for j in 0..i {
                let (a, b) = (&vectors[i * len..][..len], &vectors[j * len..][..len]);
                let distance = distance(a, b);
                sums[i] += distance;
                sums[j] += distance;
            }
        }
        sums.into_iter().map(|sum| sum as f32).collect()
    }

    fn check(&self, blocks: &Blocks, _axes: Axes) -> Result<(), PruningError> {
        if blocks.block_len() == 1 && blocks.squeezed_grid().len() > 1 {
            return Err(PruningError::Unscorable {
                reason: "distances between single elements are none between channels",
                advice: "give a granularity of larger blocks, or prune by `LevelPruner`",
            });
        }
        Ok(())
    }
}

/// The Euclidean distance, accumulated in double precision.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |a: f32, b: f32| (f64::from(a) - f64::from(b)).powi(2);
    // Sums that do not wait for each other: this is where the time goes.
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (a, b) = (a.chunks(LANES), b.chunks(LANES));
    for (a, b) in a.zip(b) {
        for (sum, (&a, &b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += square(a, b);
        }
    }
    sums.iter().sum::<f64>().sqrt()
}

/// Prunes blocks that the others can replace.
///
/// Without a schedule the masks are generated once, before the first training step.
///
/// ```
/// use burn::module::{Module, Param};
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator};
/// use burn_compress_pruning::{FpgmPruner, PrunerConfig};
///
/// // Four output channels, the columns: 1, 2, 3 and 10. The second and the third have the
/// // smallest sums of distances, 1 + 1 + 8 and 2 + 1 + 7 = 10; the earlier of the two goes.
/// let device = Device::flex();
/// let mut model = LinearConfig::new(1, 4).with_bias(false).init(&device);
/// model.weight = Param::from_tensor(Tensor::from_floats([[1.0, 2.0, 3.0, 10.0]], &device));
/// let config = ConfigList::from_json(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.25}]"#)?;
/// let options = PrunerConfig::new().with_coupled(false);
/// let pruner = FpgmPruner::new(model, &config, Evaluator::<Linear, ()>::new(), options)?;
/// let compressed = pruner.compress(Budget::none())?;
/// assert_eq!(compressed.masks()[0].values(), [1.0, 0.0, 1.0, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct FpgmPruner;

constructors!(FpgmPruner, PrunerConfig, |config| {
    Ok((Signal::weights(Fpgm), *config))
});

#[cfg(test)]
mod tests {
    use super::*;

    const MATRIX: Axes = Axes::Parameter {
        output: Some(0),
        input: Some(1),
    };

    #[test]
    fn distances_to_all_others_are_added() {
        // Rows (0, 0), (3, 4), (6, 8): distances 5, 5 and 10.
        let rows = Blocks::new(&[3, 2], &[1, -1]).unwrap();
        let data = [0.0, 0.0, 3.0, 4.0, 6.0, 8.0];
        assert_eq!(Fpgm.score(&data, &rows), [15.0, 10.0, 15.0]);
        // Columns (0, 3, 6) and (0, 4, 8): sqrt(0 + 1 + 4).
        let columns = Blocks::new(&[3, 2], &[-1, 1]).unwrap();
        assert_eq!(Fpgm.score(&data, &columns), [5.0f32.sqrt(); 2]);
    }

    #[test]
    fn the_largest_filter_goes_when_the_others_surround_it() {
        // The norms rank the second row highest, but it lies between the two others.
        let rows = Blocks::new(&[3, 2], &[1, -1]).unwrap();
        let data = [0.0, 3.0, 2.5, 2.5, 3.0, 0.0];
        let scores = Fpgm.score(&data, &rows);
        assert!(scores[1] < scores[0] && scores[1] < scores[2]);
    }

    #[test]
    fn single_elements_are_refused_where_they_are_no_channels() {
        let fine = Blocks::elements(&[3, 2]).unwrap();
        let error = Fpgm.check(&fine, MATRIX).unwrap_err().to_string();
        assert!(
            error.contains("distances between single elements"),
            "{error}"
        );
        // The channels of a batch norm, and of a convolution with one input and kernel size 1.
        for shape in [&[8][..], &[8, 1, 1, 1]] {
            Fpgm.check(&Blocks::elements(shape).unwrap(), MATRIX)
                .unwrap();
        }
    }

    #[test]
    fn every_value_of_a_long_block_counts() {
        // 1 + 4 + ... + 19^2 = 2470.
        let rows = Blocks::new(&[2, 20], &[1, -1]).unwrap();
        let data: Vec<f32> = (0..20).map(|i| i as f32).chain([0.0; 20]).collect();
        assert_eq!(Fpgm.score(&data, &rows), [2470f32.sqrt(); 2]);
    }

    #[test]
    fn a_single_block_has_no_distance() {
        let whole = Blocks::new(&[2, 2], &[-1, -1]).unwrap();
        assert_eq!(Fpgm.score(&[1.0, 2.0, 3.0, 4.0], &whole), [0.0]);
    }
}
