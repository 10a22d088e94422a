//! Movement: blocks whose weights move towards zero are removed.
//!
//! Fine-tuning changes the weights of a pretrained model little, so that their size is still a
//! measure of their use for the old task. This score is the direction in which training moves them.
//! Choose it to prune a pretrained model while it is fine-tuned, above all a transformer to a high
//! sparsity.
//!
//! ```text
//! w'      = w * mask                        (in the backward pass: w * S)
//! dL/dS   = sum over w in block of dL/dw' * w     also where the block is masked
//! score   = S             of a target with `sparse_ratio` or `pattern`
//!         = sigmoid(S)    of a target with `sparse_threshold`
//!
//! warm-up     step <= warmup_step              no masks
//! growth      step <= cooldown_begin_step      goal * (1 - (1 - t / T)^3)
//!                                              t = step - warmup_step
//!                                              T = cooldown_begin_step - warmup_step
//! cool-down   afterwards                       goal
//!
//! loss'   = loss + regular_scale * (1 - (1 - t / T)^3) * mean over targets of mean sigmoid(S)
//!                                              targets with `sparse_threshold` only
//! ```
//!
//! `S` starts at 0 and grows by gradient descent where a weight and its negative gradient have the
//! same sign, that is where the weight grows away from zero. Each block has one, stepped by Adam
//! with a constant `learning_rate`, before the model is. Masks are generated anew after every step
//! of the growth: a block may come back. Those of the first step of the cool-down stay.
//!
//! A threshold removes blocks whose `sigmoid(S)` is below it, 0.5 at first for all of them. How
//! many go is not known before; the penalty pushes all scores down, `regular_scale` sets how hard.
//!
//! The schedule is part of the pruner. [`AgpPruner`](crate::AgpPruner) and
//! [`LinearPruner`](crate::LinearPruner) do not drive it.
//!
//! # A layer in front of a batch norm
//!
//! The batch norm cancels the scale of the channels, and with it the gradients of their scores. As
//! with [`SlimPruner`](crate::SlimPruner), select the `gamma` of the batch norm together with the
//! layer, which is then masked with it; alone only where the graph does not couple the two.
//!
//! # References
//!
//! Sanh, Wolf, Rush: Movement Pruning: Adaptive Sparsity by Fine-Tuning, 2020,
//! <https://arxiv.org/abs/2005.07683>: hard movement pruning with a ratio, soft with a threshold.
//! Lagunas, Charlaix, Sanh, Rush: Block Pruning For Faster Transformers, 2021,
//! <https://arxiv.org/abs/2109.04838>, for one score a block. The formulas are those of NNI 3.0.
//! Deviations from the paper: masks are generated after a step, for the next one; a threshold is
//! one of the sigmoid and rises with the schedule as a ratio does; a learning rate of the scores is
//! constant; masks stay in the cool-down. The paper and NNI go on generating them there, which
//! [`MovementConfig::train_after_masks`] brings back. A channel that comes back then is one whose
//! running statistics a batch norm has taken from zeros, and a model that ends there is broken.

use std::sync::Arc;

use burn::config::Config;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, activation};
use burn_compress_core::{BoxError, Constructors, FlatTensor, Learnable, Run, Transform};
use indexmap::IndexMap;
use serde::Serialize;

use crate::sources::{
    BlockBroadcast, BlockParameters, BlockValue, Collector, ScoreSource, Scored,
    check_training_numbers, multiplied, penalised,
};
use crate::timing::{Growth, Phase, Timing};
use crate::{Pruner, PrunerConfig, PruningError};

/// Settings of a [`MovementPruner`].
#[derive(Config, Debug)]
pub struct MovementConfig {
    /// Completed optimizer steps before the first masks. Scores are trained from the first step on.
    pub warmup_step: usize,
    /// The step after which the goals are reached, above `warmup_step`.
    pub cooldown_begin_step: usize,
    /// The weight of the penalty on targets with `sparse_threshold`, at least 0.
    #[config(default = 1.0)]
    pub regular_scale: f64,
    /// The learning rate of the scores' Adam.
    #[config(default = 1e-2)]
    pub learning_rate: f64,
    /// Train scores, penalise them and generate masks in the cool-down as well.
    #[config(default = false)]
    pub train_after_masks: bool,
    /// Settings that all pruners share.
    #[config(default = "PrunerConfig::new()")]
    pub pruner: PrunerConfig,
}

impl MovementConfig {
    /// The part of the goals that is due after `step` completed optimizer steps: 0 in the warm-up,
    /// 1 in the cool-down.
    ///
    /// ```
    /// use burn_compress_pruning::MovementConfig;
    ///
    /// let config = MovementConfig::new(2, 6);
    /// assert_eq!([2, 3, 4, 6, 7].map(|step| config.progress(step)), [0.0, 0.578125, 0.875, 1.0,
    /// 1.0]);
    /// ```
    pub fn progress(&self, step: usize) -> f64 {
        self.growth().progress(step)
    }

