//! Layers without gradients, by which nothing can be scored.

use burn::module::Module;
use burn_compress_core::{Budget, Compressor, Evaluator, Wrapper};
use burn_compress_pruning::registry::{Entry, Needs};
use burn_compress_pruning::{PruningError, pruners};

use crate::nets::{self, Batch, Chain, Net, cause, rules};

fn entries(needs: Needs) -> Vec<Entry<Net, Batch>> {
    let entries = pruners().into_iter();
    entries.filter(|entry| entry.needs == needs).collect()
}

const ALL: &str = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]"#;

/// The net with a stem and a block that are not trained.
fn frozen() -> Chain {
    let net = nets::net(1);
    let net = Net {
        stem: Wrapper::new(net.stem.into_inner().no_grad()),
        block: Wrapper::new(net.block.into_inner().no_grad()),
        ..net
    };
    Compressor::from_model(net, nets::evaluator())
}

#[test]
fn frozen_layers_are_not_scored_by_gradients() {
    for pruner in entries(Needs::Gradients) {
        let error = (pruner.fuse)(frozen(), &rules(ALL), 1)
            .map(|_| ())
            .unwrap_err();
        assert!(
            matches!(cause(&error), PruningError::Frozen { .. }),
            "{error:?}"
        );
        let text = error.to_string();
        for part in [pruner.name, "`stem.weight`, `block.weight`", "unfreeze"] {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
        let config = r#"[{"op_names": ["stem"], "sparse_ratio": 0.5}]"#;
        assert!((pruner.fuse)(frozen(), &rules(config), 1).is_err());
    }
    // Everything else does not need them: factors and scores are trained beside the weights.
    for needs in [
        Needs::Weights,
        Needs::Outputs,
        Needs::Factors,
        Needs::Movement,
    ] {
        for pruner in entries(needs) {
            let chain = (pruner.fuse)(frozen(), &rules(ALL), 2).unwrap();
            chain.compress(Budget::steps(4)).unwrap();
        }
    }
}

/// The block is computed, but nothing flows back.
fn detached() -> Evaluator<Net, Batch> {
    nets::evaluator().with_loss(|net: &Net, images: &Batch| {
        let x = net.norm.forward(net.stem.forward(images.clone()));
        let x = net.grouped.forward(net.relu.forward(x));
        let x = net.block.forward(x.clone()).detach() + x;
        x.square().mean()
    })
}

#[test]
fn the_first_step_finds_layers_that_no_gradient_reaches() {
    let all = entries(Needs::Gradients)
        .into_iter()
        .chain(entries(Needs::Movement));
    for pruner in all {
        let chain = Compressor::from_model(nets::net(1), detached());
        let mut chain = (pruner.fuse)(chain, &rules(ALL), 2).unwrap();
        let error = chain
            .advance(&Budget::steps(4), Some(1))
            .unwrap_err()
            .to_string();
        for part in [pruner.name, "`block.weight`", "detaches"] {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
        assert!(!error.contains("stem"), "{error}");
    }
}
