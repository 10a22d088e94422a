//! One module a family: runs a case and compares everything that it expects.

use super::case::{Case, Result};
use super::check::Checks;

pub mod a;
pub mod b;
pub mod c;
pub mod d;
pub mod e;
pub mod f;
pub mod few_bits;
pub mod g;
pub mod h;
pub mod i;
pub mod j;
pub mod learned;

/// Runs a case of any family.
///
/// # Errors
///
/// When the case cannot be run, or asks for what the library does not have.
pub fn run(case: &Case) -> Result<Checks> {
    match case.file.family.as_str() {
        "A" => a::run(case),
        "B" => b::run(case),
        "C" => c::run(case),
        "D" => d::run(case),
        "E" => e::run(case),
        "F" => f::run(case),
        "G" => g::run(case),
        "H" => h::run(case),
        "I" => i::run(case),
        "J" => j::run(case),
        other => Err(case.error(format!("unknown family {other}"))),
    }
}
