//! Masks that follow another target's.

use std::fmt::Display;
use std::hash::Hash;

use indexmap::IndexMap;

use super::target::MaskTarget;
use crate::blocks::{advance, strides};
use crate::{Blocks, PruningError};

/// Completes `keeps` with the masks of aligned targets, sources first.
pub(super) fn resolve<K: Clone + Eq + Hash + Display>(
    targets: &[MaskTarget<K>],
    index: &IndexMap<K, usize>,
    mut keeps: Vec<Option<Vec<bool>>>,
) -> Result<Vec<Vec<bool>>, PruningError> {
    let mut waiting: Vec<usize> = (0..targets.len())
        .filter(|&i| targets[i].align.is_some())
        .collect();
    let mut waits = vec![false; targets.len()];
    waiting.iter().for_each(|&i| waits[i] = true);
    while !waiting.is_empty() {
        let mut later = Vec::new();
        for &i in &waiting {
            let target = &targets[i];
            let Some((source, dims)) = &target.align else {
                continue;
            };
            let at = |error: PruningError| error.at(&target.key);
            let &from = index.get(source).ok_or_else(|| {
                let from = source.to_string();
                at(PruningError::AlignSource { from })
            })?;
            let ready = !waits[from];
            let Some(mask) = keeps[from].as_ref().filter(|_| ready) else {
                later.push(i);
                continue;
            };
            let mut keep =
                copy(source, &targets[from].blocks, mask, dims, &target.blocks).map_err(at)?;
            if let Some(own) = &keeps[i] {
                for (keep, own) in keep.iter_mut().zip(own) {
                    *keep &= own;
                }
            }
            keeps[i] = Some(keep);
        }
        if later.len() == waiting.len() {
            let target = &targets[later[0]];
            let from = target.align.as_ref().map(|(from, _)| from.to_string());
            let from = from.unwrap_or_default();
            return Err(PruningError::AlignCycle { from }.at(&target.key));
        }
        waiting.iter().for_each(|&i| waits[i] = false);
        later.iter().for_each(|&i| waits[i] = true);
        waiting = later;
    }
    targets
        .iter()
        .zip(keeps)
        .map(|(target, keep)| keep.ok_or_else(|| PruningError::NoGoal.at(&target.key)))
        .collect()
}

/// The blocks that a target keeps when it follows a source: those with an element at whose index of
/// `dims` the source keeps anything.
fn copy<K: Display>(
    source: &K,
    from: &Blocks,
    keep: &[bool],
    dims: &[usize],
    to: &Blocks,
) -> Result<Vec<bool>, PruningError> {
    let shape = from.shape();
    check_dims(source, dims, shape)?;
    let sizes: Vec<usize> = dims.iter().map(|&d| shape[d]).collect();
    let Some(places) = places(&sizes, to) else {
        return Err(PruningError::AlignShape {
            from: source.to_string(),
            found: sizes,
            shape: to.shape().to_vec(),
        });
    };

    let reduced_strides = strides(&sizes);
    let mut reduced = vec![false; sizes.iter().product()];
    let full = from.expand(keep);
    let mut at = vec![0; shape.len()];
    for &value in &full {
        let cell: usize = dims
            .iter()
            .zip(&reduced_strides)
            .map(|(&d, s)| at[d] * s)
            .sum();
        reduced[cell] |= value != 0.0;
        advance(&mut at, shape);
    }

    let to_strides = strides(to.grid());
    let mut kept = vec![false; to.count()];
    let mut at = vec![0; sizes.len()];
    for &value in &reduced {
        let block: usize = places
            .iter()
            .zip(&at)
            .map(|(&d, &i)| i / to.block()[d] * to_strides[d])
            .sum();
        kept[block] |= value;
        advance(&mut at, &sizes);
    }
    Ok(kept)
}

/// Rejects dims that a source of this shape does not have, or that are named twice.
pub(crate) fn check_dims<K: Display>(
    source: &K,
    dims: &[usize],
    shape: &[usize],
) -> Result<(), PruningError> {
    let unique = (1..dims.len()).all(|i| !dims[..i].contains(&dims[i]));
    if !unique || dims.iter().any(|&d| d >= shape.len()) {
        return Err(PruningError::AlignDims {
            from: source.to_string(),
            dims: dims.to_vec(),
            shape: shape.to_vec(),
        });
    }
    Ok(())
}

/// The dims of a target that take dims of the given sizes, in order; blocks span all other dims.
fn places(sizes: &[usize], to: &Blocks) -> Option<Vec<usize>> {
    fn search(sizes: &[usize], to: &Blocks, dim: usize, places: &mut Vec<usize>) -> bool {
        let Some(&size) = to.shape().get(dim) else {
            return places.len() == sizes.len();
        };
        if sizes.get(places.len()) == Some(&size) {
            places.push(dim);
            if search(sizes, to, dim + 1, places) {
                return true;
            }
            places.pop();
        }
        to.grid()[dim] == 1 && search(sizes, to, dim + 1, places)
    }
    let mut places = Vec::new();
    search(sizes, to, 0, &mut places).then_some(places)
}
