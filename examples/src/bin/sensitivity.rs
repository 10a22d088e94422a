//! Which layers bear pruning: the sensitivity of each, as a table and a figure, and rules made of it
//! beside one sparsity for all layers, once at the same number of parameters and once at the same number
//! of multiply-accumulates.

use std::process::ExitCode;
use std::time::Instant;

use burn_compress::prelude::*;
use burn_compress_examples::pipeline::{Outcome, Setup};
use burn_compress_examples::train::accuracy;
use burn_compress_examples::{configs, pipeline};

fn main() -> ExitCode {
    pipeline::run("sensitivity", |setup| {
        let sensitivity = measure(setup)?;
        let uniform = prune(setup, configs::pruning(setup.sparsity)?)?;
        let (params, macs) = (&uniform.small.report.params, &uniform.small.report.macs);
        let budgets = [
            (
                "by sensitivity, as many parameters",
                SizeBudget::Parameters(params.small),
            ),
            ("by sensitivity, as many MACs", SizeBudget::Macs(macs.small)),
        ];
        let mut outcomes = vec![("one sparsity", uniform)];
        for (name, budget) in budgets {
            let rules = sensitivity.rules_for(budget)?;
            println!("{name}: {}", rules.to_json()?);
            outcomes.push((name, prune(setup, rules)?));
        }
        for (name, outcome) in &outcomes {
            println!(
                "{name}: {} parameters, {} MACs, {:.2} % correct",
                outcome.small.report.params.small,
                outcome.small.report.macs.small,
                accuracy(&outcome.small.model, &setup.digits.test)
            );
        }
        let (_, mut found) = outcomes.swap_remove(1);
        found.report = found.report.with_sensitivity(&sensitivity);
        Ok(found)
    })
}

/// The sensitivity of all convolutions to pruning, and of all layers with weights to fewer bits.
fn measure(setup: &Setup) -> anyhow::Result<Sensitivity> {
    let evaluator = setup.evaluator(setup.steps)?;
    let config = SensitivityConfig::new()
        .with_pruning(on(["Conv2d"]))
        .with_quantization(on(["Conv2d", "Linear"]))
        .with_sparsities([0.25, 0.5, 0.75, 0.875, 0.9375])
        .with_metric(true);
    let begin = Instant::now();
    let sensitivity = config.analyze(setup.dense.clone(), evaluator.clone())?;
    let seconds = begin.elapsed().as_secs_f64();

    // The time of a forward pass of one batch with its loss, for comparison.
    let begin = Instant::now();
    let forwards = evaluator.forward(&[&setup.dense], 20, || Ok(()))?;
    let forward = begin.elapsed().as_secs_f64() / forwards as f64;
    println!("{sensitivity}");
    println!(
        "{} points of {} batches in the time of {:.0} forward passes; {} of them are the losses",
        sensitivity.measured(),
        sensitivity.batches,
        seconds / forward,
        sensitivity.forwards()
    );
    let path = format!("target/figures/sensitivity-{}.svg", setup.seed);
    std::fs::create_dir_all("target/figures")?;
    sensitivity.save_figure("Sensitivity of the digits network", &path)?;
    println!("figure: {path}");
    Ok(sensitivity)
}

/// First-order Taylor scores inside an AGP schedule.
fn prune(setup: &Setup, rules: ConfigList<PruningSettings>) -> anyhow::Result<Outcome> {
    let evaluator = setup.evaluator(setup.steps)?;
    let taylor = TaylorConfig::new(setup.interval());
    let chain = TaylorPruner::new(setup.dense.clone(), rules, evaluator, taylor)?;
    let chain = AgpPruner::new(chain, AgpConfig::new(setup.interval(), setup.updates()))?;
    setup.finish(chain, Budget::steps(setup.steps))
}
