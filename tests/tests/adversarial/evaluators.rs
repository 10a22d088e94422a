//! What an evaluator lacks, and dummy inputs that do not fit the model.

use burn::optim::AdamConfig;
use burn::tensor::{Device, Tensor};
use burn_compress::prelude::*;
use burn_compress_tests::chains::{self, Chain, HALF};
use burn_compress_tests::nets::{Batch, Net, SIDE, batches, dummy_input};

use crate::fixtures::{DISTILL, NET, QUANTIZE, halved, net};
use crate::table::{Attempt, Cases};

/// A part of an evaluator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Dummy,
    Data,
    Optimizer,
    Rate,
    Loss,
}

const PARTS: [(Part, &str); 5] = [
    (Part::Dummy, "with_dummy_input"),
    (Part::Data, "with_data"),
    (Part::Optimizer, "with_optimizer"),
    (Part::Rate, "with_learning_rate"),
    (Part::Loss, "with_loss"),
];

fn evaluator_without(part: Part) -> Evaluator<Net, Batch> {
    let mut evaluator = Evaluator::new();
    if part != Part::Dummy {
        evaluator = evaluator.with_dummy_input(dummy_input());
    }
    if part != Part::Data {
        evaluator = evaluator.with_data(|epoch| batches(5, epoch));
    }
    if part != Part::Optimizer {
        evaluator = evaluator.with_optimizer(AdamConfig::new().init());
    }
    if part != Part::Rate {
        evaluator = evaluator.with_learning_rate(1e-2);
    }
    if part != Part::Loss {
        evaluator = evaluator.with_loss(Net::loss);
    }
    evaluator
}

fn chain_without(part: Part) -> Chain {
    Compressor::from_model(net(), evaluator_without(part))
}

/// Makes a compressor and runs it.
type Run = fn(Chain) -> Attempt;

fn finish(chain: Chain) -> Attempt {
    chain.compress(Budget::steps(2))?;
    Ok(())
}

pub fn fill(cases: &mut Cases) {
    let training = [Part::Data, Part::Optimizer, Part::Rate, Part::Loss];
    let forward = [Part::Data, Part::Loss];
    let algorithms: [(&str, &[Part], Run); 10] = [
        ("L1NormPruner", &[Part::Dummy], |chain| {
            chains::prune(chain, HALF, PrunerConfig::new())?.compress(Budget::none())?;
            Ok(())
        }),
        ("TaylorPruner", &training, |chain| {
            let config = ConfigList::from_json(HALF)?;
            finish(TaylorPruner::from_compressor(
                chain,
                &config,
                TaylorConfig::new(1),
            )?)
        }),
        ("ApozPruner", &training, |chain| {
            let config = ConfigList::from_json(HALF)?;
            finish(ApozPruner::from_compressor(
                chain,
                &config,
                ApozConfig::new(1),
            )?)
        }),
        ("SlimPruner", &training, |chain| {
            let config = ConfigList::from_json(HALF)?;
            finish(SlimPruner::from_compressor(
                chain,
                &config,
                SlimConfig::new(1),
            )?)
        }),
        ("MovementPruner", &training, |chain| {
            let config = ConfigList::from_json(HALF)?;
            finish(MovementPruner::from_compressor(
                chain,
                &config,
                MovementConfig::new(0, 1),
            )?)
        }),
        ("QatQuantizer", &training, |chain| {
            finish(chains::quantize(chain, QUANTIZE, QatConfig::new())?)
        }),
        ("LsqQuantizer", &training, |chain| {
            let config = ConfigList::from_json(QUANTIZE)?;
            finish(LsqQuantizer::from_compressor(
                chain,
                &config,
                LsqConfig::new(),
            )?)
        }),
        ("PtqQuantizer", &forward, |chain| {
            let config = ConfigList::from_json(QUANTIZE)?;
            let chain = PtqQuantizer::from_compressor(chain, &config, PtqConfig::new())?;
            chain.compress(Budget::none())?;
            Ok(())
        }),
        ("AdaRoundQuantizer", &forward, |chain| {
            let config = ConfigList::from_json(QUANTIZE)?;
            let options = AdaRoundConfig::new().with_steps(1);
            let chain = AdaRoundQuantizer::from_compressor(chain, &config, options)?;
            chain.compress(Budget::none())?;
            Ok(())
        }),
        ("DynamicLayerwiseDistiller", &training, |chain| {
            finish(chains::distill(chain, DISTILL, &NET.init(2), 1.0)?)
        }),
    ];
    for (name, needs, run) in algorithms {
        for (part, builder) in PARTS.iter().filter(|(part, _)| needs.contains(part)) {
            let part = *part;
            let parts = [name.to_owned(), format!("`.{builder}(..)`")];
            let case = format!("{name}: an evaluator without {part:?}");
            cases.refused(case, "MissingEvaluator", parts, move || {
                run(chain_without(part))
            });
        }
    }
    for (part, builder) in &PARTS[1..] {
        let part = *part;
        let parts = ["the training run".to_owned(), format!("`.{builder}(..)`")];
        let case = format!("a plain run: an evaluator without {part:?}");
        cases.refused(case, "MissingEvaluator", parts, move || {
            finish(chain_without(part))
        });
    }
    dummy_inputs(cases);
}

