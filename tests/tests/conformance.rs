//! Every registered algorithm under the same tests: alone, and fused with each algorithm of the
//! other kinds.

use std::io::{self, Write};

use burn_compress::prelude::*;
use burn_compress::pruning::registry::{self as pruning, Needs};
use burn_compress_testkit::{
    Subject, check, distillers, folding_quantizers, int8, pruners, quantizers,
};
use burn_compress_tests::chains::{HALF, assert_says, prune};
use burn_compress_tests::nets::{Batch, Net, NetConfig, dummy_input, evaluator};

/// Tests all chains and prints how many they are.
fn conform<'a>(what: &str, chains: impl IntoIterator<Item = Vec<&'a Subject<'a>>>) {
    let (mut passed, mut failed) = (0, Vec::new());
    for chain in chains {
        match check(&chain) {
            Ok(()) => passed += 1,
            Err(failure) => failed.push(failure.to_string()),
        }
    }
    // Past the harness, which keeps what macros print to itself while a test passes.
    let _ = writeln!(
        io::stderr(),
        "conformance, {what}: {passed} passed, {} failed",
        failed.len()
    );
    assert!(failed.is_empty(), "{what}:\n{}", failed.join("\n"));
    assert!(passed > 0);
}

/// Every chain of one of each, in this order.
fn pairs<'a>(first: &'a [Subject<'a>], second: &'a [Subject<'a>]) -> Vec<Vec<&'a Subject<'a>>> {
    let pair = |one| second.iter().map(move |other| vec![one, other]);
    first.iter().flat_map(pair).collect()
}

#[test]
fn alone() {
    let all = [pruners(), quantizers(), distillers()];
    conform("alone", all.iter().flatten().map(|subject| vec![subject]));
}

#[test]
fn pruners_with_quantizers() {
    conform("P+Q", pairs(&pruners(), &quantizers()));
}

#[test]
fn pruners_with_quantizers_that_fold() {
    let (mut p, q) = (pruners(), folding_quantizers());
    // What a pruner reads at the output of a convolution is not there when that is folded.
    let entries = pruning::pruners::<Net, Batch>().into_iter();
    let readers = entries.filter(|entry| entry.needs == Needs::Outputs);
    let readers: Vec<&str> = readers.map(|entry| entry.name).collect();
    p.retain(|pruner| !readers.contains(&pruner.name()));
    let alone = q.iter().map(|quantizer| vec![quantizer]);
    conform("Q and P+Q with folded norms", alone.chain(pairs(&p, &q)));
}

#[test]
fn pruners_with_distillers() {
    conform("P+D", pairs(&pruners(), &distillers()));
}

#[test]
fn quantizers_with_distillers() {
    conform("Q+D", pairs(&quantizers(), &distillers()));
}

#[test]
fn pruners_with_quantizers_and_distillers() {
    let (p, q, d) = (pruners(), quantizers(), distillers());
    let mut triples = Vec::new();
    for pair in pairs(&p, &q) {
        triples.extend(d.iter().map(|distiller| vec![pair[0], pair[1], distiller]));
    }
    conform("P+Q+D", triples);
}

#[test]
fn binary_inputs_of_pruned_channels_are_refused() {
    let chain = Compressor::from_model(NetConfig::default().init(1), evaluator(6));
    let chain = prune(chain, HALF, PrunerConfig::new()).unwrap();
    let binary = BnnConfig::new().with_any_dtype(true);
    let chain = BnnQuantizer::from_compressor(chain, int8(), binary).unwrap();
    let compressed = chain.compress(Budget::steps(6)).unwrap();
    let error = ModelSpeedup::new(compressed, dummy_input()).speedup_model();
    assert_says(&error.unwrap_err(), &["conv1._input_0", "no zero"]);
}
