//! The ranges that observers with a histogram choose.

use burn_compress::FlatTensor;
use burn_compress::Grid;
use burn_compress::quantization::ranges::{ClipSearch, Entropy, Histogram, Mse, Percentile};
use burn_compress::quantization::{QuantDtype, QuantScheme, blocks, qparams};

use burn::tensor::{Device, Tensor};

use super::case::{Case, Numbers};
use super::check::Checks;
use crate::reference::case::Result;

/// How far the threshold of NVIDIA's search, on bins of its own, may be from this one.
const PEER: f64 = 0.15;
/// How much more than the least error an MSE range may make.
const LEAST: f64 = 1.02;

/// Runs a case.
pub fn run(case: &Case, checks: &mut Checks<'_>) -> Result<()> {
    let samples = Samples::new(case)?;
    checks.compare("/width", samples.histogram.width());
    checks.compare("/extremes", vec![samples.extremes.0, samples.extremes.1]);
    for at in case.elements("/percentile") {
        percentile(case, checks, &samples, &at)?;
    }
    for at in case.elements("/kl") {
        entropy(case, checks, &samples, &at)?;
    }
    for at in case.elements("/mse") {
        mse(case, checks, &samples, &at)?;
    }
    Ok(())
}

struct Samples {
    values: Vec<f32>,
    histogram: Histogram,
    /// Smallest and largest value.
    extremes: (f32, f32),
}

impl Samples {
    fn new(case: &Case) -> Result<Self> {
        let samples: Numbers = case.input("samples")?;
        let values = samples.single();
        let mut histogram = Histogram::new();
        histogram.add(&values);
        let flat: Tensor<1> = samples.reshaped([values.len()], &Device::flex())?;
        let extremes = blocks::range(&FlatTensor::new(flat), &Grid::per_tensor(1));
        let (low, high) = extremes.map_err(|error| case.error(error))?;
        Ok(Self {
            values,
            histogram,
            extremes: (low.into_scalar(), high.into_scalar()),
        })
    }

    /// The range that an observer chooses.
    fn range(&self, search: &dyn ClipSearch, dtype: QuantDtype, scheme: QuantScheme) -> (f64, f64) {
        // As observers do, zero is in the range.
        let extremes = (self.extremes.0.min(0.0), self.extremes.1.max(0.0));
        let (low, high) = search.range(&self.histogram, extremes, dtype, scheme);
        (f64::from(low), f64::from(high))
    }

    /// The sum of squared differences that quantization to a range makes.
    fn error(
        &self,
        case: &Case,
        (low, high): (f64, f64),
        dtype: QuantDtype,
        scheme: QuantScheme,
    ) -> Result<f64> {
        let parameters = qparams::compute_one(low as f32, high as f32, dtype, scheme);
        let (scale, zero_point) = parameters.map_err(|error| case.error(error))?;
        let (scale, zero_point) = (f64::from(scale), f64::from(zero_point));
        let (qmin, qmax) = (f64::from(dtype.qmin()), f64::from(dtype.qmax()));
        let error = |&x: &f32| {
            let q = (zero_point + f64::from(x) / scale)
                .round_ties_even()
                .clamp(qmin, qmax);
            ((q - zero_point) * scale - f64::from(x)).powi(2)
        };
        Ok(self.values.iter().map(error).sum())
    }
}

/// The larger end of a range.
fn limit((low, high): (f64, f64)) -> f64 {
    low.abs().max(high.abs())
}

fn types(case: &Case, at: &str) -> Result<(QuantDtype, QuantScheme)> {
    let dtype: String = case.expected(&format!("{at}/dtype"))?;
    let dtype = dtype.parse().map_err(|error| case.error(error))?;
    Ok((dtype, case.expected(&format!("{at}/scheme"))?))
}

/// What only describes the comparison.
fn describe(checks: &mut Checks<'_>, at: &str, keys: &[&str]) {
    for key in keys {
        checks.documented(&format!("{at}/{key}"));
    }
}

