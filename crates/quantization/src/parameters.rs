//! Parameters of a model by target.

use burn::module::Module;
use burn_compress_core::{FlatTensor, TargetId, parameters};
use indexmap::{IndexMap, IndexSet};

/// The values of these parameters, neither masked nor rounded.
pub(crate) fn raw<M: Module>(model: &M, ids: &[TargetId]) -> IndexMap<TargetId, FlatTensor> {
    let ids: IndexMap<String, &TargetId> = ids.iter().map(|id| (id.to_string(), id)).collect();
    let paths: IndexSet<String> = ids.keys().cloned().collect();
    let values = parameters(model, &paths).into_iter();
    values
        .map(|(path, value)| (ids[&path].clone(), value))
        .collect()
}

/// The values of these parameters as the model computes with them.
pub(crate) fn simulated<M: Module>(model: &M, ids: &[TargetId]) -> IndexMap<TargetId, FlatTensor> {
    raw(&model.valid().materialize(), ids)
}
