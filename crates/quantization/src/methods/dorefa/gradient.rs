//! Gradients of few bits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Tensor, TensorData};
use burn_compress_core::{
    FlatTensor, QuantDtype, QuantScheme, RoundGradient, Transform, fake_quantize,
    gradient::{self, GradientRule},
};
use fastrand::Rng;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{QuantizationError, precision, qparams};

/// The type that gradients are rounded to while a [`DoReFaQuantizer`](crate::DoReFaQuantizer)
/// trains, and whose rounding it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradientDtype {
    /// Full precision.
    #[default]
    Float,
    /// The type of the layer's weight, rounded as in NNI: [`quantize_gradient`], one noise a
    /// sample.
    OfWeight,
    /// This one for all layers, rounded as in the paper: [`quantize_gradient_by_element`], one
    /// noise an element.
    Dtype(QuantDtype),
}

/// Rounding of the gradients of one output.
#[derive(Clone, Copy, Debug)]
pub(super) enum GradientRounding {
    BySample(Steps),
    ByElement(QuantDtype),
}

impl GradientDtype {
    /// The rounding for a layer with this type of weight, unless its gradient stays in full
    /// precision.
    ///
    /// # Errors
    ///
    /// [`QuantizationError::Setting`] for one bit.
    pub(super) fn for_weight(
        self,
        weight: QuantDtype,
    ) -> Result<Option<GradientRounding>, QuantizationError> {
        Ok(match self {
            Self::Float => None,
            Self::OfWeight => {
                reject_one_bit(weight)?;
                Some(GradientRounding::BySample(Steps::of(weight)?))
            }
            Self::Dtype(dtype) => {
                reject_one_bit(dtype)?;
                Some(GradientRounding::ByElement(dtype))
            }
        })
    }
}

/// Rejects types that cannot hold zero and values on both sides of it.
fn reject_one_bit(dtype: QuantDtype) -> Result<(), QuantizationError> {
    match dtype.bits() {
        1 => Err(QuantizationError::setting(
            "gradients",
            dtype,
            "a gradient needs zero and values on both sides of it, which is a type of 2 \
                       bits or more: give `DoReFaConfig::with_gradients` one of its own",
        )),
        _ => Ok(()),
    }
}

/// A gradient rounded to few bits as in NNI, with one noise for all elements of a sample.
///
/// ```text
/// m   = max|g| of the sample,   h = 1 / (2 (2^k - 1))
/// v   = g / (2 m) + 1/2 + noise / (2^k - 1)   rounded to the affine grid over -h..=1 + h
/// g'  = 2 m (v - 1/2)
/// ```
///
/// The steps of the grid are longer than the noise, so the mean of what a value is rounded to is
/// not the value: [`quantize_gradient_by_element`] has no such error.
///
/// # Shapes
///
/// - gradient: `[samples, ..]`
/// - noise: `[samples]`, from -1/2..1/2
/// - result: the shape of `gradient`
///
/// # Errors
///
/// [`QuantizationError::Setting`] when there is not one noise for each sample, and for one bit.
pub fn quantize_gradient<const D: usize>(
    gradient: Tensor<D>,
    noise: Tensor<1>,
    dtype: QuantDtype,
) -> Result<Tensor<D>, QuantizationError> {
    reject_one_bit(dtype)?;
    let dims = gradient.dims();
    if noise.dims()[0] != dims[0] {
        return Err(QuantizationError::setting(
            "noise",
            format!("{} numbers", noise.dims()[0]),
            "one number for each sample of the gradient",
        ));
    }
    if dims.contains(&0) {
        return Ok(gradient);
    }
    let steps = Steps::of(dtype)?;
    let rows = gradient.reshape([dims[0] as i64, -1]);
    Ok(steps.round(rows, noise).reshape(dims))
}

