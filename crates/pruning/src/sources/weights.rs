//! The parameters themselves, at the time of a decision.

use burn::module::Module;
use burn_compress_core::{BoxError, parameters, reads};
use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use super::source::{Collector, ScoreSource, Scored, Visit};
use crate::PruningError;

/// The parameters themselves: neither data nor training is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Weights;

impl ScoreSource for Weights {
    fn collector<M: Module + 'static, I: 'static>(
        &self,
        scored: &Scored<'_, M, I>,
    ) -> Result<Box<dyn Collector<M, I>>, PruningError> {
        Ok(Box::new(WeightReader {
            paths: scored.paths(),
        }))
    }
}

struct WeightReader {
    paths: IndexSet<String>,
}

impl<M: Module, I> Collector<M, I> for WeightReader {
    fn values(&self, model: &M) -> Result<IndexMap<String, Vec<f32>>, BoxError> {
        read_weights(model, &self.paths)
    }

    fn for_each(&self, model: &M, visit: &mut Visit<'_>) -> Result<(), BoxError> {
        for_each_weight(model, &self.paths, visit)
    }
}

/// Shows `visit` the values of the parameters at `paths`, in module order, one after another.
///
/// # Errors
///
/// When the device cannot be read, and those of `visit`.
pub fn for_each_weight<M: Module>(
    model: &M,
    paths: &IndexSet<String>,
    visit: &mut Visit<'_>,
) -> Result<(), BoxError> {
    let weights = parameters(model, paths);
    let (paths, weights): (Vec<_>, Vec<_>) = weights.into_iter().unzip();
    let weights = weights.into_iter().map(|weight| weight.values).collect();
    reads::each(weights, |at, values| visit(&paths[at], values))
}

/// The values of the parameters at `paths`, all read at once.
///
/// # Errors
///
/// When the device cannot be read.
pub fn read_weights<M: Module>(
    model: &M,
    paths: &IndexSet<String>,
) -> Result<IndexMap<String, Vec<f32>>, BoxError> {
    let weights = parameters(model, paths);
    let (paths, weights): (Vec<_>, Vec<_>) = weights.into_iter().unzip();
    let values = reads::all(weights.into_iter().map(|weight| weight.values))?;
    Ok(paths.into_iter().zip(values).collect())
}
