//! The labels of a tensor.

use super::labels::Axis;
use super::split::Split;

/// State of a tensor in the analysis.
#[derive(Debug, Clone)]
pub(super) struct Value {
    /// The sizes of its dimensions.
    pub shape: Vec<usize>,
    /// The labelled dimensions.
    pub axes: Vec<Option<Axis>>,
    /// Labels that depend on several dimensions; no two share a dimension, and none has an axis.
    pub splits: Vec<Split>,
    /// Whether it depends on the model's inputs.
    pub data: bool,
}

impl Value {
    /// A tensor without labels.
    pub fn plain(shape: Vec<usize>, data: bool) -> Self {
        let axes = vec![None; shape.len()];
        Self {
            shape,
            axes,
            splits: Vec::new(),
            data,
        }
    }

    /// Whether any dimension carries labels.
    pub fn is_labelled(&self) -> bool {
        self.labelled().next().is_some()
    }

    /// The labels along single dimensions and along several.
    pub fn labelled(&self) -> impl Iterator<Item = &Axis> {
        let splits = self.splits.iter().map(|split| &split.axis);
        self.axes.iter().flatten().chain(splits)
    }

    /// The split that `dim` is in.
    pub fn split_at(&self, dim: usize) -> Option<&Split> {
        self.splits.iter().find(|split| split.dims.contains(&dim))
    }
}