/// A gradient rounded to few bits as in the paper, with a noise of its own for each element, so
/// that the mean of what a value is rounded to is the value.
///
/// ```text
/// m   = max|g| of the sample,   n = qmax - qmin, 2^k - 1 for an unsigned type of k bits
/// g'  = 2 m (round(n clamp(g / (2 m) + 1/2 + noise / n, 0, 1)) / n - 1/2)
/// ```
///
/// # Shapes
///
/// - gradient: `[samples, ..]`
/// - noise: the shape of `gradient`, from -1/2..1/2
/// - result: the shape of `gradient`
///
/// # Errors
///
/// [`QuantizationError::Setting`] when there is not one noise for each element, and for one bit.
///
/// # References
///
/// Zhou et al., arXiv 1606.06160, equation 12, with the noise and the clamping of its authors' code
/// (tensorpack, `dorefa.py`).
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_quantization::dorefa::quantize_gradient_by_element;
///
/// let device = Device::flex();
/// let gradient = Tensor::<2>::from_floats([[4.0, -1.0]], &device);
/// let noise = Tensor::<2>::from_floats([[0.0, 0.0]], &device);
/// // Four values from -4 to 4: -1 lies between -4/3 and 4/3, nearer to the first.
/// let rounded = quantize_gradient_by_element(gradient, noise, "uint2".parse()?)?;
/// let rounded = rounded.into_data().try_to_vec::<f32>().unwrap();
/// assert!(rounded[0] == 4.0 && (rounded[1] + 4.0 / 3.0).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn quantize_gradient_by_element<const D: usize>(
    gradient: Tensor<D>,
    noise: Tensor<D>,
    dtype: QuantDtype,
) -> Result<Tensor<D>, QuantizationError> {
    reject_one_bit(dtype)?;
    let dims = gradient.dims();
    if noise.dims() != dims {
        return Err(QuantizationError::setting(
            "noise",
            format!("of shape {:?}", noise.dims()),
            "one number for each element of the gradient",
        ));
    }
    if dims.contains(&0) {
        return Ok(gradient);
    }
    let [gradient, noise] = [gradient, noise].map(|one| one.reshape([dims[0] as i64, -1]));
    Ok(round_by_element(gradient, noise, dtype).reshape(dims))
}

/// `rows` and `noise` are `[samples, values]`.
fn round_by_element(rows: Tensor<2>, noise: Tensor<2>, dtype: QuantDtype) -> Tensor<2> {
    let precision = rows.dtype();
    let rows = precision::single(rows);
    let steps = dtype.qmax() - dtype.qmin();
    let (largest, unit) = unit(&rows);
    let position = (rows / unit + 0.5 + precision::single(noise) / steps).clamp(0.0, 1.0);
    let rounded = (position * steps).round() / steps;
    precision::in_dtype((rounded - 0.5) * largest * 2.0, precision)
}

/// The largest magnitude of each row and twice that, `[samples, 1]`, or 2 of a row of zeros, which
/// thus stays so.
fn unit(rows: &Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let largest = rows.clone().abs().max_dim(1);
    let none = precision::single(largest.clone().equal_elem(0.0).float());
    let unit = (largest.clone() + none) * 2.0;
    (largest, unit)
}

/// The grid of gradients that are rounded as in NNI.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    dtype: QuantDtype,
    /// Number of steps of 0..=1.
    levels: f32,
    scale: f32,
    zero_point: f32,
}

impl Steps {
    fn of(dtype: QuantDtype) -> Result<Self, QuantizationError> {
        let levels = f32::from((1u16 << dtype.bits()) - 1);
        let margin = 0.5 / levels;
        let affine = QuantScheme::Affine;
        let (scale, zero_point) = qparams::compute_one(-margin, 1.0 + margin, dtype, affine)?;
        Ok(Self {
            dtype,
            levels,
            scale,
            zero_point,
        })
    }

