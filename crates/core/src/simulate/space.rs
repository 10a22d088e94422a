//! State of one target, shared by all compressors: mask, quantization, hidden state.
//!
//! A [`TargetSpace`] is the cell that pruners, quantizers and distillers share. It lives beside
//! the module tree: the model holds it through a [`Simulation`](crate::Simulation) on a parameter
//! or a [`Wrapper`](crate::Wrapper) around a layer, the compressor holds it by name. Changing a
//! mask or a scale therefore never touches the model, its parameter ids or its optimizer.

mod simulate;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Int, Tensor};
use parking_lot::{Mutex, MutexGuard};

use crate::run::reads::{self, Concern};
use crate::simulate::flat::FlatTensor;
use crate::simulate::mask::{Mask, MaskMethod};
use crate::simulate::quantization::{Observer, Quantization};
use crate::simulate::transform::{Stage, Transform};
use crate::target::{Mode, TargetId};

/// Whether the model is inside a training step.
///
/// Observers follow the data only while a step runs. A flag of our own, rather than the device of
/// a tensor, because a batch may lie on a plain device while the model trains.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    training: AtomicBool,
}

impl Phase {
    pub(crate) fn set_training(&self, training: bool) {
        self.training.store(training, Ordering::Release);
    }

    pub(crate) fn is_training(&self) -> bool {
        self.training.load(Ordering::Acquire)
    }
}

#[derive(Clone, Default)]
struct Inner {
    shape: Option<Vec<usize>>,
    positions: usize,
    modes: Vec<Mode>,
    mask: Option<Mask>,
    mask_values: Option<Tensor<1>>,
    removed: Option<(usize, usize)>,
    quantization: Option<Quantization>,
    observer: Option<Arc<dyn Observer>>,
    quantize: Option<Arc<dyn Transform>>,
    apply_mask: Option<Arc<dyn Transform>>,
    last: Option<Arc<dyn Transform>>,
    expansion: Option<(Vec<usize>, Tensor<1, Int>)>,
    records: bool,
    hidden: Option<FlatTensor>,
    /// The hidden states of all calls, where they are wanted.
    calls: Option<Vec<FlatTensor>>,
    bypassed: bool,
    failure: Option<Failure>,
}

/// Error inside a forward pass, which cannot return it itself.
#[derive(Clone)]
enum Failure {
    Observation(String),
    Mask {
        expected: Vec<usize>,
        found: Vec<usize>,
    },
}

/// The state of one target, shared by the model that simulates it and the compressors that steer
/// it.
pub struct TargetSpace {
    id: TargetId,
    phase: Arc<Phase>,
    inner: Mutex<Inner>,
}

impl fmt::Debug for TargetSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("TargetSpace")
            .field("id", &self.id)
            .field("shape", &inner.shape)
            .field("masked", &inner.mask.is_some())
            .field("quantized", &inner.quantization.is_some())
            .finish_non_exhaustive()
    }
}