fn percentile(case: &Case, checks: &mut Checks<'_>, samples: &Samples, at: &str) -> Result<()> {
    let percent: f64 = case.expected(&format!("{at}/percent"))?;
    // The peer's bins are wider.
    describe(checks, at, &["percent", "nvidia_amax"]);
    let search = Percentile::new(percent);
    let range = |scheme| samples.range(&search, QuantDtype::INT8, scheme);
    let symmetric = limit(range(QuantScheme::Symmetric));
    let (low, high) = range(QuantScheme::Affine);
    for (key, got) in [
        ("symmetric_limit", symmetric),
        ("affine_low", low),
        ("affine_high", high),
    ] {
        let pointer = format!("{at}/{key}");
        let Ok([from, to]) = case.expected::<[f64; 2]>(&pointer) else {
            continue;
        };
        let inside =
            (from <= got || checks.agrees(got, from)) && (got <= to || checks.agrees(got, to));
        checks.require(&pointer, inside, || format!("{got} is not in {from}..{to}"));
    }
    Ok(())
}

fn entropy(case: &Case, checks: &mut Checks<'_>, samples: &Samples, at: &str) -> Result<()> {
    let (dtype, scheme) = types(case, at)?;
    describe(checks, at, &["dtype", "scheme"]);
    let got = samples.range(&Entropy, dtype, scheme);
    // Exact zeros are left out of the search; with them (`as_documented`) the threshold collapses.
    let (with, without) = (
        format!("{at}/as_documented"),
        format!("{at}/without_exact_zeros"),
    );
    let expected: [f64; 2] = case.expected(match checks.expects(&without) {
        true => &without,
        false => &with,
    })?;
    let agree = checks.agrees(limit(got), limit(expected.into()));
    let message = || format!("{got:?} instead of {expected:?}");
    checks.require(&without, agree, message);
    match case.expected::<[f64; 2]>(&with) {
        Ok(documented) if documented == expected => {
            checks.require(&with, agree, message);
            let bins: Option<f64> = case.expected(&format!("{at}/bins_kept")).ok();
            if let Some(bins) = bins {
                let width = samples.histogram.width();
                let threshold = ((bins + 0.5) * width).min(f64::from(
                    samples.extremes.0.abs().max(samples.extremes.1.abs()),
                ));
                let agree = checks.agrees(limit(got), threshold);
                let found = limit(got) / width - 0.5;
                checks.require(&format!("{at}/bins_kept"), agree, || {
                    format!("{found} instead of {bins}")
                });
            }
        }
        _ => describe(checks, at, &["as_documented", "bins_kept"]),
    }
    if let Ok(peer) = case.expected::<f64>(&format!("{at}/nvidia_amax")) {
        let near = (limit(got) - peer).abs() <= PEER * peer;
        checks.require(&format!("{at}/nvidia_amax"), near, || {
            format!("{} is not within 15 % of {peer}", limit(got))
        });
    }
    Ok(())
}

fn mse(case: &Case, checks: &mut Checks<'_>, samples: &Samples, at: &str) -> Result<()> {
    let (dtype, scheme) = types(case, at)?;
    // The factor of the least error on the samples; the observer sees their histogram.
    describe(checks, at, &["dtype", "scheme", "best_factor"]);
    describe(checks, at, &["nvidia_amax", "nvidia_error"]);
    checks.compare(&format!("{at}/qmin"), dtype.qmin());
    checks.compare(&format!("{at}/qmax"), dtype.qmax());
    let error = samples.error(case, samples.range(&Mse, dtype, scheme), dtype, scheme)?;
    if let Ok(least) = case.expected::<f64>(&format!("{at}/least_error")) {
        checks.require(&format!("{at}/least_error"), error <= LEAST * least, || {
            format!("{error} is more than {LEAST} times {least}")
        });
    }
    let extremes = (f64::from(samples.extremes.0), f64::from(samples.extremes.1));
    let widest = samples.error(case, extremes, dtype, scheme)?;
    checks.compare(&format!("{at}/min_max_error"), widest);
    Ok(())
}
