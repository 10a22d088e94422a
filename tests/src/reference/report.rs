//! The table that the test prints.

use std::fmt;

use indexmap::IndexMap;

/// Mismatches of one case that are printed.
const FAILURES_SHOWN: usize = 6;

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that the case expects was compared and agrees; the number of tensors and values.
    Passed(usize),
    /// What differs.
    Failed(Vec<String>),
    /// The case asks for what the library does not have.
    NotCovered(String),
}

/// The verdicts of a folder of cases, by family and name.
#[derive(Debug, Clone)]
pub struct Report {
    heading: &'static str,
    cases: IndexMap<String, IndexMap<String, Verdict>>,
}

impl Default for Report {
    fn default() -> Self {
        Self::new("family")
    }
}

impl Report {
    /// A report without cases; `heading` is what the cases are grouped by.
    pub fn new(heading: &'static str) -> Self {
        let cases = IndexMap::new();
        Self { heading, cases }
    }

    /// Adds the verdict of a case.
    pub fn add(&mut self, family: &str, name: &str, verdict: Verdict) {
        self.cases
            .entry(family.to_owned())
            .or_default()
            .insert(name.to_owned(), verdict);
    }

    /// How many cases there are.
    pub fn len(&self) -> usize {
        self.cases.values().map(IndexMap::len).sum()
    }

    /// Whether there is no case.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many cases agree in everything that they expect.
    pub fn passed(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Passed(_)))
    }

    /// How many cases differ somewhere.
    pub fn failed(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Failed(_)))
    }

    fn count(&self, is: impl Fn(&Verdict) -> bool) -> usize {
        self.cases
            .values()
            .flat_map(IndexMap::values)
            .filter(|verdict| is(verdict))
            .count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.cases.keys().map(String::len);
        let width = names.chain([self.heading.len()]).max().unwrap_or_default();
        let heading = self.heading;
        writeln!(
            f,
            "{heading:<width$}   passed   failed   not covered   comparisons"
        )?;
        let mut total = [0; 4];
        for (family, cases) in &self.cases {
            let mut row = [0; 4];
            for verdict in cases.values() {
                match verdict {
                    Verdict::Passed(comparisons) => {
                        row[0] += 1;
                        row[3] += comparisons;
                    }
                    Verdict::Failed(_) => row[1] += 1,
                    Verdict::NotCovered(_) => row[2] += 1,
                }
            }
            total
                .iter_mut()
                .zip(row)
                .for_each(|(total, count)| *total += count);
            write_row(f, width, family, row)?;
        }
        write_row(f, width, "all", total)?;
        for (name, verdict) in self.cases.values().flatten() {
            if let Verdict::NotCovered(reason) = verdict {
                writeln!(f, "not covered: {name}: {reason}")?;
            }
        }
        for (name, verdict) in self.cases.values().flatten() {
            if let Verdict::Failed(failures) = verdict {
                writeln!(f, "FAILED: {name}")?;
                for failure in failures.iter().take(FAILURES_SHOWN) {
                    writeln!(f, "    {failure}")?;
                }
                if failures.len() > FAILURES_SHOWN {
                    writeln!(f, "    and {} more", failures.len() - FAILURES_SHOWN)?;
                }
            }
        }
        Ok(())
    }
}

fn write_row(f: &mut fmt::Formatter<'_>, width: usize, name: &str, row: [usize; 4]) -> fmt::Result {
    let [passed, failed, not_covered, comparisons] = row;
    writeln!(
        f,
        "{name:<width$} {passed:>8} {failed:>8} {not_covered:>13} {comparisons:>13}"
    )
}