impl TargetSpace {
    pub(crate) fn new(id: TargetId, shape: Option<Vec<usize>>, phase: Arc<Phase>) -> Self {
        Self {
            id,
            phase,
            inner: Mutex::new(Inner {
                shape,
                ..Inner::default()
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Layer and target of this space.
    pub fn id(&self) -> &TargetId {
        &self.id
    }

    /// Shape of the parameter, or of the input or output at the last forward pass, batch included.
    pub fn shape(&self) -> Option<Vec<usize>> {
        self.lock().shape.clone()
    }

    /// Of an input or output: how many inputs or outputs forward passes have found at its layer; 0
    /// when none has reached the layer.
    pub fn positions(&self) -> usize {
        self.lock().positions
    }

    /// Reason for a missing value of an input or output, after a forward pass.
    pub fn unreached(&self) -> crate::Error {
        let target = self.id.clone();
        match self.positions() {
            0 => crate::Error::Unreached { target },
            found => crate::Error::NoPosition { target, found },
        }
    }

    pub(crate) fn note_position(&self, index: usize) {
        let mut inner = self.lock();
        inner.positions = inner.positions.max(index + 1);
    }

    /// Whether a compressor of `mode` has claimed this target.
    pub fn is_claimed(&self, mode: Mode) -> bool {
        self.lock().modes.contains(&mode)
    }

    pub(crate) fn claim(&self, mode: Mode) {
        let mut inner = self.lock();
        if !inner.modes.contains(&mode) {
            inner.modes.push(mode);
        }
    }

    pub(crate) fn unclaim(&self, mode: Mode) {
        self.lock().modes.retain(|claimed| *claimed != mode);
    }

    /// Releases the target for compressors of another chain.
    pub(crate) fn release(&self) {
        let mut inner = self.lock();
        inner.modes.clear();
        inner.observer = None;
        inner.quantize = None;
        inner.apply_mask = None;
        inner.last = None;
        inner.records = false;
    }

    pub(crate) fn modes(&self) -> Vec<Mode> {
        self.lock().modes.clone()
    }

    /// Whether no compressor has claimed the target and nothing acts on it.
    pub fn is_idle(&self) -> bool {
        let inner = self.lock();
        let transforms = [&inner.quantize, &inner.apply_mask, &inner.last];
        inner.modes.is_empty()
            && !inner.records
            && inner.mask.is_none()
            && inner.quantization.is_none()
            && inner.observer.is_none()
            && transforms.iter().all(|transform| transform.is_none())
    }

    /// Quantization where the target is rounded, pruning where it is only masked.
    pub(crate) fn acting_mode(&self) -> Option<Mode> {
        let inner = self.lock();
        let has = |mode| inner.modes.contains(&mode);
        if has(Mode::Quantization) || inner.quantization.is_some() {
            Some(Mode::Quantization)
        } else if has(Mode::Pruning) || inner.mask.is_some() {
            Some(Mode::Pruning)
        } else {
            inner.modes.first().copied()
        }
    }

    /// The mask, if a pruner has generated one.
    pub fn mask(&self) -> Option<Mask> {
        self.lock().mask.clone()
    }

    /// Sets or removes the mask; it acts from the next forward pass on. That of a parameter is
    /// [expanded](Mask::expand) to the shape of the parameter.
    ///
    /// # Errors
    ///
    /// A mask that does not have the target's rank, or whose dimensions are neither 1 nor those of
    /// the target. The batch dimension of an input or output is not compared.
    pub fn set_mask(&self, mask: Option<Mask>) -> Result<(), crate::Error> {
        let mut inner = self.lock();
        let mask = match (mask, &inner.shape) {
            (Some(mask), Some(expected)) => {
                mask.check_shape(&self.id, expected)?;
                Some(match self.id.target.is_param() {
                    true => mask.expanded(expected),
                    false => mask,
                })
            }
            (mask, _) => mask,
        };
        inner.removed = mask.as_ref().map(|mask| (mask.removed(), mask.elements()));
        inner.mask = mask;
        inner.mask_values = None;
        Ok(())
    }

    /// The mask, if it makes zeros of some values in the forward pass at hand.
    pub(crate) fn zeros(&self) -> Option<Mask> {
        let inner = self.lock();
        let acts = !inner.bypassed && inner.removed.is_some_and(|(removed, _)| removed > 0);
        let mask = inner.mask.as_ref().filter(|_| acts)?;
        (mask.method() == MaskMethod::Mul).then(|| mask.clone())
    }

    /// The number of removed elements and of all elements of the mask.
    pub(crate) fn removed(&self) -> Option<(usize, usize)> {
        self.lock().removed
    }

    /// The quantization state, if a quantizer has claimed the target.
    pub fn quantization(&self) -> Option<Quantization> {
        self.lock().quantization.clone()
    }

    /// Sets or removes the quantization state.
    pub fn set_quantization(&self, quantization: Option<Quantization>) {
        let mut inner = self.lock();
        inner.quantization = quantization;
        inner.expansion = None;
    }

    /// Sets what follows the values of this target during training.
    pub fn set_observer(&self, observer: Option<Arc<dyn Observer>>) {
        self.lock().observer = observer;
    }

    /// Puts `transform` in the place of a part of the simulation, or the standard back.
    pub fn set_transform(&self, stage: Stage, transform: Option<Arc<dyn Transform>>) {
        let mut inner = self.lock();
        match stage {
            Stage::Quantize => inner.quantize = transform,
            Stage::Mask => inner.apply_mask = transform,
            Stage::Last => inner.last = transform,
        }
    }

    /// Starts or stops the recording of hidden states.
    pub fn set_recording(&self, records: bool) {
        let mut inner = self.lock();
        inner.records = records;
        inner.hidden = None;
        inner.calls = None;
    }

    /// Starts the recording of the hidden states of all calls, the last of which is that of
    /// [`take_hidden`](Self::take_hidden).
    pub fn record_calls(&self) {
        self.set_recording(true);
        self.lock().calls = Some(Vec::new());
    }

    /// Takes the hidden states of all calls since the recording began or they were last taken.
    pub fn take_calls(&self) -> Vec<FlatTensor> {
        let mut inner = self.lock();
        inner.hidden = None;
        inner.calls.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes the hidden state of the last forward pass, simulated as the model saw it.
    pub fn take_hidden(&self) -> Option<FlatTensor> {
        self.lock().hidden.take()
    }

    pub(crate) fn set_bypassed(&self, bypassed: bool) {
        self.lock().bypassed = bypassed;
    }

    /// Passes `values` to the observer once, like an activation.
    ///
    /// Parameters are observed once a training step, not once a use: a parameter does not change
    /// within a step, and reading a weight must not move its range.
    ///
    /// # Errors
    ///
    /// The observer refused the values, for instance because they are not finite.
    pub fn observe(&self, values: &FlatTensor) -> Result<(), crate::Error> {
        self.follow(values)
            .map_err(|reason| crate::Error::Observation {
                target: self.id.clone(),
                reason,
            })
    }

    fn follow(&self, values: &FlatTensor) -> Result<(), String> {
        let observer = self.lock().observer.clone();
        let (Some(observer), Some(mut quantization)) = (observer, self.quantization()) else {
            return Ok(());
        };
        let before = Concern::Target(self.id.clone(), Box::new(quantization.clone()));
        reads::concerning(before, || observer.observe(values, &mut quantization))?;
        self.lock().quantization = Some(quantization);
        Ok(())
    }

    /// The first failure inside a forward pass.
    pub(crate) fn take_failure(&self) -> Option<crate::Error> {
        let target = self.id.clone();
        Some(match self.lock().failure.take()? {
            Failure::Observation(reason) => crate::Error::Observation { target, reason },
            Failure::Mask { expected, found } => crate::Error::ShapeMismatch {
                target,
                what: "the mask",
                expected,
                found,
            },
        })
    }

    /// An independent copy outside of any training run.
    pub(crate) fn snapshot(&self) -> Arc<Self> {
        self.fork(Arc::new(Phase::default()))
    }

    /// An independent copy that follows another run's phase.
    pub(crate) fn fork(&self, phase: Arc<Phase>) -> Arc<Self> {
        let mut inner = self.lock().clone();
        inner.hidden = None;
        inner.calls = None;
        let Inner {
            quantize,
            apply_mask,
            last,
            ..
        } = &mut inner;
        for transform in [quantize, apply_mask, last] {
            *transform = transform.take().map(|transform| transform.snapshot());
        }
        Arc::new(Self {
            id: self.id.clone(),
            phase,
            inner: Mutex::new(inner),
        })
    }

    /// Takes over the content of a copy of this state, but for the transforms: those of a copy are
    /// snapshots, which nothing trains.
    pub(crate) fn restore(&self, copy: &Self) {
        let copied = copy.lock().clone();
        let mut inner = self.lock();
        *inner = Inner {
            quantize: inner.quantize.take(),
            apply_mask: inner.apply_mask.take(),
            last: inner.last.take(),
            ..copied
        };
    }
}