    /// `rows` is `[samples, values]`, `noise` `[samples]`.
    fn round(&self, rows: Tensor<2>, noise: Tensor<1>) -> Tensor<2> {
        let samples = rows.dims()[0];
        let dtype = rows.dtype();
        let rows = precision::single(rows);
        let (largest, unit) = unit(&rows);
        let noise = precision::single(noise).reshape([samples, 1]) / self.levels;
        let device = rows.device();
        let one = |value: f32| precision::single(Tensor::<2>::from_floats([[value]], &device));
        let rounded = fake_quantize(
            rows / unit + 0.5 + noise,
            one(self.scale),
            one(self.zero_point),
            self.dtype.qmin(),
            self.dtype.qmax(),
            RoundGradient::StraightThrough,
        );
        precision::in_dtype((rounded - 0.5) * largest * 2.0, dtype)
    }
}

/// Transform that rounds the gradient of one output.
///
/// The noise of a pass follows from the seed, the step and the number of the pass within the step,
/// so that a resumed run draws what an uninterrupted one does.
#[derive(Debug)]
pub(super) struct RoundedGradient {
    rounding: GradientRounding,
    seed: u64,
    step: Arc<AtomicUsize>,
    /// The step of the last pass, and its number of passes.
    passes: Mutex<(usize, u64)>,
}

impl RoundedGradient {
    /// `step` is the number of completed steps.
    pub(super) fn new(rounding: GradientRounding, seed: u64, step: Arc<AtomicUsize>) -> Self {
        Self {
            rounding,
            seed,
            step,
            passes: Mutex::new((0, 0)),
        }
    }

    /// Draws the noise of the next pass.
    fn rng(&self) -> Rng {
        let step = self.step.load(Ordering::Acquire);
        let mut passes = self.passes.lock();
        *passes = match *passes {
            (last, passes) if last == step => (step, passes + 1),
            _ => (step, 1),
        };
        let mut seeds = Rng::with_seed(self.seed ^ (step as u64).rotate_left(32));
        Rng::with_seed(seeds.u64(..) ^ passes.1)
    }
}

impl Transform for RoundedGradient {
    fn apply(&self, value: FlatTensor, _mask: Option<Tensor<1>>) -> FlatTensor {
        let samples = value.shape.first().copied().unwrap_or(0);
        if samples == 0 || !value.values.is_autodiff() {
            return value;
        }
        let rounding = Rounding {
            rounding: self.rounding,
            samples,
            rng: self.rng(),
        };
        value.map(|values| {
            let rule = GradientRule::new(move |gradient| rounding.apply(gradient));
            // On a backend without such steps the algorithm has refused to begin.
            gradient::replace(values, |values| (values, rule)).unwrap_or_else(|values| values)
        })
    }

    fn snapshot(&self) -> Arc<dyn Transform> {
        Arc::new(Self {
            rounding: self.rounding,
            seed: self.seed,
            step: self.step.clone(),
            passes: Mutex::new(*self.passes.lock()),
        })
    }
}

/// Change of the gradient of one pass.
#[derive(Debug)]
struct Rounding {
    rounding: GradientRounding,
    samples: usize,
    rng: Rng,
}

impl Rounding {
    /// The rounded gradient, `[samples * values]`.
    fn apply(&self, gradient: Tensor<1>) -> Tensor<1> {
        let dims = gradient.dims();
        let device = gradient.device();
        let noise = |count: usize| -> Tensor<1> {
            Tensor::from_data(
                TensorData::from(&draw(self.rng.clone(), count)[..]),
                &device,
            )
        };
        let rows = gradient.reshape([self.samples as i64, -1]);
        let rounded = match self.rounding {
            GradientRounding::BySample(steps) => steps.round(rows, noise(self.samples)),
            GradientRounding::ByElement(dtype) => {
                let noise = noise(dims[0]).reshape(rows.dims());
                round_by_element(rows, noise, dtype)
            }
        };
        rounded.reshape(dims)
    }
}

/// `count` numbers from -1/2..1/2.
fn draw(mut rng: Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.f32() - 0.5).collect()
}

#[cfg(test)]
mod tests;
