use rstest::rstest;

use super::*;
use crate::result::{Measured, SparsityPoint};

fn unit(name: &str, channels: usize, points: &[(usize, f64)]) -> UnitSensitivity {
    let point = |&(removed, loss): &(usize, f64)| SparsityPoint {
        sparsity: removed as f64 / channels as f64,
        removed,
        measured: Measured::new(loss, None),
    };
    UnitSensitivity {
        layers: vec![name.to_string()],
        channels,
        parts: 1,
        points: points.iter().map(point).collect(),
    }
}

/// Unit `a` has 10 channels of 10 parameters, unit `b` 10 channels of 5, and 2 MACs a parameter. The
/// loss is 1 as it is.
fn result(a: &[(usize, f64)], b: &[(usize, f64)]) -> Sensitivity {
    let product = |scale: f64, unit: usize| serde_json::json!({"scale": scale, "factors": [{"fixed": 0, "units": {unit.to_string(): 10}}]});
    let costs = serde_json::json!({
        "parameters": [product(10.0, 0), product(5.0, 1)],
        "macs": [product(20.0, 0), product(10.0, 1)],
    });
    Sensitivity {
        dense: Measured::new(1.0, None),
        sparsities: a
            .iter()
            .map(|&(removed, _)| removed as f64 / 10.0)
            .collect(),
        batches: 1,
        units: vec![unit("a", 10, a), unit("b", 10, b)],
        costs: Some(serde_json::from_value(costs).unwrap()),
        ..Sensitivity::default()
    }
}

/// Slopes of 0.2 and 0.25 a channel for `a`, of 0.05 and 1 for `b`.
fn two() -> Sensitivity {
    result(&[(5, 2.0), (9, 3.0)], &[(5, 1.25), (9, 5.25)])
}

#[rstest]
// A parameter costs 0.01 from `b` and 0.02 from `a`: five channels of `b` take 25 of the 50, three of
// `a` take 30.
#[case(SizeBudget::Parameters(100), [3, 5], 95, 0.85)]
#[case(SizeBudget::ParameterRatio(2.0 / 3.0), [3, 5], 95, 0.85)]
#[case(SizeBudget::Macs(200), [3, 5], 95, 0.85)]
#[case(SizeBudget::MacsRatio(0.95), [0, 2], 140, 0.1)]
// Then the last four of `a`, at 0.025 a parameter, before any more of `b`, at 0.2.
#[case(SizeBudget::Parameters(40), [9, 5], 35, 2.25)]
#[case(SizeBudget::Parameters(31), [9, 6], 30, 3.25)]
fn steps_by_cost_and_gain(
    #[case] budget: SizeBudget,
    #[case] removed: [usize; 2],
    #[case] parameters: u64,
    #[case] increase: f64,
) {
    let allocation = two().allocate(budget).unwrap();
    let found = |name: &str| {
        let mut units = allocation.units.iter();
        let unit = units.find(|unit| unit.layers == [name]);
        unit.map_or(0, |unit| unit.removed)
    };
    assert_eq!([found("a"), found("b")], removed);
    assert_eq!(
        (allocation.parameters, allocation.macs),
        (parameters, 2 * parameters)
    );
    assert!(
        (allocation.increase - increase).abs() < 1e-12,
        "{}",
        allocation.increase
    );
}

#[test]
fn rules_remove_what_was_allocated() {
    let rules = two().rules_for(SizeBudget::Parameters(100)).unwrap();
    let json = r#"[
        {"op_names": ["a"], "sparse_ratio": 0.3},
        {"op_names": ["b"], "sparse_ratio": 0.5}
    ]"#;
    assert_eq!(rules, ConfigList::from_json(json).unwrap());
}

