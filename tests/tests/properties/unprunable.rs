//! One error names everything that cannot be pruned, and what is left is cut wherever it is masked.

use burn::tensor::Device;
use burn_compress::Obstacle;
use burn_compress::prelude::*;
use burn_compress::pruning::PruningError;
use burn_compress_tests::random_net::{Net, NetSpec};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};

use crate::comparison::speed_up;
use crate::harness::check;
use crate::pruned::{evaluator, weighted};
use crate::strategy;

type Chain = Compressor<Net, burn::tensor::Tensor<4>>;

fn prune(
    spec: &NetSpec,
    dense: &Net,
    rule: Value,
    device: &Device,
) -> Result<Result<Chain, Error>, TestCaseError> {
    let config = ConfigList::from_json(&json!([rule]).to_string())?;
    let options = PrunerConfig::new();
    let evaluator = evaluator(spec, device);
    Ok(L1NormPruner::new(
        dense.clone(),
        &config,
        evaluator,
        options,
    ))
}

#[test]
fn one_round_of_exclusions_is_enough() {
    let name = "everything that cannot be pruned is listed at once";
    let strategy = (strategy::nets(), 0.3f64..=0.9);
    let tally = check(name, 150, strategy, |(spec, ratio), tally| {
        let device = Device::flex();
        let dense = spec.build(&device);
        let mut names = weighted(&dense);
        let all = json!({"op_names": names, "sparse_ratio": ratio});
        // The last layer makes the output of the network.
        let refused = prune(&spec, &dense, all, &device)?.err();
        let cause = refused.as_ref().and_then(Error::downcast_ref);
        let Some(PruningError::Unprunable { obstacles }) = cause else {
            return Err(TestCaseError::fail("nothing was refused"));
        };
        let skip = json!({"op_names": names, "sparse_ratio": ratio, "on_unprunable": "skip"});
        let skipped = prune(&spec, &dense, skip, &device)?;
        let refused = |layer: &String| obstacles.iter().any(|o| o.target.layer == *layer);
        names.retain(|layer| !refused(layer));
        tally.add("refused layers", obstacles.len() as u64);
        if names.is_empty() {
            prop_assert!(skipped.is_err());
            return Ok(());
        }
        let rest = json!({"op_names": names, "sparse_ratio": ratio});
        let rest = prune(&spec, &dense, rest, &device)?;
        let removes_nothing = |obstacle: &Obstacle| obstacle.reason.contains("removes none of");
        let goals = obstacles.iter().filter(|&o| removes_nothing(o)).count();
        tally.add("layers of which nothing could be removed", goals as u64);
        let skipped = skipped?;
        prop_assert_eq!(skipped.skipped(), &obstacles[..]);
        let rest = rest?.compress(Budget::none())?;
        let skipped = skipped.compress(Budget::none())?;
        prop_assert_eq!(rest.masks(), skipped.masks());
        prop_assert_eq!(skipped.skipped(), &obstacles[..]);
        if let Some(small) = speed_up(&spec, &rest, tally)? {
            prop_assert_eq!(small.report.uncut, []);
            tally.add("networks that were cut", 1);
        }
        Ok(())
    });
    assert!(tally.get("networks that were cut") >= 60);
}
