//! Values that are not finite, found before they leave a run.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::kind::Basic;
use burn::tensor::{DType, FloatDType, Tensor, TensorData};

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

/// Whether each tensor holds finite values alone, in one read where all do. It is no read of a training
/// run and is not counted.
///
/// A sum is finite only if all its terms are. One that is not may have overflowed, and its terms are
/// looked at one by one.
///
/// # Errors
///
/// The device failed to hand them over.
pub fn finite(tensors: &[Tensor<1>]) -> Result<Vec<bool>, Error> {
    let Some(device) = tensors.first().map(Tensor::device) else {
        return Ok(Vec::new());
    };
    let device = device.without_autodiff();
    let sum = |values: &Tensor<1>| {
        let sum = values.clone().detach().without_autodiff().sum();
        sum.cast(FloatDType::F32).to_device(&device)
    };
    let sums = read(Tensor::cat(tensors.iter().map(sum).collect(), 0))?;
    let exact = |(values, sum): (&Tensor<1>, f32)| match sum.is_finite() {
        true => Ok(true),
        false => {
            let values = values.clone().detach().without_autodiff();
            let all = read(values.is_finite().all())?;
            Ok(all.iter::<bool>().all(|finite| finite))
        }
    };
    tensors.iter().zip(sums.iter::<f32>()).map(exact).collect()
}

fn read<const D: usize, K: Basic>(tensor: Tensor<D, K>) -> Result<TensorData, Error> {
    let data = tensor.try_into_data();
    data.map_err(|error| Error::Device(error.to_string()))
}

#[derive(Default)]
struct Found {
    path: Vec<String>,
    names: Vec<String>,
    /// The values of each name, and whether they may be infinite.
    values: Vec<(Tensor<1>, bool)>,
}

impl Found {
    fn add<const D: usize>(&mut self, name: String, values: Tensor<D>, infinities: bool) {
        let values = values.detach().without_autodiff();
        let elements = values.shape().num_elements();
        if matches!(values.dtype(), DType::QFloat(_)) || elements == 0 {
            return;
        }
        self.names.push(name);
        self.values.push((values.reshape([elements]), infinities));
    }

    /// The names of the tensors with which something is wrong.
    fn broken(self) -> Result<Vec<String>, Error> {
        let (values, infinities): (Vec<_>, Vec<_>) = self.values.into_iter().unzip();
        let finite = finite(&values)?;
        let mut broken = Vec::new();
        for (at, name) in self.names.into_iter().enumerate() {
            let is_nan = || -> Result<bool, Error> {
                let any = read(values[at].clone().is_nan().any())?;
                Ok(any.iter::<bool>().any(|nan| nan))
            };
            if !finite[at] && (!infinities[at] || is_nan()?) {
                broken.push(name);
            }
        }
        Ok(broken)
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
