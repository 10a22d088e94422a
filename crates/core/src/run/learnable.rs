//! Tensors that an algorithm trains beside the parameters of the model.
//!
//! A pruner may learn a score for each block, a quantizer a scale, a distiller a projection. They
//! are no parameters of the model: its records stay those of the plain model, and they end with the
//! run. The chain trains them, and saves them in its checkpoints.

use std::fmt;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use parking_lot::Mutex;

use crate::Error;
use crate::module::keeps_device;
use crate::run::reads::floats;
use crate::simulate::block::num_elements;
use crate::simulate::flat::HostTensor;
use crate::simulate::flat::in_dtype;

/// Optimizer of a [`Learnable`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TrainedBy {
    /// The evaluator's, with the learning rate of the step.
    Evaluator,
    /// Adam (`beta = 0.9, 0.999`, `epsilon = 1e-8`) with a constant learning rate, which steps
    /// before the evaluator's optimizer.
    Adam {
        /// The learning rate.
        learning_rate: f64,
    },
}

/// A tensor that the chain trains for an algorithm.
///
/// Its values are held flat, whatever their shape, as a [`FlatTensor`](crate::FlatTensor) holds
/// those of a target. An algorithm hands its learnables to the chain through
/// [`Algorithm::learnables`](crate::Algorithm::learnables) and uses [`tensor`](Self::tensor) in the
/// forward pass or in the loss.
///
/// ```
/// use burn::tensor::Device;
/// use burn_compress_core::{Learnable, TrainedBy};
///
/// let device = Device::flex();
/// let scores = Learnable::new("conv.weight", vec![0.0; 4], [4], TrainedBy::Evaluator, &device)?;
/// assert_eq!(scores.values()?, [0.0; 4]);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub struct Learnable {
    name: String,
    shape: Vec<usize>,
    trained_by: TrainedBy,
    inner: Mutex<Inner>,
}

struct Inner {
    param: Param<Tensor<1>>,
    gradient: Option<Tensor<1>>,
}

impl fmt::Debug for Learnable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Learnable")
            .field("name", &self.name)
            .field("shape", &self.shape)
            .field("trained_by", &self.trained_by)
            .finish_non_exhaustive()
    }
}

impl Learnable {
    /// A tensor that starts with `values`, row-major.
    ///
    /// The name identifies it among the learnables of its algorithm.
    ///
    /// # Errors
    ///
    /// [`Error::Learnable`] when the shape has another number of elements.
    pub fn new(
        name: impl Into<String>,
        values: Vec<f32>,
        shape: impl Into<Vec<usize>>,
        trained_by: TrainedBy,
        device: &Device,
    ) -> Result<Arc<Self>, Error> {
        let (name, shape) = (name.into(), shape.into());
        check(&name, &shape, values.len())?;
        let param = param(values, &device.clone().autodiff());
        Ok(Arc::new(Self {
            name,
            shape,
            trained_by,
            inner: Mutex::new(Inner {
                param,
                gradient: None,
            }),
        }))
    }

    /// Identifies the tensor among those of its algorithm.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its optimizer.
    pub fn trained_by(&self) -> TrainedBy {
        self.trained_by
    }

    /// The values as a leaf of the graph, `[num_elements]`: what is computed with them sends
    /// gradients back.
    pub fn tensor(&self) -> Tensor<1> {
        self.inner.lock().param.val()
    }

    /// The values for a computation with `other`, on its device and of its float type: the leaf
    /// where `other` is differentiated, otherwise the plain numbers.
    pub fn tensor_for<const D: usize>(&self, other: &Tensor<D>) -> Tensor<1> {
        let values = match other.is_autodiff() {
            true => self.tensor(),
            false => self.held(),
        };
        in_dtype(values.to_device(&other.device()), other.dtype())
    }

    /// The values, row-major.
    ///
    /// # Errors
    ///
    /// The device failed to hand them over.
    pub fn values(&self) -> Result<Vec<f32>, Error> {
        floats(self.tensor())
    }

    /// Replaces the values; the optimizer's state of the tensor stays.
    ///
    /// # Errors
    ///
    /// [`Error::Learnable`] when their number is another.
    pub fn set_values(&self, values: Vec<f32>) -> Result<(), Error> {
        check(&self.name, &self.shape, values.len())?;
        let mut inner = self.inner.lock();
        let device = inner.param.val().device();
        let id = inner.param.id;
        inner.param = with_id(id, values, &device);
        Ok(())
    }