#[test]
fn what_stays_is_a_multiple() {
    let mut result = result(&[(6, 2.0)], &[(6, 1.25)]);
    result.settings.round_to = Some(4);
    // Of ten, eight or four stay: `b` loses 2 and then 4 more, which is 30, and `a` 2 of 10 each.
    let allocation = result.allocate(SizeBudget::Parameters(100)).unwrap();
    let removed: Vec<usize> = allocation.units.iter().map(|unit| unit.removed).collect();
    assert_eq!((removed, allocation.parameters), (vec![2, 6], 100));
    let rules = allocation.rules();
    assert_eq!(rules.rules[0].settings.round_to, Some(4));

    // Two parts of five: what goes is a multiple of 2, and each part loses its own share.
    let mut result = super::tests::result(&[(8, 2.0)], &[(8, 1.25)]);
    result.units[1].parts = 2;
    let allocation = result.allocate(SizeBudget::Parameters(135)).unwrap();
    assert_eq!(
        (
            allocation.units[0].removed,
            allocation.units[0].sparse_ratio
        ),
        (4, 0.4)
    );
}

#[rstest]
#[case(&[(2, 3.0), (4, 1.0), (6, 5.0)], &[(0, 0.0), (4, 1.0), (6, 5.0)])]
#[case(&[(3, -1.0), (6, 2.0)], &[(0, 0.0), (3, -1.0), (6, 2.0)])]
#[case(&[(2, 1.0), (4, 2.0)], &[(0, 0.0), (4, 2.0)])]
#[case(&[(4, 2.0), (4, 1.0), (0, 0.5)], &[(0, 0.0), (4, 1.0)])]
#[case(&[], &[(0, 0.0)])]
fn hull_is_convex(#[case] points: &[(usize, f64)], #[case] expected: &[(usize, f64)]) {
    let points = [(0, 0.0)].iter().chain(points).copied().collect();
    assert_eq!(hull(points), expected);
}

#[test]
fn a_curve_is_a_line_between_its_corners() {
    let result = two();
    let curve = Curve::new(&result.units[1], &result);
    let increases = [0, 1, 5, 6, 9].map(|removed| curve.increase(removed));
    for (found, expected) in increases.iter().zip([0.0, 0.05, 0.25, 1.25, 4.25]) {
        assert!((found - expected).abs() < 1e-12, "{increases:?}");
    }
    assert_eq!(
        (curve.next(8), curve.next(9), curve.most()),
        (Some(9), None, 9)
    );
}

#[test]
fn a_loss_that_is_not_finite_is_no_corner() {
    let mut result = two();
    result.units[0].points[1].measured = Measured::new(f64::NAN, None);
    let curve = Curve::new(&result.units[0], &result);
    assert_eq!(curve.most(), 5);
}

#[test]
fn the_ratio_removes_exactly_as_many() {
    for channels in 1..400 {
        for removed in 1..channels {
            let ratio = ratio(removed, channels);
            assert!(ratio < 1.0);
            assert_eq!(
                (channels as f64 * ratio) as usize,
                removed,
                "{removed} of {channels}"
            );
        }
    }
}

#[rstest]
#[case(
    SizeBudget::Parameters(14),
    "14 parameters is out of reach: 15 are left"
)]
#[case(SizeBudget::Macs(2), "2 MACs is out of reach: 30 are left")]
#[case(SizeBudget::Parameters(0), "nothing would be left")]
#[case(SizeBudget::MacsRatio(f64::NAN), "nothing would be left")]
#[case(SizeBudget::MacsRatio(-0.5), "nothing would be left")]
#[case(SizeBudget::Parameters(150), "no larger as it is")]
#[case(SizeBudget::ParameterRatio(1.0), "no larger as it is")]
fn budgets_that_make_no_rules(#[case] budget: SizeBudget, #[case] expected: &str) {
    let error = two().allocate(budget).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn results_that_make_no_rules() {
    let error = |change: fn(&mut Sensitivity)| {
        let mut result = two();
        change(&mut result);
        let error = result.rules_for(SizeBudget::Parameters(100)).unwrap_err();
        error.to_string()
    };
    assert!(error(|result| result.units[1].points.truncate(1)).contains("not complete"));
    assert!(error(|result| result.costs = None).contains("pruned alone"));
    assert!(error(|result| result.units.clear()).contains("no layer was pruned"));
}
