//! Parameters and gradients by path.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use indexmap::{IndexMap, IndexSet};

use crate::space::FlatTensor;

/// The raw parameters with these paths, in module order, detached from any graph.
///
/// Raw means without the simulation: neither quantized nor masked.
pub fn parameters<M: Module>(model: &M, paths: &IndexSet<String>) -> IndexMap<String, FlatTensor> {
    collect(model, paths, None)
}

/// The gradients of the raw parameters with these paths, in module order.
///
/// A parameter that the loss does not depend on has no gradient and is left out.
pub fn gradients<M: Module>(
    model: &M,
    gradients: &GradientsParams,
    paths: &IndexSet<String>,
) -> IndexMap<String, FlatTensor> {
    collect(model, paths, Some(gradients))
}

fn collect<M: Module>(
    model: &M,
    paths: &IndexSet<String>,
    gradients: Option<&GradientsParams>,
) -> IndexMap<String, FlatTensor> {
    let mut collector = Collector {
        path: Vec::new(),
        paths,
        gradients,
        found: IndexMap::new(),
    };
    model.visit(&mut collector);
    collector.found
}

struct Collector<'a> {
    path: Vec<String>,
    paths: &'a IndexSet<String>,
    gradients: Option<&'a GradientsParams>,
    found: IndexMap<String, FlatTensor>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        if !self.paths.contains(&path) {
            return;
        }
        let tensor = match self.gradients {
            None => Some(param.base().detach().without_autodiff()),
            Some(gradients) => gradients.get::<D>(param.id),
        };
        if let Some(tensor) = tensor {
            self.found.insert(path, FlatTensor::new(tensor));
        }
    }
}
