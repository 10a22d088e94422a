//! Rejection of settings that a quantizer has no use for.

use burn_compress_core::QuantDtype;

use crate::{Granularity, QuantizationError, QuantizationSettings};

/// Rejects `int1`.
pub(crate) fn reject_binary(dtype: QuantDtype) -> Result<(), QuantizationError> {
    match dtype.is_binary() {
        false => Ok(()),
        true => Err(QuantizationError::setting(
            "quant_dtype",
            dtype,
            "one signed bit is -1 or 1 and has no zero, which a range needs: use `uint1` \
                       or `int2`, or a quantizer of binary networks",
        )),
    }
}

/// Rejects all but one grid for a whole target.
pub(crate) fn reject_blocks(settings: &QuantizationSettings) -> Result<(), QuantizationError> {
    match settings.granularity() {
        Granularity::Default => Ok(()),
        granularity => Err(QuantizationError::setting(
            "granularity",
            granularity,
            "this quantizer has one grid for a whole target, leave it out",
        )),
    }
}

/// Rejects a bias of 32 bits, of quantizers with weights that integer hardware does not multiply.
pub(crate) fn reject_int32_bias(settings: &QuantizationSettings) -> Result<(), QuantizationError> {
    match settings.int32_bias {
        None | Some(false) => Ok(()),
        Some(true) => Err(QuantizationError::setting(
            "int32_bias",
            true,
            "the weights of this quantizer have no step that a bias could be a multiple of, leave \
             it out",
        )),
    }
}

/// Rejects an observer.
pub(crate) fn reject_observer(settings: &QuantizationSettings) -> Result<(), QuantizationError> {
    match settings.observer {
        None => Ok(()),
        Some(observer) => Err(QuantizationError::setting(
            "observer",
            format!("{observer:?}"),
            "this quantizer follows no range, leave it out",
        )),
    }
}

/// Rejects an apply method.
pub(crate) fn reject_method(settings: &QuantizationSettings) -> Result<(), QuantizationError> {
    match settings.apply_method {
        None => Ok(()),
        Some(method) => Err(QuantizationError::setting(
            "apply_method",
            format!("{method:?}"),
            "this quantizer has a gradient of its own, leave it out",
        )),
    }
}
