//! LSQ+: scale and zero point are trained with the model.
//!
//! The choice for few bits and values that are not symmetric, such as those behind Swish, GELU or a
//! leaky ReLU, whose negative side is short: an unsigned type would cut it off, a signed one would
//! waste half of its integers on it. Each block of a target has a scale `s` and, with the affine
//! scheme, a zero point `z` that is no integer.
//!
//! ```text
//! p       =  x / s + z
//! x'      =  (round(clamp(p, qmin, qmax)) - z) s
//! dx'/dx  =  1 where qmin <= p <= qmax, else 0
//! dx'/ds  =  g (round(p) - p) inside the range, g (qmin - z) below it, g (qmax - z) above it
//! dx'/dz  =  0 inside, -s outside
//! g       =  1 / sqrt(qmax n)     with the n values of the tensor
//!
//! start, affine     s = (max x - min x) / (qmax - qmin),  z = qmin - min x / s
//! start, symmetric  s = (|mean x| + 3 std x) / qmax,      z = 0 for good
//! ```
//!
//! Where `quant_scheme` is absent, inputs and outputs are affine and parameters symmetric, as in the
//! paper: a zero point of weights would cost a correction of each output at inference.
//!
//! The evaluator's optimizer trains scales and zero points along with the model, weight decay
//! included; give them a learning rate of their own with [`LsqPlusConfig::with_learning_rate`]. A
//! scale is the magnitude of the number that is trained, and at least [`f32::EPSILON`], so that no
//! step makes it negative. At the end of the run they become the ordinary quantization of their
//! targets; zero points are then rounded, as integer kernels need it and as zero must stay zero where
//! channels are removed. [`LsqPlusConfig::with_round_zero_points`] leaves them as they were trained.
//! Of a layer that a batch norm is folded into ([`fuse`](QuantizationSettings::fuse)), the values are
//! the folded ones.
//!
//! # References
//!
//! Bhalgat et al., *LSQ+: Improving low-bit quantization through learnable offsets and better
//! initialization*, arXiv 2004.09576. Deviations, as in NNI: what is trained is `z` and not the
//! offset `-z s`, without the factor `g`; `n` counts all values of an input or output, batch included.
//! Weights begin with the divisor `qmax`, since the smallest signed integer is not used (the paper:
//! `2^(bits - 1)`), activations at their extremes (the paper also offers the least squared error).
//! NNI begins with 0.01 and `z = (qmax - qmin) / 2`: [`LsqInit::Constant`]. Of a signed type that is
//! `qmax`, so that all positive values are cut off until `z` has moved.

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

use crate::constructors::constructors;
use crate::learned::{Begun, LearnedTargets, Rules, Start, checked_quantize};
use crate::lsq::{LsqInit, START_OF_ZEROS};
use crate::range::host;
use crate::{QuantDtype, QuantScheme, QuantizationError, QuantizationSettings, blocks};

const NAME: &str = "LsqPlusQuantizer";

/// How a [`LsqPlusQuantizer`] learns.
#[derive(Config, Debug, Copy)]
pub struct LsqPlusConfig {
    /// Where scales and zero points begin.
    #[config(default = "LsqInit::Data")]
    pub init: LsqInit,
    /// Trains scales and zero points with Adam and this learning rate in place of the evaluator's
    /// optimizer.
    #[config(default = "None")]
    pub learning_rate: Option<f64>,
    /// Whether zero points become integers at the end of the run.
    #[config(default = true)]
    pub round_zero_points: bool,
}

/// Trains a model with simulated quantization whose scales and zero points are trained, too.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_quantization::{LsqPlusConfig, LsqPlusQuantizer, QuantizationSettings};
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
///     r#"[{"op_types": ["Linear"], "quant_dtype": "uint4", "target_names": ["_input_0"]}]"#,
/// )?;
/// let quantizer = LsqPlusQuantizer::new(model, &config, evaluator, LsqPlusConfig::new())?;
/// let compressed = quantizer.compress(Budget::steps(3))?;
/// let input = &compressed.calibration()?[0];
/// assert!(input.scale.is_some() && input.zero_point.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LsqPlusQuantizer {
    targets: LearnedTargets,
    round_zero_points: bool,
}

constructors!(LsqPlusQuantizer, LsqPlusConfig);

impl LsqPlusQuantizer {
    fn claim<M: Module + 'static, I: 'static>(
        compressor: &mut Compressor<M, I>,
        config: &ConfigList<QuantizationSettings>,
        quantizer: LsqPlusConfig,
    ) -> Result<Self, Error> {
        let rules = Rules {
            name: NAME,
            scheme,
            begin,
            constant: quantizer.init.constant(),
            learning_rate: quantizer.learning_rate,
        };
        Ok(Self {
            targets: LearnedTargets::claim(compressor, config, &rules)?,
            round_zero_points: quantizer.round_zero_points,
        })
    }
}

