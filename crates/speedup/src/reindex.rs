//! State that goes with its channel: masks, scales, zero points and tracked ranges.
//!
//! Quantization parameters have one value for each block of a target, on a grid that is coarser
//! than the target or as fine. Removing indices of the target removes their values from the grid:
//!
//! ```text
//! per tensor        [1, 1]   stays as it is
//! per channel       [C, 1]   the values of the kept channels, [C', 1]
//! blocks of b       [C/b, 1] the blocks that still have channels, if all of them keep as many;
//!                            otherwise one value for each kept channel, [C', 1]
//! ```
//!
//! The last case refines the grid so that every remaining element keeps exactly the scale that it
//! was simulated with. NNI leaves this step to its users.

use std::collections::BTreeMap;

use burn_compress_core::graph::ParamSlice;
use burn_compress_core::{CalibrationEntry, Grid, Mask};

use crate::SpeedupError;

/// One dimension of a grid after slicing: its number of blocks, and for each the old block.
fn blocks_after(blocks: usize, size: usize, kept: &[usize]) -> Vec<usize> {
    if blocks == 1 {
        return vec![0];
    }
    let block_of: Vec<usize> = kept.iter().map(|&index| index * blocks / size).collect();
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for &block in &block_of {
        *counts.entry(block).or_default() += 1;
    }
    let mut sizes = counts.values();
    let first = sizes.next().copied();
    match sizes.all(|&count| Some(count) == first) {
        true => counts.into_keys().collect(),
        false => block_of,
    }
}

/// The new grid of a sliced target and, for each of its values in row-major order, the index of the
/// old value.
///
/// `shape` is the target's shape before slicing, `kept` the kept indices of each dimension that
/// loses some.
///
/// # Errors
///
/// In words, when the grid does not have the target's rank, does not divide it, or an index is out
/// of range.
pub fn reindex_grid(
    grid: &[usize],
    shape: &[usize],
    kept: &BTreeMap<usize, Vec<usize>>,
) -> Result<(Vec<usize>, Vec<usize>), String> {
    check(grid, shape, kept)?;
    let sources: Vec<Vec<usize>> = grid
        .iter()
        .zip(shape)
        .enumerate()
        .map(|(dim, (&blocks, &size))| match kept.get(&dim) {
            Some(kept) => blocks_after(blocks, size, kept),
            None => (0..blocks).collect(),
        })
        .collect();
    let new_grid = sources.iter().map(Vec::len).collect();
    let mut order = vec![0];
    for (dim, source) in sources.iter().enumerate() {
        order = order
            .iter()
            .flat_map(|&base| source.iter().map(move |&block| base * grid[dim] + block))
            .collect();
    }
    Ok((new_grid, order))
}

fn check(
    grid: &[usize],
    shape: &[usize],
    kept: &BTreeMap<usize, Vec<usize>>,
) -> Result<(), String> {
    if grid.len() != shape.len() {
        return Err(format!(
            "the grid {grid:?} does not have the rank of the shape {shape:?}"
        ));
    }
    if let Some(dim) =
        (0..grid.len()).find(|&dim| grid[dim] == 0 || !shape[dim].is_multiple_of(grid[dim]))
    {
        return Err(format!(
            "{} blocks do not divide dimension {dim} of {shape:?}",
            grid[dim]
        ));
    }
    for (&dim, indices) in kept {
        let size = shape.get(dim).copied().unwrap_or(0);
        if let Some(bad) = indices.iter().find(|&&index| index >= size) {
            return Err(format!(
                "index {bad} of dimension {dim} is outside of {shape:?}"
            ));
        }
    }
    Ok(())
}

/// The grid of a grouped convolution's weight, whose groups keep different local columns.
///
/// Where the values differ along the columns as well, each kept row and column gets its own.
fn reindex_grouped(
    grid: &[usize],
    shape: &[usize],
    rows: &[usize],
    columns: &[Vec<usize>],
) -> Result<(Vec<usize>, Vec<usize>), String> {
    let groups = columns.len();
    if groups == 0
        || !shape
            .first()
            .is_some_and(|size| size.is_multiple_of(groups))
    {
        return Err(format!(
            "{groups} groups do not divide the rows of {shape:?}"
        ));
    }
    let first = columns.first().cloned().unwrap_or_default();
    if columns.iter().any(|group| group.len() != first.len()) {
        return Err("the groups keep different numbers of columns".to_string());
    }
    let uniform = columns.iter().all(|group| *group == first);
    if uniform || grid.get(1) == Some(&1) {
        return reindex_grid(
            grid,
            shape,
            &BTreeMap::from([(0, rows.to_vec()), (1, first)]),
        );
    }
    for (group, columns) in columns.iter().enumerate() {
        check(
            grid,
            shape,
            &BTreeMap::from([(0, rows.to_vec()), (1, columns.clone())]),
        )
        .map_err(|reason| format!("group {group}: {reason}"))?;
    }
    let rows_per_group = shape[0] / groups;
    let rest: usize = grid[2..].iter().product();
    let mut order = Vec::new();
    for &row in rows {
        let row_block = row * grid[0] / shape[0];
        for &column in &columns[row / rows_per_group] {
            let column_block = column * grid[1] / shape[1];
            let start = (row_block * grid[1] + column_block) * rest;
            order.extend(start..start + rest);
        }
    }
    let mut new_grid = vec![rows.len(), first.len()];
    new_grid.extend(&grid[2..]);
    Ok((new_grid, order))
}

