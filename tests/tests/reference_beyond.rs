//! Runs every case of algorithms that NNI does not have and prints how it went.
//!
//! The folder is `tests/reference-beyond`, or the one that `BURN_COMPRESS_REFERENCE_BEYOND` names.

use std::io::{self, Write};

use burn_compress_tests::beyond;

#[test]
fn reference_cases_agree() {
    let folder = beyond::folder();
    let report = beyond::run(&folder).expect("the folder of reference cases can be read");
    // Past the harness, which keeps what macros print to itself while a test passes.
    let _ = writeln!(io::stderr(), "{}\n{report}", folder.display());
    assert!(!report.is_empty(), "{} holds no case", folder.display());
    assert_eq!(report.failed(), 0, "some covered cases differ:\n{report}");
}
