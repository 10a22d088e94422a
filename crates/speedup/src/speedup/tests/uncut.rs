//! What stays masked in a small model is in its report.

use super::*;
use crate::UncutMask;

#[test]
fn a_cut_that_follows_every_mask_leaves_nothing() {
    let report = speed_up(&masks(), &Calibration::new()).unwrap().report;
    assert_eq!(report.uncut, []);
    assert!(!report.to_string().contains("masked and not cut"));
}

#[test]
fn channels_that_stay_are_listed_by_layer_with_what_keeps_them() {
    // The norm behind the first convolution keeps channel 3, and the channels of `fc` are the
    // model's output.
    let mut masks = masks();
    masks.insert(id("stem.weight"), rows(&[8, 2, 3, 3], &[1, 3, 6]));
    masks.insert(id("stem.bias"), rows(&[8], &[1, 3, 6]));
    let columns = [1.0, 0.0, 1.0].repeat(24);
    masks.insert(id("fc.weight"), Mask::new(columns, [24, 3]).unwrap());
    let report = speed_up(&masks, &Calibration::new()).unwrap().report;
    let kept = "`norm.gamma` makes the same channels and keeps them";
    let uncut = |target: &str, masked, values, channels, reason: &str| UncutMask {
        target: id(target),
        masked,
        values,
        channels,
        reason: Some(reason.to_string()),
    };
    assert_eq!(
        report.uncut,
        [
            uncut("stem.weight", 18, 108, 1, kept),
            uncut("stem.bias", 1, 6, 1, kept),
            uncut("fc.weight", 16, 48, 1, "reaches the model's output"),
        ]
    );
    let text = report.to_string();
    let line = "\n  fc.weight  16 of 48 values, 1 whole channel: reaches the model's output\n";
    assert!(text.contains(line), "{text}");
    let json = serde_json::to_string(&report).unwrap();
    let read: crate::SpeedupReport = serde_json::from_str(&json).unwrap();
    assert_eq!(read, report);
}

#[test]
fn single_values_are_counted() {
    let mut masks = masks();
    let mut values = vec![1.0; 24 * 3];
    // One in a row that goes and two in one that stays.
    values[0] = 0.0;
    values[4 * 3..4 * 3 + 2].fill(0.0);
    masks.insert(id("fc.weight"), Mask::new(values, [24, 3]).unwrap());
    let report = speed_up(&masks, &Calibration::new()).unwrap().report;
    assert_eq!(report.uncut.len(), 1);
    assert_eq!(report.uncut[0].to_string(), "fc.weight  2 of 48 values");
}
