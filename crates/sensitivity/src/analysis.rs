//! An analysis that is going on, one point after another.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress_core::config::Rule;
use burn_compress_core::graph::ChannelGraph;
use burn_compress_core::layer::{LayerInfo, layers};
use burn_compress_core::{Budget, Compressor, Error, Evaluator, Method, reads};
use burn_compress_pruning::{Importance, Pruner, PrunerConfig, PruningSettings};
use burn_compress_quantization::{PtqConfig, QuantDtype, QuantizationSettings};
use indicatif::{ProgressBar, ProgressStyle};

use crate::config::SensitivityConfig;
use crate::cost::Costs;
use crate::error::{Refusal, SensitivityError};
use crate::result::{
    BitsPoint, LayerSensitivity, Measured, Sensitivity, SparsityPoint, UnitSensitivity,
};
use crate::units::{QuantizedLayer, Unit, quantized_layers, unit_of, units};

/// Name in errors about missing parts of the evaluator.
const NAME: &str = "the sensitivity analysis";

/// A difference in the loss of the model as it is that is one of the device, not of the data.
const SAME: f64 = 1e-3;

/// An analysis that is going on.
///
/// [`advance`](Self::advance) measures one point, so that a program can stop after any of them, keep
/// the [`result`](Self::result) in a file, and [resume](SensitivityConfig::resume) another day.
///
/// ```
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::prelude::*;
/// # use burn_compress_core::config::named;
/// # use burn_compress_core::{DummyInput, Error, Evaluator};
/// # use burn_compress_sensitivity::{Sensitivity, SensitivityConfig};
/// # let device = Device::flex();
/// # let model = LinearConfig::new(4, 2).init(&device);
/// # let batch = Tensor::<2>::ones([8, 4], &device);
/// # let dummy = DummyInput::new(batch.clone(), |model: &Linear, x| model.forward(x));
/// # let evaluator = || {
/// #     let batch = batch.clone();
/// #     Evaluator::new()
/// #         .with_dummy_input(dummy.clone())
/// #         .with_data(move |_| vec![batch.clone()])
/// #         .with_loss(|model: &Linear, x: &Tensor<2>| model.forward(x.clone()).square().mean())
/// # };
/// # use burn_compress_core::config::on;
/// let config = SensitivityConfig::new().with_quantization(on(["Linear"]));
/// let path = std::env::temp_dir().join(format!("sensitivity-{}.json", std::process::id()));
/// let mut analysis = match path.exists() {
///     true => config.resume(model, evaluator(), Sensitivity::load(&path)?)?,
///     false => config.begin(model, evaluator())?,
/// };
/// while analysis.advance()? {
///     analysis.result().save(&path)?;
///     println!("{} of {}", analysis.done(), analysis.total());
/// }
/// assert!(Sensitivity::load(&path)?.is_complete());
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Error>(())
/// ```
pub struct Analysis<M, I, P> {
    config: SensitivityConfig<P>,
    model: M,
    evaluator: Evaluator<M, I>,
    batches: Vec<I>,
    units: Vec<Unit>,
    layers: Vec<QuantizedLayer>,
    result: Sensitivity,
}

impl<P: Importance + Clone + Send + 'static> SensitivityConfig<P> {
    /// Measures everything.
    ///
    /// # Errors
    ///
    /// Those of [`begin`](Self::begin), and what a compressor or the loss meets on the way.
    pub fn analyze<M, I>(&self, model: M, evaluator: Evaluator<M, I>) -> Result<Sensitivity, Error>
    where
        M: Module + 'static,
        I: 'static,
    {
        let mut analysis = self.begin(model, evaluator)?;
        analysis.run()?;
        Ok(analysis.finish())
    }

    /// Checks everything and measures the model as it is.
    ///
    /// # Errors
    ///
    /// [`SensitivityError::Refused`] with all that is wrong at once: settings, rules, missing parts of
    /// the evaluator, layers that cannot be pruned or quantized; and a loss that is not finite.
    pub fn begin<M, I>(
        &self,
        model: M,
        evaluator: Evaluator<M, I>,
    ) -> Result<Analysis<M, I, P>, Error>
    where
        M: Module + 'static,
        I: 'static,
    {
        Ok(Analysis::new(self.clone(), model, evaluator)?)
    }

    /// As [`begin`](Self::begin), and goes on where `saved` ends.
    ///
    /// # Errors
    ///
    /// Those of [`begin`](Self::begin), and a result of another configuration, of other layers, or with
    /// another loss of the model as it is.
    pub fn resume<M, I>(
        &self,
        model: M,
        evaluator: Evaluator<M, I>,
        saved: Sensitivity,
    ) -> Result<Analysis<M, I, P>, Error>
    where
        M: Module + 'static,
        I: 'static,
    {
        let mut analysis = Analysis::new(self.clone(), model, evaluator)?;
        analysis.take_over(saved)?;
        Ok(analysis)
    }
}

impl<M, I, P> std::fmt::Debug for Analysis<M, I, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Analysis")
            .field("done", &self.result.measured())
            .field("total", &self.result.total())
            .finish_non_exhaustive()
    }
}