    /// The sum of the gradients since the optimizer stepped, `[num_elements]`; none if no loss
    /// depended on the tensor. There is one a step, unless a `Learner` accumulates several.
    pub fn gradient(&self) -> Option<Tensor<1>> {
        self.inner.lock().gradient.clone()
    }

    /// The values by themselves, on the device.
    pub(crate) fn held(&self) -> Tensor<1> {
        self.tensor().detach().without_autodiff()
    }

    /// Takes on values that [`held`](Self::held) gave.
    pub(crate) fn hold(&self, values: Tensor<1>) {
        let mut inner = self.inner.lock();
        let device = inner.param.val().device().without_autodiff();
        let values = Tensor::from_inner(values.to_device(&device));
        inner.param = Param::initialized(inner.param.id, values.require_grad());
        inner.gradient = None;
    }

    pub(crate) fn take_gradient(&self, gradients: &mut Gradients) {
        let mut inner = self.inner.lock();
        let gradient = inner.param.val().grad_remove(gradients);
        inner.gradient = match (inner.gradient.take(), gradient) {
            (Some(before), Some(gradient)) => Some(before + gradient),
            (before, gradient) => before.or(gradient),
        };
    }

    pub(crate) fn to_host(&self) -> Result<(u64, HostTensor), Error> {
        let tensor = HostTensor {
            values: self.values()?,
            shape: self.shape.clone(),
        };
        Ok((self.inner.lock().param.id.val(), tensor))
    }

    pub(crate) fn restore(&self, id: u64, saved: HostTensor) -> Result<(), Error> {
        if saved.shape != self.shape {
            return Err(Error::Learnable {
                name: self.name.clone(),
                expected: self.shape.clone(),
                found: saved.values.len(),
            });
        }
        let mut inner = self.inner.lock();
        let device = inner.param.val().device();
        inner.param = with_id(ParamId::from(id), saved.values, &device);
        inner.gradient = None;
        Ok(())
    }
}

fn check(name: &str, shape: &[usize], found: usize) -> Result<(), Error> {
    match num_elements(shape) == Some(found) {
        true => Ok(()),
        false => Err(Error::Learnable {
            name: name.to_string(),
            expected: shape.to_vec(),
            found,
        }),
    }
}

fn param(values: Vec<f32>, device: &Device) -> Param<Tensor<1>> {
    with_id(ParamId::new(), values, device)
}

fn with_id(id: ParamId, values: Vec<f32>, device: &Device) -> Param<Tensor<1>> {
    let size = values.len();
    let tensor = Tensor::from_data(TensorData::new(values, [size]), device);
    Param::initialized(id, tensor.require_grad())
}

/// Some learnables as a module, so that Burn's optimizers can step them.
#[derive(Clone, Debug)]
pub(crate) struct Learnables(Vec<Arc<Learnable>>);

impl Learnables {
    /// Learnables with a gradient and an optimizer that `select` accepts, with their gradients.
    pub(crate) fn with_gradients(
        all: &[Arc<Learnable>],
        select: impl Fn(TrainedBy) -> bool,
    ) -> (Self, GradientsParams) {
        let mut gradients = GradientsParams::new();
        let mut due = Vec::new();
        for learnable in all.iter().filter(|learnable| select(learnable.trained_by)) {
            let mut inner = learnable.inner.lock();
            if let Some(gradient) = inner.gradient.take() {
                gradients.register(inner.param.id, gradient.without_autodiff());
                drop(inner);
                due.push(learnable.clone());
            }
        }
        (Self(due), gradients)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Module for Learnables {
    keeps_device!();

    fn valid(&self) -> Self {
        self.clone()
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for learnable in &self.0 {
            let param = learnable.inner.lock().param.clone();
            visitor.enter_module(&learnable.name, "Learnable");
            visitor.visit_float(&param);
            visitor.exit_module(&learnable.name, "Learnable");
        }
    }

    fn map<T: ModuleMapper>(self, mapper: &mut T) -> Self {
        for learnable in &self.0 {
            let param = learnable.inner.lock().param.clone();
            mapper.enter_module(&learnable.name, "Learnable");
            let param = mapper.map_float(param);
            mapper.exit_module(&learnable.name, "Learnable");
            learnable.inner.lock().param = param;
        }
        self
    }
}

#[cfg(test)]
mod tests;
