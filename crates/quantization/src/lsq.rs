//! Learned step size quantization (LSQ): the scale is trained with the model.
//!
//! The choice for few bits, where the range of the values is a poor scale: training weighs what
//! clipping costs against what a coarse grid costs, for the loss of the task. Each block of a target
//! has a scale `s`; the zero point is 0, also of unsigned types, which fit values that are not
//! negative.
//!
//! ```text
//! x'      =  round(clamp(x / s, qmin, qmax)) s
//! dx'/dx  =  1 where qmin <= x / s <= qmax, else 0
//! dx'/ds  =  g (round(x / s) - x / s) inside the range, g qmin below it, g qmax above it
//! g       =  1 / sqrt(qmax n)     with the n values of the tensor
//! start   =  2 mean|x| / sqrt(qmax)    of the block, over the first values that are seen
//! ```
//!
//! The evaluator's optimizer trains the scales along with the model, weight decay included; give them
//! a learning rate of their own with [`LsqConfig::with_learning_rate`]. A scale is the magnitude of
//! the number that is trained, and at least [`f32::EPSILON`], so that no step makes it negative. At
//! the end of the run the scales become the ordinary quantization of their targets. Of a layer that a
//! batch norm is folded into ([`fuse`](QuantizationSettings::fuse)), the values are the folded ones.
//!
//! # References
//!
//! Esser et al., *Learned Step Size Quantization*, arXiv 1902.08153. Deviations: `n` counts all
//! values of an input or output, batch included, as in NNI (the paper: those of one sample), so the
//! gradient of a mean over the batch is divided by the root of the batch size once more. A block of
//! zeros begins with 0.01. NNI begins with 0.01 everywhere: [`LsqInit::Constant`]. One unsigned bit
//! needs the affine scheme and with it [`LsqPlusQuantizer`](crate::LsqPlusQuantizer).

use std::any::Any;
use std::sync::Arc;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress_core::config::{ConfigList, Selected};
use burn_compress_core::{
    Algorithm, AlgorithmState, BoxError, Compressor, Error, FlatTensor, Grid, Learnable, Mode, Run,
    TargetId,
};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::constructors::constructors;
use crate::learned::{Begun, LearnedTargets, Rules, Start, checked_quantize};
use crate::range::host;
use crate::{QuantDtype, QuantScheme, QuantizationError, QuantizationSettings, blocks};

const NAME: &str = "LsqQuantizer";

/// Where a block begins that holds nothing but zeros.
pub(crate) const START_OF_ZEROS: f32 = 0.01;

/// Where learned scales begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LsqInit {
    /// At the values: of a parameter those before the first step, of an input or output those of
    /// the first forward pass.
    #[default]
    Data,
    /// At this positive number, whatever the values. NNI begins with 0.01.
    Constant(f64),
}

impl LsqInit {
    pub(crate) fn constant(self) -> Option<f64> {
        match self {
            Self::Data => None,
            Self::Constant(scale) => Some(scale),
        }
    }
}

/// How a [`LsqQuantizer`] learns.
#[derive(Config, Debug, Copy)]
pub struct LsqConfig {
    /// Where the scales begin.
    #[config(default = "LsqInit::Data")]
    pub init: LsqInit,
    /// Trains the scales with Adam and this learning rate in place of the evaluator's optimizer.
    #[config(default = "None")]
    pub learning_rate: Option<f64>,
}

/// Trains a model with simulated quantization whose scales are trained, too.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_quantization::{LsqConfig, LsqQuantizer, QuantizationSettings};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     fc: Wrapper<Linear>,
/// }
///
/// let device = Device::flex();
/// let model = Net { fc: LinearConfig::new(4, 2).init(&device).into() };
/// let batch = Tensor::<2>::ones([8, 4], &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.01)
///     .with_loss(|model: &Net, batch: &Tensor<2>| model.fc.forward(batch.clone()).square().mean());
/// let config = ConfigList::<QuantizationSettings>::from_json(
///     r#"[{"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int4",
///          "granularity": "out_channel"}]"#,
/// )?;
/// let quantizer = LsqQuantizer::new(model, &config, evaluator, LsqConfig::new())?;
/// let compressed = quantizer.compress(Budget::steps(3))?;
/// let scales = &compressed.calibration()?[0].scale;
/// assert_eq!(scales.as_ref().map(Vec::len), Some(2)); // one for each output channel
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LsqQuantizer {
    targets: LearnedTargets,
}