fn images(shape: [usize; 4]) -> DummyInput<Net> {
    let images = Tensor::<4>::ones(shape, &Device::flex());
    DummyInput::new(images, |net: &Net, images| net.forward(images))
}

/// Dummy inputs of the graph and of the speedup.
fn dummy_inputs(cases: &mut Cases) {
    type Make = fn() -> DummyInput<Net>;
    let inputs: [(&str, Make, &str, &[&str]); 6] = [
        (
            "another number of channels",
            || images([1, 3, SIDE, SIDE]),
            "Forward",
            &["forward pass", "dummy input"],
        ),
        (
            "a forward pass that panics",
            || {
                let images = Tensor::<4>::ones([1, 1, SIDE, SIDE], &Device::flex());
                DummyInput::new(images, |_: &Net, _: Tensor<4>| -> Tensor<2> {
                    panic!("out of cheese")
                })
            },
            "Forward",
            &["forward pass failed", "out of cheese"],
        ),
        (
            "a forward pass that reads values",
            || {
                let images = Tensor::<4>::ones([1, 1, SIDE, SIDE], &Device::flex());
                DummyInput::new(images, |net: &Net, images: Tensor<4>| {
                    let mean: f32 = images.clone().mean().into_scalar();
                    net.forward(images * mean)
                })
            },
            "Forward",
            &["forward pass failed", "reads no tensor values"],
        ),
        (
            "an output of another device",
            || {
                let images = Tensor::<4>::ones([1, 1, SIDE, SIDE], &Device::flex());
                DummyInput::new(images, |_: &Net, _: Tensor<4>| {
                    Tensor::<2>::ones([1, 3], &Device::flex())
                })
            },
            "OutputDevice",
            &["output 0", "device of the model"],
        ),
        (
            "no images",
            || images([0, 1, SIDE, SIDE]),
            "EmptyInput",
            &["[0, 1, 6, 6]", "at least one sample"],
        ),
        (
            "images of no size",
            || images([1, 1, 0, 0]),
            "Graph",
            &["dummy input"],
        ),
    ];
    for (name, make, variant, parts) in inputs {
        cases.refused(
            format!("dummy input of a pruner: {name}"),
            variant,
            parts,
            move || {
                let evaluator = evaluator_without(Part::Dummy).with_dummy_input(make());
                let config = ConfigList::from_json(HALF)?;
                L1NormPruner::new(net(), &config, evaluator, PrunerConfig::new())?;
                Ok(())
            },
        );
        cases.refused(
            format!("dummy input of a speedup: {name}"),
            variant,
            parts,
            move || {
                ModelSpeedup::new(halved()?, make()).speedup_model()?;
                Ok(())
            },
        );
    }
}
