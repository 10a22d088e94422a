//! Tables of a case, with bounds, and what libraries are to each other.

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

use super::row::{LIBRARY, Row};
use super::variant::bound;

/// The most memory of P+Q+D: so many plain steps and the teacher.
const MEMORY: f64 = 1.5;
/// The most milliseconds of P+Q+D on LibTorch, of NNI's on PyTorch.
const OF_NNI: f64 = 0.85;
/// The variant whose milliseconds are compared between libraries.
const FUSED: &str = "P+Q+D";

/// The rows of a case, and whether bounds are held.
pub fn of_case(rows: &[Row], model: &str, batch: usize) -> String {
    let of_case = |row: &&Row| row.model == model && row.batch == batch;
    let rows: Vec<&Row> = rows.iter().filter(of_case).collect();
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "library",
        "device",
        "variant",
        "CPU ms",
        "quartiles",
        "wall ms",
        "of plain",
        "quartiles",
        "bound",
        "",
        "reads",
        "MB",
    ]);
    for row in &rows {
        let limit = limit(row, &rows);
        let is_held = limit.map(|limit| verdict(row.ratio.median <= limit));
        table.add_row([
            row.library.clone(),
            row.device.clone(),
            row.variant.clone(),
            format!("{:.1}", row.cpu.median),
            format!("{:.1} to {:.1}", row.cpu.first, row.cpu.third),
            format!("{:.1}", row.wall.median),
            format!("{:.2}", row.ratio.median),
            format!("{:.2} to {:.2}", row.ratio.first, row.ratio.third),
            limit.map_or_else(String::new, |limit| format!("{limit:.2}")),
            is_held.unwrap_or_default().to_string(),
            row.reads
                .map_or_else(String::new, |reads| format!("{reads:.1}")),
            row.memory
                .map_or_else(String::new, |bytes| format!("{:.1}", megabytes(bytes))),
        ]);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let rounds = rows.iter().map(|row| row.rounds).min().unwrap_or(0);
    let mut text = format!("{model}, batch {batch}, {rounds} rounds\n\n{table}");
    for line in memory(&rows) {
        text.push_str("\n\n");
        text.push_str(&line);
    }
    text
}

/// The bound of a row of this library, by the teacher on the same device.
fn limit(row: &Row, rows: &[&Row]) -> Option<f64> {
    let teacher = find(rows, &row.library, &row.device, "teacher");
    match row.library == LIBRARY {
        true => bound(
            &row.variant,
            &row.model,
            row.batch,
            teacher.map(|row| row.ratio.median),
        ),
        false => None,
    }
}

/// What P+Q+D keeps in memory, on each device.
fn memory(rows: &[&Row]) -> Vec<String> {
    let fused = rows.iter().filter(|row| row.variant == FUSED);
    let line = |fused: &&Row| {
        let of = |variant| find(rows, &fused.library, &fused.device, variant)?.memory;
        let (bytes, plain) = (megabytes(fused.memory?), megabytes(of("plain")?));
        let teacher = megabytes(of("teacher")?);
        let mut line = format!(
            "memory of {FUSED}, {}, {}: {bytes:.1} MB, {:.2} of the plain step with the teacher \
             beside it",
            fused.library,
            fused.device,
            (bytes - teacher) / plain,
        );
        if fused.library == LIBRARY {
            let is_held = bytes <= MEMORY * plain + teacher;
            line.push_str(&format!("; bound {MEMORY}, {}", verdict(is_held)));
        }
        Some(line)
    };
    fused.filter_map(line).collect()
}

