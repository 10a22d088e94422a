//! FPGM: how far a block is from all others of its target.
//!
//! A filter near the geometric median of all filters is one that the others can replace, however
//! large its weights are. Choose it where norms differ little: when all filters of a layer have
//! about the same norm, or when the smallest is still large. It needs no data and no gradient. The
//! time is that of one matrix product a target, quadratic in the number of blocks.
//!
//! ```text
//! score(i) = sum over blocks j of || v_j - v_i ||_2      (v_i: the values of block i as a vector)
//! || v_j - v_i ||^2 = |c_i|^2 + |c_j|^2 - 2 c_i c_j      (c_i = v_i - mean of all v)
//! ```
//!
//! # Precision
//!
//! The product is one in double precision of what is left without the mean, so that a part that all
//! blocks share costs no digits; the sum of distances is as exact as a score in single precision
//! can be. Blocks of equal values are counted and not subtracted: their distance is exactly 0, and
//! their scores are equal.
//!
//! # References
//!
//! He, Liu, Wang, Hu, Yang: Filter Pruning via Geometric Median for Deep Convolutional Neural
//! Networks Acceleration, 2019, <https://arxiv.org/abs/1811.00250>, equation 6. The paper prunes
//! filters (output channels, the default here); any block is possible but single elements of a
//! tensor with several dims, whose distances are no distances between filters.

use burn_compress_core::Constructors;
use indexmap::IndexMap;
use ndarray::{Array2, ArrayView1, ArrayView2, Axis};

use crate::importance::Importance;
use crate::{Axes, Blocks, Pruner, PrunerConfig, PruningError};

/// The sum of Euclidean distances from each block to all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fpgm;

impl Importance for Fpgm {
    fn score(&self, data: &[f32], blocks: &Blocks) -> Vec<f32> {
        let vectors = blocks.gather(data);
        let distinct = Distinct::new(&vectors, blocks.block_len());
        let sums = distance_sums(centred(&vectors, &distinct), &distinct.counts);
        let classes = distinct.class_of_block.into_iter();
        classes.map(|class| sums[class] as f32).collect()
    }

    fn check(&self, blocks: &Blocks, _axes: Axes) -> Result<(), PruningError> {
        if blocks.block_len() == 1 && blocks.squeezed_grid().len() > 1 {
            return Err(PruningError::Unscorable {
                reason: "distances between single elements are none between channels",
                advice: "give a granularity of larger blocks, or use a score of single elements",
            });
        }
        Ok(())
    }
}

/// The blocks without repetitions.
struct Distinct {
    /// A block of each class of equal ones, in the order of the first.
    firsts: Vec<usize>,
    /// Number of blocks of each class.
    counts: Vec<f64>,
    class_of_block: Vec<usize>,
}

impl Distinct {
    fn new(vectors: &[f32], len: usize) -> Self {
        let mut distinct = Self {
            firsts: Vec::new(),
            counts: Vec::new(),
            class_of_block: Vec::new(),
        };
        let mut classes: IndexMap<Vec<u32>, ()> = IndexMap::new();
        for (block, vector) in vectors.chunks(len).enumerate() {
            // Adding 0 turns -0 into 0.
            let bits = vector
                .iter()
                .map(|&value| (value + 0.0).to_bits())
                .collect();
            let (class, known) = classes.insert_full(bits, ());
            if known.is_none() {
                distinct.firsts.push(block);
                distinct.counts.push(0.0);
            }
            distinct.counts[class] += 1.0;
            distinct.class_of_block.push(class);
        }
        distinct
    }
}

/// The values of each class without the mean over the classes, `[classes, len]`.
fn centred(vectors: &[f32], distinct: &Distinct) -> Array2<f64> {
    let len = vectors.len() / distinct.class_of_block.len();
    let classes = distinct.firsts.len();
    let mut centred = Array2::zeros((classes, len));
    for (mut row, first) in centred.rows_mut().into_iter().zip(&distinct.firsts) {
        let vector = &vectors[first * len..][..len];
        row.zip_mut_with(&ArrayView1::from(vector), |value, &weight| {
            *value = f64::from(weight);
        });
    }
    let mean = centred.sum_axis(Axis(0)) / classes as f64;
    centred - mean
}

/// The rows of a product that are computed at a time.
const TILE: usize = 256;