    fn growth(&self) -> Growth {
        Growth {
            begin: self.warmup_step,
            end: self.cooldown_begin_step,
            continues: self.train_after_masks,
        }
    }

    fn check(&self) -> Result<(), PruningError> {
        if self.warmup_step >= self.cooldown_begin_step {
            return Err(PruningError::Setting {
                key: "warmup_step",
                value: self.warmup_step.to_string(),
                expected: "less than `cooldown_begin_step`",
            });
        }
        check_training_numbers(self.regular_scale, self.learning_rate)
    }
}

/// Prunes blocks whose weights move towards zero.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator};
/// use burn_compress_pruning::{MovementConfig, MovementPruner, PrunerConfig};
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
/// let options =
///     MovementConfig::new(2, 8).with_pruner(PrunerConfig::new().with_coupled(false));
/// let pruner = MovementPruner::new(model, &config, evaluator, options)?;
/// let compressed = pruner.compress(Budget::steps(10))?;
/// assert_eq!(compressed.masks()[0].sparsity(), 0.5);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type MovementPruner = Constructors<Pruner<BlockValue, MovementScores>, MovementConfig>;

impl TryFrom<MovementConfig> for Pruner<BlockValue, MovementScores> {
    type Error = PruningError;

    fn try_from(config: MovementConfig) -> Result<Self, PruningError> {
        config.check()?;
        let pruner = Pruner::over(MovementScores(config.clone()), BlockValue);
        Ok(pruner.built_in("MovementPruner", &config, config.pruner))
    }
}

/// Scores that are trained beside the parameters.
#[derive(Debug, Clone, Serialize)]
pub struct MovementScores(MovementConfig);

impl ScoreSource for MovementScores {
    fn timing(&self) -> Timing {
        Timing::growth(self.0.growth())
    }

    fn collector<M: Module + 'static, I: 'static>(
        &self,
        scored: &Scored<'_, M, I>,
    ) -> Result<Box<dyn Collector<M, I>>, PruningError> {
        let config = self.0.clone();
        let scores = BlockParameters::new(scored, 0.0, config.learning_rate)?;
        for target in scores.targets() {
            target.attach(ScoredMask {
                scores: Some(target.values.clone()),
                broadcast: target.broadcast.clone(),
            });
        }
        Ok(Box::new(TrainedScores { config, scores }))
    }
}

/// The scores of one chain.
struct TrainedScores {
    config: MovementConfig,
    scores: BlockParameters,
}

impl<M: Module, I> Collector<M, I> for TrainedScores {
    fn observe(&mut self, _run: Run<'_, M>, phase: Phase) -> Result<(), BoxError> {
        if phase.decided {
            // Masks without scores are what the standard simulation applies.
            self.scores.detach();
        }
        Ok(())
    }

    fn loss(
        &mut self,
        loss: Tensor<1>,
        _batch: &I,
        run: Run<'_, M>,
        phase: Phase,
    ) -> Result<Tensor<1>, BoxError> {
        let progress = self.config.progress(run.step);
        let targets = self.scores.targets().iter();
        let means: Vec<Tensor<1>> = targets
            .filter(|target| target.settings.sparse_threshold.is_some())
            .map(|target| activation::sigmoid(target.values.tensor_for(&loss)).mean())
            .collect();
        if progress == 0.0 || phase.decided {
            return Ok(loss);
        }
        Ok(penalised(loss, means, self.config.regular_scale * progress))
    }

    fn gradients(
        &mut self,
        _gradients: &GradientsParams,
        run: Run<'_, M>,
        _phase: Phase,
    ) -> Result<(), BoxError> {
        self.scores.check_gradients(run)
    }

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        self.scores.learnables()
    }

    fn values(&self, _model: &M) -> Result<IndexMap<String, Vec<f32>>, BoxError> {
        self.scores
            .scores(|score, settings| match settings.sparse_threshold {
                Some(_) => 1.0 / (1.0 + (-score).exp()),
                None => score,
            })
    }

    fn finish(&mut self) {
        self.scores.detach();
    }
}

/// Masks a parameter and hands the gradient of the mask to the scores.
#[derive(Debug)]
struct ScoredMask {
    /// None in a snapshot, which trains nothing.
    scores: Option<Arc<Learnable>>,
    broadcast: Arc<BlockBroadcast>,
}

impl Transform for ScoredMask {
    fn apply(&self, value: FlatTensor, mask: Option<Tensor<1>>) -> FlatTensor {
        let values = &value.values;
        let scores = self.scores.as_ref().filter(|_| values.is_autodiff());
        let factor = match scores {
            None => mask,
            Some(scores) => {
                let scores = self.broadcast.expand(scores.tensor_for(values));
                // Exactly zero, with the gradient of the scores.
                let through = scores.clone() - scores.detach();
                Some(match mask {
                    Some(mask) => through + mask,
                    None => through + 1.0,
                })
            }
        };
        multiplied(value, factor)
    }

    fn snapshot(&self) -> Arc<dyn Transform> {
        Arc::new(Self {
            scores: None,
            broadcast: self.broadcast.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
