//! Dummy inputs, for capturing the graph of a model and verifying its output.

use std::fmt;
use std::sync::Arc;

use burn::tensor::{Bool, Device, Float, FloatDType, Int, Tensor, TensorData};
use burn_capture::{CaptureBackend, TensorId};

use super::custom::{OperationRule, Rules};
use super::operation::Operation;
use super::resize::resize;
use super::sampler::Sampler;

/// Inputs of a forward pass together with the call.
///
/// Any signature fits: inputs are a tensor (float, int or bool) or a tuple of up to four, outputs
/// a tensor, a tuple of tensors or a `Vec` of them.
///
/// ```
/// use burn::{nn::{Linear, LinearConfig}, prelude::*};
/// use burn_compress_graph::DummyInput;
///
/// let device = Device::flex();
/// let model = LinearConfig::new(4, 2).init(&device);
/// let dummy = DummyInput::new(Tensor::<2>::ones([1, 4], &device), |model: &Linear, x| {
///     model.forward(x)
/// });
/// assert_eq!(dummy.run(&model, &device)[0].shape().to_vec(), [1, 2]);
/// ```
///
/// The forward pass is the user's own and is called with tensors on the device it has to run on;
/// a tensor that it makes itself must be made on that device.
pub struct DummyInput<M> {
    forward: Arc<Forward<M>>,
    /// Whether the inputs are known, so that others can be put in their place.
    known: bool,
    /// Whether the inputs can be brought to these shapes.
    resizes: Arc<Resizes>,
    pub(super) rules: Rules,
}

type Resizes = dyn Fn(&[Vec<usize>]) -> bool + Send + Sync;

/// `None` where the inputs cannot be had in that way.
type Forward<M> = dyn Fn(&M, &Device, Inputs) -> Option<Traced> + Send + Sync;

/// The inputs that a forward pass is called with.
#[derive(Clone, Default)]
struct Inputs {
    /// Whether floats are `f64`.
    widened: bool,
    /// Seed of random ones in their place.
    random: Option<u64>,
    /// The shapes that they are brought to.
    shapes: Option<Arc<[Vec<usize>]>>,
}

/// Inputs and outputs of one forward pass.
pub(super) struct Traced {
    /// Shape and, on the capture device, identifier of each input tensor.
    pub inputs: Vec<(Option<TensorId>, Vec<usize>)>,
    /// The outputs.
    pub outputs: Box<dyn ForwardOutputs>,
}

