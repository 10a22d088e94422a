//! The simulation of a parameter, attached to any Burn model.

use std::sync::Arc;

use burn::module::{
    Module, ModuleMapper, ModuleVisitor, Param, Reparameterization, Reparameterizer,
};
use burn::tensor::Tensor;
use indexmap::IndexMap;

use crate::module::keeps_device;
use crate::simulate::reading;
use crate::simulate::space::TargetSpace;
use crate::simulate::walk;

/// Executes the simulated logic of a parameter wherever the model reads it: quantize, then mask.
///
/// One composite object a parameter, since Burn holds one reparameterization a parameter. It has no
/// parameters of its own, so the record of a simulated model is that of the plain model and plain
/// checkpoints load into it.
///
/// `valid()` gives a snapshot with a state of its own: a teacher or an evaluated model never
/// follows the run that it was taken from.
#[derive(Clone, Debug)]
pub struct Simulation {
    space: Arc<TargetSpace>,
}

impl Simulation {
    /// The state that this simulation executes.
    pub fn space(&self) -> &TargetSpace {
        &self.space
    }
}

impl Module for Simulation {
    keeps_device!();

    fn valid(&self) -> Self {
        Self {
            space: self.space.snapshot(),
        }
    }

    fn visit<V: ModuleVisitor>(&self, _visitor: &mut V) {
        walk::report_simulation(&self.space);
    }

    fn map<T: ModuleMapper>(mut self, _mapper: &mut T) -> Self {
        walk::offer_simulation(&mut self.space);
        self
    }
}

impl Reparameterization for Simulation {
    const NAME: &'static str = "simulation";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        reading::read(&self.space, base)
    }
}

/// Attaches a simulation to each parameter named in `spaces`, by path; none is left at those that
/// the model visits.
pub(crate) struct Attach {
    pub(crate) spaces: IndexMap<String, Option<Arc<TargetSpace>>>,
}

impl Reparameterizer for &mut Attach {
    type Reparam = Simulation;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Simulation>) {
        let space = self.spaces.get_mut(path).and_then(Option::take);
        (param, space.map(|space| Simulation { space }))
    }
}
