//! What a run of an example has measured: a table on the terminal and a JSON document.

use std::fmt;
use std::path::Path;

use burn_compress::report::Platform;
use burn_compress::speedup::Change;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::{Deserialize, Serialize};

use crate::file::write_whole;

/// The runs of one program, one for each seed.
///
/// Displayed as one table; several runs show their mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// What the runs were made on.
    pub platform: Platform,
    /// In the order of their seeds.
    pub runs: Vec<Run>,
}

/// What one run has measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Seed of the weights and of the order of the batches.
    pub seed: u64,
    /// Test accuracy in percent.
    pub accuracy: Accuracy,
    /// Parameters, without running statistics.
    pub params: Change,
    /// Multiply-accumulates for one image.
    pub macs: Change,
    /// Bytes of the saved record.
    pub bytes: Change,
    /// Forward time of the small network divided by the dense one's.
    pub latency_ratio: LatencyRatio,
    /// Largest difference between the logits of the simulated and of the small network, divided by
    /// the largest logit.
    pub max_relative_error: f64,
}

/// Test accuracy in percent at the four stages of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// The network before compression.
    pub dense: f64,
    /// The compressed network at full size, masks and quantizers simulated.
    pub simulated: f64,
    /// The network after the speedup.
    pub small: f64,
    /// The small network, saved and loaded again.
    pub reloaded: f64,
}

/// Forward time of the small network divided by the dense one's, by batch size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyRatio {
    /// One image.
    pub b1: f64,
    /// 64 images.
    pub b64: f64,
}

impl Results {
    /// Writes the JSON document, whole or not at all.
    ///
    /// # Errors
    ///
    /// If `path` cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        write_whole(path, json.as_bytes())
    }

    fn mean(&self, of: impl Fn(&Run) -> f64) -> f64 {
        self.runs.iter().map(of).sum::<f64>() / self.runs.len() as f64
    }

    fn table(&self) -> Table {
        let percent =
            |of: fn(&Accuracy) -> f64| format!("{:.2} %", self.mean(|run| of(&run.accuracy)));
        let sizes: [fn(&Run) -> Change; 3] = [|run| run.params, |run| run.macs, |run| run.bytes];
        let before = sizes.map(|of| self.mean(|run| of(run).dense as f64));
        let after = sizes.map(|of| self.mean(|run| of(run).small as f64));
        let dense = before.map(grouped);
        let small: Vec<String> = before
            .into_iter()
            .zip(after)
            .map(|(before, after)| format!("{} ({:.1} %)", grouped(after), 100.0 * after / before))
            .collect();
        let ratio = |of: fn(&LatencyRatio) -> f64| {
            format!("{:.2}", self.mean(|run| of(&run.latency_ratio)))
        };

        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header([
            "network",
            "test accuracy",
            "parameters",
            "MACs",
            "bytes",
            "latency, batch 1",
            "latency, batch 64",
        ]);
        let unit = || "1.00".to_string();
        let mut row = |name: &str, accuracy: String, sizes: &[String], latency: [String; 2]| {
            let cells = [name.to_string(), accuracy].into_iter();
            table.add_row(cells.chain(sizes.iter().cloned()).chain(latency));
        };
        row("dense", percent(|a| a.dense), &dense, [unit(), unit()]);
        row(
            "simulated",
            percent(|a| a.simulated),
            &dense,
            Default::default(),
        );
        row(
            "sped-up",
            percent(|a| a.small),
            &small,
            [ratio(|l| l.b1), ratio(|l| l.b64)],
        );
        row(
            "reloaded",
            percent(|a| a.reloaded),
            &small,
            Default::default(),
        );
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.runs.as_slice() {
            [] => return write!(f, "no run"),
            [run] => writeln!(f, "seed {}", run.seed)?,
            runs => {
                let seeds: Vec<String> = runs.iter().map(|run| run.seed.to_string()).collect();
                writeln!(f, "mean of {} runs, seeds {}", runs.len(), seeds.join(", "))?;
            }
        }
        writeln!(f, "{}", self.table().trim_fmt())?;
        // Not `f64::max`, which passes over a NaN.
        let error = self
            .runs
            .iter()
            .map(|run| run.max_relative_error)
            .max_by(f64::total_cmp)
            .unwrap_or_default();
        writeln!(f, "made with {}", self.platform)?;
        write!(
            f,
            "largest relative error of the sped-up network: {error:.1e}"
        )
    }
}

