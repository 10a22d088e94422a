//! Parameters and gradients by path.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use indexmap::{IndexMap, IndexSet};

use crate::Error;
use crate::simulate::flat::{FlatTensor, in_dtype};
use crate::target::TargetId;

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

/// The model with new raw values of these parameters; everything else stays, also what simulates
/// them.
///
/// # Errors
///
/// A parameter that the model does not visit, and a value of another shape.
pub fn with_parameters<M: Module>(
    model: M,
    values: IndexMap<TargetId, FlatTensor>,
) -> Result<M, Error> {
    if values.is_empty() {
        return Ok(model);
    }
    let mut rewriter = Rewriter {
        path: Vec::new(),
        values: values
            .into_iter()
            .map(|(id, value)| (id.to_string(), (id, value)))
            .collect(),
        error: None,
    };
    let model = model.map(&mut rewriter);
    if let Some(error) = rewriter.error {
        return Err(error);
    }
    match rewriter.values.into_values().next() {
        None => Ok(model),
        Some((target, _)) => Err(Error::UnknownTarget {
            target,
            reason: "the model does not visit such a parameter".to_string(),
        }),
    }
}

struct Rewriter {
    path: Vec<String>,
    values: IndexMap<String, (TargetId, FlatTensor)>,
    error: Option<Error>,
}

impl ModuleMapper for Rewriter {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((target, value)) = self.values.shift_remove(&self.path.join(".")) else {
            return param;
        };
        let (id, tensor, mapper) = param.consume();
        let dims = tensor.dims();
        let [elements] = value.values.dims();
        let found = match elements == tensor.shape().num_elements() {
            true => value.shape,
            false => vec![elements],
        };
        if found != dims {
            self.error.get_or_insert(Error::ShapeMismatch {
                target,
                what: "its new value",
                expected: dims.to_vec(),
                found,
            });
            return Param::from_mapped_value(id, tensor, mapper);
        }
        let values = value.values.detach().without_autodiff();
        let values = values
            .to_device(&tensor.device().without_autodiff())
            .reshape(dims);
        let values = in_dtype(values, tensor.dtype());
        let values = match tensor.is_autodiff() {
            true => Tensor::from_inner(values).set_require_grad(tensor.is_require_grad()),
            false => values,
        };
        Param::from_mapped_value(id, values, mapper)
    }
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
