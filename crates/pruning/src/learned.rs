//! One trained value for each block of the targets that a pruner scores.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use burn_compress_core::{
    BoxError, Grid, Learnable, MaskMethod, Stage, TargetId, TargetSpace, TrainedBy, Transform,
    parameters, reads,
};
use indexmap::{IndexMap, IndexSet};

use crate::metrics::{Importance, Scale};
use crate::units::Units;
use crate::{Blocks, PruningError, PruningSettings};

/// The trained values of a pruner.
pub(crate) struct Learned {
    targets: Vec<LearnedTarget>,
}

/// A parameter and the value of each of its blocks.
pub(crate) struct LearnedTarget {
    pub(crate) space: Arc<TargetSpace>,
    pub(crate) settings: PruningSettings,
    pub(crate) values: Arc<Learnable>,
    pub(crate) spread: Arc<Spread>,
}

impl Learned {
    /// A value `start` for each block of everything that `units` score, but for the targets
    /// `without`.
    pub(crate) fn new(
        units: &Units,
        without: &IndexSet<TargetId>,
        start: f32,
        learning_rate: f64,
        device: &Device,
    ) -> Result<Self, PruningError> {
        let device = device.clone().without_autodiff();
        let mut targets = Vec::new();
        for (space, blocks, settings) in units.scored()? {
            if without.contains(space.id()) {
                continue;
            }
            if settings.apply_method == Some(MaskMethod::Add) {
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
            targets.push(LearnedTarget {
                space,
                settings,
                values,
                spread: Arc::new(Spread::new(&blocks, &device)),
            });
        }
        Ok(Self { targets })
    }

    pub(crate) fn targets(&self) -> &[LearnedTarget] {
        &self.targets
    }

    pub(crate) fn learnables(&self) -> Vec<Arc<Learnable>> {
        let values = self.targets.iter().map(|target| target.values.clone());
        values.collect()
    }

    /// Refuses values of which the backward pass at hand gave some no gradient.
    ///
    /// A parameter of zeros gives its values none by whatever path, so that nothing is missing.
    pub(crate) fn require_gradients<M: Module>(
        &self,
        model: &M,
        pruner: &'static str,
    ) -> Result<(), BoxError> {
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
            false => Err(PruningError::NoGradient { pruner, targets }.into()),
        }
    }

    /// The score of each element, by parameter: `score` of its block's value.
    pub(crate) fn data(
        &self,
        score: impl Fn(f32, &PruningSettings) -> f32,
    ) -> Result<IndexMap<String, Vec<f32>>, BoxError> {
        let mut data = IndexMap::new();
        let values = reads::all(self.targets.iter().map(|target| target.values.tensor()))?;
        for (target, values) in self.targets.iter().zip(values) {
            let values = values.into_iter();
            let scores: Vec<f32> = values.map(|value| score(value, &target.settings)).collect();
            data.insert(target.id().to_string(), target.spread.host(&scores));
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

impl LearnedTarget {
    pub(crate) fn id(&self) -> &TargetId {
        self.space.id()
    }

    /// Lets `transform` mask the parameter.
    pub(crate) fn attach(&self, transform: impl Transform + 'static) {
        self.space
            .set_transform(Stage::Mask, Some(Arc::new(transform)));
    }
}

/// Brings one value a block to one value an element.
#[derive(Debug)]
pub(crate) struct Spread {
    grid: Grid,
    shape: Vec<usize>,
    /// The block of each element, for grids that a repetition cannot bring to the elements.
    index: Option<Tensor<1, Int>>,
}

impl Spread {
    pub(crate) fn new(blocks: &Blocks, device: &Device) -> Self {
        let grid = Grid::new(blocks.grid());
        let shape = blocks.shape().to_vec();
        let split = blocks.grid().iter().filter(|&&count| count > 1).count();
        let gathered = split > 1 && blocks.block_len() > 1;
        let index = gathered.then(|| {
            let blocks = grid.block_of_each_element(&shape);
            Tensor::from_data(TensorData::from(&blocks[..]), device)
        });
        Self { grid, shape, index }
    }

    /// One value a block, `[blocks]`, as one value an element, `[elements]`. Gradients flow back
    /// summed over each block.
    pub(crate) fn expand(&self, values: Tensor<1>) -> Tensor<1> {
        let elements: usize = self.shape.iter().product();
        match &self.index {
            Some(index) => {
                let device = values.device().without_autodiff();
                values.select(0, index.clone().to_device(&device))
            }
            None if self.grid.len() == elements => values,
            None => self.grid.expand(values, &self.shape),
        }
    }

    fn host(&self, values: &[f32]) -> Vec<f32> {
        let blocks = self.grid.block_of_each_element(&self.shape);
        let blocks = blocks.into_iter();
        blocks.map(|block| values[block as usize]).collect()
    }
}

/// `values` in the precision of `other`.
pub(crate) fn in_precision_of<const D: usize>(values: Tensor<1>, other: &Tensor<D>) -> Tensor<1> {
    match values.dtype() == other.dtype() {
        true => values,
        false => values.cast(FloatDType::from(other.dtype())),
    }
}

/// The score that all elements of a block share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedScore;

impl Importance for SharedScore {
    fn score(&self, data: &[f32], blocks: &Blocks) -> Vec<f32> {
        blocks.reduce(data, |block| block[0])
    }

    fn scale(&self) -> Scale {
        Scale::Common
    }
}

/// Refuses numbers that no penalty and no optimizer can use.
pub(crate) fn check_numbers(regular_scale: f64, learning_rate: f64) -> Result<(), PruningError> {
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