constructors!(LsqQuantizer, LsqConfig);

impl LsqQuantizer {
    fn claim<M: Module + 'static, I: 'static>(
        compressor: &mut Compressor<M, I>,
        config: &ConfigList<QuantizationSettings>,
        quantizer: LsqConfig,
    ) -> Result<Self, Error> {
        let rules = Rules {
            name: NAME,
            scheme,
            begin,
            constant: quantizer.init.constant(),
            learning_rate: quantizer.learning_rate,
        };
        let targets = LearnedTargets::claim(compressor, config, &rules)?;
        Ok(Self { targets })
    }
}

/// Rounds `value` to the grid of its learned scales.
///
/// Gradients flow to `value` and to `scale` by the formulas of this module.
///
/// # Shapes
///
/// - value: any shape that the grid divides
/// - scale: `[grid.len()]`, row-major
/// - result: the shape of `value`
///
/// # Errors
///
/// [`QuantizationError::Grid`] when the grid does not divide the shape, or when there is not one
/// scale for each block.
pub fn quantize(
    value: FlatTensor,
    grid: &Grid,
    scale: Tensor<1>,
    dtype: QuantDtype,
) -> Result<FlatTensor, QuantizationError> {
    let zero_point = scale.clone().detach().without_autodiff().zeros_like();
    checked_quantize(value, grid, scale, zero_point, dtype)
}

fn scheme(selected: &Selected<QuantizationSettings>) -> Result<QuantScheme, QuantizationError> {
    match selected.settings.scheme() {
        QuantScheme::Symmetric => Ok(QuantScheme::Symmetric),
        QuantScheme::Affine => Err(QuantizationError::Setting {
            key: "quant_scheme",
            value: QuantScheme::Affine.to_string(),
            expected: "LSQ learns no zero point, use `symmetric` or the quantizer of LSQ+",
        }),
    }
}

/// `2 mean|x| / sqrt(qmax)`.
fn begin(values: &FlatTensor, grid: &Grid, dtype: QuantDtype, _scheme: QuantScheme) -> Begun {
    let magnitudes = FlatTensor {
        values: values.values.clone().abs(),
        shape: values.shape.clone(),
    };
    let mean = host(blocks::mean(&magnitudes, grid)?)?;
    let start = |mean: &f32| match 2.0 * mean / dtype.qmax().sqrt() {
        scale if scale > 0.0 => scale,
        _ => START_OF_ZEROS,
    };
    Ok(Start {
        scale: mean.iter().map(start).collect(),
        zero_point: vec![0.0; mean.len()],
    })
}