/// The sum of the distances from each row to all others, each of which counts `counts` times.
fn distance_sums(rows: Array2<f64>, counts: &[f64]) -> Vec<f64> {
    let squares: Vec<f64> = rows.rows().into_iter().map(|row| row.dot(&row)).collect();
    let mut sums = vec![0.0; squares.len()];
    let tiles: Vec<(usize, ArrayView2<'_, f64>)> = rows
        .axis_chunks_iter(Axis(0), TILE)
        .enumerate()
        .map(|(tile, rows)| (tile * TILE, rows))
        .collect();
    for (at, (first, upper)) in tiles.iter().enumerate() {
        for (second, lower) in &tiles[at..] {
            let products = upper.dot(&lower.t());
            for ((i, j), product) in products.indexed_iter() {
                let (i, j) = (first + i, second + j);
                if i < j {
                    let square = squares[i] + squares[j] - 2.0 * product;
                    // Rounding may take a small one below 0; a NaN passes on.
                    let distance = if square < 0.0 { 0.0 } else { square.sqrt() };
                    sums[i] += counts[j] * distance;
                    sums[j] += counts[i] * distance;
                }
            }
        }
    }
    sums
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
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type FpgmPruner = Constructors<Pruner<Fpgm>, PrunerConfig>;

impl From<PrunerConfig> for Pruner<Fpgm> {
    fn from(config: PrunerConfig) -> Self {
        Pruner::with(Fpgm).built_in("FpgmPruner", &config, config)
    }
}

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

    /// The sums of distances, each computed on its own in double precision.
    fn pair_by_pair(data: &[f32], len: usize) -> Vec<f64> {
        let distance = |a: &[f32], b: &[f32]| -> f64 {
            let squares = a.iter().zip(b);
            let squares = squares.map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
            squares.sum::<f64>().sqrt()
        };
        let rows = || data.chunks(len);
        rows()
            .map(|a| rows().map(|b| distance(a, b)).sum())
            .collect()
    }

    /// Numbers from -1 to 1 that are always the same.
    fn numbers(count: usize) -> Vec<f32> {
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn the_product_gives_the_distances_of_pairs() {
        // More rows than a tile has, and filters that all share a part a thousand times as large.
        for shared in [0.0, 1000.0] {
            let data: Vec<f32> = numbers(300 * 27).into_iter().map(|v| v + shared).collect();
            let rows = Blocks::new(&[300, 27], &[1, -1]).unwrap();
            let scores = Fpgm.score(&data, &rows);
            for (score, expected) in scores.into_iter().zip(pair_by_pair(&data, 27)) {
                let error = (f64::from(score) - expected).abs() / expected;
                assert!(error < 1e-7, "{score} instead of {expected}");
            }
        }
    }

    #[test]
    fn filters_that_differ_in_the_last_bit_have_their_distances() {
        // 4 - 2^-22 in three steps of 2^-22: distances 1, 1 and 2 steps.
        let step = 2.0f32.powi(-22);
        let data = [4.0 - 2.0 * step, 4.0 - step, 4.0].map(|value| [value; 4]);
        let rows = Blocks::new(&[3, 4], &[1, -1]).unwrap();
        let scores = Fpgm.score(&data.concat(), &rows);
        assert_eq!(scores, [6.0 * step, 4.0 * step, 6.0 * step]);
    }

    #[test]
    fn equal_filters_have_equal_scores_and_no_distance() {
        let one = [0.1, -0.7, 0.3];
        let other = [5.5, 0.2, -0.9];
        let rows = Blocks::new(&[4, 3], &[1, -1]).unwrap();
        let scores = Fpgm.score(&[one, other, one, one].concat(), &rows);
        assert_eq!([scores[0]; 2], [scores[2], scores[3]]);
        assert!((scores[1] / scores[0] - 3.0).abs() < 1e-6, "{scores:?}");
        assert_eq!(Fpgm.score(&[one; 4].concat(), &rows), [0.0; 4]);
        let zeros = [[0.0, 0.0, 0.0], [-0.0, 0.0, -0.0], one, one];
        let scores = Fpgm.score(&zeros.concat(), &rows);
        assert_eq!(scores[0], scores[1]);
    }

    #[test]
    fn a_single_block_has_no_distance() {
        let whole = Blocks::new(&[2, 2], &[-1, -1]).unwrap();
        assert_eq!(Fpgm.score(&[1.0, 2.0, 3.0, 4.0], &whole), [0.0]);
    }
}
