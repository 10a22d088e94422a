//! Comparisons with what the book shows.

use std::env;
use std::fmt::Display;
use std::fs;
use std::path::Path;

use burn::tensor::Tensor;

/// Prints `value` and compares it with the file `output/NAME.txt`, which the book includes.
///
/// With `BOOK_OUTPUT=write` in the environment the file is written.
///
/// # Panics
///
/// When the two differ, or the file cannot be read or written.
pub fn show(name: &str, value: impl Display) {
    let text = format!("{value}");
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    let text = lines.join("\n") + "\n";
    print!("{text}");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/book/output");
    let file = directory.join(format!("{name}.txt"));
    if env::var_os("BOOK_OUTPUT").is_some_and(|mode| mode == "write") {
        fs::write(&file, &text).unwrap();
    }
    let shown = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(
        text,
        shown.replace("\r\n", "\n"),
        "{} differs",
        file.display()
    );
}

/// The values of a tensor in row-major order.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Compares values to within the rounding of single precision.
///
/// # Panics
///
/// When one differs by more than a millionth.
#[track_caller]
pub fn assert_close(found: impl AsRef<[f32]>, expected: &[f32]) {
    let found = found.as_ref();
    let close = |(found, expected): (&f32, &f32)| (found - expected).abs() <= 1e-6;
    assert!(
        found.len() == expected.len() && found.iter().zip(expected).all(close),
        "{found:?} is not {expected:?}"
    );
}
