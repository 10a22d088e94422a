//! Slim: a factor for each block that a penalty drives towards zero.
//!
//! Network slimming. Every block of a target is multiplied by a factor of its own, which is trained
//! with the model under an L1 penalty: the blocks that the loss does not hold up shrink, and those
//! that have shrunk most are removed. Choose it when there is time to train before the decision and
//! the model has batch norms, whose `gamma` it is made for. It decides on what the training did
//! with a block, not on one look at its weights or gradients.
//!
//! ```text
//! w'           = w * f * mask               (f: one factor a block, 1 at first)
//! loss'        = loss + regular_scale * (sum over targets of sum |f|) / targets
//! score(block) = |f| after `training_steps` steps
//! w           <- w * f                      at the end of the run
//! ```
//!
//! The factors are stepped by Adam with a constant `learning_rate`, before the model is. They are
//! trained under the penalty up to the last decision; from then on they are constants and the model
//! is fine-tuned alone. At the end they are folded into the parameter, so that the model computes
//! the same without them. Where the parameter is quantized too, the factors act behind the rounding
//! while training; the fold scales the quantization along with each of its blocks, exactly where
//! all factors in such a block are equal and otherwise up to the rounding.
//!
//! # A layer in front of a batch norm
//!
//! A batch norm divides by the standard deviation of what it reads, so the scale of the channels of
//! the layer in front cancels: the penalty shrinks all their factors alike, and their order has no
//! meaning. The target to choose is the `gamma` of the batch norm. Where the graph couples the
//! two, which is the default, select both with the same goal: the factors are those of `gamma`
//! alone, and the layer is masked with it. Alone, `gamma` is refused there, as the layer would be
//! masked without having been selected. A configuration that selects the layer without the `gamma`
//! is a warning of the result.
//!
//! # References
//!
//! Liu, Li, Shen, Huang, Yan, Zhang: Learning Efficient Convolutional Networks through Network
//! Slimming, 2017, <https://arxiv.org/abs/1708.06519>. The paper puts the penalty on the `gamma` of
//! batch norms; a factor beside the parameter serves any block of any parameter, with another
//! starting point: all blocks begin equal. NNI 3.0 does so too, with the same formulas and
//! three differences. It never folds the factors, so that the unwrapped model is another one than
//! the trained. It trains and penalises the factors to the end of the run, which
//! [`SlimConfig::train_after_masks`] brings back. It puts factors on both a layer and the batch
//! norm behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::config::Config;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use burn_compress_core::{
    BoxError, Constructors, FlatTensor, Learnable, Quantization, Run, TargetId, Transform,
    in_dtype, parameters,
};
use indexmap::IndexMap;
use serde::Serialize;

use crate::sources::{
    BlockBroadcast, BlockParameters, BlockValue, Collector, ScoreSource, Scored,
    check_training_numbers, multiplied, penalised,
};
use crate::timing::{Phase, Timing, require_steps};
use crate::{Pruner, PrunerConfig, PruningError};

/// Settings of a [`SlimPruner`].
#[derive(Config, Debug)]
pub struct SlimConfig {
    /// The number of training steps after which the factors decide.
    pub training_steps: usize,
    /// The weight of the penalty, at least 0.
    #[config(default = 1.0)]
    pub regular_scale: f64,
    /// The learning rate of the factors' Adam.
    #[config(default = 1e-2)]
    pub learning_rate: f64,
    /// Go on training and penalising the factors after the last decision.
    #[config(default = false)]
    pub train_after_masks: bool,
    /// Settings that all pruners share.
    #[config(default = "PrunerConfig::new()")]
    pub pruner: PrunerConfig,
}

