use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn record(step: usize) -> StepRecord {
    StepRecord {
        step,
        loss: 0.1 + step as f64,
        task_loss: 1e-300,
        learning_rate: 1.0 / 3.0,
        sparsity: 0.0,
    }
}

fn history() -> History {
    History {
        steps: (1..=4).map(record).collect(),
        evaluations: vec![(2, 0.5), (4, -7.25)],
    }
}

#[rstest]
#[case(History { evaluations: vec![(5, 0.5), (10, f64::NAN)], ..history() }, "the evaluation after step 10 is NaN")]
#[case(
    History { steps: vec![record(1), StepRecord { task_loss: f64::INFINITY, ..record(2) }], ..history() },
    "the task loss after step 2 is inf"
)]
fn a_number_that_json_cannot_hold_is_an_error(#[case] history: History, #[case] expected: &str) {
    let error = serde_json::to_string(&history).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.json");
    let error = history.save_json(&path).unwrap_err().to_string();
    assert!(
        error.contains(expected) && error.contains("history.json"),
        "{error}"
    );
    assert!(!path.exists());
    history.save_csv(&path).unwrap();
}

#[test]
fn files_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, json) = (
        folder.path().join("run.csv"),
        folder.path().join("run.json"),
    );
    History::default().save_csv(&csv).unwrap();
    history().save_csv(&csv).unwrap();
    history().save_json(&json).unwrap();
    let text = std::fs::read_to_string(&csv).unwrap();
    assert_eq!(History::from_csv(&text).unwrap(), history());
    let text = std::fs::read_to_string(&json).unwrap();
    assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    let error = history().save_csv(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("cannot be written: it is a folder"),
        "{error}"
    );
}

#[test]
fn an_evaluation_without_a_step_has_a_row_of_its_own() {
    let history = History {
        steps: vec![record(2)],
        evaluations: vec![(1, 0.5), (2, 0.75), (2, 1e21), (9, f64::INFINITY)],
    };
    let csv = history.to_csv();
    let rows = [
        "step,loss,task_loss,learning_rate,sparsity,metric",
        "1,,,,,0.5",
        "2,2.1,1e-300,0.3333333333333333,0.0,0.75",
        "2,,,,,1e21",
        "9,,,,,inf",
    ];
    assert_eq!(csv.lines().collect::<Vec<_>>(), rows);
    assert_eq!(History::from_csv(&csv).unwrap(), history);
    let of_windows = csv.replace('\n', "\r\n");
    assert_eq!(History::from_csv(&of_windows).unwrap(), history);
}

#[rstest]
#[case("", "its first line is ``, expected `step,loss,")]
#[case("step,loss\n", "its first line is `step,loss`")]
#[case(
    "1,2.0,2.0,0.1,0.0\n",
    "line 2, `1,2.0,2.0,0.1,0.0`: 5 fields, expected 6"
)]
#[case("7\n", "one field, expected 6")]
#[case("1,2.0,2.0,0.1,0.0,\n\n", "line 3, ``: one field")]
#[case("-1,2.0,2.0,0.1,0.0,\n", "`-1` is no number of steps")]
#[case("1,2.0,,0.1,0.0,\n", "`` is no number")]
#[case("1,2.0,x,0.1,0.0,\n", "`x` is no number")]
#[case("1,,,,,\n", "neither a step nor an evaluation")]
fn another_text_is_refused(#[case] rows: &str, #[case] expected: &str) {
    let header = "step,loss,task_loss,learning_rate,sparsity,metric\n";
    let text = match rows.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
        true => format!("{header}{rows}"),
        false => rows.to_string(),
    };
    let error = History::from_csv(&text).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

proptest! {
    /// Every number but NaN is equal to itself.
    #[test]
    fn csv_comes_back_to_the_last_bit(
        steps in prop::collection::vec((0..20_usize, prop::array::uniform4(prop::num::f64::ANY)), 0..9),
        evaluations in prop::collection::vec((0..20_usize, prop::num::f64::ANY), 0..9),
    ) {
        let record = |(step, [loss, task_loss, learning_rate, sparsity]): (usize, [f64; 4])| StepRecord {
            step, loss, task_loss, learning_rate, sparsity,
        };
        let history = History { steps: steps.into_iter().map(record).collect(), evaluations };
        let again = History::from_csv(&history.to_csv()).unwrap();
        let bits = |history: &History| {
            let steps = history.steps.iter().flat_map(|record| {
                [record.loss, record.task_loss, record.learning_rate, record.sparsity]
            });
            let numbers = steps.chain(history.evaluations.iter().map(|(_, metric)| *metric));
            let known = |number: f64| if number.is_nan() { f64::NAN } else { number };
            numbers.map(|number| known(number).to_bits()).collect::<Vec<_>>()
        };
        prop_assert_eq!(bits(&again), bits(&history));
        let at = |history: &History| history.steps.iter().map(|record| record.step).collect::<Vec<_>>();
        prop_assert_eq!(at(&again), at(&history));
    }
}
