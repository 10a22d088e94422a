//! Folding a batch norm into the layer before it while the model runs.
//!
//! A deployed network has no batch norm behind a convolution: it is folded into the weight and bias
//! of the convolution, the *host*. What is quantized is the folded weight, so the simulation has to
//! fold as well, in every forward pass:
//!
//! 1. The wrapper of the host runs it with its raw weight (masked, but not quantized) and leaves
//!    its input and itself for the norm.
//! 2. The wrapper of the norm shows that output to the norm, which moves its running statistics in
//!    training. Then it runs the host again on the same input, with the folded parameters as they
//!    are simulated, and returns that in the place of the norm's own output.
//!
//! What is folded are the running statistics, since they are those of the deployed network and do
//! not jump from batch to batch. But a network that trains on them has lost its batch norms: they
//! lag behind weights and masks that move, and no gradient sees that a norm cancels the scale of
//! its host. In the steps of a training run the output is therefore brought to the statistics of
//! the batch:
//!
//! ```text
//! y' = beta + (y - beta) s_r / s_b + gamma (m_r - m_b) / s_b
//! ```
//!
//! with the output `y` of the folded host, the running mean and deviation `m_r` and `s_r`, and
//! those of the raw output of the batch, `m_b` and `s_b`, through which gradients flow. Without
//! rounding `y'` is what the norm gives in training; the rounding is that of the folded weight.
//! Outside of a run, and behind a norm that is frozen, nothing is brought to anything: `y' = y`.
//!
//! # References
//!
//! Krishnamoorthi, *Quantizing deep convolutional networks for efficient inference: A whitepaper*,
//! arXiv 1806.08342, section 3.2.2, without the later freezing of the statistics. There the bias is
//! that of the batch; here it is that of the running statistics, which may be rounded, and
//! corrected. NNI and the first form of the paper's section train on the running statistics alone.
//!
//! How parameters are folded is a [`Fold`]; the state of one pair is a [`Folding`], started with
//! [`Chain::fold`](crate::Chain::fold).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use burn::module::Param;
use burn::tensor::{DType, Tensor};

use crate::Error;
use crate::simulate::flat::{FlatTensor, in_dtype};
use crate::simulate::reading::{Fold, Norm};
use crate::simulate::space::Phase;
use crate::target::{Mode, Target, TargetId};

/// A layer that a norm can be folded into.
pub trait Host {
    /// Runs the layer on `input` with this bias, `[channels]`, in the place of its own.
    fn forward(&self, input: FlatTensor, bias: Tensor<1>) -> FlatTensor;

    /// Its own bias.
    fn bias(&self) -> Option<&Param<Tensor<1>>>;
}

/// Role of a layer in a folding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The layer that the norm is folded into.
    Host,
    /// The norm.
    Norm,
}

/// The state of a norm that is folded into its host.
pub struct Folding {
    key: u64,
    host: String,
    norm: String,
    epsilon: f64,
    fold: Arc<dyn Fold>,
    phase: Arc<Phase>,
    active: AtomicBool,
}

impl fmt::Debug for Folding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folding")
            .field("host", &self.host)
            .field("norm", &self.norm)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

static NEXT_KEY: AtomicU64 = AtomicU64::new(0);

impl Folding {
    pub(crate) fn new(
        host: &str,
        norm: &str,
        epsilon: f64,
        fold: Arc<dyn Fold>,
        phase: Arc<Phase>,
    ) -> Self {
        Self {
            key: NEXT_KEY.fetch_add(1, Ordering::Relaxed),
            host: host.to_string(),
            norm: norm.to_string(),
            epsilon,
            fold,
            phase,
            active: AtomicBool::new(true),
        }
    }

    /// Path of the layer that takes up the norm.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Path of the norm.
    pub fn norm(&self) -> &str {
        &self.norm
    }

    /// Folding of the norm into the host.
    pub(crate) fn fold(&self) -> &Arc<dyn Fold> {
        &self.fold
    }