/// Prunes blocks whose trained factor is smallest.
///
/// Without a schedule the masks are generated once, after `training_steps` steps.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator};
/// use burn_compress_pruning::{PrunerConfig, SlimConfig, SlimPruner};
///
/// let device = Device::flex();
/// let model = LinearConfig::new(4, 6).init(&device);
/// let batch = Tensor::<2>::ones([2, 4], &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|model: &Linear, batch: &Tensor<2>| model.forward(batch.clone()).square().mean());
/// let config = ConfigList::from_json(r#"[{"op_types": ["Linear"], "sparse_ratio": 0.5}]"#)?;
/// let options = SlimConfig::new(20)
///     .with_regular_scale(1e-2)
///     .with_pruner(PrunerConfig::new().with_coupled(false));
/// let pruner = SlimPruner::new(model, &config, evaluator, options)?;
/// let compressed = pruner.compress(Budget::steps(30))?;
/// assert_eq!(compressed.masks()[0].sparsity(), 0.5);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type SlimPruner = Constructors<Pruner<BlockValue, ScalingFactors>, SlimConfig>;

impl TryFrom<SlimConfig> for Pruner<BlockValue, ScalingFactors> {
    type Error = PruningError;

    fn try_from(config: SlimConfig) -> Result<Self, PruningError> {
        require_steps(config.training_steps)?;
        check_training_numbers(config.regular_scale, config.learning_rate)?;
        let pruner = Pruner::over(ScalingFactors(config.clone()), BlockValue);
        Ok(pruner.built_in("SlimPruner", &config, config.pruner))
    }
}

/// Factors that are trained beside the parameters.
#[derive(Debug, Clone, Serialize)]
pub struct ScalingFactors(SlimConfig);

impl ScoreSource for ScalingFactors {
    fn timing(&self) -> Timing {
        Timing::after(self.0.training_steps)
    }

    fn collector<M: Module + 'static, I: 'static>(
        &self,
        scored: &Scored<'_, M, I>,
    ) -> Result<Box<dyn Collector<M, I>>, PruningError> {
        let config = self.0.clone();
        let factors = BlockParameters::new(scored, 1.0, config.learning_rate)?;
        let frozen = Arc::new(AtomicBool::new(false));
        for target in factors.targets() {
            target.attach(Factor {
                values: Values::Trained(target.values.clone(), frozen.clone()),
                broadcast: target.broadcast.clone(),
            });
        }
        Ok(Box::new(TrainedFactors {
            config,
            factors,
            frozen,
        }))
    }
}

/// The factors of one chain.
struct TrainedFactors {
    config: SlimConfig,
    factors: BlockParameters,
    /// Whether the factors are constants.
    frozen: Arc<AtomicBool>,
}

impl<M: Module, I> Collector<M, I> for TrainedFactors {
    fn observe(&mut self, _run: Run<'_, M>, phase: Phase) -> Result<(), BoxError> {
        let frozen = phase.decided && !self.config.train_after_masks;
        self.frozen.store(frozen, Ordering::Release);
        Ok(())
    }

    fn loss(
        &mut self,
        loss: Tensor<1>,
        _batch: &I,
        _run: Run<'_, M>,
        _phase: Phase,
    ) -> Result<Tensor<1>, BoxError> {
        Ok(self.penalised(loss))
    }

    fn gradients(
        &mut self,
        _gradients: &GradientsParams,
        run: Run<'_, M>,
        _phase: Phase,
    ) -> Result<(), BoxError> {
        self.factors.check_gradients(run)
    }

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        self.factors.learnables()
    }

    fn values(&self, _model: &M) -> Result<IndexMap<String, Vec<f32>>, BoxError> {
        self.factors.scores(|factor, _| factor.abs())
    }

    fn finish(&mut self) {
        self.factors.detach();
    }

    /// The parameters with the factors folded in.
    fn rewrite(&mut self, run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        let targets = self.factors.targets();
        let paths = targets.iter().map(|target| target.id().to_string());
        let mut weights = parameters(run.model, &paths.collect());
        let mut folded = IndexMap::new();
        for target in targets {
            let Some(weight) = weights.swap_remove(&target.id().to_string()) else {
                continue;
            };
            let factors = target.values.tensor_for(&weight.values);
            let factors = in_dtype(factors, weight.values.dtype());
            let factors = target.broadcast.expand(factors);
            let product = multiplied(weight.clone(), Some(factors));
            if let Some(quantization) = target.space.quantization() {
                let kept = target.space.mask().map(|mask| mask.values().to_vec());
                let scaled = scale_along(quantization, &weight, &product, kept.as_deref())?;
                target.space.set_quantization(Some(scaled));
            }
            folded.insert(target.id().clone(), product);
        }
        Ok(folded)
    }
}

