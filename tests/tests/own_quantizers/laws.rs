//! Rules that break their laws: an error that names quantizer and target.

use burn::tensor::Tensor;
use burn_compress::prelude::*;
use burn_compress::quantization::{
    LearnedQuantizer, LearnedRule, LearnedStart, QParams, QuantDtype, QuantScheme,
    QuantizationError, Quantizer, RangeRule, Ranges,
};
use burn_compress::{Error, FlatTensor, Grid};
use burn_compress_tests::chains::{Chain, assert_says};
use rstest::rstest;

use crate::plain;

const HEAD: &str = r#"[{"op_names": ["head"], "quant_dtype": "int4"}]"#;

/// These numbers for each block.
#[derive(Debug)]
struct Given {
    scale: f32,
    zero_point: f32,
    copies: usize,
}

impl Given {
    fn values(&self, value: f32, like: &Tensor<1>) -> Tensor<1> {
        like.full_like(value).repeat(&[self.copies])
    }
}

impl RangeRule for Given {
    fn name(&self) -> &'static str {
        "Given"
    }

    fn qparams(&self, ranges: Ranges, _dtype: QuantDtype, _scheme: QuantScheme) -> QParams {
        QParams {
            scale: self.values(self.scale, &ranges.minimum),
            zero_point: self.values(self.zero_point, &ranges.minimum),
        }
    }

    fn check_target(
        &self,
        target: &Target,
        _settings: &QuantizationSettings,
    ) -> Result<(), String> {
        match target {
            Target::Output(_) => Err("no outputs".to_string()),
            _ => Ok(()),
        }
    }
}

impl LearnedRule for Given {
    fn name(&self) -> &'static str {
        "Given"
    }

    fn start(
        &self,
        _values: &FlatTensor,
        grid: &Grid,
        _dtype: QuantDtype,
        _scheme: QuantScheme,
    ) -> Result<LearnedStart, QuantizationError> {
        Ok(LearnedStart {
            scale: vec![self.scale; grid.len() * self.copies],
            zero_point: vec![self.zero_point; grid.len() * self.copies],
        })
    }
}

fn weight() -> ConfigList<QuantizationSettings> {
    let json = r#"[{"op_names": ["head"], "quant_dtype": "int4", "target_names": ["weight"]}]"#;
    ConfigList::from_json(json).unwrap()
}

fn assert_unlawful(chain: Chain, budget: Budget, expected: &str) {
    let error = chain.compress(budget).unwrap_err();
    let Error::Observation { target, .. } = &error else {
        // A hook of the quantizer at the end of the run.
        assert_says(&error, &["Given", "head.weight", expected]);
        return;
    };
    assert_eq!(target.to_string(), "head.weight");
    assert_says(&error, &["`Given` gives", expected]);
}

#[rstest]
#[case(-1.0, 0.0, 1, "block 0 the scale -1, but a scale is finite and positive")]
#[case(0.0, 0.0, 1, "the scale 0, but")]
#[case(f32::NAN, 0.0, 1, "the scale NaN, but")]
#[case(f32::INFINITY, 0.0, 1, "the scale inf, but")]
#[case(
    1.0,
    8.0,
    1,
    "the zero point 8, but a zero point of `int4` lies in -7..=7"
)]
#[case(1.0, f32::NAN, 1, "the zero point NaN, but")]
#[case(1.0, 1.25, 1, "the zero point 0.25, but")]
#[case(1.0, 0.0, 2, "2 values of the scale for 1 blocks")]
fn scales_and_zero_points(
    #[case] scale: f32,
    #[case] zero_point: f32,
    #[case] copies: usize,
    #[case] expected: &str,
) {
    for budget in [Budget::steps(2), Budget::none()] {
        let rule = Given {
            scale,
            zero_point,
            copies,
        };
        let chain = Quantizer::with(rule).from_compressor(plain(1), weight());
        assert_unlawful(chain.unwrap(), budget, expected);
    }
}

#[rstest]
#[case(-1.0, 0.0, 1, "the scale -1, but a scale is finite and positive")]
#[case(f32::NAN, 0.0, 1, "the scale NaN, but")]
#[case(1.0, f32::NAN, 1, "the zero point NaN, but a zero point is finite")]
#[case(1.0, 0.0, 3, "3 values of the scale for 1 blocks")]
fn starts(
    #[case] scale: f32,
    #[case] zero_point: f32,
    #[case] copies: usize,
    #[case] expected: &str,
) {
    let rule = Given {
        scale,
        zero_point,
        copies,
    };
    let chain = LearnedQuantizer::from_compressor(plain(1), weight(), rule);
    assert_unlawful(chain.unwrap(), Budget::steps(2), expected);
}

#[test]
fn settings_are_rejected_before_the_run() {
    let rule = Given {
        scale: 1.0,
        zero_point: 0.0,
        copies: 1,
    };
    let rules = ConfigList::from_json(HEAD).unwrap();
    let error = Quantizer::with(rule).from_compressor(plain(1), &rules);
    assert_says(
        &error.unwrap_err(),
        &["`head._output_0`: `Given`: no outputs"],
    );
}
