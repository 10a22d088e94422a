//! How many channels a ratio removes, and from all members of a group.

use burn_compress::graph::GraphError;
use burn_compress::prelude::*;
use burn_compress_tests::chains::{Chain, HALF, id, prune};
use burn_compress_tests::nets::dummy_input;
use rstest::rstest;

use crate::fixtures::{DISTILL, STEPS, chain, distilled, pruned, removed};

#[rstest]
#[case::none(Budget::none())]
#[case::training(Budget::steps(4))]
fn norm_pruners_that_are_fused_directly_generate_masks(#[case] budget: Budget) {
    type Fuse = fn(Chain, &ConfigList<PruningSettings>) -> Result<Chain, Error>;
    let pruners: [Fuse; 3] = [
        |chain, config| L1NormPruner::from_compressor(chain, config, PrunerConfig::new()),
        |chain, config| L2NormPruner::from_compressor(chain, config, PrunerConfig::new()),
        |chain, config| LevelPruner::from_compressor(chain, config, PrunerConfig::new()),
    ];
    let config = ConfigList::from_json(HALF).unwrap();
    for fuse in pruners {
        let chain = distilled(chain(), DISTILL).unwrap();
        let masks = fuse(chain, &config)
            .unwrap()
            .compress(budget.clone())
            .unwrap()
            .masks();
        let mask = &masks[&id("block.conv2.weight")];
        assert_eq!(mask.sparsity(), 0.5);
    }
}

/// The groups of the network: the weights and all that follows them, and their channels.
const GROUPS: [(&[&str], usize); 3] = [
    (&["stem.weight", "stem.bias", "bn.gamma", "bn.beta"], 6),
    (
        &[
            "block.conv1.weight",
            "block.conv1.bias",
            "block.bn1.gamma",
            "block.bn1.beta",
        ],
        8,
    ),
    (
        &[
            "block.conv2.weight",
            "block.conv2.bias",
            "block.bn2.gamma",
            "block.bn2.beta",
            "block.project.weight",
            "block.project.bias",
        ],
        8,
    ),
];

fn ratio(ratio: f64) -> String {
    format!(r#"[{{"op_types": ["Conv2d"], "sparse_ratio": {ratio}}}]"#)
}

#[rstest]
#[case(0.0)]
#[case(0.1)]
#[case(0.3)]
#[case(0.5)]
#[case(0.7)]
#[case(0.99)]
fn every_group_loses_exactly_its_part(#[case] goal: f64) {
    let rules = ratio(goal);
    let gradual = (pruned(chain(), &rules), Budget::steps(STEPS));
    let at_once = (prune(chain(), &rules, PrunerConfig::new()), Budget::none());
    for (chain, budget) in [gradual, at_once] {
        let masks = chain.unwrap().compress(budget).unwrap().masks();
        for (members, channels) in GROUPS {
            let first = removed(&masks, members[0]);
            assert_eq!(first.len(), (channels as f64 * goal) as usize);
            for member in members {
                assert_eq!(removed(&masks, member), first, "{member}");
            }
        }
    }
}

#[test]
fn at_least_one_channel_stays() {
    let chain = pruned(chain(), &ratio(1.0)).unwrap();
    let compressed = chain.compress(Budget::steps(STEPS)).unwrap();
    for (members, channels) in GROUPS {
        assert_eq!(removed(&compressed.masks(), members[0]).len(), channels - 1);
    }
    let small = ModelSpeedup::new(compressed, dummy_input())
        .speedup_model()
        .unwrap();
    assert_eq!(small.model.stem.weight.dims(), [1, 1, 3, 3]);
    assert_eq!(small.model.block.conv2.weight.dims(), [1, 1, 3, 3]);
}

#[test]
fn without_that_protection_the_speedup_names_the_empty_layer() {
    let pruner = PrunerConfig::new().with_keep_at_least_one(false);
    let chain = prune(chain(), &ratio(1.0), pruner).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let error = ModelSpeedup::new(compressed, dummy_input())
        .speedup_model()
        .unwrap_err();
    let cause = error.downcast_ref();
    assert!(
        matches!(cause, Some(GraphError::NothingLeft { .. })),
        "{error}"
    );
    assert!(error.to_string().contains("`stem`"), "{error}");
}
