//! DoReFa: weights squeezed into -1..=1, bounded activations, few bits from the first step on.
//!
//! The choice for networks of very few bits that are trained for it. The range of the weights is
//! fixed: a hyperbolic tangent squeezes them, so that no outlier spoils the grid, and outputs of
//! activation layers are cut to 0..=1.
//!
//! ```text
//! weight      t  = tanh(w),  u = t / (2 max|t|) + 1/2,  w' = 2 round_k(u) - 1
//! 1 bit       w' = sign(w) mean|w|, with sign(0) = 1; the gradient passes
//! output      x' = round_k(clamp(x, 0, 1))      of activation layers
//! input       x' on the grid that the smallest and largest value of the batch span
//! round_k     rounding to the integers of the type, laid over 0..=1
//! ```
//!
//! Rounding lets all gradients pass, the tangent, the maximum and the cut are differentiated. Outputs
//! of other layers have no bounds and are treated as inputs are. The ranges of inputs are averaged
//! over the steps as well, and at the end of the run the grid is laid over the average: one batch of
//! the run is not what inference sees. Parameters then become what they were simulated to be, with an
//! ordinary quantization whose grid they lie on.
//!
//! [`quantize_gradient`] rounds gradients as the paper does:
//!
//! ```text
//! m   = max|g| of the sample,   h = 1 / (2 (2^k - 1)),   noise from -1/2..1/2, one number a sample
//! v   = g / (2 m) + 1/2 + noise / (2^k - 1)   rounded to the affine grid over -h..=1 + h
//! g'  = 2 m (v - 1/2)
//! ```
//!
//! The quantizer itself trains with gradients in full precision: they cost nothing at inference, and
//! a network that a run has finished does not tell how its gradients were rounded.
//!
//! # References
//!
//! Zhou et al., *DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth
//! Gradients*, arXiv 1606.06160. Deviations: inputs take the range of the batch and gradients the grid
//! over `-h..=1 + h`, as in NNI; in addition to NNI, 1 bit and outputs of layers that are no
//! activations. The scale of a weight is that of -1..=1, twice that of 0..=1 which NNI reports.

use std::any::Any;
use std::sync::Arc;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{
    Algorithm, BoxError, Compressor, Error, Evaluator, FlatTensor, Grid, Mode, Observer,
    Quantization, RoundGradient, Run, Stage, Target, TargetId, Transform, fake_quantize,
    parameters,
};
use indexmap::{IndexMap, IndexSet};

use crate::bnn::sign;
use crate::claim::{Claimed, claim, error_of};
use crate::fixed::{FixedGrid, refuse_blocks};
use crate::learned::{refuse_method, refuse_observer};
use crate::observed::refuse_binary;
use crate::observer::{DECAY, moving_average};
use crate::range::host;
use crate::{
    ApplyMethod, QuantDtype, QuantScheme, QuantizationError, QuantizationSettings, blocks, range,
};

const NAME: &str = "DoReFaQuantizer";

/// The layers of Burn whose outputs are cut to 0..=1.
const ACTIVATIONS: [&str; 26] = [
    "Celu",
    "Elu",
    "GLU",
    "Gelu",
    "HardShrink",
    "HardSigmoid",
    "HardSwish",
    "Hardtanh",
    "LeakyRelu",
    "LogSigmoid",
    "Mish",
    "PRelu",
    "RRelu",
    "Relu",
    "Relu6",
    "Selu",
    "Shrink",
    "SiLU",
    "Sigmoid",
    "SoftShrink",
    "Softplus",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
    "ThresholdedRelu",
];

/// How a [`DoReFaQuantizer`] trains.
#[derive(Config, Debug, Copy)]
pub struct DoReFaConfig {
    /// Check in every forward pass that the values of inputs are finite, and name the target if they
    /// are not. Reads numbers back from the device.
    #[config(default = true)]
    pub check_finite: bool,
}