/// The values at the kept indices of each dimension, run by run, and their shape.
fn take(
    values: &[f32],
    shape: &[usize],
    kept: &BTreeMap<usize, Vec<usize>>,
) -> (Vec<f32>, Vec<usize>) {
    let split = kept.keys().next_back().map_or(0, |last| last + 1);
    let run: usize = shape[split..].iter().product();
    let mut starts = vec![0];
    for (dim, &size) in shape[..split].iter().enumerate() {
        let all: Vec<usize>;
        let indices = match kept.get(&dim) {
            Some(kept) => kept,
            None => {
                all = (0..size).collect();
                &all
            }
        };
        let next = starts.iter().map(|start| start * size);
        starts = next
            .flat_map(|start| indices.iter().map(move |index| start + index))
            .collect();
    }
    let mut taken = Vec::with_capacity(starts.len() * run);
    for start in starts {
        taken.extend_from_slice(&values[start * run..][..run]);
    }
    let mut shape = shape.to_vec();
    kept.iter().for_each(|(&dim, kept)| shape[dim] = kept.len());
    (taken, shape)
}

pub(crate) fn reindex(
    grid: &[usize],
    shape: &[usize],
    slice: &ParamSlice,
) -> Result<(Vec<usize>, Vec<usize>), String> {
    let Some(columns) = &slice.columns else {
        return reindex_grid(grid, shape, &slice.keep);
    };
    let all = || (0..shape.first().copied().unwrap_or(0)).collect();
    let rows = slice.keep.get(&0).cloned().unwrap_or_else(all);
    reindex_grouped(grid, shape, &rows, &columns.keep)
}

/// The quantization of a target after slicing: scale, zero point and tracked range follow the kept
/// indices.
///
/// `target` names the target in errors, `shape` is its shape before slicing.
///
/// # Errors
///
/// [`SpeedupError::Reindex`] when the entry does not fit the shape.
pub fn reindex_calibration(
    target: &str,
    entry: &CalibrationEntry,
    shape: &[usize],
    slice: &ParamSlice,
) -> Result<CalibrationEntry, SpeedupError> {
    if entry.grid.len() == 1 {
        return Ok(entry.clone());
    }
    let error = |reason| SpeedupError::Reindex {
        target: target.to_string(),
        reason,
    };
    let (grid, order) = reindex(entry.grid.blocks(), shape, slice).map_err(error)?;
    let select = |values: &Option<Vec<f32>>| match values {
        Some(values) if values.len() != entry.grid.len() => Err(error(format!(
            "{} values for {} blocks",
            values.len(),
            entry.grid.len()
        ))),
        Some(values) => Ok(Some(order.iter().map(|&at| values[at]).collect())),
        None => Ok(None),
    };
    Ok(CalibrationEntry {
        scale: select(&entry.scale)?,
        zero_point: select(&entry.zero_point)?,
        minimum: select(&entry.minimum)?,
        maximum: select(&entry.maximum)?,
        grid: Grid::new(grid),
        ..entry.clone()
    })
}

