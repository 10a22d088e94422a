//! One trained value for each block of the parameters that a pruner scores.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress_core::{
    BoxError, FlatTensor, Learnable, MaskMethod, Run, Stage, TargetId, TargetSpace, TrainedBy,
    Transform, in_dtype, parameters, reads,
};
use indexmap::{IndexMap, IndexSet};

use super::block_broadcast::BlockBroadcast;
use super::scale_invariance::scale_invariant;
use super::source::Scored;
use crate::importance::{Importance, Scale};
use crate::{Blocks, PruningError, PruningSettings};

/// The trained values of a pruner, stepped by Adam.
pub(crate) struct BlockParameters {
    targets: Vec<BlockParameter>,
}

/// A parameter and the value of each of its blocks.
pub(crate) struct BlockParameter {
    pub(crate) space: Arc<TargetSpace>,
    pub(crate) settings: PruningSettings,
    pub(crate) values: Arc<Learnable>,
    pub(crate) broadcast: Arc<BlockBroadcast>,
}

impl BlockParameters {
    /// A value `start` for each block of everything that is scored, but for the layers whose scale
    /// a batch norm cancels.
    pub(crate) fn new<M: Module + 'static, I: 'static>(
        scored: &Scored<'_, M, I>,
        start: f32,
        learning_rate: f64,
    ) -> Result<Self, PruningError> {
        let (device, without) = (scored.device(), scale_invariant(scored));
        let mut targets = Vec::new();
        for target in scored
            .targets()
            .iter()
            .filter(|t| !without.contains(t.id()))
        {
            let (space, blocks) = (target.space.clone(), target.blocks());
            if target.settings.apply_method == Some(MaskMethod::Add) {
                let error = PruningError::Setting {
                    key: "apply_method",
                    value: "add".to_string(),
                    expected: "`mul`: what is trained multiplies the parameter",
                };
                return Err(error.at(space.id()));
            }
            let values = Learnable::new(
                space.id().to_string(),
                vec![start; blocks.count()],
                blocks.grid(),
                TrainedBy::Adam { learning_rate },
                &device,
            )?;
            targets.push(BlockParameter {
                space,
                settings: target.settings.clone(),
                values,
                broadcast: Arc::new(BlockBroadcast::new(blocks, &device)),
            });
        }
        Ok(Self { targets })
    }

    pub(crate) fn targets(&self) -> &[BlockParameter] {
        &self.targets
    }

    /// Rejects values without a gradient in the first step of a run.
    pub(crate) fn check_gradients<M: Module>(&self, run: Run<'_, M>) -> Result<(), BoxError> {
        match run.step {
            0 => self.require_gradients(run.model),
            _ => Ok(()),
        }
    }

    pub(crate) fn learnables(&self) -> Vec<Arc<Learnable>> {
        let values = self.targets.iter().map(|target| target.values.clone());
        values.collect()
    }

    /// Rejects values of which the backward pass at hand gave some no gradient.
    ///
    /// A parameter of zeros gives its values none by whatever path, so that nothing is missing.
    fn require_gradients<M: Module>(&self, model: &M) -> Result<(), BoxError> {
        let without = self
            .targets
            .iter()
            .filter(|target| target.values.gradient().is_none());
        let paths: IndexSet<String> = without.map(|target| target.id().to_string()).collect();
        if paths.is_empty() {
            return Ok(());
        }
        let mut targets = Vec::new();
        for (path, value) in parameters(model, &paths) {
            if value.to_vec()?.iter().any(|value| *value != 0.0) {
                targets.push(path);
            }
        }
        match targets.is_empty() {
            true => Ok(()),
            false => Err(PruningError::NoGradient { targets }.into()),
        }
    }

    /// The score of each element, by parameter: `score` of its block's value.
    pub(crate) fn scores(
        &self,
        score: impl Fn(f32, &PruningSettings) -> f32,
    ) -> Result<IndexMap<String, Vec<f32>>, BoxError> {
        let mut data = IndexMap::new();
        let values = reads::all(self.targets.iter().map(|target| target.values.tensor()))?;
        for (target, values) in self.targets.iter().zip(values) {
            let values = values.into_iter();
            let scores: Vec<f32> = values.map(|value| score(value, &target.settings)).collect();
            data.insert(target.id().to_string(), target.broadcast.host(&scores));
        }
        Ok(data)
    }

    /// Gives the parameters back to the standard simulation.
    pub(crate) fn detach(&self) {
        for target in &self.targets {
            target.space.set_transform(Stage::Mask, None);
        }
    }
}

impl BlockParameter {
    pub(crate) fn id(&self) -> &TargetId {
        self.space.id()
    }

    /// Masks the parameter by `transform`.
    pub(crate) fn attach(&self, transform: impl Transform + 'static) {
        self.space
            .set_transform(Stage::Mask, Some(Arc::new(transform)));
    }
}

/// The product of `value` with `factor`, in the precision of the value.
pub(crate) fn multiplied(value: FlatTensor, factor: Option<Tensor<1>>) -> FlatTensor {
    value.map(|values| match factor {
        Some(factor) => {
            let factor = in_dtype(factor, values.dtype());
            values * factor
        }
        None => values,
    })
}

/// The loss with `weight` times the mean of `terms`, one a target.
pub(crate) fn penalised(loss: Tensor<1>, terms: Vec<Tensor<1>>, weight: f64) -> Tensor<1> {
    let scale = weight / terms.len() as f64;
    match terms.into_iter().reduce(|sum, term| sum + term) {
        Some(sum) => {
            let penalty = in_dtype(sum * scale, loss.dtype());
            loss + penalty
        }
        None => loss,
    }
}

/// The value that all elements of a block share.
#[derive(Debug, Clone, Copy)]
pub struct BlockValue;

impl Importance for BlockValue {
    fn score(&self, data: &[f32], blocks: &Blocks) -> Vec<f32> {
        blocks.reduce(data, |block| block[0])
    }

    fn scale(&self) -> Scale {
        Scale::Common
    }
}

/// Rejects numbers that no penalty and no optimizer can use.
pub(crate) fn check_training_numbers(
    regular_scale: f64,
    learning_rate: f64,
) -> Result<(), PruningError> {
    let numbers = [
        (
            "regular_scale",
            regular_scale,
            regular_scale.is_finite() && regular_scale >= 0.0,
            "a finite number, at least 0",
        ),
        (
            "learning_rate",
            learning_rate,
            learning_rate.is_finite() && learning_rate > 0.0,
            "a finite number above 0",
        ),
    ];
    match numbers.into_iter().find(|(_, _, allowed, _)| !allowed) {
        Some((key, value, _, expected)) => {
            let value = value.to_string();
            Err(PruningError::Setting {
                key,
                value,
                expected,
            })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