impl<M> DummyInput<M> {
    /// Calls `forward` with the model and `inputs`, moved to the model's device.
    pub fn new<I, O>(inputs: I, forward: impl Fn(&M, I) -> O + Send + Sync + 'static) -> Self
    where
        I: ForwardInputs + 'static,
        O: ForwardOutputs + 'static,
    {
        let inputs = Arc::new(inputs);
        let same = inputs.clone();
        let resizes = move |shapes: &[Vec<usize>]| {
            same.describe().len() == shapes.len() && same.resized(&mut shapes.iter()).is_some()
        };
        let call = move |model: &M, device: &Device, wanted: Inputs| {
            let random = match wanted.random {
                Some(seed) => Some(inputs.random_like(&mut Sampler::new(seed))?),
                None => None,
            };
            let given = random.as_ref().unwrap_or(&inputs);
            let mut inputs = match &wanted.shapes {
                Some(shapes) => given.resized(&mut shapes.iter())?.to_device(device),
                None => given.to_device(device),
            };
            if wanted.widened {
                inputs = inputs.widen();
            }
            let described = inputs.describe();
            Some(Traced {
                inputs: described,
                outputs: Box::new(forward(model, inputs)),
            })
        };
        Self {
            forward: Arc::new(call),
            known: true,
            resizes: Arc::new(resizes),
            rules: Rules::default(),
        }
    }

    /// Calls `forward` with the model and the device on which it has to make its inputs.
    ///
    /// Prefer [`DummyInput::new`]: here the batch size, which multiply-accumulates are divided by,
    /// is taken from the first output.
    pub fn from_fn<O>(forward: impl Fn(&M, &Device) -> O + Send + Sync + 'static) -> Self
    where
        O: ForwardOutputs + 'static,
    {
        let forward = move |model: &M, device: &Device, _: Inputs| {
            Some(Traced {
                inputs: Vec::new(),
                outputs: Box::new(forward(model, device)),
            })
        };
        Self {
            forward: Arc::new(forward),
            known: false,
            resizes: Arc::new(|_| false),
            rules: Rules::default(),
        }
    }

    /// Gives the operation `name` a rule, along which channels are followed through it.
    ///
    /// Only for operations that have none, such as the custom operations of a backend extension,
    /// which go by their identifier, or code that a [`CustomOp`](crate::CustomOp) stands for. The
    /// rule is made anew for every operation of that name, from its shapes and numbers. Of two rules
    /// for one name the later counts; a rule for an operation that the pass does not have is an error.
    ///
    /// ```
    /// # use burn::{nn::{Linear, LinearConfig}, prelude::*};
    /// use burn_compress_graph::{DummyInput, OperationRule};
    ///
    /// # let device = Device::flex();
    /// let x = Tensor::<2>::ones([1, 4], &device);
    /// let dummy = DummyInput::new(x, |model: &Linear, x| model.forward(x))
    ///     .with_rule("cube", |_| OperationRule::elementwise(|x| Some(x[0]?.powi(3))));
    /// ```
    pub fn with_rule(
        mut self,
        name: impl Into<String>,
        rule: impl Fn(&Operation) -> OperationRule + Send + Sync + 'static,
    ) -> Self {
        self.rules.insert(name.into(), rule);
        self
    }

    /// The dummy input of a model that `model` finds in an `N`.
    ///
    /// ```
    /// use burn::{nn::{Linear, LinearConfig}, prelude::*};
    /// use burn_compress_graph::DummyInput;
    ///
    /// let device = Device::flex();
    /// let x = Tensor::<2>::ones([1, 4], &device);
    /// let dummy = DummyInput::new(x, |model: &Linear, x| model.forward(x))
    ///     .within(|pair: &(Linear, Linear)| &pair.1);
    /// let pair = (LinearConfig::new(4, 3).init(&device), LinearConfig::new(4, 2).init(&device));
    /// assert_eq!(dummy.run(&pair, &device)[0].shape().to_vec(), [1, 2]);
    /// ```
    pub fn within<N: 'static>(self, model: fn(&N) -> &M) -> DummyInput<N>
    where
        M: 'static,
    {
        let forward = self.forward;
        DummyInput {
            forward: Arc::new(move |outer, device, inputs| forward(model(outer), device, inputs)),
            known: self.known,
            resizes: self.resizes,
            rules: self.rules,
        }
    }

    /// The same forward pass with inputs of other sizes: the elements of the given ones, repeated from
    /// the start along a dimension that grows, left out at the end of one that shrinks.
    ///
    /// None for [`from_fn`](Self::from_fn), for inputs that have no [other sizes](ForwardInputs::resized),
    /// and where number or rank of the shapes is not that of the inputs.
    ///
    /// ```
    /// use burn::{nn::{Linear, LinearConfig}, prelude::*};
    /// use burn_compress_graph::DummyInput;
    ///
    /// let device = Device::flex();
    /// let model = LinearConfig::new(4, 2).init(&device);
    /// let dummy = DummyInput::new(Tensor::<2>::ones([1, 4], &device), |model: &Linear, x| model.forward(x));
    /// let larger = dummy.resized(&[vec![3, 4]]).unwrap();
    /// assert_eq!(larger.run(&model, &device)[0].shape().to_vec(), [3, 2]);
    /// ```
    pub fn resized(&self, shapes: &[Vec<usize>]) -> Option<Self>
    where
        M: 'static,
    {
        let shapes: Arc<[Vec<usize>]> = shapes.into();
        if !self.known || !(self.resizes)(&shapes) {
            return None;
        }
        let (forward, resizes) = (self.forward.clone(), self.resizes.clone());
        Some(Self {
            forward: Arc::new(move |model, device, wanted| {
                let shapes = Some(wanted.shapes.clone().unwrap_or_else(|| shapes.clone()));
                forward(model, device, Inputs { shapes, ..wanted })
            }),
            known: true,
            resizes,
            rules: self.rules.clone(),
        })
    }

    /// The same forward pass with random inputs, as [`run_random`](Self::run_random) has them.
    ///
    /// None for [`from_fn`](Self::from_fn); a capture has no inputs where these have no
    /// [random ones](ForwardInputs::random_like).
    pub fn randomized(&self, seed: u64) -> Option<Self>
    where
        M: 'static,
    {
        let forward = self.forward.clone();
        self.known.then(|| Self {
            forward: Arc::new(move |model, device, wanted| {
                let random = Some(wanted.random.unwrap_or(seed));
                forward(model, device, Inputs { random, ..wanted })
            }),
            known: true,
            resizes: self.resizes.clone(),
            rules: self.rules.clone(),
        })
    }

    /// Whether `other` is a clone of this one: the same forward pass with the same inputs and rules.
    ///
    /// Two that were made apart are never the same, whatever they do.
    pub fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.forward, &other.forward) && self.rules.same(&other.rules)
    }