/// Trains a model with the weights and activations of DoReFa-Net.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_quantization::{DoReFaConfig, DoReFaQuantizer, QuantizationSettings};
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
///     .with_learning_rate(0.1)
///     .with_loss(|model: &Net, batch: &Tensor<2>| model.fc.forward(batch.clone()).square().mean());
/// let config = ConfigList::<QuantizationSettings>::from_json(
///     r#"[{"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int2"}]"#,
/// )?;
/// let quantizer = DoReFaQuantizer::new(model, &config, evaluator, DoReFaConfig::new())?;
/// let model = quantizer.compress(Budget::steps(3))?.unwrap_model();
/// let weight = model.fc.weight.val().into_data().try_to_vec::<f32>().unwrap();
/// assert!(weight.iter().all(|w| [-1.0, 0.0, 1.0].contains(w)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DoReFaQuantizer {
    targets: Vec<Claimed>,
    device: Device,
}

impl DoReFaQuantizer {
    /// Quantizes `model`.
    ///
    /// # Errors
    ///
    /// A configuration that does not fit the model or the quantizer, or an evaluator that cannot
    /// train.
    #[allow(clippy::new_ret_no_self)] // A chain has one type whatever is fused into it.
    pub fn new<M: Module + 'static, I: 'static>(
        model: M,
        config: &ConfigList<QuantizationSettings>,
        evaluator: Evaluator<M, I>,
        quantizer: DoReFaConfig,
    ) -> Result<Compressor<M, I>, Error> {
        Self::from_compressor(Compressor::from_model(model, evaluator), config, quantizer)
    }

    /// Quantizes the model of `compressor` as well, in the same run.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and a target that another quantizer of the chain has.
    pub fn from_compressor<M: Module + 'static, I: 'static>(
        mut compressor: Compressor<M, I>,
        config: &ConfigList<QuantizationSettings>,
        quantizer: DoReFaConfig,
    ) -> Result<Compressor<M, I>, Error> {
        compressor.evaluator().require_training(NAME)?;
        for selected in config.select(compressor.layers())? {
            let settings = &selected.settings;
            let bits = match selected.target.is_param() {
                true => Ok(()),
                false => refuse_binary(settings.dtype()),
            };
            bits.and_then(|()| refuse_blocks(settings))
                .and_then(|()| refuse_observer(settings))
                .and_then(|()| refuse_method(settings))
                .map_err(error_of(NAME))?;
        }
        let device = compressor.model().devices().first().cloned();
        let device = device.unwrap_or_default();
        let targets = claim(&mut compressor, config, ApplyMethod::ClampRound)?;
        for target in &targets {
            begin(target, &device, quantizer);
        }
        compressor.push(Self { targets, device });
        Ok(compressor)
    }
}

fn begin(claimed: &Claimed, device: &Device, quantizer: DoReFaConfig) {
    let (space, dtype) = (&claimed.space, claimed.settings.dtype());
    match claimed.target() {
        Target::Param(_) => {
            space.set_transform(Stage::Quantize, Some(Arc::new(Squeezed { dtype })));
            if dtype.bits() > 1 {
                weight_grid(dtype).set(claimed, device);
            }
        }
        Target::Output(_) if ACTIVATIONS.contains(&claimed.layer.kind.as_str()) => {
            output_grid(dtype).set(claimed, device);
        }
        Target::Input(_) | Target::Output(_) => {
            space.set_observer(Some(Arc::new(BatchRange {
                dtype,
                scheme: claimed.settings.scheme(),
                check: quantizer.check_finite,
            })));
            claimed.enable();
        }
    }
}

/// The integers laid over -1..=1.
fn weight_grid(dtype: QuantDtype) -> FixedGrid {
    let width = dtype.qmax() - dtype.qmin();
    FixedGrid {
        scale: 2.0 / width,
        zero_point: dtype.qmin() + width / 2.0,
        gradient: RoundGradient::StraightThrough,
    }
}

/// The integers laid over 0..=1.
fn output_grid(dtype: QuantDtype) -> FixedGrid {
    FixedGrid {
        scale: 1.0 / (dtype.qmax() - dtype.qmin()),
        zero_point: dtype.qmin(),
        gradient: RoundGradient::Clipped,
    }
}

/// The grid of a weight of one bit: plus and minus its mean magnitude.
fn one_bit_grid(dtype: QuantDtype, magnitude: f32) -> FixedGrid {
    let (scale, zero_point) = match dtype.is_signed() {
        true => (magnitude, 0.0),
        // 0 and 1 are half a scale away from zero.
        false => (2.0 * magnitude, 0.5),
    };
    FixedGrid {
        scale,
        zero_point,
        gradient: RoundGradient::StraightThrough,
    }
}