    /// Epsilon that the norm adds to its variance.
    pub fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// Ends the folding with the next forward pass: the host computes with its simulated
    /// parameters, and the norm behind it.
    pub fn end(&self) {
        self.active.store(false, Ordering::Release);
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Whether the model is in a step of a training run.
    pub(crate) fn trains(&self) -> bool {
        self.phase.is_training()
    }

    /// A copy outside of any run, which does not end with this one.
    pub(crate) fn snapshot(&self) -> Arc<Self> {
        Arc::new(Self {
            key: self.key,
            host: self.host.clone(),
            norm: self.norm.clone(),
            epsilon: self.epsilon,
            fold: self.fold.clone(),
            phase: Arc::new(Phase::default()),
            active: AtomicBool::new(self.is_active()),
        })
    }

    /// Whether the folded model lacks a target of a compressor of `mode`.
    pub(crate) fn hides(&self, id: &TargetId, mode: Option<Mode>) -> bool {
        match id.target {
            // Masks act on the parameters of the norm before these are folded.
            Target::Param(_) => id.layer == self.norm && mode != Some(Mode::Pruning),
            Target::Input(_) => id.layer == self.norm,
            Target::Output(_) => id.layer == self.host,
        }
    }

    /// Replacement, in the folded model, of a target that it does not have.
    fn instead_of(&self, id: &TargetId) -> Option<TargetId> {
        match id.target {
            Target::Output(_) if id.layer == self.host => {
                Some(TargetId::new(&self.norm, id.target.clone()))
            }
            _ => None,
        }
    }

    pub(crate) fn is_copy_of(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// Leaves the host and its input for the norm.
    pub(crate) fn leave(&self, host: Box<dyn Host>, input: FlatTensor) {
        LEFT.with_borrow_mut(|left| left.insert(self.key, Call { host, input }));
    }

    /// Takes what the host left on this thread.
    pub(crate) fn take(&self) -> Option<Call> {
        LEFT.with_borrow_mut(|left| left.remove(&self.key))
    }
}

/// The output of a folded host brought from the running statistics of `norm` to those of `raw`, the
/// raw output of the host.
///
/// # Shapes
///
/// - folded, raw: `[batch, channels, ..]`
pub(crate) fn of_the_batch(folded: FlatTensor, raw: FlatTensor, norm: &Norm) -> FlatTensor {
    let FlatTensor { values, shape } = folded;
    let positions: usize = shape[2..].iter().product();
    // Squares overflow half precision.
    let given = values.dtype();
    let wide = match given {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let images =
        |values: Tensor<1>| in_dtype(values, wide).reshape([shape[0], shape[1], positions]);
    let channels = |values: &Tensor<1>| in_dtype(values.clone(), wide).reshape([1, shape[1], 1]);
    let (y, raw) = (images(values), images(raw.values));
    let mean = raw.clone().mean_dim(0).mean_dim(2);
    let variance = (raw - mean.clone()).square().mean_dim(0).mean_dim(2);
    let inverse = (variance + norm.epsilon).sqrt().recip();
    let ratio = (channels(&norm.variance) + norm.epsilon).sqrt() * inverse.clone();
    let shift = (channels(&norm.mean) - mean) * inverse;
    let shift = match &norm.gamma {
        Some(gamma) => shift * channels(gamma),
        None => shift,
    };
    let y = match &norm.beta {
        Some(beta) => (y - channels(beta)) * ratio + channels(beta) + shift,
        None => y * ratio + shift,
    };
    FlatTensor {
        shape,
        ..FlatTensor::new(in_dtype(y, given))
    }
}

/// A call of a host that waits for its norm.
pub(crate) struct Call {
    pub(crate) host: Box<dyn Host>,
    pub(crate) input: FlatTensor,
}

thread_local! {
    /// Calls of hosts for their norms. A model and its snapshots share their keys, but a norm
    /// directly follows its host, so that never two of them wait on one thread.
    static LEFT: RefCell<BTreeMap<u64, Call>> = const { RefCell::new(BTreeMap::new()) };
}

/// Refuses targets that a compressor of `mode` cannot act on in the folded model.
pub(crate) fn check_claims(
    foldings: &[Arc<Folding>],
    targets: &[TargetId],
    mode: Option<Mode>,
) -> Result<(), Error> {
    let hidden = foldings.iter().flat_map(|folding| {
        let hidden = targets.iter().filter(|id| folding.hides(id, mode));
        hidden.map(move |id| (folding, id))
    });
    let hidden: Vec<_> = hidden.collect();
    let Some((first, _)) = hidden.first() else {
        return Ok(());
    };
    let ids: Vec<String> = hidden.iter().map(|(_, id)| format!("`{id}`")).collect();
    let instead = hidden
        .iter()
        .filter_map(|(folding, id)| folding.instead_of(id));
    let instead: Vec<String> = instead.map(|id| format!("`{id}`")).collect();
    let advice = match instead.is_empty() {
        true => String::new(),
        false => format!(
            "what leaves the folded layers are the outputs of their norms, select {} in their \
             place; or ",
            instead.join(", ")
        ),
    };
    let reason = format!(
        "a compressor claims {}, which the folded model does not have: {advice}leave out what is \
         claimed, or leave the norms unfolded",
        ids.join(", ")
    );
    Err(refused(first.host(), first.norm(), reason))
}

pub(crate) fn refused(host: &str, norm: &str, reason: String) -> Error {
    Error::Folding {
        host: host.to_string(),
        norm: norm.to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests;
