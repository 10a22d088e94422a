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

/// Inputs `x`, the initial state if one is given (hidden; of an LSTM cell and hidden), and for each
/// direction and gate the parameters of the input and of the hidden transform. The scalars are those
/// of [`Recurrence::scalars`]. The gates of an LSTM are input, forget, output and cell, those of a GRU
/// update, reset and new.
///
/// In a [capture of operations](crate::capture_operations) the gates are sigmoids, candidate and hidden
/// output `tanh`, and nothing is clipped: another layer is captured step by step.
pub const LSTM: &str = "burn_compress::lstm";

/// As [`LSTM`].
pub const GRU: &str = "burn_compress::gru";

/// Inputs are that of the queries of a multi-head attention and the weight of its `query`; the number
/// of heads is a scalar. The output is the first input.
pub const ATTENTION: &str = "burn_compress::attention";

/// Composition of an operation of a recurrent layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recurrence {
    /// Whether the output is the sequence of hidden states, `[.., directions * hidden]`, and not a
    /// state at the end, `[.., hidden]`.
    pub sequence: bool,
    /// 1, or 2 for a layer that also reads backwards.
    pub directions: usize,
    /// The number of tensors of the initial state; 0 for zeros.
    pub states: usize,
    /// The number of gates of a direction.
    pub gates: usize,
    /// The number of parameters of a gate: two weights, and two biases if it has any.
    pub params: usize,
    /// Whether a unit whose parameters are zero stays zero.
    pub keeps_zero: bool,
    /// Whether the sequence is `[batch, steps, ..]` and not `[steps, batch, ..]`.
    pub batch_first: bool,
    /// The state at the end that is the output, in the order in which the initial ones are given.
    pub end: usize,
    /// Whether the reset gate of a GRU acts behind the hidden transform.
    pub reset_after: bool,
}

impl Recurrence {
    /// The scalars that the operation is recorded with.
    pub fn scalars(&self) -> [f64; 9] {
        let numbers = [
            usize::from(self.sequence),
            self.directions,
            self.states,
            self.gates,
            self.params,
            usize::from(self.keeps_zero),
            usize::from(self.batch_first),
            self.end,
            usize::from(self.reset_after),
        ];
        numbers.map(|number| number as f64)
    }

    /// The description with these scalars.
    pub fn of(scalars: &[f64]) -> Option<Self> {
        let numbers: Vec<usize> = scalars.iter().map(|&number| number as usize).collect();
        let &[
            sequence,
            directions,
            states,
            gates,
            params,
            keeps_zero,
            batch_first,
            end,
            reset_after,
        ] = &numbers[..]
        else {
            return None;
        };
        Some(Self {
            sequence: sequence == 1,
            directions,
            states,
            gates,
            params,
            keeps_zero: keeps_zero == 1,
            batch_first: batch_first == 1,
            end,
            reset_after: reset_after == 1,
        })
    }
}

const PREFIX: &str = "burn_compress::";

/// The name of a custom operation in messages.
pub(crate) fn short(id: &str) -> &str {
    id.strip_prefix(PREFIX).unwrap_or(id)
}

/// Whether this crate has the rule of the custom operation.
pub(crate) fn is_known(id: &str) -> bool {
    let known = [
        LAYER_NORM,
        RMS_NORM,
        GROUP_NORM,
        INSTANCE_NORM,
        LSTM,
        GRU,
        ATTENTION,
    ];
    known.contains(&id)
}
