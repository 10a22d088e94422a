//! A chain as the model of Burn's `Learner`: finished twice, stepped without a run, failing.

use burn::module::Module;
use burn::optim::SgdConfig;
use burn::tensor::Tensor;
use burn::train::{InferenceStep, Learner, TrainStep};
use burn_compress::prelude::*;
use burn_compress::{Compressor, Trainee};
use burn_compress_tests::chains::id;

use crate::fixtures::{Mlp, mlp, mlp_evaluator, rows};
use crate::table::{Attempt, Cases, ensure};

pub type Run = Trainee<Mlp, Tensor<2>>;

const HALF: &str = r#"[{"op_names": ["fc1"], "sparse_ratio": 0.5}]"#;

/// Trains on these batches, one step each.
pub fn trained(trainee: Run, batches: impl IntoIterator<Item = Tensor<2>>) -> Run {
    let mut learner = Learner::new(trainee, SgdConfig::new().init(), 0.01);
    for batch in batches {
        let output = learner.train_step(batch);
        learner.lr_step();
        learner.optimizer_step(output.grads);
    }
    learner.model()
}

/// A Taylor pruner that decides after two steps.
fn pruner() -> Result<Compressor<Mlp, Tensor<2>>, Box<dyn std::error::Error>> {
    let config = ConfigList::from_json(HALF)?;
    Ok(TaylorPruner::from_compressor(
        mlp(),
        &config,
        TaylorConfig::new(2),
    )?)
}

fn batches(steps: usize) -> Vec<Tensor<2>> {
    vec![rows(0.3); steps]
}

pub fn fill(cases: &mut Cases) {
    cases.refused(
        "an evaluator without a loss",
        "MissingEvaluator",
        ["`.with_loss(..)`"],
        || {
            Compressor::<_, Tensor<2>>::from_model(Mlp::new(), Evaluator::new()).into_trainee(2)?;
            Ok(())
        },
    );
    for steps in [0, 1] {
        let parts = [
            "TaylorPruner".to_owned(),
            "step 2".to_owned(),
            format!("{steps} steps"),
        ];
        cases.refused(
            format!("laid out for {steps} steps"),
            "Budget",
            parts,
            move || {
                pruner()?.into_trainee(steps)?;
                Ok(())
            },
        );
    }
    cases.right("a run of as many steps as it was laid out for", || {
        let compressed = trained(pruner()?.into_trainee(2)?, batches(2)).finish()?;
        ensure(
            compressed.masks()[&id("fc1.weight")].sparsity() == 0.5,
            "no mask",
        )
    });
    cases.refused(
        "finished twice",
        "Trainee",
        ["finished", "another chain"],
        || {
            let trainee = trained(pruner()?.into_trainee(2)?, batches(2));
            trainee.clone().finish()?;
            trainee.finish()?;
            Ok(())
        },
    );
    cases.refused(
        "finished by another handle",
        "Trainee",
        ["finished"],
        || {
            let trainee = trained(pruner()?.into_trainee(2)?, batches(2));
            trainee.valid().finish()?;
            trainee.finish()?;
            Ok(())
        },
    );
    cases.refused("a step after the end", "Trainee", ["finished"], || {
        let trainee = trained(pruner()?.into_trainee(2)?, batches(2));
        trainee.clone().finish()?;
        trained(trainee, batches(1)).finish()?;
        Ok(())
    });
    cases.refused(
        "a snapshot that trains",
        "Trainee",
        ["snapshot", "`train`"],
        || {
            let snapshot = pruner()?.into_trainee(2)?.valid();
            TrainStep::step(&snapshot, rows(0.3));
            snapshot.finish()?;
            Ok(())
        },
    );
    cases.right("a snapshot is evaluated", || {
        let trainee = trained(pruner()?.into_trainee(2)?, batches(2));
        let output = InferenceStep::step(&trainee.valid(), rows(0.3));
        let loss: f32 = output.loss.into_scalar();
        ensure(loss.is_finite(), format!("the loss is {loss}"))
    });
    failing(cases);
}

/// Steps that cannot return the error that they meet.
fn failing(cases: &mut Cases) {
    for value in [f32::NAN, f32::INFINITY] {
        cases.refused(
            format!("a batch of {value}"),
            "LossNotFinite",
            ["step 1"],
            move || {
                let steps = [rows(0.3), rows(0.3) * value, rows(0.3)];
                trained(pruner()?.into_trainee(3)?, steps).finish()?;
                Ok(())
            },
        );
    }
    cases.right("the error is told before the end", || {
        let trainee = trained(pruner()?.into_trainee(2)?, [rows(f32::NAN), rows(0.3)]);
        let error = trainee.error().unwrap_or_default();
        ensure(error.contains("step 0"), format!("`{error}`"))
    });
    cases.right("no later step changes the model", || {
        let weights =
            |run: &Run| -> Vec<f32> { run.model().fc1.weight.val().into_data().iter().collect() };
        let trainee = trained(pruner()?.into_trainee(3)?, [rows(0.3), rows(f32::NAN)]);
        let before = weights(&trainee);
        let after = weights(&trained(trainee, batches(1)));
        ensure(before == after, "it trained on")
    });
    let shaped: fn(&Mlp, &Tensor<2>) -> Tensor<1> = |net, x| net.forward(x.clone()).flatten(0, 1);
    let detached: fn(&Mlp, &Tensor<2>) -> Tensor<1> =
        |net, x| net.forward(x.clone()).mean().detach();
    for (name, loss, variant) in [
        ("of several numbers", shaped, "LossShape"),
        ("that is detached", detached, "LossDetached"),
    ] {
        cases.refused(
            format!("a loss {name}"),
            variant,
            ["the loss of a batch"],
            move || {
                let evaluator = mlp_evaluator(Vec::new()).with_loss(loss);
                let chain = Compressor::from_model(Mlp::new(), evaluator);
                trained(chain.into_trainee(1)?, batches(1)).finish()?;
                Ok(())
            },
        );
    }
    let parts = ["`fc1._input_0`", "finite"];
    cases.refused(
        "a quantizer of a batch of NaN",
        "Observation",
        parts,
        || -> Attempt {
            let config = ConfigList::from_json(r#"[{"op_types": ["Linear"]}]"#)?;
            let chain = QatQuantizer::from_compressor(mlp(), &config, QatConfig::new())?;
            trained(chain.into_trainee(2)?, [rows(0.3), rows(f32::NAN)]).finish()?;
            Ok(())
        },
    );
}
