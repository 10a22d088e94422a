//! Movement: blocks whose weights move towards zero are removed.
//!
//! Fine-tuning changes the weights of a pretrained model little, so that their size still tells what
//! they were worth for the old task. This score follows where training wants them to go. Choose it
//! to prune a pretrained model while it is fine-tuned, above all a transformer to a high sparsity.
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
//! same sign, that is where the weight grows away from zero. Each block has one, stepped by Adam with
//! a constant `learning_rate`, before the model is. Masks are generated anew after every step of the
//! growth: a block may come back. Those of the first step of the cool-down stay.
//!
//! A threshold removes blocks whose `sigmoid(S)` is below it, 0.5 at first for all of them. How many
//! go is not known before; the penalty pushes all scores down, `regular_scale` sets how hard.
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
//! Deviations from the paper: masks are generated after a step, for the next one; a threshold is one
//! of the sigmoid and rises with the schedule as a ratio does; a learning rate of the scores is
//! constant; masks settle. The paper and NNI go on generating them in the cool-down, which
//! [`MovementConfig::train_after_masks`] brings back. A channel that comes back then is one whose
//! running statistics a batch norm has taken from zeros, and a model that ends there is broken.

use std::any::Any;
use std::sync::Arc;

use burn::config::Config;
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, activation};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{
    Algorithm, BoxError, Compressor, Configuration, Evaluator, FlatTensor, Learnable, Mode, Run,
    Transform,
};

use crate::learned::{Learned, SharedScore, Spread, check_numbers, in_precision_of};
use crate::norms;
use crate::pruner::{PrunerConfig, of_targets, refuse_idle};
use crate::units::{Units, build};
use crate::{PruningError, PruningSettings, ScheduleKind};

/// When a [`MovementPruner`] prunes, and how hard.
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
    /// What all pruners have in common.
    #[config(default = "PrunerConfig::new()")]
    pub pruner: PrunerConfig,
}

impl MovementConfig {
    /// The part of the goals that is due after `step` completed optimizer steps: 0 in the warm-up, 1
    /// in the cool-down.
    ///
    /// ```
    /// use burn_compress_pruning::MovementConfig;
    ///
    /// let config = MovementConfig::new(2, 6);
    /// assert_eq!([2, 3, 4, 6, 7].map(|step| config.progress(step)), [0.0, 0.578125, 0.875, 1.0, 1.0]);
    /// ```
    pub fn progress(&self, step: usize) -> f64 {
        let grown = step.saturating_sub(self.warmup_step);
        let whole = self.cooldown_begin_step.saturating_sub(self.warmup_step);
        match grown {
            0 => 0.0,
            _ => ScheduleKind::Agp.factor(grown, whole),
        }
    }

    /// Whether the masks stay as they are from the step after `step` completed ones on.
    fn settled(&self, step: usize) -> bool {
        step >= self.cooldown_begin_step && !self.train_after_masks
    }

