//! What is found of one network, and the table of all.

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde::{Deserialize, Serialize};

/// One network.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Row {
    /// Name of the network.
    pub model: String,
    /// Parameters of the dense network.
    pub parameters: u64,
    /// CPU seconds of a dense forward pass of one input.
    pub forward: f64,
    /// What was cut, or why nothing was.
    pub result: Outcome,
}

/// What became of a network.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Half of it is gone.
    Cut(Box<Cut>),
    /// The first reason why not.
    Refused(String),
}

/// What a cut costs and gives.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Cut {
    /// Parameters of the small network.
    pub parameters: u64,
    /// Parameters with half of the channels of every selected layer.
    pub expected_parameters: Option<u64>,
    /// Multiply-accumulates of the dense network, for one input.
    pub dense_macs: u64,
    /// Those of the small network.
    pub macs: u64,
    /// Those with half of the channels of every selected layer.
    pub expected_macs: Option<u64>,
    /// Fractions of the channels that the selected layers lost.
    pub sparsity: Spread,
    /// CPU seconds of the parts.
    pub seconds: Seconds,
    /// By how much resident memory grew at most, over the bytes of the parameters.
    pub growth: Option<f64>,
    /// Time of the small network over that of the dense one, for one input and for eight.
    pub latency: [f64; 2],
    /// By how much resident memory grows at most in forward passes of the dense network alone, over the
    /// same bytes.
    #[serde(default)]
    pub forward_growth: Option<f64>,
    /// Largest relative error on an input that the cut has not seen.
    pub error: f64,
    /// The same in double precision, where single precision gives more than 1e-6.
    #[serde(default)]
    pub exact_error: Option<f64>,
    /// Largest relative difference of the outputs for two inputs: where it is small, so is what the
    /// error tells.
    pub between: f64,
}

/// The smallest, the middle and the largest of some numbers.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The middle.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these numbers; none of none.
    pub fn new(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        Some(Self {
            min: *values.first()?,
            median: values[values.len() / 2],
            max: *values.last()?,
        })
    }
}

/// CPU seconds of the parts of a cut.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Seconds {
    /// The captured forward pass.
    pub capture: f64,
    /// Channels that belong together.
    pub grouping: f64,
    /// All checks when the pruner is made, which captures and groups for itself.
    pub building: f64,
    /// Scores and masks.
    pub scoring: f64,
    /// Everything of speedup but its forward passes.
    pub cutting: f64,
    /// The forward passes of speedup.
    pub verification: f64,
}

impl Seconds {
    fn parts(&self) -> [f64; 7] {
        [
            self.capture,
            self.grouping,
            self.building,
            self.scoring,
            self.cutting,
            self.total(),
            self.verification,
        ]
    }

    /// From the model to the small one, without verification. Capture and grouping are part of
    /// building.
    fn total(&self) -> f64 {
        self.building + self.scoring + self.cutting
    }
}

impl Cut {
    /// What time follows of the multiply-accumulates, for one input and for eight: 1 where half of
    /// them take half of the time, below 1 where they take more.
    pub fn eta(&self) -> [f64; 2] {
        let macs = self.macs as f64 / self.dense_macs.max(1) as f64;
        self.latency.map(|latency| macs / latency)
    }
}

