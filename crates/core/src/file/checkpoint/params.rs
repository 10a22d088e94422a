//! The parameters of a chain with the ids that they have in a checkpoint.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bytes, DType, Tensor};
use burn_pack::{Reader, Tensor as PackTensor};
use indexmap::IndexMap;

use super::optimizer::Known;
use super::profile::Ids;
use crate::erased::AnyModel;

/// The float parameters of a model that a checkpoint holds.
#[derive(Default)]
pub(super) struct Params {
    /// All of them, for the check of an optimizer record.
    pub known: Vec<Known>,
    /// The ids of those that are trained.
    pub trained: Ids,
}

impl Params {
    /// Parameters of `model` in the `record` of the checkpoint.
    ///
    /// # Errors
    ///
    /// A record that cannot be read, parameters of another shape, and values that are no floats,
    /// which Burn would take as they are.
    pub fn of(model: &AnyModel, record: Bytes) -> Result<Self, String> {
        let reader = Reader::from_bytes(record).map_err(|error| error.to_string())?;
        let tensors = reader.into_tensors().map_err(|error| error.to_string())?;
        let by_path = |tensor: PackTensor| (tensor.name.clone(), tensor);
        let mut visitor = Visitor {
            path: Vec::new(),
            recorded: tensors.into_iter().map(by_path).collect(),
            params: Self::default(),
            wrong: Vec::new(),
        };
        model.visit(&mut visitor);
        match visitor.wrong.is_empty() {
            true => Ok(visitor.params),
            false => Err(format!(
                "the model is another one: {}",
                visitor.wrong.join("; ")
            )),
        }
    }
}

struct Visitor {
    path: Vec<String>,
    recorded: IndexMap<String, PackTensor>,
    params: Params,
    wrong: Vec<String>,
}

impl ModuleVisitor for Visitor {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let Some(recorded) = self.recorded.get(&path) else {
            return;
        };
        let (found, expected) = (recorded.shape.to_vec(), param.lazy_shape().to_vec());
        if found != expected {
            let shapes = format!("`{path}` has the shape {found:?}, not {expected:?}");
            self.wrong.push(shapes);
            return;
        }
        let (base, dtype) = (param.base(), recorded.dtype);
        let size = recorded.shape.num_elements().checked_mul(dtype.size());
        let is_whole = matches!(dtype, DType::QFloat(_)) || size == Some(recorded.byte_len());
        if !(is_whole && (dtype.is_float() || dtype == base.dtype())) {
            self.wrong.push(format!("`{path}` holds {dtype:?}"));
            return;
        }
        let id = recorded.param_id.map_or(param.id, ParamId::from);
        if base.is_require_grad() {
            self.params.trained.insert(path, id);
        }
        self.params.known.push(Known {
            path: self.path.clone(),
            id: id.val(),
            shape: base.dims().to_vec(),
            dtype,
            device: base.device(),
        });
    }
}
