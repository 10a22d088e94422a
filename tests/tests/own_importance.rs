//! A user's importances under the tests of the built-in pruners: alone, and fused with a quantizer
//! and a distiller, to the small model.

use burn_compress::prelude::*;
use burn_compress::pruning::sources::{Gradients, Outputs};
use burn_compress::pruning::{Blocks, Importance, Pruner, ScoreSource};
use burn_compress_testkit::{Subject, check, distillers, half_of_the_channels, quantizers};

/// Channels whose values spread least around their mean go first.
struct Spread;

impl Importance for Spread {
    fn score(&self, values: &[f32], blocks: &Blocks) -> Vec<f32> {
        blocks.reduce(values, |block| {
            let mean = block.iter().sum::<f32>() / block.len() as f32;
            block.iter().map(|value| (value - mean).powi(2)).sum()
        })
    }
}

/// The largest value of a channel.
struct Peak;

impl Importance for Peak {
    fn score(&self, values: &[f32], blocks: &Blocks) -> Vec<f32> {
        blocks.reduce(values, |block| block.iter().copied().fold(0.0, f32::max))
    }
}

fn over<S: ScoreSource + Copy>(name: &'static str, source: S) -> Subject<'static> {
    Subject::pruner(name, move |chain| {
        let pruner = Pruner::over(source, Peak).with_name(name);
        Ok(pruner.from_compressor(chain, half_of_the_channels())?)
    })
}

#[test]
fn a_user_s_pruners_conform() {
    let own = [
        Subject::pruner("Spread", |chain| {
            Ok(Pruner::with(Spread).from_compressor(chain, half_of_the_channels())?)
        }),
        over("TaylorPeak", Gradients::taylor(3)),
        over("OutputPeak", Outputs::magnitudes(3)),
    ];
    let (quantizers, distillers) = (quantizers(), distillers());
    let quantizer = quantizers.iter().find(|one| one.name() == "QatQuantizer");
    let distiller = distillers
        .iter()
        .find(|one| one.name() == "LogitsDistiller");
    let (quantizer, distiller) = (quantizer.unwrap(), distiller.unwrap());
    for own in &own {
        for chain in [
            vec![own],
            vec![own, quantizer],
            vec![own, quantizer, distiller],
        ] {
            if let Err(failure) = check(&chain) {
                panic!("{failure}");
            }
        }
    }
}

#[test]
fn a_user_s_pruner_follows_a_schedule() {
    let scheduled = Subject::pruner("AgpPruner", |chain| {
        let pruner = Pruner::over(Gradients::fisher(2), Peak);
        let pruner = pruner.from_compressor(chain, half_of_the_channels())?;
        Ok(AgpPruner::new(pruner, AgpConfig::new(2, 3))?)
    });
    if let Err(failure) = check(&[&scheduled]) {
        panic!("{failure}");
    }
}
