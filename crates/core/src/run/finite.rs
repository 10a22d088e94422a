//! Values that are not finite, found before they leave a run.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, DType, Device, Tensor};

use crate::Error;
use crate::simulate::attach::{Spaces, settle_statistics};

/// Refuses a model that holds values which are not finite, in parameters, running statistics,
/// scales and zero points, after `step` steps. The device is read once.
///
/// A parameter that is not trained may hold infinities, as the constant mask of an attention does;
/// running statistics may not.
pub(crate) fn require<M: Module>(model: &M, spaces: &Spaces, step: usize) -> Result<(), Error> {
    settle_statistics(model);
    let mut found = Found::default();
    model.visit(&mut found);
    for (id, space) in spaces {
        let Some(state) = space.quantization() else {
            continue;
        };
        let parts = [("scale", state.scale), ("zero point", state.zero_point)];
        for (what, values) in parts {
            if let Some(values) = values {
                found.add(format!("{id} ({what})"), values, false);
            }
        }
    }
    let names = found.broken()?;
    match names.is_empty() {
        true => Ok(()),
        false => Err(Error::NotFinite { step, names }),
    }
}

#[derive(Default)]
struct Found {
    path: Vec<String>,
    names: Vec<String>,
    /// Whether something is wrong with the tensor of the same position in `names`.
    flags: Vec<Tensor<1, Bool>>,
    device: Option<Device>,
}

impl Found {
    fn add<const D: usize>(&mut self, name: String, values: Tensor<D>, infinities: bool) {
        let values = values.detach().without_autodiff();
        if matches!(values.dtype(), DType::QFloat(_)) || values.shape().num_elements() == 0 {
            return;
        }
        let wrong = match infinities {
            true => values.is_nan(),
            false => values.is_finite().bool_not(),
        };
        let flag = wrong.any();
        let device = self.device.get_or_insert_with(|| flag.device());
        let flag = flag.to_device(device);
        self.names.push(name);
        self.flags.push(flag);
    }

    /// The names of the tensors with which something is wrong.
    fn broken(self) -> Result<Vec<String>, Error> {
        if self.flags.is_empty() {
            return Ok(Vec::new());
        }
        let flags = Tensor::cat(self.flags, 0).try_into_data();
        let flags = flags.map_err(|error| Error::Device(error.to_string()))?;
        let broken = self.names.into_iter().zip(flags.iter::<bool>());
        Ok(broken
            .filter_map(|(name, broken)| broken.then_some(name))
            .collect())
    }
}

impl ModuleVisitor for Found {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        let statistic = self
            .path
            .last()
            .is_some_and(|last| last.starts_with("running_"));
        let values = param.base();
        let constant = !values.is_require_grad() && !statistic;
        self.add(name, values, constant);
    }
}

#[cfg(test)]
mod tests;
