//! Distillation alone: the network learns again, from its own dense snapshot.

use std::process::ExitCode;

use burn_compress::prelude::*;
use burn_compress_examples::digits::DigitsBatch;
use burn_compress_examples::resnet::DigitsResNet;
use burn_compress_examples::{configs, pipeline};

fn main() -> ExitCode {
    pipeline::run("distill", |setup| {
        let chain = DynamicLayerwiseDistiller::new(
            setup.dense.clone(),
            &configs::distillation()?,
            setup.evaluator(setup.steps)?,
            &setup.dense,
            |teacher: &DigitsResNet, batch: &DigitsBatch| teacher.forward(batch.images.clone()),
            DistillConfig::new(0.1),
        )?;
        setup.finish(chain, Budget::steps(setup.steps))
    })
}