/// The milliseconds of the fused step on each device beside those of other libraries: CPU time on a CPU,
/// wall time elsewhere.
pub fn between_libraries(rows: &[Row]) -> Vec<String> {
    let fused = |is_ours: bool| {
        rows.iter()
            .filter(move |row| row.variant == FUSED && is_ours == (row.library == LIBRARY))
    };
    let mut lines = Vec::new();
    for other in fused(false) {
        let is_gpu = other.device == "cuda";
        let milliseconds = |row: &Row| match is_gpu {
            true => row.wall.median,
            false => row.cpu.median,
        };
        let same = |row: &&Row| row.model == other.model && row.batch == other.batch;
        for row in fused(true).filter(same) {
            // A GPU is beside a GPU.
            if is_gpu != matches!(row.device.as_str(), "cuda" | "tch-cuda") {
                continue;
            }
            let part = milliseconds(row) / milliseconds(other);
            let mut line = format!(
                "{FUSED}, {} {}: {:.1} ms on {}, {:.1} ms by {}, {part:.2} of it",
                row.model,
                row.batch,
                milliseconds(row),
                row.device,
                milliseconds(other),
                other.library,
            );
            if row.device.starts_with("tch") {
                line.push_str(&format!("; bound {OF_NNI}, {}", verdict(part <= OF_NNI)));
            }
            lines.push(line);
        }
    }
    lines
}

fn find<'a>(rows: &[&'a Row], library: &str, device: &str, variant: &str) -> Option<&'a Row> {
    let is_it =
        |row: &&&Row| row.library == library && row.device == device && row.variant == variant;
    rows.iter().find(is_it).copied()
}

fn verdict(is_held: bool) -> &'static str {
    if is_held { "held" } else { "missed" }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use burn_compress_examples::quartiles::Quartiles;

    use super::*;

    fn row(library: &str, device: &str, variant: &str, ratio: f64, megabytes: u64) -> Row {
        Row {
            library: library.to_string(),
            device: device.to_string(),
            model: "digits".to_string(),
            batch: 64,
            variant: variant.to_string(),
            rounds: 5,
            wall: Quartiles::of(vec![200.0 * ratio]),
            cpu: Quartiles::of(vec![100.0 * ratio]),
            ratio: Quartiles::of(vec![ratio]),
            reads: (variant != "plain").then_some(1.0),
            memory: Some(megabytes * 1_000_000),
        }
    }

    fn rows(fused: f64, megabytes: u64) -> Vec<Row> {
        vec![
            row(LIBRARY, "tch", "plain", 1.0, 40),
            row(LIBRARY, "tch", "teacher", 0.2, 10),
            row(LIBRARY, "tch", FUSED, fused, megabytes),
            row("NNI", "cpu", FUSED, 2.0, 100),
        ]
    }

    #[test]
    fn the_bound_has_the_teacher_in_it() {
        // 1.25 * (1 + 0.2)
        let held = of_case(&rows(1.5, 60), "digits", 64);
        assert!(held.contains("1.50") && held.contains(" held "), "{held}");
        assert!(!held.contains("missed"), "{held}");
        let missed = of_case(&rows(1.51, 60), "digits", 64);
        assert!(missed.contains(" missed "), "{missed}");
        // Of another case there is no line.
        assert!(!of_case(&rows(1.5, 60), "digits", 16).contains(FUSED));
    }

    #[test]
    fn the_teacher_is_taken_off_the_memory() {
        // (70 - 10) / 40
        let held = of_case(&rows(1.5, 70), "digits", 64);
        assert!(held.contains("70.0 MB, 1.50 of the plain step"), "{held}");
        assert!(held.ends_with("bound 1.5, held"), "{held}");
        assert!(of_case(&rows(1.5, 71), "digits", 64).ends_with("bound 1.5, missed"));
    }

    #[test]
    fn milliseconds_are_compared_with_those_of_others() {
        let lines = between_libraries(&rows(1.7, 60));
        assert_eq!(
            lines,
            ["P+Q+D, digits 64: 170.0 ms on tch, 200.0 ms by NNI, 0.85 of it; bound 0.85, held"]
        );
        assert!(between_libraries(&rows(1.8, 60))[0].ends_with("missed"));
        // No GPU is compared with a CPU.
        let mut on_gpu = rows(1.7, 60);
        on_gpu[2].device = "tch-cuda".to_string();
        assert!(between_libraries(&on_gpu).is_empty());
    }
}
