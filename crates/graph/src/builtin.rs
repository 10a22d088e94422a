//! Operations that wrapped layers record as one, each with a rule of this crate.
//!
//! A norm over channels, written as it is computed, reads the number of channels in a mean. What its
//! wrapper computes does not: the mean runs over the channels that are kept. It therefore records
//! itself by one of these names, with a [`CustomOp`](crate::CustomOp).

/// Inputs `x` `[.., channels]`, `gamma` and, with a bias, `beta`.
pub const LAYER_NORM: &str = "burn_compress::layer_norm";

/// Inputs `x` `[.., channels]` and `gamma`.
pub const RMS_NORM: &str = "burn_compress::rms_norm";

/// Inputs `x` `[batch, channels, ..]` and, of an affine one, `gamma` and `beta`; the number of groups
/// as a scalar.
pub const GROUP_NORM: &str = "burn_compress::group_norm";

/// Inputs `x` `[batch, channels, ..]` and, of an affine one, `gamma` and `beta`.
pub const INSTANCE_NORM: &str = "burn_compress::instance_norm";

const PREFIX: &str = "burn_compress::";

/// The name of a custom operation in messages.
pub(crate) fn short(id: &str) -> &str {
    id.strip_prefix(PREFIX).unwrap_or(id)
}

/// Whether this crate has the rule of the custom operation.
pub(crate) fn is_known(id: &str) -> bool {
    [LAYER_NORM, RMS_NORM, GROUP_NORM, INSTANCE_NORM].contains(&id)
}
