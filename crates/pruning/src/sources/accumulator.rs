//! Sums over training steps, by parameter.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress_core::{AlgorithmState, BoxError, FlatTensor, HostTensor, reads};
use indexmap::IndexMap;

use super::source::Scored;
use crate::PruningError;

/// Sums over training steps since the last decision, by parameter, as a checkpoint keeps them.
#[derive(Debug)]
pub struct Accumulator {
    /// The shape of each parameter's sum.
    shapes: IndexMap<String, Vec<usize>>,
    device: Device,
    sums: IndexMap<String, FlatTensor>,
}

impl Accumulator {
    /// No sums yet of tensors that have the shapes of the parameters.
    pub fn new<M: Module + 'static, I: 'static>(scored: &Scored<'_, M, I>) -> Self {
        let targets = scored.targets().iter();
        let shapes = targets.map(|t| (t.id().to_string(), t.blocks().shape().to_vec()));
        Self::with_shapes(scored.device(), shapes.collect())
    }

    /// No sums yet of tensors with these shapes, by the path of their parameter.
    pub fn with_shapes(device: Device, shapes: IndexMap<String, Vec<usize>>) -> Self {
        Self {
            shapes,
            device,
            sums: IndexMap::new(),
        }
    }

    /// Adds the values of one step.
    pub fn add(&mut self, values: impl IntoIterator<Item = (String, FlatTensor)>) {
        for (path, value) in values {
            let sum = match self.sums.swap_remove(&path) {
                // A sum that was loaded may lie on another device of the model.
                Some(sum) => sum.values.to_device(&value.values.device()) + value.values,
                None => value.values,
            };
            let shape = value.shape;
            self.sums.insert(path, FlatTensor { values: sum, shape });
        }
    }

    /// Forgets all sums.
    pub fn clear(&mut self) {
        self.sums.clear();
    }

    /// The sums by parameter.
    pub fn sums(&self) -> &IndexMap<String, FlatTensor> {
        &self.sums
    }

    /// The sums for a checkpoint, all read at once.
    ///
    /// # Errors
    ///
    /// When the device cannot be read.
    pub fn state(&self) -> Result<AlgorithmState, BoxError> {
        let mut state = AlgorithmState::default();
        let values = reads::all(self.sums.values().map(|sum| sum.values.clone()))?;
        for ((path, tensor), values) in self.sums.iter().zip(values) {
            let shape = tensor.shape.clone();
            let host = HostTensor { values, shape };
            state.tensors.insert(path.clone(), host);
        }
        Ok(state)
    }

    /// Restores what [`state`](Self::state) gave.
    ///
    /// # Errors
    ///
    /// [`PruningError::State`] for a sum of another parameter or shape; nothing is restored then.
    pub fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        for (path, tensor) in &state.tensors {
            if self.shapes.get(path) != Some(&tensor.shape) {
                let (path, found) = (path.clone(), tensor.shape.clone());
                return Err(PruningError::State { path, found }.into());
            }
        }
        let load = |host: &HostTensor| FlatTensor {
            values: Tensor::from_data(TensorData::from(host.values.as_slice()), &self.device),
            shape: host.shape.clone(),
        };
        let tensors = state.tensors.iter();
        self.sums = tensors.map(|(path, t)| (path.clone(), load(t))).collect();
        Ok(())
    }
}