    /// Runs the forward pass on `device`, where `model` has to be, and reads its outputs.
    pub fn run(&self, model: &M, device: &Device) -> Vec<TensorData> {
        let traced = (self.forward)(model, device, Inputs::default());
        traced.map_or_else(Vec::new, |traced| traced.outputs.data())
    }

    /// Runs the forward pass with random inputs in place of the given ones, the same for the same
    /// `seed`: floats with the mean and the spread of the given ones, integers between the smallest
    /// and the largest of them; booleans stay.
    ///
    /// None for [`from_fn`](Self::from_fn), where the closure makes the inputs, and for inputs of a type
    /// that has no [random ones](ForwardInputs::random_like).
    pub fn run_random(&self, model: &M, device: &Device, seed: u64) -> Option<Vec<TensorData>> {
        self.run_with(
            model,
            device,
            Inputs {
                random: Some(seed),
                ..Inputs::default()
            },
        )
    }

    fn run_with(&self, model: &M, device: &Device, inputs: Inputs) -> Option<Vec<TensorData>> {
        let known = self.known.then_some(());
        known.and_then(|()| Some((self.forward)(model, device, inputs)?.outputs.data()))
    }

    /// Runs the forward pass of a model in `f64` with the inputs in `f64`.
    ///
    /// None for [`from_fn`](Self::from_fn), where the closure makes the inputs.
    ///
    /// # Panics
    ///
    /// On a device without `f64`.
    pub fn run_f64(&self, model: &M, device: &Device) -> Option<Vec<TensorData>> {
        self.run_with(
            model,
            device,
            Inputs {
                widened: true,
                ..Inputs::default()
            },
        )
    }

    /// The same with the inputs of [`run_random`](Self::run_random).
    ///
    /// # Panics
    ///
    /// On a device without `f64`.
    pub fn run_random_f64(&self, model: &M, device: &Device, seed: u64) -> Option<Vec<TensorData>> {
        self.run_with(
            model,
            device,
            Inputs {
                widened: true,
                random: Some(seed),
                ..Inputs::default()
            },
        )
    }

    /// A forward pass with the inputs as they were given, which can always be had.
    pub(super) fn trace(&self, model: &M, device: &Device) -> Traced {
        let traced = (self.forward)(model, device, Inputs::default());
        traced.unwrap_or_else(|| Traced {
            inputs: Vec::new(),
            outputs: Box::new(Vec::<Tensor<1>>::new()),
        })
    }
}

impl<M> Clone for DummyInput<M> {
    fn clone(&self) -> Self {
        Self {
            forward: self.forward.clone(),
            known: self.known,
            resizes: self.resizes.clone(),
            rules: self.rules.clone(),
        }
    }
}

impl<M> fmt::Debug for DummyInput<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DummyInput")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// Input tensors of a forward pass.
pub trait ForwardInputs: Send + Sync {
    /// The same tensors on `device`.
    fn to_device(&self, device: &Device) -> Self
    where
        Self: Sized;

    /// The same tensors, those of floats in `f64`.
    fn widen(self) -> Self
    where
        Self: Sized;

    /// Shape and, on the capture device, identifier of each tensor.
    fn describe(&self) -> Vec<(Option<TensorId>, Vec<usize>)>;

