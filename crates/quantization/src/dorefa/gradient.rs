//! Gradients of few bits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Tensor, TensorData};
use burn_compress_core::{FlatTensor, RoundGradient, Transform, fake_quantize};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::backward::{GradientHook, hooked};
use crate::{QuantDtype, QuantScheme, QuantizationError, precision, range};

/// The type that gradients are rounded to while a [`DoReFaQuantizer`](crate::DoReFaQuantizer)
/// trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradientDtype {
    /// Full precision.
    #[default]
    Float,
    /// That of the layer's weight, as in NNI.
    OfWeight,
    /// This one for all layers, as in the paper.
    Dtype(QuantDtype),
}

impl GradientDtype {
    /// The type for a layer with this type of weight, unless its gradient stays in full precision.
    ///
    /// # Errors
    ///
    /// [`QuantizationError::Setting`] for one bit.
    pub(super) fn for_weight(
        self,
        weight: QuantDtype,
    ) -> Result<Option<QuantDtype>, QuantizationError> {
        let dtype = match self {
            Self::Float => return Ok(None),
            Self::OfWeight => weight,
            Self::Dtype(dtype) => dtype,
        };
        refuse_one_bit(dtype)?;
        Ok(Some(dtype))
    }
}

/// Refuses types that cannot hold zero and values on both sides of it.
fn refuse_one_bit(dtype: QuantDtype) -> Result<(), QuantizationError> {
    match dtype.bits() {
        1 => Err(QuantizationError::Setting {
            key: "gradients",
            value: dtype.to_string(),
            expected: "a gradient needs zero and values on both sides of it, which is a type of 2 \
                       bits or more: give `DoReFaConfig::with_gradients` one of its own",
        }),
        _ => Ok(()),
    }
}

/// A gradient rounded to few bits, with noise, so that what lies between two steps is not always
/// rounded to the same.
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
    refuse_one_bit(dtype)?;
    let dims = gradient.dims();
    if noise.dims()[0] != dims[0] {
        return Err(QuantizationError::Setting {
            key: "noise",
            value: format!("{} numbers", noise.dims()[0]),
            expected: "one number for each sample of the gradient",
        });
    }
    if dims.contains(&0) {
        return Ok(gradient);
    }
    let steps = Steps::of(dtype)?;
    let rows = gradient.reshape([dims[0] as i64, -1]);
    Ok(steps.round(rows, noise).reshape(dims))
}

/// The grid of rounded gradients.
#[derive(Clone, Copy, Debug)]
struct Steps {
    dtype: QuantDtype,
    /// How many steps 0..=1 has.
    levels: f32,
    scale: f32,
    zero_point: f32,
}

impl Steps {
    fn of(dtype: QuantDtype) -> Result<Self, QuantizationError> {
        let levels = f32::from((1u16 << dtype.bits()) - 1);
        let margin = 0.5 / levels;
        let affine = QuantScheme::Affine;
        let (scale, zero_point) = range::host_parameters(-margin, 1.0 + margin, dtype, affine)?;
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
        let dtype = precision::of(&rows);
        let rows = precision::single(rows);
        let largest = rows.clone().abs().max_dim(1);
        // A sample without gradient stays so.
        let none = precision::single(largest.clone().equal_elem(0.0).float());
        let unit = (largest.clone() + none) * 2.0;
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
        precision::cast((rounded - 0.5) * largest * 2.0, dtype)
    }
}

/// Rounds the gradient of one output.
///
/// The noise of a pass follows from the seed, the step and the number of the pass within the step,
/// so that a resumed run draws what an uninterrupted one does.
#[derive(Debug)]
pub(super) struct RoundedGradient {
    steps: Steps,
    seed: u64,
    step: Arc<AtomicUsize>,
    /// The step of the last pass, and how many passes it had.
    passes: Mutex<(usize, u64)>,
}

impl RoundedGradient {
    /// `step` is where the run is.
    ///
    /// # Errors
    ///
    /// A type without a grid.
    pub(super) fn new(
        dtype: QuantDtype,
        seed: u64,
        step: Arc<AtomicUsize>,
    ) -> Result<Self, QuantizationError> {
        Ok(Self {
            steps: Steps::of(dtype)?,
            seed,
            step,
            passes: Mutex::new((0, 0)),
        })
    }

    fn noise(&self, samples: usize) -> Vec<f32> {
        let step = self.step.load(Ordering::Acquire);
        let mut passes = self.passes.lock();
        *passes = match *passes {
            (last, passes) if last == step => (step, passes + 1),
            _ => (step, 1),
        };
        let mut seeds = fastrand::Rng::with_seed(self.seed ^ (step as u64).rotate_left(32));
        let mut rng = fastrand::Rng::with_seed(seeds.u64(..) ^ passes.1);
        (0..samples).map(|_| rng.f32() - 0.5).collect()
    }
}

impl Transform for RoundedGradient {
    fn apply(&self, value: FlatTensor, _mask: Option<Tensor<1>>) -> FlatTensor {
        let FlatTensor { values, shape } = value;
        let samples = shape.first().copied().unwrap_or(0);
        if samples == 0 || !values.is_autodiff() {
            return FlatTensor { values, shape };
        }
        let hook = Rounding {
            steps: self.steps,
            noise: self.noise(samples),
        };
        let values = hooked(values, Arc::new(hook));
        FlatTensor { values, shape }
    }

    fn snapshot(&self) -> Arc<dyn Transform> {
        Arc::new(Self {
            steps: self.steps,
            seed: self.seed,
            step: self.step.clone(),
            passes: Mutex::new(*self.passes.lock()),
        })
    }
}

/// What happens to the gradient of one pass.
#[derive(Debug)]
struct Rounding {
    steps: Steps,
    noise: Vec<f32>,
}

impl GradientHook for Rounding {
    fn apply(&self, gradient: Tensor<1>) -> Tensor<1> {
        let dims = gradient.dims();
        let noise = Tensor::from_data(TensorData::from(&self.noise[..]), &gradient.device());
        let rows = gradient.reshape([self.noise.len() as i64, -1]);
        self.steps.round(rows, noise).reshape(dims)
    }
}

#[cfg(test)]
mod tests;
