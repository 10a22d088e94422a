//! Pruners that score by outputs: what they collect of given outputs, and the scores from it.
//!
//! A layer that copies its input gives the outputs of the case, one batch a step.

use burn::tensor::{Device, Tensor};
use burn_compress::config::ConfigList;
use burn_compress::pruning::Importance;
use burn_compress::pruning::scores::{Apoz, MeanActivation};
use burn_compress::pruning::{
    ActivationConfig, ActivationPruner, ApozConfig, ApozPruner, Blocks, PrunerConfig,
};
use burn_compress::{Budget, Compressor};

use super::case::{Case, Numbers};
use super::check::Checks;
use super::nets::{Single, evaluator};
use crate::reference::case::Result;

/// Runs a case.
pub fn run(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    let outputs = Outputs::new(case)?;
    let zeros = outputs.collect(case, Pruner::Apoz)?;
    let apoz = Apoz::new(outputs.steps()).map_err(|error| case.error(error))?;
    let fractions: Vec<f32> = zeros
        .iter()
        .map(|sum| sum / outputs.steps() as f32)
        .collect();
    checks.compare("/apoz", fractions);
    checks.compare("/apoz_scores", outputs.scores(case, &apoz, &zeros)?);

    let mean = MeanActivation::new(outputs.steps()).map_err(|error| case.error(error))?;
    // Before the activation on request, behind it by default.
    let before = outputs.collect(case, Pruner::OwnOutput)?;
    checks.compare(
        "/mean_activation_scores",
        outputs.scores(case, &mean, &before)?,
    );
    let behind = outputs.collect(case, Pruner::Activation)?;
    checks.compare("/mean_after_relu", outputs.scores(case, &mean, &behind)?);
    Ok(())
}

/// Which pruner observes.
#[derive(Clone, Copy, Debug)]
enum Pruner {
    Apoz,
    Activation,
    /// [`Pruner::Activation`] with the settings that name the layer itself.
    OwnOutput,
}

/// The outputs of a layer, one batch for each step, in a layout that a layer of [`Single`] has.
struct Outputs {
    batches: Vec<Tensor<4>>,
    channels: usize,
    channels_last: bool,
}

impl Outputs {
    fn new(case: &Case) -> Result<Self> {
        let outputs: Numbers = case.input("outputs")?;
        let channels_last: bool = case.optional("channels_last")?.unwrap_or(false);
        let Some((_, shape)) = outputs.shape.split_first() else {
            return Err(case.error("the outputs have no steps"));
        };
        let at = if channels_last { shape.len() - 1 } else { 1 };
        let Some(&channels) = shape.get(at) else {
            return Err(case.error(format!("outputs of shape {shape:?} have no channels")));
        };
        let product = |sizes: &[usize]| sizes.iter().product::<usize>();
        // Positions make one dim; the mean over them is the same.
        let shape = match channels_last {
            true => [shape[0], 1, product(&shape[1..at]), channels],
            false => [shape[0], channels, product(&shape[2..]), 1],
        };
        let device = Device::flex();
        let batches = outputs.split();
        let batches = batches.iter().map(|batch| batch.reshaped(shape, &device));
        Ok(Self {
            batches: batches.collect::<Result<_>>()?,
            channels,
            channels_last,
        })
    }

    fn steps(&self) -> usize {
        self.batches.len()
    }

    /// A weight that copies channels.
    fn identity(&self) -> Numbers {
        let n = self.channels;
        let values = (0..n * n).map(|at| f64::from(u8::from(at / n == at % n)));
        Numbers {
            shape: match self.channels_last {
                true => vec![n, n],
                false => vec![n, n, 1, 1],
            },
            values: values.collect(),
            exact: false,
        }
    }

    /// The sum over the steps of what the pruner sees of each channel.
    fn collect(&self, case: &Case, pruner: Pruner) -> Result<Vec<f32>> {
        let model = Single::new(case, &self.identity(), &Device::flex())?;
        let path = model.path();
        let dummy = model.dummy_input();
        let evaluator = evaluator(self.batches.clone(), |model: &Single, x: &Tensor<4>| {
            model.forward(x.clone()).mean().reshape([1])
        });
        let evaluator = evaluator.with_dummy_input(dummy);
        let observed = match pruner {
            Pruner::OwnOutput => format!(r#", "activation": "{path}""#),
            _ => String::new(),
        };
        let rules = format!(r#"[{{"op_names": ["{path}"], "sparse_ratio": 0.5{observed}}}]"#);
        let config = ConfigList::from_json(&rules).map_err(|error| case.error(error))?;
        // One step more than there are, so that nothing is decided yet.
        let steps = self.steps() + 1;
        let options = PrunerConfig::new().with_coupled(false);
        let chain: std::result::Result<Compressor<_, _>, _> = match pruner {
            Pruner::Apoz => {
                let options = ApozConfig::new(steps).with_pruner(options);
                ApozPruner::new(model, &config, evaluator, options)
            }
            _ => {
                let options = ActivationConfig::new(steps).with_pruner(options);
                ActivationPruner::new(model, &config, evaluator, options)
            }
        };
        let mut chain = chain.map_err(|error| case.error(error))?;
        chain
            .advance(&Budget::steps(steps), Some(self.steps()))
            .map_err(|error| case.error(error))?;
        let pruner = chain
            .chain()
            .pop()
            .ok_or_else(|| case.error("the chain is empty"))?;
        let state = pruner.state().map_err(|error| case.error(error))?;
        let sums = state.tensors.get(&format!("{path}.weight"));
        let sums = sums.ok_or_else(|| case.error("nothing was collected"))?;
        Ok(sums.values.clone())
    }

    /// Scores from the sums of each channel.
    fn scores(&self, case: &Case, score: &dyn Importance, sums: &[f32]) -> Result<Vec<f32>> {
        let blocks = Blocks::elements(&[self.channels]).map_err(|error| case.error(error))?;
        if sums.len() != self.channels {
            let (found, channels) = (sums.len(), self.channels);
            return Err(case.error(format!("{found} sums for {channels} channels")));
        }
        Ok(score.score(sums, &blocks))
    }
}