/// A weight as DoReFa uses it.
///
/// Gradients flow through the tangent and the maximum; of one bit they pass unchanged.
///
/// # Shapes
///
/// - weight, result: any
pub fn quantize_weight(weight: FlatTensor, dtype: QuantDtype) -> FlatTensor {
    let FlatTensor { values, shape } = weight;
    let (value, path) = match dtype.bits() {
        1 => {
            let plain = values.clone().detach().without_autodiff();
            let magnitude = magnitude(plain.clone());
            let plain = FlatTensor {
                values: plain,
                shape: shape.clone(),
            };
            (sign(plain).values * magnitude, values)
        }
        _ => {
            let squeezed = values.tanh();
            let largest = squeezed.clone().abs().max();
            // Weights that are all zero stay so.
            let none = largest.clone().detach().equal_elem(0.0).float();
            let squeezed = squeezed / (largest + none);
            let plain = squeezed.clone().detach().without_autodiff();
            let grid = weight_grid(dtype);
            let position = plain / grid.scale + grid.zero_point;
            let rounded = position.clamp(dtype.qmin(), dtype.qmax()).round();
            ((rounded - grid.zero_point) * grid.scale, squeezed)
        }
    };
    let values = match path.is_autodiff() {
        true => (path.clone() - path.detach()) + value,
        false => value,
    };
    FlatTensor { values, shape }
}

/// The mean magnitude, which is never zero.
fn magnitude(plain: Tensor<1>) -> Tensor<1> {
    plain.abs().mean().clamp_min(f32::EPSILON)
}

/// A gradient rounded to few bits, with noise so that it is right on average.
///
/// # Shapes
///
/// - gradient: `[samples, ..]`
/// - noise: `[samples]`, from -1/2..1/2
/// - result: the shape of `gradient`
///
/// # Errors
///
/// [`QuantizationError::Setting`] when there is not one noise for each sample, and for `int1`.
pub fn quantize_gradient<const D: usize>(
    gradient: Tensor<D>,
    noise: Tensor<1>,
    dtype: QuantDtype,
) -> Result<Tensor<D>, QuantizationError> {
    refuse_binary(dtype)?;
    let dims = gradient.dims();
    let samples = dims[0];
    if noise.dims()[0] != samples {
        return Err(QuantizationError::Setting {
            key: "noise",
            value: format!("{} numbers", noise.dims()[0]),
            expected: "one number for each sample of the gradient",
        });
    }
    let levels = f32::from((1u16 << dtype.bits()) - 1);
    let margin = 0.5 / levels;
    let (scale, zero_point) =
        range::host_parameters(-margin, 1.0 + margin, dtype, QuantScheme::Affine)?;
    let rows: Tensor<2> = gradient.reshape([samples as i64, -1]);
    let largest = rows.clone().abs().max_dim(1);
    // A sample without gradient stays so.
    let none = largest.clone().equal_elem(0.0).float();
    let unit = (largest.clone() + none) * 2.0;
    let noise = noise.reshape([samples, 1]) / levels;
    let one = |value: f32| Tensor::<2>::from_floats([[value]], &rows.device());
    let rounded = fake_quantize(
        rows.clone() / unit + 0.5 + noise,
        one(scale),
        one(zero_point),
        dtype.qmin(),
        dtype.qmax(),
        RoundGradient::StraightThrough,
    );
    Ok(((rounded - 0.5) * largest * 2.0).reshape(dims))
}

/// Simulates a weight.
#[derive(Clone, Copy, Debug)]
struct Squeezed {
    dtype: QuantDtype,
}

impl Transform for Squeezed {
    fn apply(&self, value: FlatTensor, _mask: Option<Tensor<1>>) -> FlatTensor {
        quantize_weight(value, self.dtype)
    }

    fn snapshot(&self) -> Arc<dyn Transform> {
        Arc::new(*self)
    }
}

/// Lays the grid over the range of each batch and follows the average of the ranges.
#[derive(Debug)]
struct BatchRange {
    dtype: QuantDtype,
    scheme: QuantScheme,
    check: bool,
}