/// The mask of a target after slicing, `None` when nothing masked is left.
///
/// Masks of inputs and outputs keep size 1 in the dimensions that they do not distinguish.
///
/// # Errors
///
/// [`SpeedupError::Reindex`] when the mask does not fit the shape.
pub fn reindex_mask(
    target: &str,
    mask: &Mask,
    shape: &[usize],
    slice: &ParamSlice,
) -> Result<Option<Mask>, SpeedupError> {
    let error = |reason| SpeedupError::Reindex {
        target: target.to_string(),
        reason,
    };
    let is_fine = |(&entries, &size): (&usize, &usize)| entries == 1 || entries == size;
    if mask.shape().len() != shape.len() || !mask.shape().iter().zip(shape).all(is_fine) {
        return Err(error(format!(
            "the mask {:?} does not fit {shape:?}",
            mask.shape()
        )));
    }
    let (values, extent) = mask.compact();
    let (values, new_extent) = match extent == shape && slice.columns.is_none() {
        true => {
            check(shape, shape, &slice.keep).map_err(error)?;
            take(values, shape, &slice.keep)
        }
        false => {
            let (new_extent, order) = reindex(extent, shape, slice).map_err(error)?;
            (order.iter().map(|&at| values[at]).collect(), new_extent)
        }
    };
    if values.iter().all(|&value| value == 1.0) {
        return Ok(None);
    }
    let mut new_shape = mask.shape().to_vec();
    let columns = slice.columns.iter().map(|columns| (1, &columns.keep[0]));
    let kept = slice.keep.iter().map(|(&dim, keep)| (dim, keep));
    for (dim, keep) in kept
        .chain(columns)
        .filter(|&(dim, _)| mask.shape()[dim] > 1)
    {
        new_shape[dim] = keep.len();
    }
    let small = Mask::new(values, new_extent).and_then(|small| small.expand(new_shape));
    let small = small.map_err(|source| error(source.to_string()))?;
    Ok(Some(small.with_method(mask.method())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_compress_core::graph::GroupedRows;
    use proptest::prelude::*;
    use rstest::rstest;

    fn kept<const N: usize>(list: [(usize, &[usize]); N]) -> BTreeMap<usize, Vec<usize>> {
        list.into_iter()
            .map(|(dim, kept)| (dim, kept.to_vec()))
            .collect()
    }

    fn slice(keep: BTreeMap<usize, Vec<usize>>, columns: Option<Vec<Vec<usize>>>) -> ParamSlice {
        ParamSlice {
            path: String::new(),
            keep,
            columns: columns.map(|keep| GroupedRows { keep }),
            shape: Vec::new(),
        }
    }

    #[rstest]
    #[case::per_tensor(&[1, 1], &[0, 2], &[1, 1], &[0])]
    #[case::per_row(&[4, 1], &[0, 2], &[2, 1], &[0, 2])]
    #[case::whole_blocks(&[2, 1], &[2, 3], &[1, 1], &[1])]
    #[case::even_blocks(&[2, 1], &[1, 2], &[2, 1], &[0, 1])]
    #[case::uneven_blocks_are_refined(&[2, 1], &[0, 1, 2], &[3, 1], &[0, 0, 1])]
    #[case::other_dimension(&[1, 3], &[0, 2], &[1, 3], &[0, 1, 2])]
    #[case::elementwise(&[4, 3], &[1, 3], &[2, 3], &[3, 4, 5, 9, 10, 11])]
    fn rows_of_a_4x3_target(
        #[case] grid: &[usize],
        #[case] rows: &[usize],
        #[case] expected: &[usize],
        #[case] order: &[usize],
    ) {
        let result = reindex_grid(grid, &[4, 3], &kept([(0, rows)])).unwrap();
        assert_eq!(result, (expected.to_vec(), order.to_vec()));
    }

    #[test]
    fn grids_that_do_not_fit_are_refused() {
        assert!(reindex_grid(&[2], &[4, 3], &BTreeMap::new()).is_err());
        assert!(reindex_grid(&[3, 1], &[4, 3], &BTreeMap::new()).is_err());
        assert!(reindex_grid(&[4, 1], &[4, 3], &kept([(0, &[4])])).is_err());
        assert!(reindex_grid(&[4, 1], &[4, 3], &kept([(2, &[0])])).is_err());
    }

    fn entry(grid: &[usize], scale: &[f32]) -> CalibrationEntry {
        serde_json::from_value(serde_json::json!({
            "dtype": "int8", "scheme": "symmetric", "qmin": -127.0, "qmax": 127.0,
            "grid": grid, "enabled": true, "scale": scale,
        }))
        .unwrap()
    }

    #[test]
    fn scales_follow_their_rows() {
        let slice = slice(kept([(0, &[0, 2][..]), (1, &[1][..])]), None);
        let small =
            reindex_calibration("a", &entry(&[3, 1], &[0.1, 0.2, 0.3]), &[3, 2], &slice).unwrap();
        assert_eq!(small.scale, Some(vec![0.1, 0.3]));
        assert_eq!(small.grid, Grid::new([2, 1]));
        assert_eq!(small.zero_point, None);
        let error = reindex_calibration("a", &entry(&[3, 1], &[0.1]), &[3, 2], &slice);
        assert!(matches!(error, Err(SpeedupError::Reindex { target, .. }) if target == "a"));
    }

    #[test]
    fn groups_with_different_columns_get_a_value_for_each_entry() {
        // [4, 2, 1] in 2 groups: rows 0 and 3 stay, group 0 keeps column 1, group 1 column 0.
        let slice = slice(kept([(0, &[0, 3])]), Some(vec![vec![1], vec![0]]));
        let by_column =
            reindex_calibration("a", &entry(&[1, 2, 1], &[0.1, 0.2]), &[4, 2, 1], &slice);
        let by_column = by_column.unwrap();
        assert_eq!(by_column.scale, Some(vec![0.2, 0.1]));
        assert_eq!(by_column.grid, Grid::new([2, 1, 1]));
        let by_row = entry(&[4, 1, 1], &[0.1, 0.2, 0.3, 0.4]);
        let by_row = reindex_calibration("a", &by_row, &[4, 2, 1], &slice).unwrap();
        assert_eq!(by_row.scale, Some(vec![0.1, 0.4]));
    }

    #[test]
    fn groups_that_do_not_fit_are_refused() {
        let entry = entry(&[1, 2, 1], &[0.1, 0.2]);
        for (columns, message) in [
            (vec![vec![1], vec![0], vec![1]], "3 groups do not divide"),
            (vec![vec![0]; 5], "5 groups do not divide"),
            (
                (0..6).map(|group| vec![group % 2]).collect(),
                "6 groups do not divide",
            ),
            (vec![vec![1], vec![0, 1]], "different numbers of columns"),
            (vec![vec![1], vec![2]], "index 2"),
        ] {
            let slice = slice(kept([(0, &[0, 3])]), Some(columns));
            let error = reindex_calibration("a", &entry, &[4, 2, 1], &slice).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
        let flat = slice(kept([(0, &[0])]), Some(vec![vec![0], vec![1]]));
        assert!(reindex_calibration("a", &self::entry(&[2], &[0.1, 0.2]), &[2], &flat).is_err());
    }

    #[test]
    fn masks_are_sliced_and_dropped_once_nothing_is_masked() {
        let mask = Mask::new(vec![1.0, 0.0, 1.0, 1.0, 0.0, 0.0], [3, 2]).unwrap();
        let rows = |rows: &[usize]| slice(kept([(0, rows)]), None);
        let small = reindex_mask("a", &mask, &[3, 2], &rows(&[0, 1]))
            .unwrap()
            .unwrap();
        assert_eq!(
            (small.values(), small.shape()),
            (&[1.0, 0.0, 1.0, 1.0][..], &[2, 2][..])
        );
        assert_eq!(
            reindex_mask("a", &mask, &[3, 2], &rows(&[1])).unwrap(),
            None
        );
        let output = Mask::new(vec![1.0, 0.0, 0.0], [1, 3]).unwrap();
        let slice = slice(kept([(1, &[0, 2])]), None);
        let small = reindex_mask("a", &output, &[8, 3], &slice)
            .unwrap()
            .unwrap();
        assert_eq!(
            (small.values(), small.shape()),
            (&[1.0, 0.0][..], &[1, 2][..])
        );
    }

    #[test]
    fn a_mask_of_channels_is_sliced_as_one_of_elements() {
        // Rows of a [4, 3, 2], of which row 1 and column 2 go, and of which row 3 is masked.
        let rows = Mask::new(vec![1.0, 0.0, 1.0, 0.0], [4, 1, 1]).unwrap();
        let rows = rows.expand([4, 3, 2]).unwrap();
        let whole = Mask::new(rows.values().to_vec(), [4, 3, 2]).unwrap();
        let both = kept([(0, &[0, 2, 3][..]), (1, &[0, 1])]);
        // Two groups of rows that keep other columns.
        let columns = vec![vec![0, 1], vec![1, 2]];
        let grouped = slice(kept([(0, &[0, 3])]), Some(columns));
        for slice in [slice(both, None), grouped] {
            let [small, expected] = [&rows, &whole].map(|mask| {
                reindex_mask("a", mask, &[4, 3, 2], &slice)
                    .unwrap()
                    .unwrap()
            });
            assert_eq!(small, expected);
            assert_eq!(small.compact().0.len(), small.shape()[0]);
        }
    }

    proptest! {
        /// Every element that stays has the value that it had before.
        #[test]
        fn every_element_keeps_its_value(
            blocks in prop::sample::select(vec![1usize, 2, 3, 4, 6, 12]),
            keep in prop::collection::btree_set(0usize..12, 1..12),
        ) {
            let rows: Vec<usize> = keep.into_iter().collect();
            let (grid, order) = reindex_grid(&[blocks, 1], &[12, 5], &kept([(0, &rows)])).unwrap();
            let before = Grid::new([blocks, 1]).block_of_each_element(&[12, 5]);
            let after = Grid::new(grid).block_of_each_element(&[rows.len(), 5]);
            for (new, &old) in rows.iter().enumerate() {
                prop_assert_eq!(order[after[new * 5] as usize], before[old * 5] as usize);
            }
        }
    }
}
