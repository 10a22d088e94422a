//! Scores and masks of pruners.

use burn::tensor::{Device, Tensor};
use burn_compress::Budget;
use burn_compress::config::ConfigList;
use burn_compress::layer::channel_dims;
use burn_compress::pruning::Importance;
use burn_compress::pruning::mask::{MaskConfig, MaskTarget, generate};
use burn_compress::pruning::scores::{Fisher, Lamp};
use burn_compress::pruning::{
    Axes, Blocks, FisherConfig, FisherPruner, PrunerConfig, PruningSettings,
};

use super::case::{Case, Numbers};
use super::check::Checks;
use super::nets::{Single, evaluator};
use crate::reference::case::Result;

/// The blocks of a tensor; single elements where the case gives no shape.
fn blocks(case: &Case, values: &Numbers) -> Result<Blocks> {
    let block: Vec<i64> = case.optional("block")?.unwrap_or_default();
    Blocks::new(&values.shape, &block).map_err(|error| case.error(error))
}

/// LAMP: scores, and the masks of several layers that are ranked together.
pub fn lamp(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    if let Some(weight) = case.optional::<Numbers>("weight")? {
        let blocks = blocks(case, &weight)?;
        checks.compare("/scores", Lamp.score(&weight.single(), &blocks));
        return Ok(());
    }
    let weights: Vec<Numbers> = case.input("weights")?;
    let settings = PruningSettings {
        sparse_ratio: Some(case.input("sparse_ratio")?),
        global_group_id: Some("all".to_owned()),
        ..PruningSettings::default()
    };
    let mut targets = Vec::new();
    for (at, weight) in weights.iter().enumerate() {
        let blocks = blocks(case, weight)?;
        let scores = Lamp.score(&weight.single(), &blocks);
        checks.compare(&format!("/scores/{at}"), scores.clone());
        targets.push(MaskTarget::new(at, blocks, settings.clone()).with_scores(scores));
    }
    let masks = generate(&targets, MaskConfig::new()).map_err(|error| case.error(error))?;
    for (at, mask) in &masks {
        let keep: Vec<f32> = mask.expand();
        checks.compare(&format!("/keep/{at}"), keep);
    }
    Ok(())
}

/// Fisher: the sums of a run on given gradients, and the scores from them.
pub fn fisher(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    let weight: Numbers = case.input("weight")?;
    let steps: Vec<Numbers> = case.input::<Numbers>("gradients")?.split();
    let squares = squared_gradients(case, &weight, &steps)?;
    let weighted = weight.single().into_iter().zip(squares);
    let data: Vec<f32> = weighted.map(|(w, sum)| w * w * sum).collect();
    if let Some(given) = case.optional::<Numbers>("data")? {
        let pairs = data.iter().zip(&given.values);
        let differ = |&(&got, &wanted): &(&f32, &f64)| !checks.agrees(f64::from(got), wanted);
        if let Some((got, wanted)) = pairs.into_iter().find(differ) {
            checks.fail(format!("data: {got} instead of {wanted}"));
        }
    }
    let fisher = Fisher::new(steps.len()).map_err(|error| case.error(error))?;
    let scores = fisher.score(&data, &blocks(case, &weight)?);
    // Torch-Pruning leaves out the factor 1/2.
    let twice: Vec<f32> = scores.iter().map(|score| 2.0 * score).collect();
    checks.compare("/torch_pruning", twice);
    checks.compare("/scores", scores);
    Ok(())
}

/// What a [`FisherPruner`] collects of a weight in a run with these gradients.
fn squared_gradients(case: &Case, weight: &Numbers, steps: &[Numbers]) -> Result<Vec<f32>> {
    let device = Device::flex();
    let model = Single::new(case, weight, &device)?;
    let batches: Vec<Tensor<1>> = steps
        .iter()
        .map(|gradient| gradient.reshaped([weight.values.len()], &device))
        .collect::<Result<_>>()?;
    let path = model.path();
    // The gradient of sum(w g) is g.
    let evaluator = evaluator(batches, |model: &Single, gradient: &Tensor<1>| {
        (model.weight() * gradient.clone()).sum()
    });
    let rules = format!(r#"[{{"op_names": ["{path}"], "sparse_ratio": 0.5}}]"#);
    let config = ConfigList::from_json(&rules).map_err(|error| case.error(error))?;
    // One step more than there are, so that nothing is decided yet.
    let options =
        FisherConfig::new(steps.len() + 1).with_pruner(PrunerConfig::new().with_coupled(false));
    let mut chain =
        FisherPruner::new(model, &config, evaluator, options).map_err(|error| case.error(error))?;
    chain
        .advance(&Budget::steps(steps.len() + 1), Some(steps.len()))
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

/// N:M patterns of magnitudes.
pub fn patterns(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    let weight: Numbers = case.input("weight")?;
    let (kind, pattern): (String, String) = (case.input("kind")?, case.input("pattern")?);
    let settings = PruningSettings {
        pattern: Some(pattern.parse().map_err(|error| case.error(error))?),
        ..PruningSettings::default()
    };
    let blocks = Blocks::elements(&weight.shape).map_err(|error| case.error(error))?;
    let scores = weight.single().into_iter().map(f32::abs).collect();
    let axes = channel_dims(&kind, "weight", weight.shape.len());
    let target = MaskTarget::new("weight", blocks, settings)
        .with_scores(scores)
        .with_axes(Axes::from(axes));
    let masks = generate(&[target], MaskConfig::new()).map_err(|error| case.error(error))?;
    checks.compare("/keep", masks["weight"].expand());
    Ok(())
}

/// The number of blocks that stay when it has to be a multiple.
pub fn round_to(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    let blocks: usize = case.input("blocks")?;
    let settings = PruningSettings {
        sparse_ratio: Some(case.input("sparse_ratio")?),
        round_to: Some(case.input("round_to")?),
        ..PruningSettings::default()
    };
    let scores = (0..blocks).map(|block| block as f32 + 1.0).collect();
    let blocks = Blocks::elements(&[blocks]).map_err(|error| case.error(error))?;
    let target = MaskTarget::new("weight", blocks, settings).with_scores(scores);
    let masks = generate(&[target], MaskConfig::new()).map_err(|error| case.error(error))?;
    let kept = masks["weight"].keep().iter().filter(|keep| **keep).count();
    checks.compare("/kept", kept);
    // It rounds the other way: fewer blocks stay.
    checks.documented("/torch_pruning_kept");
    Ok(())
}