impl BatchRange {
    fn update(
        &self,
        values: &FlatTensor,
        quantization: &mut Quantization,
    ) -> Result<(), QuantizationError> {
        let grid = Grid::per_tensor(values.shape.len());
        let (minimum, maximum) = blocks::range(values, &grid)?;
        if self.check {
            range::check_finite(minimum.clone(), maximum.clone())?;
        }
        let (scale, zero_point) =
            range::parameters(minimum.clone(), maximum.clone(), self.dtype, self.scheme);
        quantization.minimum = Some(moving_average(quantization.minimum.take(), minimum, DECAY));
        quantization.maximum = Some(moving_average(quantization.maximum.take(), maximum, DECAY));
        quantization.scale = Some(scale);
        quantization.zero_point = Some(zero_point);
        quantization.grid = grid;
        Ok(())
    }
}

impl Observer for BatchRange {
    fn observe(&self, values: &FlatTensor, quantization: &mut Quantization) -> Result<(), String> {
        self.update(values, quantization)
            .map_err(|error| error.to_string())
    }
}

impl<M: Module + 'static, I: 'static> Algorithm<M, I> for DoReFaQuantizer {
    fn name(&self) -> &'static str {
        NAME
    }

    fn mode(&self) -> Mode {
        Mode::Quantization
    }

    fn finish(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        for claimed in &self.targets {
            let Some(state) = claimed.space.quantization() else {
                continue;
            };
            if let (Some(minimum), Some(maximum)) = (&state.minimum, &state.maximum) {
                let (dtype, scheme) = (claimed.settings.dtype(), claimed.settings.scheme());
                let (scale, zero_point) =
                    range::parameters(minimum.clone(), maximum.clone(), dtype, scheme);
                claimed.space.set_quantization(Some(Quantization {
                    scale: Some(scale),
                    zero_point: Some(zero_point),
                    ..state
                }));
            }
        }
        Ok(())
    }

    fn rewrite(&mut self, run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        let params = self
            .targets
            .iter()
            .filter(|claimed| claimed.target().is_param());
        let params: IndexMap<String, &Claimed> = params
            .map(|claimed| (claimed.id().to_string(), claimed))
            .collect();
        let paths: IndexSet<String> = params.keys().cloned().collect();
        let mut folded = IndexMap::new();
        for (path, weight) in parameters(run.model, &paths) {
            let (claimed, dtype) = (params[&path], params[&path].settings.dtype());
            if dtype.bits() == 1 {
                let magnitude = host(magnitude(weight.values.clone()))?;
                one_bit_grid(dtype, magnitude[0]).set(claimed, &self.device);
            }
            folded.insert(claimed.id().clone(), quantize_weight(weight, dtype));
            // The standard simulation leaves the folded values as they are.
            claimed.space.set_transform(Stage::Quantize, None);
        }
        Ok(folded)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use burn_compress_core::{Budget, CalibrationEntry};
    use rstest::rstest;

    use super::*;
    use crate::learned::testing::{
        Chain, any, cause, chain, close, floats, learner_agrees, net, resumes, rules,
    };

    const ALL: &str = r#"[
        {"op_types": ["Linear"], "quant_dtype": "uint3", "quant_scheme": "affine"},
        {"op_types": ["Relu"], "quant_dtype": "uint2", "target_names": ["_output_0"]}
    ]"#;

    fn fuse(chain: Chain, config: &str) -> Result<Chain, Error> {
        DoReFaQuantizer::from_compressor(chain, &rules(config), DoReFaConfig::new())
    }

    fn build() -> Chain {
        fuse(any(), ALL).unwrap()
    }

    fn entry(chain: &Chain, target: &str) -> CalibrationEntry {
        let calibration = chain.calibration().unwrap();
        let found = calibration
            .into_iter()
            .find(|(id, _)| id.to_string() == target);
        found.unwrap().1
    }

    /// A weight and its gradients with the upstream gradients 1, 2, ..
    fn weight(values: &[f32], dtype: &str) -> (Vec<f32>, Vec<f32>) {
        let device = Device::flex().autodiff();
        let leaf = Tensor::<1>::from_floats(values, &device).require_grad();
        let value = FlatTensor::new(leaf.clone());
        let y = quantize_weight(value, dtype.parse().unwrap()).values;
        let upstream: Vec<f32> = (1..=values.len()).map(|i| i as f32).collect();
        let upstream = Tensor::<1>::from_floats(upstream.as_slice(), &device);
        let gradients = (y.clone() * upstream).sum().backward();
        (floats(y), floats(leaf.grad(&gradients).unwrap()))
    }

    #[test]
    fn weights_worked_by_hand() {
        // tanh gives 0.8, -0.4 and -0.6; by the largest 1, -0.5 and -0.75; in 0..=1 1, 0.25 and
        // 0.125; of 3 steps 3, round(0.75) = 1 and round(0.375) = 0.
        let values = [0.8f32.atanh(), (-0.4f32).atanh(), (-0.6f32).atanh()];
        close(&weight(&values, "uint2").0, &[1.0, -1.0 / 3.0, -1.0]);
        // Of 6 steps around zero 3, round(-1.5) and round(-2.25) = -2.
        let found = weight(&values, "int3").0;
        close(&[found[0], found[2]], &[1.0, -2.0 / 3.0]);
        assert_eq!(weight(&[0.0, 0.0], "int3").0, [0.0, 0.0]);
    }

    #[test]
    fn one_bit_is_the_sign_times_the_mean_magnitude() {
        for dtype in ["int1", "uint1"] {
            let (value, gradient) = weight(&[1.0, -3.0, 0.0, 2.0], dtype);
            assert_eq!(value, [1.5, -1.5, 1.5, 1.5]);
            assert_eq!(gradient, [1.0, 2.0, 3.0, 4.0]);
        }
    }

    #[test]
    fn the_gradient_of_weights_agrees_with_finite_differences() {
        let values = [0.7, -1.3, 0.2, -0.4, 0.9];
        let (_, found) = weight(&values, "int4");
        // Rounding adds a constant to t / max|t|.
        let smooth = |moved: usize, by: f64| -> f64 {
            let t: Vec<f64> = values
                .iter()
                .enumerate()
                .map(|(i, &w)| (f64::from(w) + if i == moved { by } else { 0.0 }).tanh())
                .collect();
            let largest = t.iter().fold(0.0f64, |max, t| max.max(t.abs()));
            let each = t.iter().enumerate();
            each.map(|(i, t)| (i + 1) as f64 * t / largest).sum()
        };
        let expected: Vec<f32> = (0..values.len())
            .map(|i| ((smooth(i, 1e-6) - smooth(i, -1e-6)) / 2e-6) as f32)
            .collect();
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
    }

    #[test]
    fn gradients_worked_by_hand() {
        let device = Device::flex();
        let gradient = Tensor::<2>::from_floats([[2.0, -1.0], [0.0, 0.0], [2.0, -1.0]], &device);
        // The last row is moved by 0.3 / 3.
        let noise = Tensor::<1>::from_floats([0.0, 0.4, 0.3], &device);
        let dtype = "uint2".parse().unwrap();
        let found = floats(quantize_gradient(gradient.clone(), noise.clone(), dtype).unwrap());
        // h = 1/6, a step is (4/3) / 3 = 4/9, zero is round(0.375) = 0. The values 1 and 0.25 are
        // 2.25 and 0.5625 steps, 1.1 and 0.35 are 2.475 and 0.7875: all rounded to 2 and 1.
        let expected = [4.0 * (8.0 / 9.0 - 0.5), 4.0 * (4.0 / 9.0 - 0.5)];
        close(
            &found,
            &[expected[0], expected[1], 0.0, 0.0, expected[0], expected[1]],
        );
        let error = quantize_gradient(gradient.clone(), noise.clone().slice(0..2), dtype);
        assert!(matches!(
            error,
            Err(QuantizationError::Setting { key: "noise", .. })
        ));
        let error = quantize_gradient(gradient, noise, QuantDtype::int(1).unwrap());
        assert!(matches!(
            error,
            Err(QuantizationError::Setting {
                key: "quant_dtype",
                ..
            })
        ));
    }

    #[test]
    fn inputs_follow_the_batch_and_end_at_the_average() {
        let config = r#"[{"op_names": ["first"], "target_names": ["_input_0"],
            "quant_dtype": "uint4", "quant_scheme": "affine"}]"#;
        let batches = vec![[[0.0, 1.5], [0.3, 3.0]], [[-1.0, 0.0], [0.5, 2.0]]];
        let chain = chain(net([[1.0, 0.0], [0.0, 1.0]], [[1.0], [1.0]]), batches, 0.1);
        let mut chain = fuse(chain, config).unwrap();
        chain.advance(&Budget::steps(2), Some(1)).unwrap();
        let first = entry(&chain, "first._input_0");
        close(&first.scale.unwrap(), &[3.0 / 15.0]);
        chain.advance(&Budget::steps(2), None).unwrap();
        let second = entry(&chain, "first._input_0");
        // -1..=2 in steps of 0.2.
        close(&second.scale.unwrap(), &[3.0 / 15.0]);
        assert_eq!(second.zero_point, Some(vec![5.0]));
        close(&second.minimum.unwrap(), &[-0.01]);
        let calibration = chain.finish().unwrap().calibration().unwrap();
        // -0.01..=2.99 in steps of 0.2.
        close(calibration[0].scale.as_ref().unwrap(), &[0.2]);
        assert_eq!(calibration[0].zero_point, Some(vec![0.0]));
    }

    #[test]
    fn outputs_of_activations_are_cut() {
        let config = r#"[{"op_types": ["Relu"], "target_names": ["_output_0"],
            "quant_dtype": "uint2"}]"#;
        let mut chain = fuse(any(), config).unwrap();
        chain.advance(&Budget::steps(1), None).unwrap();
        let compressed = chain.finish().unwrap();
        let x = Tensor::<2>::from_floats([[-1.0, 0.2], [0.7, 9.0]], &Device::flex());
        close(
            &floats(compressed.model().act.forward(x)),
            &[0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0],
        );
    }

    #[rstest]
    #[case("uint3")]
    #[case("int4")]
    #[case("int1")]
    #[case("uint1")]
    fn weights_are_folded_at_the_end(#[case] dtype: &str) {
        let config = format!(
            r#"[{{"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "{dtype}",
            "quant_scheme": "affine"}}]"#
        );
        let mut chain = fuse(any(), &config).unwrap();
        chain.advance(&Budget::steps(3), None).unwrap();
        let simulated = floats(chain.model().first.weight.val());
        let x = Tensor::<2>::from_floats([[0.4, -1.2], [0.1, 0.8]], &Device::flex());
        let before = floats(chain.model().valid().forward(x.clone()));
        let compressed = chain.finish().unwrap();
        let model = compressed.model();
        assert_eq!(floats(model.first.weight.val()), simulated);
        assert_eq!(floats(model.forward(x)), before);
        assert_eq!(
            floats(compressed.unwrap_model().first.weight.val()),
            simulated
        );
        assert!(
            compressed
                .calibration()
                .unwrap()
                .values()
                .all(|entry| entry.enabled)
        );
    }

    #[test]
    fn runs_can_be_stopped_and_driven_by_a_learner() {
        resumes("dorefa", build);
        learner_agrees(build);
    }

    #[rstest]
    #[case(
        r#""granularity": "out_channel", "target_names": ["weight"]"#,
        "granularity"
    )]
    #[case(r#""quant_dtype": "int1""#, "quant_dtype")]
    #[case(r#""observer": "mse""#, "observer")]
    #[case(r#""apply_method": "clamp_round""#, "apply_method")]
    fn settings_that_do_not_fit(#[case] setting: &str, #[case] expected: &str) {
        let rules = format!(r#"[{{"op_types": ["Linear"], {setting}}}]"#);
        let error = cause(fuse(any(), &rules).unwrap_err());
        assert!(
            matches!(error, QuantizationError::Setting { key, .. } if key == expected),
            "{error}"
        );
    }

    #[test]
    fn values_that_are_not_finite_name_their_target() {
        let config = r#"[{"op_names": ["first"], "target_names": ["_input_0"]}]"#;
        let net = net([[1.0, 0.0], [0.0, 1.0]], [[1.0], [1.0]]);
        let chain = chain(net, vec![[[f32::NAN, 1.0], [0.0, 1.0]]], 0.1);
        let mut chain = fuse(chain, config).unwrap();
        let error = chain
            .advance(&Budget::steps(1), None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`first._input_0`") && error.contains("not finite"),
            "{error}"
        );
    }
}