impl TrainedFactors {
    /// The loss with the penalty.
    pub(crate) fn penalised(&self, loss: Tensor<1>) -> Tensor<1> {
        if self.frozen.load(Ordering::Acquire) {
            return loss;
        }
        let targets = self.factors.targets().iter();
        let norms = targets.map(|target| target.values.tensor_for(&loss).abs().sum());
        let norms = norms.collect();
        penalised(loss, norms, self.config.regular_scale)
    }
}

/// The quantization of `before` scaled to `after`: each block by as much as the largest of its kept
/// magnitudes changes.
fn scale_along(
    mut quantization: Quantization,
    before: &FlatTensor,
    after: &FlatTensor,
    kept: Option<&[f32]>,
) -> Result<Quantization, BoxError> {
    let grid = &quantization.grid;
    let blocks = grid.block_of_each_element(&before.shape);
    let largest = |values: Vec<f32>| {
        let mut largest = vec![0.0f32; grid.len()];
        for (at, (value, &block)) in values.iter().zip(&blocks).enumerate() {
            if kept.is_none_or(|kept| kept[at] != 0.0) {
                let largest = &mut largest[block as usize];
                *largest = largest.max(value.abs());
            }
        }
        largest
    };
    let (before, after) = (largest(before.to_vec()?), largest(after.to_vec()?));
    let growth = before.iter().zip(after).map(|(before, after)| {
        let growth = after / before;
        match growth.is_finite() && growth > 0.0 {
            true => growth,
            false => 1.0,
        }
    });
    let growth: Vec<f32> = growth.collect();
    let grow = |values: Option<Tensor<1>>| {
        values.map(|values| {
            let device = values.device();
            values * Tensor::from_data(TensorData::from(&growth[..]), &device)
        })
    };
    quantization.scale = grow(quantization.scale);
    quantization.minimum = grow(quantization.minimum);
    quantization.maximum = grow(quantization.maximum);
    Ok(quantization)
}

/// Multiplies a parameter by its factors and its mask.
#[derive(Debug)]
struct Factor {
    values: Values,
    broadcast: Arc<BlockBroadcast>,
}

#[derive(Debug)]
enum Values {
    /// The factors of the run, which are constants once the flag is set.
    Trained(Arc<Learnable>, Arc<AtomicBool>),
    /// Factors of a snapshot, `[blocks]`.
    Still(Box<Tensor<1>>),
}

impl Transform for Factor {
    fn apply(&self, value: FlatTensor, mask: Option<Tensor<1>>) -> FlatTensor {
        let factors = match &self.values {
            Values::Trained(learnable, frozen) => {
                let factors = learnable.tensor_for(&value.values);
                match frozen.load(Ordering::Acquire) {
                    true => factors.detach(),
                    false => factors,
                }
            }
            Values::Still(factors) => {
                let device = value.values.device().without_autodiff();
                factors.clone().to_device(&device)
            }
        };
        let factors = in_dtype(factors, value.values.dtype());
        let factors = self.broadcast.expand(factors);
        multiplied(multiplied(value, Some(factors)), mask)
    }

    fn snapshot(&self) -> Arc<dyn Transform> {
        let factors = match &self.values {
            Values::Trained(learnable, _) => learnable.tensor().detach().without_autodiff(),
            Values::Still(factors) => factors.as_ref().clone(),
        };
        Arc::new(Self {
            values: Values::Still(Box::new(factors)),
            broadcast: self.broadcast.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
