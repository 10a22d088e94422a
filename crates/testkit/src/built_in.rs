//! The algorithms of the library.

use burn_compress::distillation::registry::{self as distillation, Needs, Supervision};
use burn_compress::pruning::registry as pruning;
use burn_compress::quantization::registry as quantization;

use crate::nets::{Batch, Net, teach, teacher};
use crate::rules::{
    binary, half_of_the_channels, hidden_states, int8, int8_with_folded_norms, logits,
};
use crate::subject::Subject;

/// Steps over which a pruner collects its score.
const SCORED: usize = 3;

/// Every pruner of the library.
pub fn pruners() -> Vec<Subject<'static>> {
    let entries = pruning::pruners::<Net, Batch>().into_iter();
    let subject = |entry: pruning::Entry<Net, Batch>| {
        let (name, channels) = (entry.name, entry.channels);
        let add = move |chain| Ok((entry.fuse)(chain, &half_of_the_channels(), SCORED)?);
        match channels {
            true => Subject::pruner(name, add),
            false => Subject::element_pruner(name, add),
        }
    };
    entries.map(subject).collect()
}

/// Every quantizer of the library, without folded batch norms.
pub fn quantizers() -> Vec<Subject<'static>> {
    let entries = quantization::quantizers::<Net, Batch>().into_iter();
    let subject = |entry: quantization::Entry<Net, Batch>| match entry.keeps_zero {
        true => Subject::quantizer(entry.name, 8, move |chain| {
            Ok((entry.fuse)(chain, &int8())?)
        }),
        false => Subject::quantizer(entry.name, 4, move |chain| {
            Ok((entry.fuse)(chain, &binary(false))?)
        }),
    };
    entries.map(subject).collect()
}

/// Every quantizer of the library, with the batch norms of three convolutions folded into them.
pub fn folding_quantizers() -> Vec<Subject<'static>> {
    let entries = quantization::quantizers::<Net, Batch>().into_iter();
    let subject = |entry: quantization::Entry<Net, Batch>| match entry.keeps_zero {
        true => Subject::folding_quantizer(entry.name, 8, move |chain| {
            Ok((entry.fuse)(chain, &int8_with_folded_norms())?)
        }),
        false => Subject::folding_quantizer(entry.name, 4, move |chain| {
            Ok((entry.fuse)(chain, &binary(true))?)
        }),
    };
    entries.map(subject).collect()
}

/// Every distiller of the library.
pub fn distillers() -> Vec<Subject<'static>> {
    let entries = distillation::distillers::<Net, Net, Batch>().into_iter();
    let subject = |entry: distillation::Entry<Net, Net, Batch>| {
        Subject::distiller(entry.name, move |chain| {
            let rules = match entry.needs {
                Needs::Logits => logits(),
                _ => hidden_states(),
            };
            let supervision =
                Supervision::new(&teacher(), teach, |batch: &Batch| batch.labels.clone());
            Ok((entry.fuse)(chain, &rules, &supervision)?)
        })
    };
    entries.map(subject).collect()
}
