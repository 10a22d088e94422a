//! Where learned scales and zero points begin.

use burn::tensor::{Device, Tensor};
use burn_compress::config::ConfigList;
use burn_compress::quantization::{LsqConfig, LsqPlusConfig, LsqPlusQuantizer, LsqQuantizer};
use burn_compress::{Budget, CalibrationEntry};

use super::case::{Case, Numbers};
use super::check::Checks;
use super::nets::{Single, evaluator};
use crate::reference::case::Result;

/// Runs a case: every quantizer and integer type that it expects.
pub fn run(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    for key in case.keys("") {
        for dtype in case.keys(&format!("/{key}")) {
            let entry = start(case, &key, &dtype)?;
            let at = format!("/{key}/{dtype}");
            let scale = entry.scale.unwrap_or_default();
            let zero_point = entry.zero_point.unwrap_or_default();
            match checks.expects(&format!("{at}/scale")) {
                true => {
                    checks.compare(&format!("{at}/scale"), scale);
                    checks.compare(&format!("{at}/zero_point"), zero_point);
                }
                false => {
                    checks.compare(&at, scale);
                    if zero_point.iter().any(|&value| value != 0.0) {
                        checks.fail(format!("{at}: the zero points are {zero_point:?}"));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Scale and zero point of a weight after a step that moves nothing.
fn start(case: &Case, quantizer: &str, dtype: &str) -> Result<CalibrationEntry> {
    let values: Numbers = case.input("values")?;
    let granularity: Option<String> = case.optional("granularity")?;
    // A remark on the layout may follow.
    let granularity = granularity
        .as_deref()
        .and_then(|text| text.split(' ').next());
    let model = Single::new(case, &values, &Device::flex())?;
    let path = model.path();
    let evaluator = evaluator(vec![()], |model: &Single, (): &()| -> Tensor<1> {
        model.weight().mean()
    });
    let scheme = if quantizer.ends_with("affine") {
        "affine"
    } else {
        "symmetric"
    };
    let rules = format!(
        r#"[{{"op_names": ["{path}"], "target_names": ["weight"], "quant_dtype": "{dtype}",
              "quant_scheme": "{scheme}", "granularity": "{}"}}]"#,
        granularity.unwrap_or("default")
    );
    let config = ConfigList::from_json(&rules).map_err(|error| case.error(error))?;
    let chain = match quantizer {
        "lsq" => LsqQuantizer::new(model, &config, evaluator, LsqConfig::new()),
        "lsq_plus_symmetric" | "lsq_plus_affine" => {
            LsqPlusQuantizer::new(model, &config, evaluator, LsqPlusConfig::new())
        }
        other => return Err(case.error(format!("`{other}` is no quantizer"))),
    };
    let mut chain = chain.map_err(|error| case.error(error))?;
    // Not to the end, where zero points are rounded.
    chain
        .advance(&Budget::steps(2), Some(1))
        .map_err(|error| case.error(error))?;
    let calibration = chain.calibration().map_err(|error| case.error(error))?;
    let entry = calibration.into_iter().next().map(|(_, entry)| entry);
    entry.ok_or_else(|| case.error("nothing was calibrated"))
}
