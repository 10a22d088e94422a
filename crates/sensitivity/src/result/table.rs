//! A result as a table.

use std::fmt;

use burn_compress_core::write_table;

use super::{Measured, Sensitivity, UnitSensitivity};

impl UnitSensitivity {
    /// Its first layer, and how many others there are.
    pub(crate) fn name(&self) -> String {
        match &self.layers[..] {
            [] => String::new(),
            [layer] => layer.clone(),
            [first, others @ ..] => format!("{first} and {} coupled", others.len()),
        }
    }
}

/// One table: the head of each column, and the name, size and points of each row.
pub(crate) struct Grid {
    pub title: &'static str,
    pub columns: Vec<String>,
    pub rows: Vec<(String, Option<usize>, Vec<Option<Measured>>)>,
}

impl Sensitivity {
    /// The parts of the result that are not empty.
    pub(crate) fn grids(&self) -> Vec<Grid> {
        let filled = |mut points: Vec<Option<Measured>>, length: usize| {
            points.resize(length, None);
            points
        };
        let percent = |sparsity: &f64| format!("{} %", (1000.0 * sparsity).round() / 10.0);
        let units = self.units.iter().map(|unit| {
            let points = unit.points.iter().map(|point| Some(point.measured));
            let points = filled(points.collect(), self.sparsities.len());
            (unit.name(), Some(unit.channels), points)
        });
        let layers = self.layers.iter().map(|layer| {
            let points = layer.points.iter().map(|point| Some(point.measured));
            (
                layer.layer.clone(),
                None,
                filled(points.collect(), self.bits.len()),
            )
        });
        let pruned = Grid {
            title: "pruned",
            columns: self.sparsities.iter().map(percent).collect(),
            rows: units.collect(),
        };
        let quantized = Grid {
            title: "quantized",
            columns: self
                .bits
                .iter()
                .map(|bits| format!("{bits} bits"))
                .collect(),
            rows: layers.collect(),
        };
        let grids = [pruned, quantized].into_iter();
        grids.filter(|grid| !grid.rows.is_empty()).collect()
    }

    fn write_grid(
        &self,
        f: &mut fmt::Formatter<'_>,
        grid: &Grid,
        change: impl Fn(&Measured) -> Option<f64>,
    ) -> fmt::Result {
        let has_sizes = grid.rows.iter().any(|(_, size, _)| size.is_some());
        let mut head = vec![grid.title.to_string()];
        head.extend(has_sizes.then(|| "channels".to_string()));
        head.extend(grid.columns.iter().cloned());
        let mut rows = vec![head];
        for (name, size, points) in &grid.rows {
            let mut row = vec![name.clone()];
            row.extend(size.map(|size| size.to_string()));
            row.extend(points.iter().map(|point| match point {
                None => String::new(),
                Some(measured) => shown(change(measured)),
            }));
            rows.push(row);
        }
        write_table(f, &rows)
    }
}

/// A change with its sign, to three digits.
pub(crate) fn shown(change: Option<f64>) -> String {
    match change {
        None => "not finite".to_string(),
        Some(change) => {
            // Adding zero takes the sign off a zero.
            let digits = match change.abs() {
                size if size >= 100.0 => 0,
                size if size >= 10.0 => 1,
                size if size >= 1.0 => 2,
                _ => 4,
            };
            let text = format!("{change:+.digits$}");
            match text
                .trim_start_matches(['+', '-'])
                .chars()
                .all(|c| "0.".contains(c))
            {
                true if change != 0.0 => format!("{change:+.1e}"),
                true => "0".to_string(),
                false => text,
            }
        }
    }
}

impl fmt::Display for Sensitivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "as it is: {}, over {} batches", self.dense, self.batches)?;
        if !self.is_complete() {
            writeln!(f, "{} of {} points", self.measured(), self.total())?;
        }
        for grid in self.grids() {
            writeln!(f, "\nchange of the loss")?;
            self.write_grid(f, &grid, |measured| self.increase(measured))?;
            if let Some(dense) = self.dense.metric {
                writeln!(f, "\nchange of the metric")?;
                self.write_grid(f, &grid, |measured| Some(measured.metric? - dense))?;
            }
        }
        Ok(())
    }
}