/// The tables: what was cut, what it cost, and what was refused.
pub fn tables(rows: &[Row]) -> Vec<Table> {
    let cut = || {
        let rows = rows.iter();
        rows.filter_map(|row| match &row.result {
            Outcome::Cut(cut) => Some((row, cut)),
            Outcome::Refused(_) => None,
        })
    };
    let mut tables = Vec::new();
    if cut().next().is_some() {
        let mut sizes = Table::new();
        sizes.set_header([
            "model",
            "params",
            "small",
            "half",
            "MACs",
            "small",
            "half",
            "sparsity",
            "latency b1",
            "b8",
            "eta b1",
            "b8",
            "max rel. error",
            "in f64",
            "two inputs",
        ]);
        for (row, cut) in cut() {
            let eta = cut.eta();
            let Spread { min, median, max } = cut.sparsity;
            sizes.add_row([
                row.model.clone(),
                millions(row.parameters),
                millions(cut.parameters),
                cut.expected_parameters.map_or("-".into(), millions),
                millions(cut.dense_macs),
                millions(cut.macs),
                cut.expected_macs.map_or("-".into(), millions),
                format!("{min:.2} {median:.2} {max:.2}"),
                format!("{:.2}", cut.latency[0]),
                format!("{:.2}", cut.latency[1]),
                format!("{:.2}", eta[0]),
                format!("{:.2}", eta[1]),
                format!("{:.1e}", cut.error),
                (cut.exact_error).map_or("".into(), |error| format!("{error:.1e}")),
                format!("{:.1e}", cut.between),
            ]);
        }
        tables.push(sizes);
        // Each time in forward passes, and in milliseconds per million parameters.
        let mut costs = Table::new();
        costs.set_header([
            "model",
            "forward ms",
            "capture",
            "grouping",
            "building",
            "scoring",
            "cutting",
            "all three",
            "verification",
            "peak / bytes",
            "of a forward",
        ]);
        for (row, cut) in cut() {
            let millions = row.parameters as f64 * 1e-6;
            let both = |seconds: f64| {
                format!(
                    "{:.2} ({:.1})",
                    seconds / row.forward,
                    seconds * 1e3 / millions
                )
            };
            let mut cells = vec![row.model.clone(), format!("{:.1}", row.forward * 1e3)];
            cells.extend(cut.seconds.parts().map(both));
            cells.extend(
                [cut.growth, cut.forward_growth]
                    .map(|growth| growth.map_or("-".into(), |growth| format!("{growth:.2}"))),
            );
            costs.add_row(cells);
        }
        tables.push(costs);
    }
    let mut refused = Table::new();
    refused.set_header(["model", "params", "refused"]);
    for row in rows {
        if let Outcome::Refused(reason) = &row.result {
            refused.add_row([row.model.clone(), millions(row.parameters), reason.clone()]);
        }
    }
    if refused.row_count() > 0 {
        tables.push(refused);
    }
    for table in &mut tables {
        table.load_style(ASCII_MARKDOWN);
        let last_is_text = table.column_count() == 3;
        let columns = table.column_count() - usize::from(last_is_text);
        for column in table.column_iter_mut().take(columns).skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    tables
}

/// Three digits behind the point, of millions.
fn millions(count: u64) -> String {
    format!("{:.3} M", count as f64 * 1e-6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut() -> Row {
        Row {
            model: "net".into(),
            parameters: 2_000_000,
            forward: 0.5,
            result: Outcome::Cut(Box::new(Cut {
                parameters: 500_000,
                expected_parameters: Some(500_000),
                dense_macs: 40_000_000,
                macs: 10_000_000,
                expected_macs: None,
                sparsity: Spread::new(vec![0.5, 0.25, 0.75]).unwrap(),
                seconds: Seconds {
                    capture: 0.25,
                    grouping: 0.5,
                    building: 1.0,
                    scoring: 0.0,
                    cutting: 2.0,
                    verification: 0.75,
                },
                growth: Some(1.5),
                forward_growth: None,
                latency: [0.5, 0.25],
                error: 2e-7,
                exact_error: None,
                between: 0.5,
            })),
        }
    }

    #[test]
    fn times_are_in_forward_passes_and_by_parameters() {
        let tables = tables(&[cut()]);
        assert_eq!(tables.len(), 2);
        let [sizes, costs] = [0, 1].map(|at: usize| tables[at].to_string());
        assert!(sizes.contains("0.25 0.50 0.75"), "{sizes}");
        // A quarter of the operations in half and in a quarter of the time.
        assert!(sizes.contains("|   0.50 | 1.00 |"), "{sizes}");
        // 2 s are 4 passes of 0.5 s, and 1000 ms for each of two million.
        assert!(costs.contains("4.00 (1000.0)"), "{costs}");
        // 1 s of building and 2 s of cutting; capture and grouping are in the first.
        assert!(costs.contains("6.00 (1500.0)"), "{costs}");
    }

    #[test]
    fn refusals_have_a_table() {
        let refused = Row {
            result: Outcome::Refused("because".into()),
            ..cut()
        };
        let tables = tables(&[refused.clone(), cut()]);
        assert_eq!(tables.len(), 3);
        assert!(tables[2].to_string().contains("because"));
        let json = serde_json::to_string(&refused).unwrap();
        assert_eq!(serde_json::from_str::<Row>(&json).unwrap(), refused);
    }
}
