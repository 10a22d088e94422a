//! Runs that are finished before their end.

use burn_compress::Error;
use burn_compress::prelude::*;
use burn_compress_tests::chains::{Chain, HALF, assert_says, prune_by_schedule};
use burn_compress_tests::nets::{NetConfig, evaluator};

/// A chain that prunes for the last time after step 6.
fn chain() -> Chain {
    let chain = Compressor::from_model(NetConfig::default().init(1), evaluator(6));
    prune_by_schedule(chain, HALF, AgpConfig::new(3, 2)).unwrap()
}

fn advanced(steps: usize) -> Chain {
    let mut chain = chain();
    chain.advance(&Budget::steps(6), Some(steps)).unwrap();
    chain
}

#[test]
fn a_chain_that_never_ran_is_not_finished() {
    let error = chain().finish().unwrap_err();
    assert!(matches!(error, Error::NotBegun), "{error}");
    assert_says(&error, &["compress", "advance"]);
    assert!(matches!(chain().finish_early(), Err(Error::NotBegun)));
}

#[test]
fn too_few_steps_are_told_with_what_to_do() {
    for done in [0, 1, 5] {
        let error = advanced(done).finish().unwrap_err();
        let expected = format!("{done} of the 6 steps");
        assert_says(&error, &[&expected, "finish_early"]);
        let trainee = chain().into_trainee(6).unwrap();
        assert!(matches!(
            trainee.finish(),
            Err(Error::Unfinished { done: 0, total: 6 })
        ));
        let early = advanced(done).finish_early().unwrap();
        assert_eq!(early.history().steps.len(), done);
        // The first update of the schedule is after step 3.
        assert_eq!(early.masks().is_empty(), done < 3);
    }
    assert!(advanced(6).finish().is_ok());
}
