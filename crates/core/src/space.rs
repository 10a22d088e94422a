//! What the compressors know of one target: its mask, its quantization, its hidden state.
//!
//! A [`TargetSpace`] is the cell in which pruners, quantizers and distillers meet. It lives beside
//! the module tree: the model holds it through a [`Simulation`](crate::Simulation) on a parameter
//! or a [`Wrapper`](crate::Wrapper) around a layer, the compressor holds it by name. Changing a
//! mask or a scale therefore never touches the model, its parameter ids or its optimizer.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use parking_lot::{Mutex, MutexGuard};

use crate::block::Grid;

use crate::mask::Mask;
use crate::quantization::{Observer, Quantization};
use crate::target::{Mode, TargetId};
use crate::transform::{Stage, Transform};

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

/// A tensor of any rank: its values in row-major order and its shape.
///
/// Algorithms see parameters, gradients and hidden states in this form, so that they can be stored
/// side by side whatever their rank.
#[derive(Clone, Debug)]
pub struct FlatTensor {
    /// The values, `[num_elements]`.
    pub values: Tensor<1>,
    /// The shape that the values came in.
    pub shape: Vec<usize>,
}

impl FlatTensor {
    /// Flattens `tensor`; gradients keep flowing through the values.
    pub fn new<const D: usize>(tensor: Tensor<D>) -> Self {
        let shape: Vec<usize> = tensor.dims().to_vec();
        let elements = shape.iter().product::<usize>();
        Self {
            values: tensor.reshape([elements]),
            shape,
        }
    }

    /// The values read back to the host.
    ///
    /// # Errors
    ///
    /// The device failed to hand them over.
    pub fn to_vec(&self) -> Result<Vec<f32>, crate::Error> {
        read(self.values.clone())
    }
}

/// Reads a tensor back to the host as `f32`.
pub(crate) fn read(tensor: Tensor<1>) -> Result<Vec<f32>, crate::Error> {
    tensor
        .detach()
        .without_autodiff()
        .try_into_data()
        .map_err(|error| crate::Error::Device(error.to_string()))?
        .try_into_vec_as::<f32>()
        .map_err(|error| crate::Error::Device(format!("{error:?}")))
}

#[derive(Clone, Default)]
struct Inner {
    shape: Option<Vec<usize>>,
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
    hidden: VecDeque<FlatTensor>,
    bypassed: bool,
    failure: Option<Failure>,
}

/// What went wrong inside a forward pass, which cannot return an error itself.
#[derive(Clone)]
enum Failure {
    Observation(String),
    Mask {
        expected: Vec<usize>,
        found: Vec<usize>,
    },
}

