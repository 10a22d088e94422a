//! The main job: pruning, quantization and distillation fused over one network, in one run.

use std::process::ExitCode;

use burn_compress::prelude::*;
use burn_compress_examples::{fused, pipeline};

fn main() -> ExitCode {
    pipeline::run("prune_quantize_distill", |setup| {
        let chain = fused::prune_quantize_distill(setup)?;
        setup.finish(chain, Budget::steps(setup.steps))
    })
}
