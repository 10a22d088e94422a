//! A model whose type is not known.

use std::any::Any;
use std::fmt;

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor};
use burn::tensor::Device;

use super::same;
use super::visit::{Erasing, MapAny, Restoring, VisitAny};
use crate::graph::DummyInput;

/// A model whose type is not known: the module that it holds, behind a pointer.
///
/// Order, paths, containers and shared parameters are those of the model, and so is its `Debug`. The
/// methods that [`Module`] provides are those of the trait, also where the model has its own.
///
/// Parameters have up to 8 dimensions, as in Burn's optimizers; a visit of one with more panics.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::Device;
/// use burn_compress_core::erased::AnyModel;
///
/// let model = AnyModel::new(LinearConfig::new(4, 2).init(&Device::flex()));
/// assert_eq!(model.num_params(), 4 * 2 + 2);
/// assert_eq!(model.get::<Linear>().weight.dims(), [4, 2]);
/// ```
pub struct AnyModel(Box<dyn Erased>);

impl AnyModel {
    /// Holds `model`; one whose type is erased already stays as it is.
    pub fn new<M: Module + 'static>(model: M) -> Self {
        same(model).unwrap_or_else(|model| Self(Box::new(model)))
    }

    /// The dummy input of an `M`, for a model that holds one.
    pub fn dummy_input<M: Module + 'static>(dummy_input: &DummyInput<M>) -> DummyInput<Self> {
        same(dummy_input.clone()).unwrap_or_else(|dummy_input| dummy_input.within(Self::get))
    }

    /// The model as an `M`.
    ///
    /// # Panics
    ///
    /// It is none.
    pub fn get<M: Module + 'static>(&self) -> &M {
        let itself = (self as &dyn Any).downcast_ref();
        let model = itself.or_else(|| (&*self.0 as &dyn Any).downcast_ref());
        model.unwrap_or_else(|| other_type::<M>())
    }

    /// Gives the model away as an `M`.
    ///
    /// # Panics
    ///
    /// It is none.
    pub fn into_typed<M: Module + 'static>(self) -> M {
        same(self).unwrap_or_else(|Self(model)| {
            let model: Box<dyn Any> = model;
            *model.downcast().unwrap_or_else(|_| other_type::<M>())
        })
    }
}

fn other_type<M>() -> ! {
    panic!("the model is no `{}`", std::any::type_name::<M>())
}

impl Clone for AnyModel {
    fn clone(&self) -> Self {
        Self(self.0.clone_any())
    }
}

impl fmt::Debug for AnyModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Module for AnyModel {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.0.collect_devices_any(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self(self.0.fork_any(device))
    }

    fn to_device(self, device: &Device) -> Self {
        Self(self.0.to_device_any(device))
    }

    fn train(self) -> Self {
        Self(self.0.train_any())
    }

    fn valid(&self) -> Self {
        Self(self.0.valid_any())
    }

    fn materialize(self) -> Self {
        Self(self.0.materialize_any())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.0.visit_any(&mut Restoring(visitor));
    }

    fn map<T: ModuleMapper>(self, mapper: &mut T) -> Self {
        Self(self.0.map_any(&mut Restoring(mapper)))
    }
}

/// What is compiled for each type of model.
trait Erased: Any + fmt::Debug + Send {
    fn clone_any(&self) -> Box<dyn Erased>;
    fn collect_devices_any(&self, devices: Devices) -> Devices;
    fn fork_any(self: Box<Self>, device: &Device) -> Box<dyn Erased>;
    fn to_device_any(self: Box<Self>, device: &Device) -> Box<dyn Erased>;
    fn train_any(self: Box<Self>) -> Box<dyn Erased>;
    fn valid_any(&self) -> Box<dyn Erased>;
    fn materialize_any(self: Box<Self>) -> Box<dyn Erased>;
    fn visit_any(&self, visitor: &mut dyn VisitAny);
    fn map_any(self: Box<Self>, mapper: &mut dyn MapAny) -> Box<dyn Erased>;
}

impl<M: Module + 'static> Erased for M {
    fn clone_any(&self) -> Box<dyn Erased> {
        Box::new(self.clone())
    }

    fn collect_devices_any(&self, devices: Devices) -> Devices {
        self.collect_devices(devices)
    }

    fn fork_any(self: Box<Self>, device: &Device) -> Box<dyn Erased> {
        Box::new((*self).fork(device))
    }

    fn to_device_any(self: Box<Self>, device: &Device) -> Box<dyn Erased> {
        Box::new((*self).to_device(device))
    }

    fn train_any(self: Box<Self>) -> Box<dyn Erased> {
        Box::new((*self).train())
    }

    fn valid_any(&self) -> Box<dyn Erased> {
        Box::new(self.valid())
    }

    fn materialize_any(self: Box<Self>) -> Box<dyn Erased> {
        Box::new((*self).materialize())
    }

    fn visit_any(&self, visitor: &mut dyn VisitAny) {
        self.visit(&mut Erasing(visitor));
    }

    fn map_any(self: Box<Self>, mapper: &mut dyn MapAny) -> Box<dyn Erased> {
        Box::new((*self).map(&mut Erasing(mapper)))
    }
}