    fn check(&self) -> Result<(), PruningError> {
        if self.warmup_step >= self.cooldown_begin_step {
            return Err(PruningError::Setting {
                key: "warmup_step",
                value: self.warmup_step.to_string(),
                expected: "less than `cooldown_begin_step`",
            });
        }
        check_numbers(self.regular_scale, self.learning_rate)
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
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct MovementPruner;

impl MovementPruner {
    /// Prunes `model`.
    ///
    /// # Errors
    ///
    /// A setting out of range, a configuration that does not fit the model, a goal that can remove
    /// nothing, values that are not finite, an evaluator that cannot train, or channels that cannot
    /// be removed.
    #[allow(clippy::new_ret_no_self)] // A chain has one type whatever is fused into it.
    pub fn new<M: Module + 'static, I: 'static>(
        model: M,
        config: &ConfigList<PruningSettings>,
        evaluator: Evaluator<M, I>,
        pruner: MovementConfig,
    ) -> Result<Compressor<M, I>, PruningError> {
        let chain = Compressor::from_model(model, evaluator);
        Self::from_compressor(chain, config, pruner)
    }

    /// Prunes the model of `compressor` as well, in the same run.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and a target that another pruner of the chain has.
    pub fn from_compressor<M: Module + 'static, I: 'static>(
        mut compressor: Compressor<M, I>,
        config: &ConfigList<PruningSettings>,
        pruner: MovementConfig,
    ) -> Result<Compressor<M, I>, PruningError> {
        const NAME: &str = "MovementPruner";
        pruner.check()?;
        compressor.evaluator().require_training(NAME)?;
        let selected = PruningSettings::select(config, compressor.layers())?;
        refuse_idle(&selected, NAME, false, false)?;
        let options = pruner.pruner;
        let units = build(&mut compressor, NAME, &selected, &SharedScore, options)?;
        let device = compressor.model().devices().first().cloned();
        let device = device.unwrap_or_default();
        let cancelled = norms::cancelled(&compressor, NAME, &units);
        let scores = Learned::new(&units, &cancelled, 0.0, pruner.learning_rate, &device)?;
        for target in scores.targets() {
            target.attach(ScoredMask {
                scores: Some(target.values.clone()),
                spread: target.spread.clone(),
            });
        }
        let configuration = of_targets(Configuration::of(&pruner), &selected);
        compressor.push(Movement {
            config: pruner,
            configuration,
            units,
            scores,
        });
        Ok(compressor)
    }
}

/// A movement pruner in a chain.
struct Movement {
    config: MovementConfig,
    configuration: Configuration,
    units: Units,
    scores: Learned,
}

impl<M: Module + 'static, I: 'static> Algorithm<M, I> for Movement {
    fn name(&self) -> &'static str {
        "MovementPruner"
    }

    fn mode(&self) -> Mode {
        Mode::Pruning
    }

    fn check(&self, total_steps: usize) -> Result<(), BoxError> {
        let needed = self.config.cooldown_begin_step;
        if total_steps < needed {
            let reason = format!(
                "the goals are reached after step {needed}, the run has {total_steps} steps: give \
                 it at least {needed}, or an earlier `cooldown_begin_step`"
            );
            return Err(reason.into());
        }
        Ok(())
    }

    fn loss(&mut self, loss: Tensor<1>, _: &I, run: Run<'_, M>) -> Result<Tensor<1>, BoxError> {
        let progress = self.config.progress(run.step);
        let targets = self.scores.targets().iter();
        let means: Vec<Tensor<1>> = targets
            .filter(|target| target.settings.sparse_threshold.is_some())
            .map(|target| activation::sigmoid(target.values.tensor_for(&loss)).mean())
            .collect();
        if progress == 0.0 || means.is_empty() || self.config.settled(run.step) {
            return Ok(loss);
        }
        let scale = self.config.regular_scale * progress / means.len() as f64;
        let penalty = means.into_iter().reduce(|sum, mean| sum + mean);
        Ok(match penalty {
            Some(penalty) => {
                let penalty = in_precision_of(penalty * scale, &loss);
                loss + penalty
            }
            None => loss,
        })
    }

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        self.scores.learnables()
    }

    fn gradients(&mut self, _: &GradientsParams, run: Run<'_, M>) -> Result<(), BoxError> {
        if run.step == 0 {
            self.scores.require_gradients(run.model, "MovementPruner")?;
        }
        Ok(())
    }

    fn observe(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        if self.config.settled(run.step) {
            // Masks without scores are what the standard simulation applies.
            self.scores.detach();
        }
        Ok(())
    }

    fn after_step(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        let (config, before) = (&self.config, run.step.saturating_sub(1));
        if run.step <= config.warmup_step || config.settled(before) {
            return Ok(());
        }
        let data = self.scores.data(|score, settings| {
            if settings.sparse_threshold.is_some() {
                1.0 / (1.0 + (-score).exp())
            } else {
                score
            }
        })?;
        let progress = self.config.progress(run.step);
        let keep = self.config.pruner.keep_at_least_one;
        Ok(self.units.decide(&data, &SharedScore, progress, keep)?)
    }

    fn finish(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        self.scores.detach();
        Ok(())
    }

    fn warnings(&self) -> Result<Vec<String>, BoxError> {
        Ok(self.units.unchanged()?)
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        Ok(self.configuration.clone())
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Masks a parameter and hands the gradient of the mask to the scores.
#[derive(Debug)]
struct ScoredMask {
    /// None in a snapshot, which trains nothing.
    scores: Option<Arc<Learnable>>,
    spread: Arc<Spread>,
}

impl Transform for ScoredMask {
    fn apply(&self, value: FlatTensor, mask: Option<Tensor<1>>) -> FlatTensor {
        let FlatTensor { values, shape } = value;
        let scores = self.scores.as_ref().filter(|_| values.is_autodiff());
        let factor = match scores {
            None => mask,
            Some(scores) => {
                let scores = self.spread.expand(scores.tensor_for(&values));
                // Exactly zero, with the gradient of the scores.
                let through = scores.clone() - scores.detach();
                Some(match mask {
                    Some(mask) => through + mask,
                    None => through + 1.0,
                })
            }
        };
        let values = match factor {
            Some(factor) => {
                let factor = in_precision_of(factor, &values);
                values * factor
            }
            None => values,
        };
        FlatTensor { values, shape }
    }

    fn snapshot(&self) -> Arc<dyn Transform> {
        Arc::new(Self {
            scores: None,
            spread: self.spread.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
