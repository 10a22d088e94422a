//! The table: what every case must lead to, what it led to, and how that is counted.

use std::cell::Cell;
use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use burn_compress::UnknownDtype;
use burn_compress::config::ConfigError;
use burn_compress::distillation::DistillationError;
use burn_compress::graph::GraphError;
use burn_compress::pruning::PruningError;
use burn_compress::quantization::QuantizationError;
use burn_compress::speedup::SpeedupError;
use burn_compress::target::ParseTargetError;
use indexmap::IndexMap;

/// What a call led to: nothing to complain about, an error of the library, or a [`Wrong`] result.
pub type Attempt = Result<(), Box<dyn StdError>>;

/// A call that was accepted and did something else than it was asked for.
#[derive(Debug)]
pub struct Wrong(String);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Wrong {}

/// Refuses a result that is not the one that was asked for.
pub fn ensure(holds: bool, message: impl Into<String>) -> Attempt {
    match holds {
        true => Ok(()),
        false => Err(Box::new(Wrong(message.into()))),
    }
}

/// What a case must lead to.
enum Expected {
    /// An error whose type has this variant and that has these parts in what it says.
    Refused {
        variant: &'static str,
        parts: Vec<String>,
    },
    /// The right result.
    Right,
}

struct Case {
    name: String,
    expected: Expected,
    run: Box<dyn FnOnce() -> Attempt>,
}

/// The cases of one group of entry points.
#[derive(Default)]
pub struct Cases {
    cases: Vec<Case>,
}

impl Cases {
    /// Input that must be refused by an error with `variant` that names `parts`.
    pub fn refused<P: ToString>(
        &mut self,
        name: impl Into<String>,
        variant: &'static str,
        parts: impl IntoIterator<Item = P>,
        run: impl FnOnce() -> Attempt + 'static,
    ) {
        let parts = parts.into_iter().map(|part| part.to_string()).collect();
        self.cases.push(Case {
            name: name.into(),
            expected: Expected::Refused { variant, parts },
            run: Box::new(run),
        });
    }

    /// Input that looks bad and is good: the call must succeed and its result be right.
    pub fn right(&mut self, name: impl Into<String>, run: impl FnOnce() -> Attempt + 'static) {
        self.cases.push(Case {
            name: name.into(),
            expected: Expected::Right,
            run: Box::new(run),
        });
    }
}

/// How a case is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Refused by the error that was expected.
    Error,
    /// Accepted, with the right result.
    Right,
    /// Accepted, although it had to be refused.
    Silent,
    /// A panic.
    Panic,
    /// Another error than expected, an error where there should be none, or a wrong result.
    Wrong,
}

const CLASSES: [Class; 5] = [
    Class::Error,
    Class::Right,
    Class::Silent,
    Class::Panic,
    Class::Wrong,
];

/// The classes of all cases, by group.
#[derive(Default)]
pub struct Table {
    groups: IndexMap<&'static str, Vec<Class>>,
    complaints: Vec<String>,
}

impl Table {
    /// Runs the cases of a group.
    pub fn run(&mut self, group: &'static str, fill: impl FnOnce(&mut Cases)) {
        let mut cases = Cases::default();
        fill(&mut cases);
        for case in cases.cases {
            let (class, complaint) = classify(case.expected, case.run);
            if let Some(complaint) = complaint {
                let name = &case.name;
                self.complaints
                    .push(format!("{class:?}: {group}: {name}: {complaint}"));
            }
            self.groups.entry(group).or_default().push(class);
        }
    }

    /// The number of cases of a class.
    pub fn count(&self, class: Class) -> usize {
        let classes = self.groups.values().flatten();
        classes.filter(|found| **found == class).count()
    }

    /// The number of cases.
    pub fn len(&self) -> usize {
        self.groups.values().map(Vec::len).sum()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.groups.keys().map(|name| name.len()).max();
        let width = width.unwrap_or_default().max("all".len());
        writeln!(
            f,
            "{:<width$}   cases   typed error   right   silent   panic   wrong",
            "group"
        )?;
        let mut row = |name: &str, classes: &[Class]| {
            let count = |class| classes.iter().filter(|found| **found == class).count();
            let [error, right, silent, panic, wrong] = CLASSES.map(count);
            writeln!(
                f,
                "{name:<width$} {:>7} {error:>13} {right:>7} {silent:>8} {panic:>7} {wrong:>7}",
                classes.len()
            )
        };
        for (group, classes) in &self.groups {
            row(group, classes)?;
        }
        let all: Vec<Class> = self.groups.values().flatten().copied().collect();
        row("all", &all)?;
        for complaint in &self.complaints {
            writeln!(f, "{complaint}")?;
        }
        Ok(())
    }
}

