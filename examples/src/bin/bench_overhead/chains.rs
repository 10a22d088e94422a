//! The steps of all variants over one network.

use std::fmt::Display;

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use burn::train::Learner;
use burn_compress::prelude::*;
use burn_compress_examples::configs;
use burn_compress_examples::digits::DigitsBatch;
use burn_compress_examples::train::cross_entropy;

use super::rounds::Step;
use super::variant::Variant;

const LEARNING_RATE: f64 = 1e-3;
/// Fraction of the channels that the pruner masks.
const SPARSITY: f64 = 0.8;
/// Steps between two updates of the pruning schedule, of which there are as many.
const INTERVAL: usize = 2;
/// Images of the dummy input.
const DUMMY: usize = 2;
/// A run that no measurement reaches the end of.
const STEPS: usize = 1_000_000;

/// A network, and what it is trained on.
pub struct Network<M> {
    /// Makes it, with random weights.
    pub make: fn(&Device) -> M,
    pub forward: fn(&M, Tensor<4>) -> Tensor<2>,
    /// Batches that are trained on in turns.
    pub batches: Vec<DigitsBatch>,
    /// Without autodiff.
    pub device: Device,
}

type Chain<M> = Compressor<M, DigitsBatch>;

impl<M: Module + Display + 'static> Network<M> {
    /// The step of a variant.
    ///
    /// # Errors
    ///
    /// Those of the compressors.
    pub fn step(&self, variant: Variant) -> anyhow::Result<Step> {
        let chain = match variant {
            Variant::Plain => return Ok(self.plain()),
            Variant::Teacher => return Ok(self.teacher()),
            Variant::Empty => self.empty(),
            Variant::Pruner => self.pruner()?,
            Variant::Scoring => {
                let rules = configs::pruning(SPARSITY)?;
                TaylorPruner::new(
                    self.dense(),
                    &rules,
                    self.evaluator(),
                    TaylorConfig::new(STEPS),
                )?
            }
            Variant::Quantizer | Variant::QuantizerForRuntime | Variant::QuantizerPerChannel => {
                self.quantizer(self.empty(), &self.rules(variant)?)?
            }
            Variant::Distiller => self.distiller(self.empty())?,
            Variant::PruneQuantize => self.quantizer(self.pruner()?, &self.rules(variant)?)?,
            Variant::Fused
            | Variant::Learner
            | Variant::FusedForRuntime
            | Variant::FusedPerChannel => {
                self.distiller(self.quantizer(self.pruner()?, &self.rules(variant)?)?)?
            }
            Variant::Lsq => {
                let rules = self.rules(variant)?;
                LsqQuantizer::from_compressor(self.empty(), &rules, LsqConfig::new())?
            }
            Variant::LsqPlus => {
                let rules = self.rules(variant)?;
                LsqPlusQuantizer::from_compressor(self.empty(), &rules, LsqPlusConfig::new())?
            }
            Variant::DoReFa => {
                let rules = self.rules(variant)?;
                DoReFaQuantizer::from_compressor(self.empty(), &rules, DoReFaConfig::new())?
            }
            Variant::Bnn => {
                let rules = self.rules(variant)?;
                BnnQuantizer::from_compressor(self.empty(), &rules, BnnConfig::new())?
            }
        };
        match variant {
            Variant::Learner => self.learner(chain),
            _ => Ok(advancing(chain)),
        }
    }

    fn plain(&self) -> Step {
        let (device, forward) = (self.device.clone().autodiff(), self.forward);
        let mut model = Some((self.make)(&device));
        let mut optimizer = adam();
        let batches = self.batches.iter().cloned().map(|batch| DigitsBatch {
            images: Tensor::from_data(batch.images.into_data(), &device),
            labels: Tensor::from_data(batch.labels.into_data(), &device),
        });
        let batches: Vec<DigitsBatch> = batches.collect();
        let mut batches = batches.into_iter().cycle();
        Box::new(move || {
            let (Some(trained), Some(batch)) = (model.take(), batches.next()) else {
                return Ok(());
            };
            let loss = cross_entropy(forward(&trained, batch.images), batch.labels);
            loss.clone().try_into_scalar::<f64>()?;
            let gradients = GradientsParams::from_grads(loss.backward(), &trained);
            model = Some(optimizer.step(LEARNING_RATE, trained, gradients));
            Ok(())
        })
    }

    fn teacher(&self) -> Step {
        let (teacher, forward) = (self.dense(), self.forward);
        let mut batches = self.batches.clone().into_iter().cycle();
        Box::new(move || {
            if let Some(batch) = batches.next() {
                forward(&teacher, batch.images);
            }
            Ok(())
        })
    }

    fn empty(&self) -> Chain<M> {
        Compressor::from_model(self.dense(), self.evaluator())
    }

    fn pruner(&self) -> anyhow::Result<Chain<M>> {
        let rules = configs::pruning(SPARSITY)?;
        let taylor = TaylorConfig::new(INTERVAL);
        let pruner = TaylorPruner::new(self.dense(), &rules, self.evaluator(), taylor)?;
        Ok(AgpPruner::new(pruner, AgpConfig::new(INTERVAL, INTERVAL))?)
    }

    fn quantizer(
        &self,
        chain: Chain<M>,
        rules: &ConfigList<QuantizationSettings>,
    ) -> anyhow::Result<Chain<M>> {
        let config = QatConfig::new().with_start_step(1);
        Ok(QatQuantizer::from_compressor(chain, rules, config)?)
    }

    fn distiller(&self, chain: Chain<M>) -> anyhow::Result<Chain<M>> {
        let forward = self.forward;
        Ok(DynamicLayerwiseDistiller::from_compressor(
            chain,
            &configs::distillation()?,
            &self.dense(),
            move |teacher: &M, batch: &DigitsBatch| forward(teacher, batch.images.clone()),
            DistillConfig::new(0.1),
        )?)
    }

    fn learner(&self, chain: Chain<M>) -> anyhow::Result<Step> {
        let trainee = chain.into_trainee(STEPS)?;
        let mut learner = Learner::new(trainee, adam(), LEARNING_RATE);
        let mut batches = self.batches.clone().into_iter().cycle();
        Ok(Box::new(move || {
            if let Some(batch) = batches.next() {
                let output = learner.train_step(batch);
                learner.lr_step();
                learner.optimizer_step(output.grads);
            }
            match learner.model().error() {
                Some(error) => anyhow::bail!(error),
                None => Ok(()),
            }
        }))
    }

    /// A network of its own: clones would share the statistics of their batch norms.
    fn dense(&self) -> M {
        (self.make)(&self.device)
    }

    fn dummy_input(&self) -> DummyInput<M> {
        let forward = self.forward;
        let images = self.batches[0].images.clone();
        let count = images.dims()[0].min(DUMMY);
        let images = images.narrow(0, 0, count);
        DummyInput::new(images, move |model: &M, images| forward(model, images))
    }

    fn evaluator(&self) -> Evaluator<M, DigitsBatch> {
        let (batches, forward) = (self.batches.clone(), self.forward);
        Evaluator::new()
            .with_dummy_input(self.dummy_input())
            .with_data(move |epoch| batches.get(epoch % batches.len()).cloned())
            .with_optimizer(adam())
            .with_learning_rate(LEARNING_RATE)
            .with_loss(move |model: &M, batch: &DigitsBatch| {
                cross_entropy(forward(model, batch.images.clone()), batch.labels.clone())
            })
    }

    /// Rules of a quantizer: those of the main job, or the inputs and weights of all convolutions and
    /// linear layers.
    fn rules(&self, variant: Variant) -> anyhow::Result<ConfigList<QuantizationSettings>> {
        // Type and scheme of inputs and of weights, and granularity of weights.
        let [input, input_scheme, weight, weight_scheme, granularity] = match variant {
            Variant::QuantizerForRuntime | Variant::FusedForRuntime => {
                let rules = Deployment::onnxruntime();
                return Ok(rules.rules(&self.dense(), &self.dummy_input())?);
            }
            Variant::QuantizerPerChannel | Variant::FusedPerChannel => {
                return configs::per_channel();
            }
            Variant::Bnn => ["int1", "symmetric", "int1", "symmetric", "default"],
            Variant::DoReFa => ["uint8", "affine", "int8", "symmetric", "default"],
            Variant::LsqPlus => ["uint8", "affine", "int8", "affine", "out_channel"],
            _ => ["int8", "symmetric", "int8", "symmetric", "out_channel"],
        };
        Ok(ConfigList::from_json(&format!(
            r#"[{{
                "op_types": ["Conv2d", "Linear"], "target_names": ["_input_", "weight"],
                "target_settings": {{
                    "_input_": {{"quant_dtype": "{input}", "quant_scheme": "{input_scheme}"}},
                    "weight": {{
                        "quant_dtype": "{weight}", "quant_scheme": "{weight_scheme}",
                        "granularity": "{granularity}"
                    }}
                }}
            }}]"#
        ))?)
    }
}

fn adam() -> ModuleOptimizer {
    AdamConfig::new().with_epsilon(1e-8).init()
}

/// Steps of the chain's own training loop.
fn advancing<M: Module + 'static>(chain: Chain<M>) -> Step {
    let mut chain = chain.without_progress_line();
    let budget = Budget::steps(STEPS);
    let mut done = 0;
    Box::new(move || {
        done += 1;
        Ok(chain.advance(&budget, Some(done))?)
    })
}
