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
//! with the output `y` of the folded host, the running mean and deviation `m_r` and `s_r`, and those
//! of the raw output of the batch, `m_b` and `s_b`, through which gradients flow. Without rounding
//! `y'` is what the norm gives in training; the rounding is that of the folded weight. Outside of a
//! run, and behind a norm that is frozen, nothing is brought to anything: `y' = y`.
//!
//! # References
//!
//! Krishnamoorthi, *Quantizing deep convolutional networks for efficient inference: A whitepaper*,
//! arXiv 1806.08342, section 3.2.2, without the later freezing of the statistics. There the bias is
//! that of the batch; here it is that of the running statistics, which may be rounded, and corrected.
//! NNI and the first form of the paper's section train on the running statistics alone.
//!
//! How parameters are folded is a [`Fold`]; the state of one pair is a [`Folding`], started with
//! [`Compressor::fold`](crate::Compressor::fold).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use burn::module::{Module, Param};
use burn::nn::conv::{Conv1d, Conv2d, Conv3d};
use burn::nn::{BatchNorm, Linear};
use burn::tensor::{DType, Tensor};
use indexmap::IndexMap;

use crate::Error;
use crate::graph::Successor;
use crate::run::compressor::Compressor;
use crate::simulate::flat::{FlatTensor, in_dtype};
use crate::simulate::simulation::Simulation;
use crate::simulate::space::{Phase, TargetSpace};
use crate::simulate::walk::{self, Edited};
use crate::simulate::wrapper::Part;
use crate::target::{Mode, Target, TargetId};

/// What a batch norm computes with, each `[channels]`.
///
/// `y = (x - mean) / sqrt(variance + epsilon) * gamma + beta`
#[derive(Clone, Debug)]
pub struct Norm {
    /// The learned factor; 1 without it.
    pub gamma: Option<Tensor<1>>,
    /// The learned shift; 0 without it.
    pub beta: Option<Tensor<1>>,
    /// The mean that is subtracted.
    pub mean: Tensor<1>,
    /// The variance that is divided by.
    pub variance: Tensor<1>,
    /// Added to the variance.
    pub epsilon: f64,
}

/// How the parameters of a host take up the norm behind it; gradients flow through.
pub trait Fold: fmt::Debug + Send + Sync {
    /// The folded weight, in the shape of `weight`.
    fn weight(&self, weight: FlatTensor, norm: &Norm) -> FlatTensor;

    /// The folded bias, `[channels]`, also of a host that has none.
    fn bias(&self, bias: Option<Tensor<1>>, norm: &Norm) -> Tensor<1>;
}

/// A layer that a norm can be folded into.
pub trait Host {
    /// Runs the layer on `input` with this bias, `[channels]`, in the place of its own.
    fn forward(&self, input: FlatTensor, bias: Tensor<1>) -> FlatTensor;

    /// Its own bias.
    fn bias(&self) -> Option<&Param<Tensor<1>>>;
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

    /// What the norm adds to its variance.
    pub fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// Lets both layers compute on their own again, from the next forward pass on: the host with
    /// its parameters as they are simulated, and the norm behind it.
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

    /// Whether the folded model lacks what a compressor of `mode` wants to act on.
    fn hides(&self, id: &TargetId, mode: Option<Mode>) -> bool {
        match id.target {
            // Masks act on the parameters of the norm before these are folded.
            Target::Param(_) => id.layer == self.norm && mode != Some(Mode::Pruning),
            Target::Input(_) => id.layer == self.norm,
            Target::Output(_) => id.layer == self.host,
        }
    }

    /// What of the folded model takes the place of a target that it does not have.
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

    /// Runs the host with its parameters folded and then simulated.
    pub(crate) fn run(&self, call: &Call, norm: Norm) -> FlatTensor {
        let own = call.host.bias();
        let is_simulated =
            |bias: &Param<Tensor<1>>| bias.reparameterization::<Simulation>().is_some();
        let simulated = own.is_some_and(is_simulated);
        let bias = own.map(Param::base);
        let norm = Arc::new(norm);
        let _scope = Scope::enter(Reading::Folded {
            fold: self.fold.clone(),
            norm: norm.clone(),
        });
        let bias = match (own, simulated) {
            (Some(own), true) => own.val(),
            _ => self.fold.bias(bias, &norm),
        };
        call.host.forward(call.input.clone(), bias)
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
    host: Box<dyn Host>,
    input: FlatTensor,
}

/// How the parameters of a host are read.
#[derive(Clone)]
enum Reading {
    /// As the statistics see them: masked, neither folded nor quantized. Gradients flow through in
    /// the steps of a run alone.
    Raw { tracked: bool },
    /// Folded, then simulated.
    Folded {
        fold: Arc<dyn Fold>,
        norm: Arc<Norm>,
    },
}

thread_local! {
    /// What hosts have left for their norms. A model and its snapshots share their keys, but a
    /// norm directly follows its host, so that never two of them wait on one thread.
    static LEFT: RefCell<BTreeMap<u64, Call>> = const { RefCell::new(BTreeMap::new()) };
    static READING: RefCell<Option<Reading>> = const { RefCell::new(None) };
}

/// Ends a reading however the forward pass ends.
struct Scope {
    outer: Option<Reading>,
}

impl Scope {
    fn enter(reading: Reading) -> Self {
        let outer = READING.replace(Some(reading));
        Self { outer }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        READING.set(self.outer.take());
    }
}

/// Runs a host as the statistics of its norm see it, with gradients if they are `tracked`.
pub(crate) fn raw<T>(tracked: bool, run: impl FnOnce() -> T) -> T {
    let _scope = Scope::enter(Reading::Raw { tracked });
    run()
}

/// The parameter of `space` as the forward pass at hand reads it.
pub(crate) fn read<const D: usize>(space: &TargetSpace, base: Tensor<D>) -> Tensor<D> {
    let dims = base.dims();
    match READING.with_borrow(Option::clone) {
        None => space.simulate_parameter(base),
        Some(Reading::Raw { tracked: true }) => space.simulate_mask(base),
        Some(Reading::Raw { tracked: false }) => space.simulate_mask(base.detach()),
        Some(Reading::Folded { fold, norm }) => {
            let folded = match space.id().target.param_name() {
                Some("weight") => fold.weight(FlatTensor::new(base), &norm).values,
                Some("bias") => fold.bias(Some(FlatTensor::new(base).values), &norm),
                _ => return space.simulate_parameter(base),
            };
            space.simulate_folded(folded.reshape(dims))
        }
    }
}

impl<M: Module + 'static, I: 'static> Compressor<M, I> {
    /// The wrapped layer that directly follows each wrapped layer, captured with the dummy input.
    ///
    /// # Errors
    ///
    /// No dummy input, and a forward pass that cannot be captured.
    pub fn successors(
        &self,
        algorithm: &'static str,
    ) -> Result<IndexMap<String, Successor>, Error> {
        Ok(self.captured(algorithm)?.successors())
    }