/// The class of what a call led to, and what is wrong with it.
fn classify(expected: Expected, run: Box<dyn FnOnce() -> Attempt>) -> (Class, Option<String>) {
    let outcome = quietly(|| catch_unwind(AssertUnwindSafe(run)));
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("without a message");
            return (Class::Panic, Some(message.to_owned()));
        }
    };
    match (expected, outcome) {
        (Expected::Right, Ok(())) => (Class::Right, None),
        (Expected::Right, Err(error)) if error.is::<Wrong>() => {
            (Class::Wrong, Some(error.to_string()))
        }
        (Expected::Right, Err(error)) => (Class::Wrong, Some(format!("refused: {error}"))),
        (Expected::Refused { .. }, Ok(())) => (Class::Silent, Some("accepted".to_owned())),
        (Expected::Refused { .. }, Err(error)) if error.is::<Wrong>() => {
            (Class::Silent, Some(format!("accepted, but {error}")))
        }
        (Expected::Refused { variant, parts }, Err(error)) => {
            match complaint(error.as_ref(), variant, &parts) {
                None => (Class::Error, None),
                complaint => (Class::Wrong, complaint),
            }
        }
    }
}

/// What an error lacks.
fn complaint(error: &(dyn StdError + 'static), variant: &str, parts: &[String]) -> Option<String> {
    let text = error.to_string();
    if !is_typed(error) {
        return Some(format!("not an error of the library: {text}"));
    }
    if !has_word(&format!("{error:?}"), variant) {
        return Some(format!("`{variant}` is not in: {error:?}"));
    }
    if let Some(missing) = parts.iter().find(|part| !text.contains(part.as_str())) {
        return Some(format!("`{missing}` is not in: {text}"));
    }
    // What prints an error with its sources would print this one twice.
    let source = error.source()?.to_string();
    let told = text.contains(&source);
    told.then(|| format!("its source `{source}` is in the message: {text}"))
}

/// Whether an error has one of the types of the library.
fn is_typed(error: &(dyn StdError + 'static)) -> bool {
    error.is::<burn_compress::Error>()
        || error.is::<ConfigError>()
        || error.is::<GraphError>()
        || error.is::<PruningError>()
        || error.is::<QuantizationError>()
        || error.is::<UnknownDtype>()
        || error.is::<DistillationError>()
        || error.is::<SpeedupError>()
        || error.is::<ParseTargetError>()
        // A mask or a calibration that is read, by the format's own error.
        || error.is::<serde_json::Error>()
}

/// Whether `word` is in `text` as a whole word.
fn has_word(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.split(|c: char| !part_of_word(c))
        .any(|part| part == word)
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs something whose panics are expected, without their messages.
fn quietly<T>(run: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                report(panic);
            }
        }));
    });
    QUIET.set(true);
    let outcome = run();
    QUIET.set(false);
    outcome
}

#[test]
fn cases_are_told_apart() {
    let error = || {
        let error = PruningError::NoGoal.at("conv.weight");
        Err(error.into())
    };
    let mut table = Table::default();
    table.run("group", |cases| {
        cases.refused(
            "as expected",
            "NoGoal",
            ["conv.weight", "sparse_ratio"],
            error,
        );
        cases.refused("another variant", "Goal", [""; 0], error);
        cases.refused("without its path", "NoGoal", ["fc.weight"], error);
        cases.refused("accepted", "NoGoal", [""; 0], || Ok(()));
        cases.refused("something else", "NoGoal", [""; 0], || {
            ensure(false, "no mask")
        });
        cases.refused("foreign", "Error", [""; 0], || Err(Box::new(fmt::Error)));
        cases.refused("panics", "NoGoal", [""; 0], || panic!("out of cheese"));
        cases.right("right", || ensure(true, ""));
        cases.right("wrong", || ensure(false, "no mask"));
        cases.right("refused", error);
    });
    let counts = CLASSES.map(|class| table.count(class));
    assert_eq!(counts, [1, 1, 2, 1, 5], "{table}");
    assert_eq!(table.len(), 10);
}