/// A count with a comma before every three digits.
fn grouped(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64, dense: f64) -> Run {
        Run {
            seed,
            accuracy: Accuracy {
                dense,
                simulated: 95.0,
                small: 95.0,
                reloaded: 95.0,
            },
            params: Change {
                dense: 696_042,
                small: 139_208,
            },
            macs: Change {
                dense: 6_573_312,
                small: 1_000_000,
            },
            bytes: Change {
                dense: 2_800_000,
                small: 560_000,
            },
            latency_ratio: LatencyRatio { b1: 0.5, b64: 0.25 },
            max_relative_error: 2.5e-7,
        }
    }

    fn results(runs: Vec<Run>) -> Results {
        let platform = Platform {
            burn: "0.22.1".into(),
            device: "flex".into(),
            architecture: "x86_64".into(),
            instructions: vec!["avx2".into()],
            threads: 8,
        };
        Results { platform, runs }
    }

    #[test]
    fn json_has_the_documented_shape() {
        let results = results(vec![run(3, 96.25)]);
        let platform = serde_json::json!({
            "burn": "0.22.1", "device": "flex", "architecture": "x86_64",
            "instructions": ["avx2"], "threads": 8,
        });
        let expected = serde_json::json!({"platform": platform, "runs": [{
            "seed": 3,
            "accuracy": {"dense": 96.25, "simulated": 95.0, "small": 95.0, "reloaded": 95.0},
            "params": {"dense": 696_042, "small": 139_208},
            "macs": {"dense": 6_573_312, "small": 1_000_000},
            "bytes": {"dense": 2_800_000, "small": 560_000},
            "latency_ratio": {"b1": 0.5, "b64": 0.25},
            "max_relative_error": 2.5e-7,
        }]});
        assert_eq!(serde_json::to_value(&results).unwrap(), expected);
        assert_eq!(
            serde_json::from_value::<Results>(expected).unwrap(),
            results
        );
    }

    #[test]
    fn unknown_fields_are_refused() {
        let mut written = serde_json::to_value(results(Vec::new())).unwrap();
        assert!(serde_json::from_value::<Results>(written.clone()).is_ok());
        written["extra"] = 1.into();
        assert!(serde_json::from_value::<Results>(written).is_err());
    }

    #[test]
    fn written_file_reads_back() {
        let name = format!("results-{}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        let results = results(vec![run(0, 96.0), run(1, 97.0)]);
        results.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
    }

    #[test]
    fn table_shows_one_row_a_stage() {
        let text = results(vec![run(3, 96.25)]).to_string();
        assert!(text.contains("made with Burn 0.22.1 on flex"), "{text}");
        assert!(text.starts_with("seed 3\n"), "{text}");
        for name in ["dense", "simulated", "sped-up", "reloaded"] {
            assert_eq!(text.matches(&format!("│ {name} ")).count(), 1, "{text}");
        }
        assert!(text.contains("139,208 (20.0 %)"), "{text}");
        assert!(text.ends_with("2.5e-7"), "{text}");
    }

    #[test]
    fn several_runs_show_their_mean() {
        let text = results(vec![run(0, 96.0), run(1, 97.0)]).to_string();
        assert!(text.starts_with("mean of 2 runs, seeds 0, 1\n"), "{text}");
        assert!(text.contains("96.50 %"), "{text}");
    }

    #[test]
    fn a_failed_comparison_is_shown() {
        let mut runs = vec![run(0, 96.0), run(1, 96.0)];
        runs[0].max_relative_error = f64::NAN;
        assert!(results(runs).to_string().ends_with("NaN"));
    }

    #[test]
    fn digits_are_grouped_by_three() {
        assert_eq!(grouped(0.0), "0");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(1000.4), "1,000");
        assert_eq!(grouped(6_573_312.0), "6,573,312");
    }
}
