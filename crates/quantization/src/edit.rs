//! Changing one raw parameter of a model.

use burn::module::{ModuleMapper, Param};
use burn::tensor::Tensor;

/// Applies `edit` to the parameter at the path `parameter`, flattened.
///
/// What simulates the parameter stays attached.
pub(crate) struct Edit<'a, F> {
    path: Vec<String>,
    parameter: &'a str,
    edit: F,
}

impl<'a, F: FnMut(Tensor<1>) -> Tensor<1>> Edit<'a, F> {
    pub(crate) fn new(parameter: &'a str, edit: F) -> Self {
        Self {
            path: Vec::new(),
            parameter,
            edit,
        }
    }
}

impl<F: FnMut(Tensor<1>) -> Tensor<1>> ModuleMapper for Edit<'_, F> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.path.join(".") != self.parameter {
            return param;
        }
        param.map(|tensor| {
            let dims = tensor.dims();
            let flat = tensor.reshape([dims.iter().product::<usize>()]);
            (self.edit)(flat).reshape(dims)
        })
    }
}
