//! What is known of a run before it, while it runs and afterwards.

use std::sync::mpsc::{Sender, channel};

use burn::tensor::Device;
use burn_compress::prelude::*;

use crate::own_network::{Batch, Net, evaluator, trained};

pub fn run() -> Result<(), Error> {
    let device = Device::flex();
    let model = trained(&device);
    before(&model, &device)?;
    meanwhile(&model, &device)?;
    stopped(&model, &device)?;
    afterwards(&model, &device)
}

fn before(model: &Net, device: &Device) -> Result<(), Error> {
    let file = |name: &str| std::env::temp_dir().join(format!("{}-{name}", std::process::id()));
    // ANCHOR: sensitivity
    let sensitivity = SensitivityConfig::new()
        .with_pruning(on(["Conv2d"]))
        .with_quantization(on(["Conv2d", "Linear"]))
        .with_batches(4)
        .analyze(model.clone(), evaluator(device))?;
    println!("{sensitivity}");
    sensitivity.save_figure("stripes", file("sensitivity.svg"))?;
    // ANCHOR_END: sensitivity
    assert_eq!(sensitivity.units.len(), 2);
    std::fs::remove_file(file("sensitivity.svg"))?;

    // ANCHOR: told
    let increase = |measured| sensitivity.increase(measured).unwrap_or(f64::INFINITY);
    let half = |unit: usize| increase(&sensitivity.units[unit].points[1].measured);
    let bits = |layer: usize, at: usize| increase(&sensitivity.layers[layer].points[at].measured);
    assert!(half(0) > 2.0 * half(1)); // the second of 25, 50, 75 and 90 %
    for layer in 0..3 {
        let [eight, two] = [bits(layer, 0), bits(layer, 3)]; // the first and last of 8, 6, 4 and 2
        assert!(eight.abs() < 0.01 && two > 0.05 && two <= bits(2, 3));
    }
    // ANCHOR_END: told

    // ANCHOR: rules_for
    let rules = sensitivity.rules_for(SizeBudget::ParameterRatio(0.5))?;
    let pruner = L1NormPruner::new(model.clone(), rules, evaluator(device), PrunerConfig::new())?;
    let plan = pruner.plan()?;
    assert!(2 * plan.params.small <= plan.params.dense);
    // ANCHOR_END: rules_for
    Ok(())
}

// ANCHOR: observer
/// Sends the channels that are gone to whoever draws them.
struct Gone(Sender<(usize, f64)>);

impl RunObserver for Gone {
    fn on_masks(&mut self, event: &MasksEvent) {
        let _ = self.0.send((event.step, event.sparsity)); // nobody may be listening any more
    }
}
// ANCHOR_END: observer

fn meanwhile(model: &Net, device: &Device) -> Result<(), Error> {
    // ANCHOR: observed
    let (sender, gone) = channel();
    let compressed = chain(model, device)?
        .with_observer(Gone(sender))
        .compress(Budget::steps(30))?;
    let steps: Vec<usize> = gone.iter().map(|(step, _)| step).collect();
    assert_eq!(steps, [5, 10, 15, 20]);
    // ANCHOR_END: observed

    // ANCHOR: history
    let history = compressed.history();
    assert_eq!(history.steps.len(), 30);
    assert!(history.last_evaluation() > Some(0.8)); // that of the evaluator, after the last step
    let file = std::env::temp_dir().join(format!("history-{}.csv", std::process::id()));
    history.save_csv(&file)?; // step, loss, task_loss, learning_rate, sparsity, metric
    // ANCHOR_END: history
    Ok(std::fs::remove_file(&file)?)
}

// ANCHOR: chain
fn chain(model: &Net, device: &Device) -> Result<Compressor<Net, Batch>, Error> {
    let half = on(["Conv2d"]).sparse_ratio(0.5);
    let pruner = TaylorPruner::new(model.clone(), half, evaluator(device), TaylorConfig::new(5))?;
    AgpPruner::new(pruner, AgpConfig::new(5, 4))
}
// ANCHOR_END: chain

fn stopped(model: &Net, device: &Device) -> Result<(), Error> {
    let (budget, file) = (
        Budget::steps(30),
        std::env::temp_dir().join(format!("run-{}.checkpoint", std::process::id())),
    );
    // ANCHOR: resume
    let mut first = chain(model, device)?;
    first.advance(&budget, Some(12))?; // 12 of 30 steps, then the power fails
    first.save_checkpoint(&file)?;

    let resumed = chain(model, device)?
        .resume(&file)?
        .compress(budget.clone())?;
    let whole = chain(model, device)?.compress(budget)?;
    assert_eq!(resumed.history(), whole.history()); // to the last bit
    assert_eq!(resumed.masks(), whole.masks());
    // ANCHOR_END: resume
    Ok(std::fs::remove_file(&file)?)
}

fn afterwards(model: &Net, device: &Device) -> Result<(), Error> {
    // ANCHOR: warnings
    let rules = on(["Conv2d"]).sparse_threshold(1e-6); // no filter is as small as that
    let pruner = L1NormPruner::new(model.clone(), rules, evaluator(device), PrunerConfig::new())?;
    let compressed = pruner.compress(Budget::none())?;
    assert!(compressed.warnings()[0].contains("L1NormPruner"));
    // ANCHOR_END: warnings
    println!("{}", compressed.warnings()[0]);

    // ANCHOR: latency
    let compressed = chain(model, device)?.compress(Budget::steps(20))?;
    let report = Report::new("Stripes").with_run(&compressed)?;
    let dummy_input = compressed.dummy_input().cloned();
    let dummy_input = dummy_input.expect("that of the evaluator");
    let small = compressed.speedup()?;
    println!("{}", small.report);
    let times = latency(model, &small.model, &dummy_input)?;
    println!("{times}");
    // ANCHOR_END: latency

    let file = std::env::temp_dir().join(format!("stripes-{}.html", std::process::id()));
    // ANCHOR: report
    report
        .with_metric_name("accuracy")
        .with_speedup(&small)
        .with_latency("batch of 4", times)
        .with_seed(0)
        .with_platform(Platform::new("flex"))
        .save(&file)?;
    // ANCHOR_END: report
    std::fs::remove_file(&file)?;
    Ok(())
}