impl<M, I, P> Analysis<M, I, P>
where
    M: Module + 'static,
    I: 'static,
    P: Importance + Clone + Send + 'static,
{
    pub(crate) fn new(
        config: SensitivityConfig<P>,
        model: M,
        evaluator: Evaluator<M, I>,
    ) -> Result<Self, SensitivityError> {
        require_none(refusals(&config, &evaluator))?;
        let graph = match config.needs_graph() {
            true => {
                let chain = Compressor::from_model(model.clone(), evaluator.clone());
                Some(chain.graph(NAME)?)
            }
            false => None,
        };
        let mut own = Self {
            config,
            model,
            evaluator,
            batches: Vec::new(),
            units: Vec::new(),
            layers: Vec::new(),
            result: Sensitivity::default(),
        };
        let found = layers(&own.model);
        let mut refusals = own.find_units(&found, graph.as_ref());
        refusals.extend(own.find_layers(&found));
        require_none(refusals)?;

        own.batches = own.evaluator.first_batches(own.config.batches)?;
        let (dense, loss) = own.measured(&own.model.valid())?;
        if !loss.is_finite() {
            return Err(SensitivityError::DenseLoss { loss });
        }
        let costs = graph.map(|graph| Costs::of(&graph, &found, &unit_of(&own.units, &graph)));
        own.result = own.empty_result(dense, costs)?;
        Ok(own)
    }

    /// Finds the units to prune; why some cannot be pruned.
    fn find_units(
        &mut self,
        found: &[LayerInfo],
        graph: Option<&Arc<ChannelGraph>>,
    ) -> Vec<Refusal> {
        let Some(rule) = &self.config.pruning else {
            return Vec::new();
        };
        match units(rule, found, graph) {
            Ok(units) => self.units = units,
            Err(error) => return vec![Refusal::Of(error)],
        }
        let refused = self.units.iter().filter_map(|unit| {
            // A small one can remove nothing, a large one can leave what no forward pass follows.
            let mut sparsities = self.config.sparsities.iter();
            let error = sparsities.find_map(|&sparsity| self.pruned(unit, sparsity).err())?;
            let layers = unit.layers.clone();
            Some(Refusal::Layers { layers, error })
        });
        refused.collect()
    }

    /// Finds the layers to quantize; why some cannot be quantized.
    fn find_layers(&mut self, found: &[LayerInfo]) -> Vec<Refusal> {
        let Some(rule) = &self.config.quantization else {
            return Vec::new();
        };
        match quantized_layers(rule, found) {
            Ok(layers) => self.layers = layers,
            Err(error) => return vec![Refusal::Of(error)],
        }
        let refused = self.layers.iter().filter_map(|layer| {
            let mut bits = self.config.bits.iter();
            let error = bits.find_map(|&bits| self.quantized(layer, bits).err())?;
            let layers = vec![layer.layer.clone()];
            Some(Refusal::Layers { layers, error })
        });
        refused.collect()
    }

    fn empty_result(
        &self,
        dense: Measured,
        costs: Option<Costs>,
    ) -> Result<Sensitivity, SensitivityError> {
        let unit = |unit: &Unit| UnitSensitivity {
            layers: unit.layers.clone(),
            channels: unit.channels(),
            parts: unit.parts,
            points: Vec::new(),
        };
        let layer = |layer: &QuantizedLayer| LayerSensitivity {
            layer: layer.layer.clone(),
            points: Vec::new(),
        };
        Ok(Sensitivity {
            dense,
            sparsities: self.config.sparsities.clone(),
            bits: self.config.bits.clone(),
            batches: self.batches.len(),
            units: self.units.iter().map(unit).collect(),
            layers: self.layers.iter().map(layer).collect(),
            settings: self.settings(),
            costs,
            fingerprint: self.config.fingerprint()?,
        })
    }

    /// Takes over the points of a result of the same analysis.
    pub(crate) fn take_over(&mut self, saved: Sensitivity) -> Result<(), SensitivityError> {
        let other = |reason: &str| {
            Err(SensitivityError::Other {
                reason: reason.to_string(),
            })
        };
        let own = &self.result;
        if saved.fingerprint != own.fingerprint {
            return other("its configuration is another one");
        }
        let names = |result: &Sensitivity| {
            let units = result.units.iter().map(|unit| unit.layers.clone());
            let layers = result.layers.iter().map(|layer| vec![layer.layer.clone()]);
            units.chain(layers).collect::<Vec<_>>()
        };
        if names(&saved) != names(own) || saved.costs != own.costs {
            return other("its model has other layers or sizes");
        }
        let losses = [&saved, own].map(|result| result.dense.loss.unwrap_or(f64::NAN));
        let difference = (losses[0] - losses[1]).abs();
        let is_same = difference <= SAME * losses[1].abs().max(f64::MIN_POSITIVE);
        if !is_same || saved.batches != own.batches {
            let reason = format!(
                "the loss of the model as it is was {} on {} batches, it is {} on {}",
                losses[0], saved.batches, losses[1], own.batches
            );
            return other(&reason);
        }
        saved.check()?;
        self.result = saved;
        Ok(())
    }

    /// Measures one point; whether there was one left.
    ///
    /// # Errors
    ///
    /// What a compressor or the loss meets. The points before stay, and the next call tries again.
    pub fn advance(&mut self) -> Result<bool, Error> {
        if let Some((at, sparsity)) = self.result.next_sparsity() {
            let unit = &self.units[at];
            let compressed = self.pruned(unit, sparsity)?.compress(Budget::none())?;
            let removed = unit.removed(&compressed.masks());
            let (measured, _) = self.measured(compressed.model())?;
            log::info!(
                "{}: sparsity {sparsity}, {measured}",
                unit.layers.join(", ")
            );
            self.result.units[at].points.push(SparsityPoint {
                sparsity,
                removed,
                measured,
            });
            return Ok(true);
        }
        if let Some((at, bits)) = self.result.next_bits() {
            let layer = &self.layers[at];
            let compressed = self.quantized(layer, bits)?.compress(Budget::none())?;
            let (measured, _) = self.measured(compressed.model())?;
            log::info!("{}: {bits} bits, {measured}", layer.layer);
            let points = &mut self.result.layers[at].points;
            points.push(BitsPoint { bits, measured });
            return Ok(true);
        }
        Ok(false)
    }

    /// Measures all points that are left, with a line of progress on a terminal.
    ///
    /// # Errors
    ///
    /// Those of [`advance`](Self::advance).
    pub fn run(&mut self) -> Result<(), Error> {
        let bar = ProgressBar::new(self.total() as u64).with_position(self.done() as u64);
        let style = ProgressStyle::with_template("{bar:20} {pos}/{len} points, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let outcome = loop {
            match self.advance() {
                Ok(true) => bar.inc(1),
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        bar.finish_and_clear();
        outcome
    }

    /// The number of points that were measured.
    pub fn done(&self) -> usize {
        self.result.measured()
    }

    /// The number of points that there are.
    pub fn total(&self) -> usize {
        self.result.total()
    }

    /// The result so far.
    pub fn result(&self) -> &Sensitivity {
        &self.result
    }

    /// Gives the result away, complete or not.
    pub fn finish(self) -> Sensitivity {
        self.result
    }

    fn settings(&self) -> PruningSettings {
        let rule: Option<&Rule<PruningSettings>> = self.config.pruning.as_ref();
        rule.map(|rule| rule.settings.clone()).unwrap_or_default()
    }

    fn pruned(&self, unit: &Unit, sparsity: f64) -> Result<Compressor<M, I>, Error> {
        let config = PrunerConfig::new().with_coupled(self.config.coupled);
        let pruner = Pruner::with(self.config.importance.clone()).with_config(config);
        let rule = unit.rule(&self.settings(), sparsity);
        let chain = pruner.new(self.model.clone(), rule, self.evaluator.clone())?;
        Ok(chain.without_progress_line())
    }

    fn quantized(&self, layer: &QuantizedLayer, bits: u8) -> Result<Compressor<M, I>, Error> {
        let rule: Rule<QuantizationSettings> = layer.rule(QuantDtype::int(bits)?);
        let config = PtqConfig::new().with_batches(self.config.batches);
        let chain = config.new(self.model.clone(), rule, self.evaluator.clone())?;
        Ok(chain.without_progress_line())
    }

    /// Mean loss over the batches and the metric, as they are kept, and the loss as it is.
    fn measured(&self, model: &M) -> Result<(Measured, f64), Error> {
        let loss = self.evaluator.loss().ok_or(Error::NoBatches { epoch: 0 })?;
        let mut losses = Vec::with_capacity(self.batches.len());
        for batch in &self.batches {
            let loss: Tensor<1> = loss(model, batch);
            if loss.dims() != [1] {
                let found = loss.dims().to_vec();
                return Err(Error::LossShape { found });
            }
            losses.push(loss.without_autodiff());
        }
        let count = losses.len() as f64;
        let losses = reads::data(Tensor::cat(losses, 0))?;
        let loss = losses.iter::<f64>().sum::<f64>() / count;
        let metric = match self.config.metric {
            true => self.evaluator.evaluate(model),
            false => None,
        };
        Ok((Measured::new(loss, metric), loss))
    }
}

/// What is wrong with the settings and the evaluator, whatever the layers.
fn refusals<M: Module, I: 'static, P: Importance + Clone + Send + 'static>(
    config: &SensitivityConfig<P>,
    evaluator: &Evaluator<M, I>,
) -> Vec<Refusal> {
    let mut refusals = config.refusals();
    refusals.extend(evaluator.require_forward(NAME).err().map(Refusal::Of));
    if config.needs_graph() {
        let missing = evaluator.require_dummy_input(NAME).err();
        refusals.extend(missing.map(Refusal::Of));
    }
    if config.metric && !evaluator.has_evaluation() {
        refusals.push(Refusal::NoMetric);
    }
    refusals
}

fn require_none(refusals: Vec<Refusal>) -> Result<(), SensitivityError> {
    match refusals.is_empty() {
        true => Ok(()),
        false => Err(SensitivityError::Refused(refusals)),
    }
}
