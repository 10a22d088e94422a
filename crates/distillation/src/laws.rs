//! Checks of the laws of a loss: one finite number, and at least 0 where it is a distance; and the
//! name of a loss.

use std::ops::RangeInclusive;

use burn::tensor::Tensor;
use burn_compress_core::{BoxError, reads};

use crate::error::DistillationError;

/// The largest distance from 0 that is taken for rounding.
const ROUNDING: f32 = 1e-4;

fn range(is_distance: bool) -> RangeInclusive<f32> {
    match is_distance {
        true => -ROUNDING..=f32::MAX,
        false => f32::MIN..=f32::MAX,
    }
}

fn broken(layer: &str, value: f32, expected: &'static str) -> DistillationError {
    DistillationError::LossValue {
        student: layer.to_string(),
        value,
        expected,
    }
}

/// The error of a value outside its [`range`].
fn out_of_range(layer: &str, value: f32) -> DistillationError {
    let expected = match value.is_finite() {
        true => "at least 0, as it is a distance",
        false => "finite",
    };
    broken(layer, value, expected)
}

/// Rejects a loss that is not one number.
pub(crate) fn check_shape(layer: &str, loss: &Tensor<1>) -> Result<(), DistillationError> {
    match loss.dims() {
        [1] => Ok(()),
        [found] => Err(DistillationError::LossShape {
            student: layer.to_string(),
            found,
        }),
    }
}

/// Checks the value of a loss with the next read; not where the task's loss is not finite already.
pub(crate) fn check_value(
    layer: &str,
    loss: &Tensor<1>,
    is_distance: bool,
    task_loss: &Tensor<1>,
) -> Result<(), BoxError> {
    let device = loss.device().without_autodiff();
    let plain = |loss: &Tensor<1>| loss.clone().detach().without_autodiff().to_device(&device);
    let is_excused = plain(task_loss).is_finite().bool_not();
    let value = plain(loss).mask_fill(is_excused, 0.0);
    let layer = layer.to_string();
    let failure = reads::check(value, range(is_distance), move |values| {
        out_of_range(&layer, values.first().copied().unwrap_or(f32::NAN))
    })?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

/// Tests a loss, which `loss` computes of its pair or, given `true`, of equal tensors.
pub(crate) fn check_laws(
    layer: &str,
    is_distance: bool,
    loss: impl Fn(bool) -> Result<Tensor<1>, BoxError>,
) -> Result<(), BoxError> {
    let value = |is_equal: bool| -> Result<f32, BoxError> {
        let loss = loss(is_equal)?;
        check_shape(layer, &loss)?;
        let value = reads::floats(loss)?[0];
        match range(is_distance).contains(&value) {
            true => Ok(value),
            false => Err(out_of_range(layer, value).into()),
        }
    };
    let (first, second) = (value(false)?, value(false)?);
    if first.to_bits() != second.to_bits() {
        let expected = "the same when it is computed again";
        return Err(broken(layer, second, expected).into());
    }
    if is_distance {
        let of_equals = value(true)?;
        if of_equals.abs() > ROUNDING {
            let expected = "0 where student and teacher are equal, as it is a distance";
            return Err(broken(layer, of_equals, expected).into());
        }
    }
    Ok(())
}

/// The name of a type without its path and parameters.
pub(crate) fn type_name<T: ?Sized>() -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Generic<T>(T);

    #[test]
    fn types_are_named_without_path_and_parameters() {
        assert_eq!(type_name::<Generic<Vec<u8>>>(), "Generic");
        assert_eq!(type_name::<DistillationError>(), "DistillationError");
        let Generic(()) = Generic(());
    }
}
