//! The results of a network, and their tables.

use burn_compress_examples::quartiles::Quartiles;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use serde::Serialize;

use super::contest::BATCHES;

/// All that was measured of a network.
#[derive(Serialize, Debug)]
pub struct Row {
    pub network: String,
    /// Parameters of the small network.
    pub parameters: u64,
    pub sizes: Vec<Size>,
    pub latencies: Vec<Latency>,
}

/// Size of a file.
#[derive(Serialize, Debug)]
pub struct Size {
    /// `dense`, `small` or `int8`.
    pub form: String,
    pub bytes: u64,
}

/// Time of a forward pass.
#[derive(Serialize, Debug)]
pub struct Latency {
    pub candidate: String,
    pub batch: usize,
    pub microseconds: Quartiles,
}

/// A table of files and one of times; times also as parts of the dense network's in onnxruntime.
pub fn tables(rows: &[Row]) -> String {
    let mut files = Table::new();
    files.load_style(ASCII_MARKDOWN);
    files.set_header([
        "network",
        "parameters",
        "dense, bytes",
        "small",
        "small int8",
    ]);
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    let mut header = vec!["network".to_string(), "candidate".to_string()];
    for batch in BATCHES {
        header.push(format!("batch {batch}, us"));
        header.push("quartiles".to_string());
        header.push("of dense".to_string());
    }
    table.set_header(header);
    for row in rows {
        let sizes = row.sizes.iter().map(|size| size.bytes.to_string());
        let head = [row.network.clone(), row.parameters.to_string()];
        files.add_row(head.into_iter().chain(sizes));
        let of_batch = |batch: usize| row.latencies.iter().filter(move |one| one.batch == batch);
        let names = of_batch(BATCHES[0]).map(|one| one.candidate.clone());
        for (at, name) in names.enumerate() {
            let mut cells = vec![row.network.clone(), name];
            for batch in BATCHES {
                let times: Vec<Quartiles> = of_batch(batch).map(|one| one.microseconds).collect();
                let Quartiles {
                    first,
                    median,
                    third,
                } = times[at];
                cells.push(format!("{median:.0}"));
                cells.push(format!("{first:.0} to {third:.0}"));
                cells.push(format!("{:.2}", median / times[0].median));
            }
            table.add_row(cells);
        }
    }
    format!("{files}\n\n{table}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_has_a_line() {
        let latency = |candidate: &str, batch, microseconds| Latency {
            candidate: candidate.to_string(),
            batch,
            microseconds: Quartiles::of(vec![microseconds]),
        };
        let row = Row {
            network: "net".to_string(),
            parameters: 10,
            sizes: Vec::new(),
            latencies: vec![
                latency("dense", 1, 8.0),
                latency("small", 1, 2.0),
                latency("dense", 64, 100.0),
                latency("small", 64, 50.0),
            ],
        };
        let text = tables(&[row]);
        let small = text.lines().last().unwrap();
        assert!(small.contains("0.25") && small.contains("0.50"), "{text}");
    }
}
