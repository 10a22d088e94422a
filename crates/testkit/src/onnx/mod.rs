//! ONNX files in onnxruntime, by a Python that has it.
//!
//! The variable `BURN_COMPRESS_PYTHON` names a Python with the packages `onnx`, `onnxruntime` and `numpy`,
//! as `cargo xtask onnx` sets one up. Without it tests of this kind are skipped, with a line on stderr.

mod npy;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use burn::tensor::TensorData;

/// Variable with the path of a Python that has onnxruntime.
pub const PYTHON: &str = "BURN_COMPRESS_PYTHON";

const SCRIPT: &str = include_str!("run.py");

/// A Python with onnxruntime.
#[derive(Clone, Debug)]
pub struct OnnxRuntime {
    python: String,
}

/// How a file is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Whether the graph is run as it was written, nothing fused.
    pub unoptimized: bool,
    /// Names of further tensors of the graph that are put out, behind the outputs.
    pub observed: Vec<String>,
}

/// What a file computed.
#[derive(Clone, Debug)]
pub struct OnnxRun {
    /// The outputs of each run, in their order.
    pub outputs: Vec<Vec<TensorData>>,
    /// Number of operators of each kind in the graph as it was run, fused ones by their names.
    pub operators: BTreeMap<String, usize>,
}

impl OnnxRuntime {
    /// The Python that `BURN_COMPRESS_PYTHON` names; none, with a line on stderr, where it is not set.
    pub fn find() -> Option<Self> {
        match std::env::var(PYTHON) {
            Ok(python) => Some(Self { python }),
            Err(_) => {
                eprintln!(
                    "skipped: {PYTHON} names no Python with onnx and onnxruntime (see `cargo xtask onnx`)"
                );
                None
            }
        }
    }

    /// Checks a file with `onnx.checker` and runs it once for each set of inputs, on one thread.
    ///
    /// # Errors
    ///
    /// The messages of Python: a package that is missing, a file that is not valid, a run that failed.
    pub fn run(
        &self,
        file: &[u8],
        inputs: &[Vec<TensorData>],
        options: &RunOptions,
    ) -> Result<OnnxRun, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let found = self.run_in(folder.path(), file, inputs, options);
        found.map_err(|error| format!("{} with onnxruntime: {error}", self.python))
    }

    fn run_in(
        &self,
        folder: &Path,
        file: &[u8],
        inputs: &[Vec<TensorData>],
        options: &RunOptions,
    ) -> Result<OnnxRun, String> {
        let write = |name: &str, bytes: &[u8]| {
            fs::write(folder.join(name), bytes).map_err(|error| error.to_string())
        };
        write("model.onnx", file)?;
        write("run.py", SCRIPT.as_bytes())?;
        for (run, inputs) in inputs.iter().enumerate() {
            for (at, data) in inputs.iter().enumerate() {
                write(&format!("input_{run}_{at}.npy"), &npy::encode(data))?;
            }
        }
        let output = Command::new(&self.python)
            .arg(folder.join("run.py"))
            .arg(folder)
            .arg(inputs.len().to_string())
            .arg(if options.unoptimized {
                "unoptimized"
            } else {
                "optimized"
            })
            .args(&options.observed)
            .output()
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let read = |name: &str| fs::read(folder.join(name)).map_err(|error| error.to_string());
        let count = read("outputs.txt")?;
        let count: usize = String::from_utf8_lossy(&count)
            .trim()
            .parse()
            .map_err(|_| "outputs.txt")?;
        let outputs = (0..inputs.len()).map(|run| {
            let of_run =
                (0..count).map(|at| npy::decode(&read(&format!("output_{run}_{at}.npy"))?));
            of_run.collect::<Result<Vec<_>, String>>()
        });
        let operators = read("operators.txt")?;
        let operators = String::from_utf8_lossy(&operators).into_owned();
        let operators = operators.lines().filter_map(|line| {
            let (name, count) = line.rsplit_once(' ')?;
            Some((name.to_string(), count.parse().ok()?))
        });
        Ok(OnnxRun {
            outputs: outputs.collect::<Result<Vec<_>, String>>()?,
            operators: operators.collect(),
        })
    }
}

/// The largest difference of two outputs, as a part of the largest expected magnitude.
///
/// Infinite where shapes differ or a value is not finite.
pub fn relative_error(expected: &TensorData, found: &TensorData) -> f64 {
    if expected.shape() != found.shape() {
        return f64::INFINITY;
    }
    let largest = expected
        .iter::<f64>()
        .fold(0.0, |largest: f64, x| largest.max(x.abs()));
    let differences = expected
        .iter::<f64>()
        .zip(found.iter::<f64>())
        .map(|(x, y)| (x - y).abs());
    let error = differences.fold(0.0, |error: f64, x| {
        if x.is_nan() {
            f64::INFINITY
        } else {
            error.max(x)
        }
    });
    match error == 0.0 {
        true => 0.0,
        false => error / largest,
    }
}

/// Number of vectors of logits whose largest element is at another place: along the last dimension, or of
/// a whole image where the output is one (`[batch, channels, height, width]`).
pub fn other_argmax(expected: &TensorData, found: &TensorData) -> usize {
    let shape = expected.shape().to_vec();
    let width = match shape.len() {
        4 => shape[1..].iter().product(),
        _ => shape.last().copied().unwrap_or(1),
    };
    let width = width.max(1);
    let argmax = |data: &TensorData| -> Vec<usize> {
        let values: Vec<f64> = data.iter::<f64>().collect();
        let rows = values.chunks(width).map(|row| {
            let best = row
                .iter()
                .enumerate()
                .max_by(|x, y| x.1.total_cmp(y.1).then(y.0.cmp(&x.0)));
            best.map_or(0, |(at, _)| at)
        });
        rows.collect()
    };
    let pairs = argmax(expected).into_iter().zip(argmax(found));
    pairs.filter(|(x, y)| x != y).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(values: &[f32], shape: [usize; 2]) -> TensorData {
        TensorData::new(values.to_vec(), shape)
    }

    #[test]
    fn errors_are_relative_to_the_largest_output() {
        let expected = data(&[1.0, -4.0], [1, 2]);
        assert_eq!(relative_error(&expected, &data(&[2.0, -4.0], [1, 2])), 0.25);
        assert_eq!(relative_error(&expected, &expected), 0.0);
        assert_eq!(
            relative_error(&expected, &data(&[1.0, -4.0], [2, 1])),
            f64::INFINITY
        );
        assert_eq!(
            relative_error(&expected, &data(&[f32::NAN, -4.0], [1, 2])),
            f64::INFINITY
        );
    }

    #[test]
    fn rows_with_another_largest_element() {
        let expected = data(&[1.0, 2.0, 3.0, 0.0], [2, 2]);
        assert_eq!(
            other_argmax(&expected, &data(&[2.0, 1.0, 3.0, 0.0], [2, 2])),
            1
        );
        assert_eq!(other_argmax(&expected, &expected), 0);
    }
}