/// Rounds `value` to the grid of its learned scales and zero points.
///
/// Gradients flow to `value`, `scale` and `zero_point` by the formulas of this module.
///
/// # Shapes
///
/// - value: any shape that the grid divides
/// - scale, zero_point: `[grid.len()]`, row-major
/// - result: the shape of `value`
///
/// # Errors
///
/// [`QuantizationError::Grid`] when the grid does not divide the shape, or when there is not one
/// scale and one zero point for each block.
pub fn quantize(
    value: FlatTensor,
    grid: &Grid,
    scale: Tensor<1>,
    zero_point: Tensor<1>,
    dtype: QuantDtype,
) -> Result<FlatTensor, QuantizationError> {
    checked_quantize(value, grid, scale, zero_point, dtype)
}

fn scheme(selected: &Selected<QuantizationSettings>) -> Result<QuantScheme, QuantizationError> {
    let default = match selected.target.is_param() {
        true => QuantScheme::Symmetric,
        false => QuantScheme::Affine,
    };
    Ok(selected.settings.quant_scheme.unwrap_or(default))
}

fn begin(values: &FlatTensor, grid: &Grid, dtype: QuantDtype, scheme: QuantScheme) -> Begun {
    match scheme {
        QuantScheme::Affine => {
            let (minimum, maximum) = blocks::range(values, grid)?;
            let (minimum, maximum) = (host(minimum)?, host(maximum)?);
            let starts = minimum.iter().zip(&maximum);
            let (scale, zero_point) = starts.map(|(&min, &max)| of_range(min, max, dtype)).unzip();
            Ok(Start { scale, zero_point })
        }
        QuantScheme::Symmetric => {
            let mean = blocks::mean(values, grid)?;
            let centred = values.values.clone() - grid.expand(mean.clone(), &values.shape);
            let squares = FlatTensor {
                values: centred.square(),
                shape: values.shape.clone(),
            };
            let deviation = blocks::mean(&squares, grid)?.sqrt();
            let reach = host(mean.abs() + deviation * 3.0)?;
            let start = |reach: &f32| match reach / dtype.qmax() {
                scale if scale > 0.0 => scale,
                _ => START_OF_ZEROS,
            };
            Ok(Start {
                scale: reach.iter().map(start).collect(),
                zero_point: vec![0.0; reach.len()],
            })
        }
    }
}

/// Scale and zero point that lay a range over all integers.
fn of_range(minimum: f32, maximum: f32, dtype: QuantDtype) -> (f32, f32) {
    // A block of equal values has no width, but a distance from zero.
    let (minimum, maximum) = match minimum < maximum {
        true => (minimum, maximum),
        false => (minimum.min(0.0), maximum.max(0.0)),
    };
    match (maximum - minimum) / (dtype.qmax() - dtype.qmin()) {
        scale if scale > 0.0 => (scale, dtype.qmin() - minimum / scale),
        _ => (START_OF_ZEROS, 0.0),
    }
}