/// The state of one target, shared by the model that simulates it and the compressors that steer it.
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

    /// Layer and target that this space belongs to.
    pub fn id(&self) -> &TargetId {
        &self.id
    }

    /// Shape of the parameter, or of the input or output at the last forward pass, batch included.
    pub fn shape(&self) -> Option<Vec<usize>> {
        self.lock().shape.clone()
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

    /// Lets compressors of another chain claim the target.
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

    /// Sets or removes the mask; it acts from the next forward pass on.
    ///
    /// # Errors
    ///
    /// A mask that does not have the target's rank, or whose dimensions are neither 1 nor those of
    /// the target. The batch dimension of an input or output is not compared.
    pub fn set_mask(&self, mask: Option<Mask>) -> Result<(), crate::Error> {
        let mut inner = self.lock();
        if let (Some(mask), Some(expected)) = (&mask, &inner.shape) {
            let found = mask.shape();
            let free = if self.id.target.is_param() { 0 } else { 1 };
            let fits = found.len() == expected.len()
                && found[..free.min(found.len())].iter().all(|&size| size == 1)
                && found
                    .iter()
                    .zip(expected)
                    .skip(free)
                    .all(|(f, e)| f == e || *f == 1);
            if !fits {
                return Err(crate::Error::ShapeMismatch {
                    target: self.id.clone(),
                    what: "the mask",
                    expected: expected.clone(),
                    found: found.to_vec(),
                });
            }
        }
        inner.removed = mask
            .as_ref()
            .map(|mask| (mask.removed(), mask.values().len()));
        inner.mask = mask;
        inner.mask_values = None;
        Ok(())
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
        inner.hidden.clear();
    }

    /// Takes the hidden state of the last forward pass, simulated as the model saw it.
    pub fn take_hidden(&self) -> Option<FlatTensor> {
        let mut inner = self.lock();
        let hidden = inner.hidden.pop_back();
        inner.hidden.clear();
        hidden
    }

    pub(crate) fn set_bypassed(&self, bypassed: bool) {
        self.lock().bypassed = bypassed;
    }

    /// Lets the observer see `values` once, as it would see an activation.
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
        observer.observe(values, &mut quantization)?;
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
        inner.hidden.clear();
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

    /// Takes over what a copy of this state knows, but for the transforms: those of a copy are
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

    /// Executes the simulated logic on a parameter: quantize, then mask.
    pub(crate) fn simulate_parameter<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        self.simulate(base)
    }

    /// Executes the simulated logic on a parameter that a norm was folded into: observe, quantize,
    /// mask. The observer follows what the model computes with, which is made anew in each pass.
    pub(crate) fn simulate_folded<const D: usize>(&self, folded: Tensor<D>) -> Tensor<D> {
        if !self.lock().bypassed && self.phase.is_training() {
            self.follow_inside(&folded);
        }
        self.simulate(folded)
    }

    /// Executes the mask alone.
    pub(crate) fn simulate_mask<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let bypassed = self.lock().bypassed;
        match bypassed {
            true => base,
            false => self.apply_mask(base),
        }
    }

    /// Executes the simulated logic on an input or output: observe, quantize, mask, record.
    pub(crate) fn simulate_activation<const D: usize>(&self, value: Tensor<D>) -> Tensor<D> {
        {
            let mut inner = self.lock();
            if inner.bypassed {
                return value;
            }
            inner.shape = Some(value.dims().to_vec());
            if self.phase.is_training()
                && let Some(found) = inner.misfit(&value.dims())
            {
                // Only now that the shape is known, what was accepted as a mask turns out not to fit.
                let expected = value.dims().to_vec();
                inner
                    .failure
                    .get_or_insert(Failure::Mask { expected, found });
                return value;
            }
        }
        if self.phase.is_training() {
            self.follow_inside(&value);
        }
        let value = self.simulate(value);
        let mut inner = self.lock();
        if inner.records {
            // Only the latest state counts when a layer runs several times in one pass.
            inner.hidden.clear();
            inner.hidden.push_back(FlatTensor::new(value.clone()));
        }
        value
    }

    /// Lets the observer see `value` inside a forward pass.
    fn follow_inside<const D: usize>(&self, value: &Tensor<D>) {
        let seen = FlatTensor::new(value.clone().detach().without_autodiff());
        if let Err(reason) = self.follow(&seen) {
            self.lock()
                .failure
                .get_or_insert(Failure::Observation(reason));
        }
    }

    fn simulate<const D: usize>(&self, value: Tensor<D>) -> Tensor<D> {
        let (quantize, last) = {
            let inner = self.lock();
            if inner.bypassed {
                return value;
            }
            (inner.quantize.clone(), inner.last.clone())
        };
        // Transforms run unlocked: they may read their target.
        let value = match quantize {
            Some(transform) => transformed(transform.as_ref(), value, None),
            None => self.lock().quantize(value),
        };
        let value = self.apply_mask(value);
        match last {
            Some(transform) => transformed(transform.as_ref(), value, None),
            None => value,
        }
    }

    /// Applies the mask, by the transform that stands in its place if there is one.
    fn apply_mask<const D: usize>(&self, value: Tensor<D>) -> Tensor<D> {
        let mut inner = self.lock();
        let Some(transform) = inner.apply_mask.clone() else {
            return inner.mask(value);
        };
        let mask = inner.full_mask(&value);
        drop(inner);
        transformed(transform.as_ref(), value, mask)
    }
}

