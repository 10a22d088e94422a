//! Bytes and multiply-accumulates of single layers, before and after a cut.

use burn_compress_core::graph::OperationMacs;
use burn_compress_core::layer::LayerInfo;
use indexmap::IndexMap;

use crate::change::Change;
use crate::sparsity::elements;

/// What `find` gives for the nearest module above the tensor at `path`: `norm.running_mean` is of
/// `norm`.
pub(crate) fn owner<T>(path: &str, find: impl Fn(&str) -> Option<T>) -> Option<T> {
    let mut module = path;
    loop {
        let (parent, _) = module.rsplit_once('.').unwrap_or_default();
        match find(parent) {
            None if parent.is_empty() => return None,
            None => module = parent,
            found => return found,
        }
    }
}

/// Bytes of all values of each layer as `f32`, running statistics included.
pub(crate) struct LayerCounts<'a>(IndexMap<&'a str, Change>);

impl<'a> LayerCounts<'a> {
    /// Counts tensors of these shapes; `after` gives the bytes that are left of one.
    pub fn new(
        layers: &'a [LayerInfo],
        shapes: &IndexMap<String, Vec<usize>>,
        after: impl Fn(&str, &[usize]) -> u64,
    ) -> Self {
        let none = |layer: &'a LayerInfo| (layer.path.as_str(), Change::default());
        let mut counts: IndexMap<&str, Change> = layers.iter().map(none).collect();
        for (path, shape) in shapes {
            if let Some(at) = owner(path, |layer| counts.get_index_of(layer)) {
                counts[at].dense += 4 * elements(shape);
                counts[at].small += after(path, shape);
            }
        }
        Self(counts)
    }

    /// Of the layer at `path`.
    pub fn of(&self, path: &str) -> Change {
        self.0.get(path).copied().unwrap_or_default()
    }
}

/// Multiply-accumulates for one element of the batch.
pub(crate) struct MacCounts {
    /// Of the whole model.
    pub total: Change,
    by_layer: IndexMap<String, Change>,
}

impl MacCounts {
    /// Sums of the same operations before and after a cut.
    pub fn new(dense: Vec<OperationMacs>, small: Vec<OperationMacs>) -> Self {
        let mut counts = Self {
            total: Change::default(),
            by_layer: IndexMap::new(),
        };
        for (dense, small) in dense.into_iter().zip(small) {
            let of_layer = counts.by_layer.entry(dense.layer).or_default();
            for change in [of_layer, &mut counts.total] {
                change.dense += dense.macs;
                change.small += small.macs;
            }
        }
        counts
    }

    /// Of the layer at `path`.
    pub fn of(&self, path: &str) -> Change {
        self.by_layer.get(path).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_is_of_the_nearest_module_above_it() {
        let layers = ["norm", "block.norm", "block"];
        let owner = |path| {
            owner(path, |layer| {
                layers.iter().position(|known| *known == layer)
            })
        };
        assert_eq!(owner("norm.running_mean"), Some(0));
        assert_eq!(owner("block.norm.state.running_mean"), Some(1));
        assert_eq!(owner("block.scale"), Some(2));
        assert_eq!(owner("scale"), None);
    }

    #[test]
    fn operations_of_a_layer_are_summed() {
        let count = |layer: &str, macs| OperationMacs {
            layer: layer.to_string(),
            macs,
        };
        let dense = vec![count("conv", 8), count("matmul", 6), count("conv", 4)];
        let small = vec![count("conv", 2), count("matmul", 3), count("conv", 1)];
        let counts = MacCounts::new(dense, small);
        let change = |dense, small| Change { dense, small };
        assert_eq!(
            (counts.of("conv"), counts.total),
            (change(12, 3), change(18, 6))
        );
        assert_eq!(counts.of("head"), Change::default());
    }
}