impl<M: Module + 'static, I: 'static> Algorithm<M, I> for LsqPlusQuantizer {
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
        Ok(self.targets.finish(self.round_zero_points)?)
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
        Chain, any, cause, chain, close, learner_agrees, net, nothing_changes_at_the_end, resumes,
        rules,
    };

    const ALL: &str = r#"[{"op_types": ["Linear"], "quant_dtype": "int4"}]"#;

    fn fuse(chain: Chain, config: &str, quantizer: LsqPlusConfig) -> Result<Chain, Error> {
        LsqPlusQuantizer::from_compressor(chain, &rules(config), quantizer)
    }

    fn exact() -> LsqPlusConfig {
        LsqPlusConfig::new().with_round_zero_points(false)
    }

    fn build() -> Chain {
        fuse(any(), ALL, exact()).unwrap()
    }

    fn entry(chain: &Chain, target: &str) -> CalibrationEntry {
        let calibration = chain.calibration().unwrap();
        let found = calibration
            .into_iter()
            .find(|(id, _)| id.to_string() == target);
        found.unwrap().1
    }

    fn start(values: [[f32; 2]; 2], grid: [usize; 2], dtype: &str, scheme: QuantScheme) -> Start {
        let values = FlatTensor::new(Tensor::<2>::from_floats(values, &Device::flex()));
        begin(&values, &Grid::new(grid), dtype.parse().unwrap(), scheme).unwrap()
    }

    #[test]
    fn affine_grids_begin_at_the_extremes() {
        let values = [[-1.0, 2.0], [2.0, 2.0]];
        // 3 / 15 and 0 + 1 / 0.2; of equal values the range reaches to zero.
        let found = start(values, [1, 2], "uint4", QuantScheme::Affine);
        close(&found.scale, &[0.2, 2.0 / 15.0]);
        close(&found.zero_point, &[5.0, 0.0]);
        // 3 / 6 and -3 + 1 / 0.5
        let found = start(values, [1, 1], "int3", QuantScheme::Affine);
        close(&found.scale, &[0.5]);
        close(&found.zero_point, &[-1.0]);
        let found = start([[0.0; 2]; 2], [1, 1], "int3", QuantScheme::Affine);
        assert_eq!((found.scale, found.zero_point), (vec![0.01], vec![0.0]));
    }

    #[test]
    fn symmetric_grids_begin_at_three_deviations() {
        // Columns: mean 2 and deviation 1, mean -1 and deviation 3.
        let values = [[1.0, -4.0], [3.0, 2.0]];
        let found = start(values, [1, 2], "int4", QuantScheme::Symmetric);
        close(&found.scale, &[5.0 / 7.0, 10.0 / 7.0]);
        assert_eq!(found.zero_point, [0.0, 0.0]);
        let found = start([[0.0; 2]; 2], [1, 1], "int3", QuantScheme::Symmetric);
        assert_eq!(found.scale, [0.01]);
    }

    #[test]
    fn a_step_worked_by_hand() {
        let config = r#"[{"op_names": ["second"], "target_names": ["weight"],
            "quant_dtype": "uint2", "quant_scheme": "affine"}]"#;
        let identity = [[1.0, 0.0], [0.0, 1.0]];
        let chain = chain(
            net(identity, [[0.1], [1.6]]),
            vec![[[1.0, 2.0], [1.0, 2.0]]],
            0.1,
        );
        let options = exact().with_init(LsqInit::Constant(0.5));
        let mut chain = fuse(chain, config, options).unwrap();
        chain.advance(&Budget::steps(1), None).unwrap();
        // z begins at (3 - 0) / 2, so that p = 1.7 and 4.7 in 0..=3. With the gradient [1, 2] at
        // w', (1 (2 - 1.7) + 2 (3 - 1.5)) / sqrt(3 * 2) arrives at s and 2 (-0.5) at z.
        let entry = entry(&chain, "second.weight");
        close(&entry.scale.unwrap(), &[0.5 - 0.1 * 3.3 / 6f32.sqrt()]);
        close(&entry.zero_point.unwrap(), &[1.6]);
    }

    #[test]
    fn inputs_and_outputs_are_affine_unless_told_otherwise() {
        let mut chain = build();
        chain.advance(&Budget::steps(1), None).unwrap();
        for (id, entry) in chain.calibration().unwrap() {
            let symmetric = id.target.is_param();
            assert_eq!(entry.scheme == "symmetric", symmetric, "{id}");
            assert_eq!(entry.zero_point == Some(vec![0.0]), symmetric, "{id}");
        }
        let symmetric = r#"[{"op_types": ["Linear"], "quant_scheme": "symmetric"}]"#;
        let mut chain = fuse(any(), symmetric, exact()).unwrap();
        chain.advance(&Budget::steps(1), None).unwrap();
        let calibration = chain.calibration().unwrap();
        assert!(
            calibration
                .values()
                .all(|entry| entry.zero_point == Some(vec![0.0]))
        );
    }

    #[test]
    fn zero_points_become_integers_at_the_end() {
        let compressed = |options| {
            let chain = fuse(any(), ALL, options).unwrap();
            let compressed = chain.compress(Budget::steps(3)).unwrap();
            let calibration = compressed.calibration().unwrap();
            let zero_points = calibration.values().map(|entry| entry.zero_point.clone());
            zero_points.flatten().flatten().collect::<Vec<f32>>()
        };
        let (learned, rounded) = (compressed(exact()), compressed(LsqPlusConfig::new()));
        assert!(learned.iter().any(|zero| zero.fract() != 0.0));
        let expected: Vec<f32> = learned.iter().map(|zero| zero.round_ties_even()).collect();
        assert_eq!(rounded, expected);
    }

    #[test]
    fn runs_can_be_stopped_and_driven_by_a_learner() {
        resumes("lsq-plus", build);
        let own = LsqPlusConfig::new().with_learning_rate(Some(0.01));
        let channels = r#"[{"op_types": ["Linear"], "quant_dtype": "uint4", "target_names":
            ["weight"], "quant_scheme": "affine", "granularity": "in_channel"}]"#;
        resumes("lsq-plus-channels", || fuse(any(), channels, own).unwrap());
        learner_agrees(build);
        nothing_changes_at_the_end(build);
    }

    #[rstest]
    #[case(r#""quant_dtype": "int1""#, LsqPlusConfig::new(), "quant_dtype")]
    #[case(r#""observer": "min_max""#, LsqPlusConfig::new(), "observer")]
    #[case(r#""apply_method": "bypass""#, LsqPlusConfig::new(), "apply_method")]
    #[case(
        r#""quant_dtype": "int8""#,
        LsqPlusConfig::new().with_init(LsqInit::Constant(-1.0)),
        "init"
    )]
    fn settings_that_do_not_fit(
        #[case] setting: &str,
        #[case] options: LsqPlusConfig,
        #[case] expected: &str,
    ) {
        let rules = format!(r#"[{{"op_types": ["Linear"], {setting}}}]"#);
        let error = cause(fuse(any(), &rules, options).unwrap_err());
        assert!(
            matches!(error, QuantizationError::Setting { key, .. } if key == expected),
            "{error}"
        );
    }
}
