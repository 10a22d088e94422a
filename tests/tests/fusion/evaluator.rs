//! The one evaluator of a chain: given late, given twice, not given.

use burn::optim::SgdConfig;
use burn_compress::prelude::*;
use burn_compress_tests::chains::{Built, Chain, HALF, outcome, prune};
use burn_compress_tests::nets::{Batch, Net, evaluator};

use crate::fixtures::{DISTILL, QUANTIZE, STEPS, chain, distilled, net, pruned, quantized};

#[test]
fn a_second_evaluator_is_ignored() {
    let other = Evaluator::new()
        .with_data(|_epoch| Vec::<Batch>::new())
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.5)
        .with_loss(|net: &Net, batch: &Batch| net.loss(batch) * 1000.0);
    let run = |chain: Chain| outcome(chain, &Budget::steps(3));
    assert_eq!(run(chain().with_evaluator(other.clone())), run(chain()));
    // A chain without one takes it: its data is empty.
    let empty = Compressor::from_model(net(), Evaluator::new()).with_evaluator(other);
    let error = empty.compress(Budget::steps(3)).unwrap_err();
    assert!(matches!(error, Error::NoBatches { epoch: 0 }), "{error}");
}

#[test]
fn an_evaluator_that_is_given_late_trains_like_one_that_is_given_first() {
    let late = Compressor::from_model(net(), Evaluator::new()).with_evaluator(evaluator(STEPS));
    let run = |chain| outcome(pruned(chain, HALF).unwrap(), &Budget::steps(STEPS));
    assert_eq!(run(late), run(chain()));
}

/// What a constructor says that lacks something of the evaluator.
fn missing(built: Built) -> String {
    let error = built.unwrap_err();
    let core = error.downcast_ref::<Error>();
    assert!(
        matches!(core, Some(Error::MissingEvaluator { .. })),
        "{error}"
    );
    error.to_string()
}

#[test]
fn a_missing_evaluator_is_an_error_of_the_constructor() {
    let bare = || Compressor::from_model(net(), Evaluator::new());
    let taylor = |chain| -> Built {
        let config = ConfigList::from_json(HALF)?;
        Ok(TaylorPruner::from_compressor(
            chain,
            &config,
            TaylorConfig::new(2),
        )?)
    };
    let agp = |chain| -> Built {
        let chain = prune(chain, HALF, PrunerConfig::new().with_coupled(false))?;
        Ok(AgpPruner::new(chain, AgpConfig::new(1, 1))?)
    };
    for (text, name) in [
        (missing(taylor(bare())), "TaylorPruner"),
        (missing(agp(bare())), "AgpPruner"),
        (missing(quantized(bare(), QUANTIZE)), "QatQuantizer"),
        (
            missing(distilled(bare(), DISTILL)),
            "DynamicLayerwiseDistiller",
        ),
    ] {
        assert!(
            text.starts_with(name) && text.contains("with_data"),
            "{text}"
        );
    }
    // One part after the other.
    let base = || {
        Evaluator::<Net, Batch>::new()
            .with_data(|_| Vec::new())
            .with_loss(Net::loss)
    };
    let over = |evaluator| missing(taylor(Compressor::from_model(net(), evaluator)));
    assert!(over(base()).contains("`.with_optimizer(..)`"));
    let optimizer = || SgdConfig::new().init();
    assert!(over(base().with_optimizer(optimizer())).contains("`.with_learning_rate(..)`"));
    // Coupled channels need the graph.
    let trains = base().with_optimizer(optimizer()).with_learning_rate(0.1);
    assert!(over(trains).contains("`.with_dummy_input(..)`"));
}
