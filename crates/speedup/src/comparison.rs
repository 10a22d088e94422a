//! The small model beside the simulated one, on the dummy input and on random ones.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::module::Module;
use burn::tensor::{DType, Device, TensorData};
use burn_compress_core::DummyInput;

use crate::SpeedupError;
use crate::verify::{self, RoundingBoundary, TOLERANCE};

/// The inputs that models are compared on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The inputs of the dummy input.
    Given,
    /// Random ones of this seed.
    Random(u64),
}

/// Random inputs beside the dummy input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RandomInputs {
    pub count: usize,
    pub seed: u64,
}

impl RandomInputs {
    /// The dummy input and then these.
    pub fn all(self) -> impl Iterator<Item = Input> {
        let random =
            (0..self.count).map(move |at| Input::Random(self.seed.wrapping_add(at as u64)));
        std::iter::once(Input::Given).chain(random)
    }
}

/// Outputs of one forward pass.
pub(crate) fn run<M: Module>(
    model: &M,
    dummy_input: &DummyInput<M>,
    input: Input,
) -> Result<Vec<TensorData>, SpeedupError> {
    let device = model
        .devices()
        .first()
        .map_or_else(Device::default, Clone::clone);
    let pass = || match input {
        Input::Given => Some(dummy_input.run(model, &device)),
        Input::Random(seed) => dummy_input.run_random(model, &device, seed),
    };
    caught(pass)?.ok_or(SpeedupError::NoRandomInput)
}

/// The largest relative error between two models.
///
/// # Errors
///
/// [`SpeedupError::Differs`] where it is too large.
pub(crate) fn compare<M: Module>(
    simulated: &M,
    small: &M,
    dummy_input: &DummyInput<M>,
    input: Input,
) -> Result<Outputs, SpeedupError> {
    let simulated = run(simulated, dummy_input, input)?;
    let small = run(small, dummy_input, input)?;
    let error = match verify::verify(&simulated, &small, TOLERANCE) {
        Ok(error) => Ok(error),
        Err(SpeedupError::Differs { error, .. }) => Err(error),
        Err(other) => return Err(other),
    };
    Ok(Outputs { simulated, error })
}

/// The outputs of the simulated model, and how far the small one is from them.
pub(crate) struct Outputs {
    pub simulated: Vec<TensorData>,
    /// The relative error, as an error where it is too large.
    pub error: Result<f64, f64>,
}

/// The values of quantized outputs that moved across a rounding boundary.
pub(crate) fn boundary<M: Module>(
    simulated: &M,
    small: &M,
    dummy_input: &DummyInput<M>,
    input: Input,
) -> Result<RoundingBoundary, SpeedupError> {
    let simulated = run(simulated, dummy_input, input)?;
    let small = run(small, dummy_input, input)?;
    verify::rounding_boundary(&simulated, &small, TOLERANCE)
}

fn caught<T>(pass: impl FnOnce() -> T) -> Result<T, SpeedupError> {
    catch_unwind(AssertUnwindSafe(pass)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        SpeedupError::Forward {
            reason: text.unwrap_or_else(|| "it panicked".to_string()),
        }
    })
}

/// The type of outputs in half precision, if there are some.
pub(crate) fn half(outputs: &[TensorData]) -> Option<DType> {
    let mut dtypes = outputs.iter().map(|data| data.dtype());
    dtypes.find(|dtype| matches!(dtype, DType::F16 | DType::BF16))
}

/// The error that a few roundings can make in half precision, relative to the largest output; 0 where
/// no output is.
pub(crate) fn rounding(outputs: &[TensorData]) -> f64 {
    let step = |data: &TensorData| match data.dtype() {
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        _ => 0.0,
    };
    let largest = outputs.iter().map(step).fold(0.0, f64::max);
    8.0 * largest
}