impl<M: Module + 'static, I: 'static> Algorithm<M, I> for LsqQuantizer {
    fn name(&self) -> &'static str {
        NAME
    }

    fn mode(&self) -> Mode {
        Mode::Quantization
    }

    fn check(&self, total_steps: usize) -> Result<(), BoxError> {
        self.targets.check(total_steps)
    }

    fn observe(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        Ok(self.targets.observe(run.model)?)
    }

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        self.targets.learnables()
    }

    fn after_step(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        self.targets.report();
        Ok(())
    }

    fn finish(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        Ok(self.targets.finish(false)?)
    }

    fn rewrite(&mut self, run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        Ok(self.targets.rewrite(run.model)?)
    }

    fn load_state(&mut self, _state: &AlgorithmState) -> Result<(), BoxError> {
        self.targets.restore()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use burn_compress_core::{Budget, CalibrationEntry};
    use rstest::rstest;

    use super::*;
    use crate::testing::{
        Chain, any, cause, chain, close, floats, learner_agrees, net, nothing_changes_at_the_end,
        resumes, rules,
    };

    const ALL: &str = r#"[{"op_types": ["Linear"], "quant_dtype": "int4"}]"#;

    fn fuse(chain: Chain, config: &str, quantizer: LsqConfig) -> Result<Chain, Error> {
        LsqQuantizer::from_compressor(chain, &rules(config), quantizer)
    }

    fn build() -> Chain {
        fuse(any(), ALL, LsqConfig::new()).unwrap()
    }

    fn entry(chain: &Chain, target: &str) -> CalibrationEntry {
        let calibration = chain.calibration().unwrap();
        let found = calibration
            .into_iter()
            .find(|(id, _)| id.to_string() == target);
        found.unwrap().1
    }

    fn start(values: [[f32; 2]; 2], grid: [usize; 2], dtype: &str) -> Vec<f32> {
        let values = FlatTensor::new(Tensor::<2>::from_floats(values, &Device::flex()));
        let dtype = dtype.parse().unwrap();
        begin(&values, &Grid::new(grid), dtype, QuantScheme::Symmetric)
            .unwrap()
            .scale
    }

    #[test]
    fn scales_begin_at_the_mean_magnitude() {
        let values = [[1.0, -2.0], [3.0, 0.0]];
        // 2 (6 / 4) / sqrt(7)
        close(&start(values, [1, 1], "int4"), &[3.0 / 7f32.sqrt()]);
        // 2 (4 / 2) / sqrt(15) and 2 (2 / 2) / sqrt(15)
        let root = 15f32.sqrt();
        close(&start(values, [1, 2], "uint4"), &[4.0 / root, 2.0 / root]);
        close(
            &start([[0.0, 1.0], [0.0, 1.0]], [1, 2], "int2"),
            &[0.01, 2.0],
        );
    }

    #[test]
    fn a_step_worked_by_hand() {
        let rules =
            r#"[{"op_names": ["second"], "target_names": ["weight"], "quant_dtype": "int3"}]"#;
        let identity = [[1.0, 0.0], [0.0, 1.0]];
        let chain = chain(
            net(identity, [[0.3], [1.6]]),
            vec![[[1.0, 2.0], [1.0, 2.0]]],
            0.1,
        );
        let options = LsqConfig::new().with_init(LsqInit::Constant(0.5));
        let mut chain = fuse(chain, rules, options).unwrap();
        chain.advance(&Budget::steps(1), None).unwrap();
        // w / s = 0.6 and 3.2, the loss has the gradient [1, 2] with respect to w'. So [1, 0]
        // arrives at w and (1 (0.4) + 2 (3)) / sqrt(3 * 2) at s.
        close(&floats(chain.model().second.weight.base()), &[0.2, 1.6]);
        let scale = 0.5 - 0.1 * 6.4 / 6f32.sqrt();
        close(&entry(&chain, "second.weight").scale.unwrap(), &[scale]);
        let compressed = chain.finish().unwrap();
        // 0.2 / s = 0.84 and 1.6 / s = 6.7.
        let weight = floats(compressed.model().second.weight.val());
        close(&weight, &[scale, 3.0 * scale]);
    }

    #[test]
    fn every_target_learns() {
        let mut chain = build();
        chain.advance(&Budget::steps(4), Some(1)).unwrap();
        let first = chain.calibration().unwrap();
        assert_eq!(first.len(), 6);
        chain.advance(&Budget::steps(4), None).unwrap();
        for (id, entry) in chain.calibration().unwrap() {
            assert!(entry.enabled && entry.zero_point == Some(vec![0.0]), "{id}");
            assert_ne!(entry.scale, first[&id].scale, "{id}");
        }
    }

    #[test]
    fn scales_have_a_learning_rate_of_their_own() {
        let own = LsqConfig::new().with_learning_rate(Some(0.001));
        let mut chain = fuse(any(), ALL, own).unwrap();
        chain.advance(&Budget::steps(1), None).unwrap();
        let scale = entry(&chain, "first.weight").scale.unwrap()[0];
        // The first step of Adam is the learning rate.
        let start = 2.0 * (0.31 + 0.82 + 0.57 + 0.24) / 4.0 / 7f32.sqrt();
        assert!(
            ((scale - start).abs() - 0.001).abs() < 1e-5,
            "{scale} {start}"
        );
    }

    #[test]
    fn runs_can_be_stopped_and_driven_by_a_learner() {
        resumes("lsq", build);
        let channels = r#"[{"op_types": ["Linear"], "quant_dtype": "uint4",
            "target_settings": {"weight": {"quant_dtype": "int3", "granularity": "out_channel"},
            "_input_0": {"granularity": "per_channel"}}, "target_names": ["_input_0", "weight"]}]"#;
        let own = LsqConfig::new().with_learning_rate(Some(0.01));
        resumes("lsq-channels", || fuse(any(), channels, own).unwrap());
        learner_agrees(build);
        nothing_changes_at_the_end(build);
    }

    #[test]
    fn an_earlier_snapshot_keeps_its_scales() {
        let mut chain = build();
        chain.advance(&Budget::steps(3), Some(1)).unwrap();
        let snapshot = chain.model().valid();
        let x = Tensor::<2>::from_floats([[0.4, 1.2]], &Device::flex());
        let before = floats(snapshot.forward(x.clone()));
        chain.advance(&Budget::steps(3), None).unwrap();
        assert_eq!(floats(snapshot.forward(x)), before);
    }

    #[test]
    fn values_that_cannot_be_quantized_name_their_target() {
        let identity = [[1.0, 0.0], [0.0, 1.0]];
        let cases = [
            (
                r#"[{"op_names": ["first"], "target_names": ["_input_0"]}]"#,
                f32::NAN,
                "not finite",
            ),
            (
                r#"[{"op_names": ["first"], "target_names": ["_input_0"], "quant_dtype": "uint4"}]"#,
                -1.0,
                "no value is positive",
            ),
        ];
        for (rules, value, expected) in cases {
            let batch = vec![[[value, -0.5], [-0.2, 0.0]]];
            let chain = chain(net(identity, [[1.0], [1.0]]), batch, 0.1);
            let mut chain = fuse(chain, rules, LsqConfig::new()).unwrap();
            let error = chain
                .advance(&Budget::steps(1), None)
                .unwrap_err()
                .to_string();
            assert!(error.contains("`first._input_0`"), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[rstest]
    #[case(r#""quant_scheme": "affine""#, LsqConfig::new(), "quant_scheme")]
    #[case(r#""quant_dtype": "int1""#, LsqConfig::new(), "quant_dtype")]
    #[case(r#""observer": "mse""#, LsqConfig::new(), "observer")]
    #[case(r#""apply_method": "clamp_round""#, LsqConfig::new(), "apply_method")]
    #[case("", LsqConfig::new().with_init(LsqInit::Constant(0.0)), "init")]
    #[case("", LsqConfig::new().with_init(LsqInit::Constant(f64::NAN)), "init")]
    #[case("", LsqConfig::new().with_learning_rate(Some(-0.1)), "learning_rate")]
    fn settings_that_do_not_fit(
        #[case] setting: &str,
        #[case] options: LsqConfig,
        #[case] expected: &str,
    ) {
        let comma = if setting.is_empty() { "" } else { ", " };
        let rules = format!(r#"[{{"op_types": ["Linear"]{comma}{setting}}}]"#);
        let error = cause(fuse(any(), &rules, options).unwrap_err());
        assert!(
            matches!(error, QuantizationError::Setting { key, .. } if key == expected),
            "{error}"
        );
    }

    #[test]
    fn a_run_must_train() {
        let error = build().compress(Budget::none()).unwrap_err().to_string();
        assert!(error.contains("at least one step"), "{error}");
    }
}
