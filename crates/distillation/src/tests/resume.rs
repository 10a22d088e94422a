//! A run that stops goes on bit for bit, trained projections included.

use burn_compress_core::{Budget, Compressor};
use rstest::rstest;

use super::*;
use crate::distillers;
use crate::registry::{Entry, Needs, Supervision};

fn entry(name: &str) -> Entry<Net, Net, Batch> {
    let mut all = distillers().into_iter();
    all.find(|entry| entry.name == name).unwrap()
}

fn fused(name: &str) -> Compressor<Net, Batch> {
    let entry = entry(name);
    // The input of the classifier has another width in the teacher, its output has not.
    let (rule, width) = match entry.needs {
        Needs::EqualFront => (r#"{"op_names": ["fc"], "target_names": ["_input_"]}"#, 5),
        Needs::Logits | Needs::Samples => (r#"{"op_names": ["fc"]}"#, 5),
        Needs::EqualShapes => (r#"{"op_names": ["second"]}"#, 3),
        _ => (r#"{"op_names": ["second"]}"#, 5),
    };
    let rules = super::rules(&format!("[{rule}]"));
    let supervision = Supervision::new(&net(width, 2), logits, labels);
    (entry.fuse)(chain(3), &rules, &supervision).unwrap()
}

#[rstest]
#[case("DynamicLayerwiseDistiller")]
#[case("Adaptive1dLayerwiseDistiller")]
#[case("FitNetsDistiller")]
#[case("AttentionDistiller")]
#[case("RelationalDistiller")]
#[case("LogitsDistiller")]
#[case("DkdDistiller")]
fn bit_for_bit(#[case] name: &str) {
    let budget = Budget::steps(6);
    let whole = fused(name).compress(budget.clone()).unwrap();
    let path = std::env::temp_dir().join(format!("burn-compress-{}-{name}", std::process::id()));
    let mut stopped = fused(name);
    stopped.advance(&budget, Some(2)).unwrap();
    stopped.save_checkpoint(&path).unwrap();
    let resumed = fused(name).resume(&path);
    std::fs::remove_file(&path).unwrap();
    let resumed = resumed.unwrap().compress(budget).unwrap();
    assert_eq!(losses(&resumed), losses(&whole));
    assert_eq!(bits(&resumed.unwrap_model()), bits(&whole.unwrap_model()));
}