fn transformed<const D: usize>(
    transform: &dyn Transform,
    value: Tensor<D>,
    mask: Option<Tensor<1>>,
) -> Tensor<D> {
    let dims = value.dims();
    transform
        .apply(FlatTensor::new(value), mask)
        .values
        .reshape(dims)
}

impl Inner {
    fn quantize<const D: usize>(&mut self, value: Tensor<D>) -> Tensor<D> {
        let Some(quantization) = &self.quantization else {
            return value;
        };
        let Some((scale, zero_point)) = quantization.active_parameters() else {
            return value;
        };
        let (qmin, qmax) = (quantization.qmin, quantization.qmax);
        let (grid, gradient) = (quantization.grid.clone(), quantization.gradient);
        let binary = quantization.is_binary();
        let device = value.device().without_autodiff();
        let dims = value.dims();
        let scale = self.expand(scale.to_device(&device), &grid, dims, &device);
        if binary {
            return crate::fake_quantize::binarize(value, scale, gradient);
        }
        let zero_point = self.expand(zero_point.to_device(&device), &grid, dims, &device);
        crate::fake_quantize::fake_quantize(value, scale, zero_point, qmin, qmax, gradient)
    }

    /// Brings one value per block to a shape that broadcasts against the target.
    fn expand<const D: usize>(
        &mut self,
        values: Tensor<1>,
        grid: &Grid,
        dims: [usize; D],
        device: &Device,
    ) -> Tensor<D> {
        if let Some(shape) = grid.broadcast_shape(&dims) {
            let shape: [usize; D] = std::array::from_fn(|dim| shape[dim]);
            return values.reshape(shape);
        }
        let cached = match &self.expansion {
            Some((shape, index)) if shape[..] == dims => Some(index.clone().to_device(device)),
            _ => None,
        };
        let index = cached.unwrap_or_else(|| {
            let blocks: Vec<i32> = grid.block_of_each_element(&dims);
            let index = Tensor::<1, Int>::from_data(TensorData::from(blocks.as_slice()), device);
            self.expansion = Some((dims.to_vec(), index.clone()));
            index
        });
        values.select(0, index).reshape(dims)
    }

    /// The shape of the mask, if it does not broadcast against a value of shape `dims`.
    fn misfit(&self, dims: &[usize]) -> Option<Vec<usize>> {
        let shape = self.mask.as_ref()?.shape();
        let fits = shape.len() == dims.len()
            && shape
                .iter()
                .zip(dims)
                .all(|(&mask, &size)| mask == 1 || mask == size);
        (!fits).then(|| shape.to_vec())
    }

    /// The mask of a value of this shape, one number for each element.
    fn full_mask<const D: usize>(&mut self, value: &Tensor<D>) -> Option<Tensor<1>> {
        let device = value.device().without_autodiff();
        let shape: [usize; D] =
            std::array::from_fn(|dim| self.mask.as_ref().map_or(1, |m| m.shape()[dim]));
        let values = self.mask_on(&device)?;
        let dims = value.dims();
        Some(
            values
                .reshape(shape)
                .expand(dims)
                .reshape([dims.iter().product::<usize>()]),
        )
    }

    fn mask<const D: usize>(&mut self, value: Tensor<D>) -> Tensor<D> {
        let device = value.device().without_autodiff();
        let Some(values) = self.mask_on(&device) else {
            return value;
        };
        let Some(mask) = &self.mask else { return value };
        let shape: [usize; D] = std::array::from_fn(|dim| mask.shape()[dim]);
        let values = match value.dtype() == values.dtype() {
            true => values,
            false => values.cast(FloatDType::from(value.dtype())),
        };
        mask.method().apply(value, values.reshape(shape))
    }

    fn mask_on(&mut self, device: &Device) -> Option<Tensor<1>> {
        let mask = self.mask.as_ref()?;
        let values = match self.mask_values.take() {
            Some(values) => values.to_device(device),
            None => Tensor::from_data(TensorData::from(mask.values()), device),
        };
        self.mask_values = Some(values.clone());
        Some(values)
    }
}
