//! Rules of a user, from the first line of the rule to the last of its quantizer.

use burn::tensor::Tensor;
use burn_compress::prelude::*;
use burn_compress::quantization::ranges::{MinMax, RangeEstimator, Ranges};
use burn_compress::quantization::{
    LearnedQuantizer, LearnedRule, LearnedStart, QParams, QuantDtype, QuantScheme,
    QuantizationError, Quantizer, RangeRule, qparams,
};
use burn_compress::{FlatTensor, Grid, HostTensor};
use burn_compress_tests::chains::{Built, Chain, outcome};
use burn_compress_tests::nets::Outcome;

use crate::{STEPS, config, plain};

/// Scales that are powers of two.
#[derive(Debug)]
struct PowerOfTwo;

impl RangeRule for PowerOfTwo {
    fn name(&self) -> &'static str {
        "PowerOfTwo"
    }

    fn qparams(&self, ranges: Ranges, dtype: QuantDtype, scheme: QuantScheme) -> QParams {
        let found = qparams::compute(ranges.minimum, ranges.maximum, dtype, scheme);
        let exponent = found.scale.log().div_scalar(std::f64::consts::LN_2).ceil();
        let scale = (exponent * std::f64::consts::LN_2).exp();
        QParams { scale, ..found }
    }
}

pub fn power_of_two(chain: Chain) -> Built {
    Ok(Quantizer::with(PowerOfTwo).from_compressor(chain, config())?)
}

/// The mean of the extremes of all batches, which needs a count beside the range.
#[derive(Debug, Default)]
struct MeanOfExtremes {
    batches: std::sync::Mutex<f32>,
}

impl RangeEstimator for MeanOfExtremes {
    fn track(
        &self,
        _values: &FlatTensor,
        _grid: &Grid,
        batch: Ranges,
        tracked: Option<Ranges>,
    ) -> Result<Ranges, QuantizationError> {
        let mut batches = self.batches.lock().unwrap();
        *batches += 1.0;
        let mean = |old: Tensor<1>, new: Tensor<1>| old.clone() + (new - old) / *batches;
        Ok(match tracked {
            None => batch,
            Some(tracked) => Ranges {
                minimum: mean(tracked.minimum, batch.minimum),
                maximum: mean(tracked.maximum, batch.maximum),
            },
        })
    }

    fn state(&self) -> Option<HostTensor> {
        let values = vec![*self.batches.lock().unwrap()];
        let shape = vec![1];
        Some(HostTensor { values, shape })
    }

    fn load_state(&self, state: Option<&HostTensor>) -> Result<(), QuantizationError> {
        let saved = state.and_then(|state| state.values.first());
        let saved = saved.ok_or_else(|| QuantizationError::State("no count".to_string()))?;
        *self.batches.lock().unwrap() = *saved;
        Ok(())
    }
}

/// The standard scale of an estimator of the user.
#[derive(Debug)]
struct Mean;

impl RangeRule for Mean {
    fn name(&self) -> &'static str {
        "Mean"
    }

    fn estimator(&self, target: &Target) -> Option<Box<dyn RangeEstimator>> {
        Some(match target.is_param() {
            true => Box::new(MinMax),
            false => Box::<MeanOfExtremes>::default(),
        })
    }

    fn is_active(&self, step: usize, _total_steps: usize) -> bool {
        step >= 2
    }
}

pub fn mean_of_extremes(chain: Chain) -> Built {
    Ok(Quantizer::with(Mean).from_compressor(chain, config())?)
}

/// Scales that are trained from a power of two on.
#[derive(Debug)]
struct Learned;

impl LearnedRule for Learned {
    fn name(&self) -> &'static str {
        "Learned"
    }

    fn start(
        &self,
        _values: &FlatTensor,
        grid: &Grid,
        dtype: QuantDtype,
        _scheme: QuantScheme,
    ) -> Result<LearnedStart, QuantizationError> {
        Ok(LearnedStart {
            scale: vec![1.0 / 32.0; grid.len()],
            zero_point: vec![dtype.qmin(); grid.len()],
        })
    }

    fn learning_rate(&self) -> Option<f64> {
        Some(1e-3)
    }
}

pub fn learned(chain: Chain) -> Built {
    Ok(LearnedQuantizer::from_compressor(chain, config(), Learned)?)
}

#[test]
fn scales_are_powers_of_two() {
    let compressed = power_of_two(plain(1)).unwrap();
    let compressed = compressed.compress(Budget::steps(STEPS)).unwrap();
    let scales = compressed.calibration().unwrap().into_values();
    let scales: Vec<f32> = scales.flat_map(|entry| entry.scale.unwrap()).collect();
    assert!(scales.len() > 20);
    for scale in scales {
        let exponent = scale.log2();
        assert!((exponent - exponent.round()).abs() < 1e-5, "{scale}");
    }
}

/// All hooks as they are.
#[derive(Debug)]
struct Standard;

impl RangeRule for Standard {
    fn name(&self) -> &'static str {
        "Standard"
    }
}

#[test]
fn a_rule_with_the_standard_hooks_trains_as_qat_does() {
    let budget = Budget::steps(STEPS);
    let standard = Quantizer::with(Standard).from_compressor(plain(1), config());
    let qat = QatQuantizer::from_compressor(plain(1), config(), QatConfig::new());
    let standard = outcome(standard.unwrap(), &budget);
    assert_eq!(
        standard.difference(&outcome(qat.unwrap(), &budget)),
        [""; 0]
    );
}

#[test]
fn a_run_without_training_calibrates() {
    let rules = r#"[{"op_types": ["Conv2d"], "observer": "min_max"}]"#;
    let rules = ConfigList::from_json(rules).unwrap();
    let standard = Quantizer::with(Standard).new(crate::NET.init(1), &rules, crate::evaluator(0));
    let ptq = PtqQuantizer::from_compressor(plain(1), &rules, PtqConfig::new());
    let scales = |chain: Chain| {
        let compressed = chain.compress(Budget::none()).unwrap();
        let calibration = Outcome::of(&compressed).calibration.into_iter();
        let scales = calibration.map(|(id, entry)| (id, entry.scale, entry.enabled));
        scales.collect::<Vec<_>>()
    };
    assert_eq!(scales(standard.unwrap()), scales(ptq.unwrap()));
}