    /// Folds a batch norm into the layer before it, in every forward pass from now on, until
    /// [`Folding::end`].
    ///
    /// The simulation of the host's `weight` and `bias` then acts on the folded values, and their
    /// observers follow these in the forward passes of the training run. There the output is brought
    /// from the running statistics, which are folded, to those of the batch, on which a batch norm
    /// trains:
    ///
    /// ```text
    /// y' = beta + (y - beta) s_r / s_b + gamma (m_r - m_b) / s_b
    /// ```
    ///
    /// (Krishnamoorthi, arXiv 1806.08342, section 3.2.2.) Whether the norm directly
    /// follows its host is for the caller to find out, with [`successors`](Self::successors).
    ///
    /// # Errors
    ///
    /// [`Error::Folding`] unless `host` is a wrapped convolution or linear layer and `norm` a
    /// wrapped batch norm, when one of them is folded already, and when a compressor claims what
    /// the folded model does not have: inputs of the norm, outputs of the host, and parameters of
    /// the norm for anything but masks.
    pub fn fold(
        &mut self,
        host: &str,
        norm: &str,
        fold: Arc<dyn Fold>,
    ) -> Result<Arc<Folding>, Error> {
        let refuse = |reason: String| Err(refused(host, norm, reason));
        for folding in &self.foldings {
            for layer in [host, norm] {
                if [folding.host(), folding.norm()].contains(&layer) {
                    return refuse(format!("`{layer}` is folded already"));
                }
            }
        }
        let (is_host, epsilon) = self.inspect(host, norm);
        let Some(epsilon) = epsilon else {
            return refuse(format!("`{norm}` is no wrapped batch norm"));
        };
        if !is_host {
            return refuse(format!(
                "`{host}` is no wrapped convolution and no wrapped linear layer"
            ));
        }
        let folding = Arc::new(Folding::new(host, norm, epsilon, fold, self.phase.clone()));
        let mut acting = self.spaces.values().filter(|space| !space.is_idle());
        let hidden = acting.find(|space| folding.hides(space.id(), space.acting_mode()));
        if let Some(id) = hidden.map(|space| space.id()) {
            return refuse(format!(
                "a compressor of this chain has claimed `{id}`, which the folded model does not \
                 have: leave it out, or leave the norm unfolded"
            ));
        }
        // The weight is read through its simulation, also where nothing else is simulated.
        self.attach(&[TargetId::new(host, Target::param("weight"))], None)?;
        let parts = folding.clone();
        let (model, ()) = walk::edit(self.model.clone(), (), move |(), found| {
            if let Edited::Wrapper { path, ports, .. } = found {
                let part = match path {
                    path if path == parts.host() => Part::Host,
                    path if path == parts.norm() => Part::Norm,
                    _ => return,
                };
                ports.set_path(path);
                ports.set_folding(Some((part, parts.clone())));
            }
        });
        self.model = model;
        self.foldings.push(folding.clone());
        Ok(folding)
    }

    /// Whether a norm can be folded into the layer `host`, and the epsilon of the batch norm `norm`.
    fn inspect(&self, host: &str, norm: &str) -> (bool, Option<f64>) {
        let (host, norm) = (host.to_string(), norm.to_string());
        let (_, found) = walk::edit(self.model.clone(), (false, None), move |seen, found| {
            if let Edited::Wrapper { path, layer, .. } = found {
                if path == host {
                    seen.0 = layer.is::<Conv1d>()
                        || layer.is::<Conv2d>()
                        || layer.is::<Conv3d>()
                        || layer.is::<Linear>();
                } else if path == norm {
                    seen.1 = layer.downcast_ref::<BatchNorm>().map(|norm| norm.epsilon);
                }
            }
        });
        found
    }
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

fn refused(host: &str, norm: &str, reason: String) -> Error {
    Error::Folding {
        host: host.to_string(),
        norm: norm.to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests;