    /// The tensors brought to the next shapes, one for each, their elements repeated or left out; none
    /// where that cannot be done.
    fn resized(&self, _shapes: &mut std::slice::Iter<'_, Vec<usize>>) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// Random tensors of the same shapes and kinds; none where there are none.
    fn random_like(&self, _sampler: &mut Sampler) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

/// Output tensors of a forward pass.
pub trait ForwardOutputs {
    /// Identifier of each tensor on the capture device.
    fn ids(&self) -> Vec<Option<TensorId>>;

    /// The values of each tensor.
    fn data(&self) -> Vec<TensorData>;
}

macro_rules! impl_tensor {
    ($($kind:ty, $tensor:ident => $widened:expr, $sample:ident;)+) => {$(
        impl<const D: usize> ForwardInputs for Tensor<D, $kind> {
            fn to_device(&self, device: &Device) -> Self {
                // A device that captures takes no tensor with gradients.
                self.clone().without_autodiff().to_device(device)
            }

            fn widen(self) -> Self {
                let $tensor = self;
                $widened
            }

            fn describe(&self) -> Vec<(Option<TensorId>, Vec<usize>)> {
                vec![(self.ids()[0], self.dims().to_vec())]
            }

            fn resized(&self, shapes: &mut std::slice::Iter<'_, Vec<usize>>) -> Option<Self> {
                let tensor = self.clone().without_autodiff();
                let data = resize(&tensor.to_data(), shapes.next()?)?;
                let options = (&tensor.device(), data.dtype());
                Some(Tensor::from_data(data, options))
            }

            fn random_like(&self, sampler: &mut Sampler) -> Option<Self> {
                let data = sampler.$sample(self.data().swap_remove(0));
                let options = (&self.device().without_autodiff(), data.dtype());
                Some(Tensor::from_data(data, options))
            }
        }

        impl<const D: usize> ForwardOutputs for Tensor<D, $kind> {
            fn ids(&self) -> Vec<Option<TensorId>> {
                let primitive = self.clone().try_into_primitive::<CaptureBackend>();
                vec![primitive.ok().map(|primitive| primitive.id())]
            }

            fn data(&self) -> Vec<TensorData> {
                vec![self.to_data()]
            }
        }
    )+};
}

impl_tensor! {
    Float, tensor => tensor.cast(FloatDType::F64), floats;
    Int, tensor => tensor, integers;
    Bool, tensor => tensor, booleans;
}

macro_rules! impl_tuple {
    ($($name:ident $index:tt),+) => {
        impl<$($name: ForwardInputs),+> ForwardInputs for ($($name,)+) {
            fn to_device(&self, device: &Device) -> Self {
                ($(self.$index.to_device(device),)+)
            }

            fn widen(self) -> Self {
                ($(self.$index.widen(),)+)
            }

            fn describe(&self) -> Vec<(Option<TensorId>, Vec<usize>)> {
                let mut all = Vec::new();
                $(all.extend(self.$index.describe());)+
                all
            }

            fn resized(&self, shapes: &mut std::slice::Iter<'_, Vec<usize>>) -> Option<Self> {
                Some(($(self.$index.resized(shapes)?,)+))
            }

            fn random_like(&self, sampler: &mut Sampler) -> Option<Self> {
                Some(($(self.$index.random_like(sampler)?,)+))
            }
        }

        impl<$($name: ForwardOutputs),+> ForwardOutputs for ($($name,)+) {
            fn ids(&self) -> Vec<Option<TensorId>> {
                let mut all = Vec::new();
                $(all.extend(self.$index.ids());)+
                all
            }

            fn data(&self) -> Vec<TensorData> {
                let mut all = Vec::new();
                $(all.extend(self.$index.data());)+
                all
            }
        }
    };
}

impl_tuple!(A 0);
impl_tuple!(A 0, B 1);
impl_tuple!(A 0, B 1, C 2);
impl_tuple!(A 0, B 1, C 2, D 3);

impl<T: ForwardOutputs> ForwardOutputs for Vec<T> {
    fn ids(&self) -> Vec<Option<TensorId>> {
        self.iter().flat_map(T::ids).collect()
    }

    fn data(&self) -> Vec<TensorData> {
        self.iter().flat_map(T::data).collect()
    }
}

#[cfg(test)]
mod tests;
