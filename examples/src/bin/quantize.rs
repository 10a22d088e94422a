//! Quantization alone: int8 quantization-aware training.

use std::process::ExitCode;

use burn_compress::prelude::*;
use burn_compress_examples::pipeline;

fn main() -> ExitCode {
    pipeline::run("quantize", |setup| {
        let chain = QatQuantizer::new(
            setup.dense.clone(),
            &setup.quantization()?,
            setup.evaluator(setup.steps)?,
            QatConfig::new().with_start_step(setup.steps / 20),
        )?;
        setup.finish(chain, Budget::steps(setup.steps))
    })
}
