//! The check of Burn's optimizer records.
//!
//! Burn takes an optimizer record on trust: an entry that does not fit its parameter panics, when it
//! is loaded or at the next step, and one that the optimizer does not know is dropped. So a record is
//! compared with what the optimizer itself writes for a parameter of that shape.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer, OptimizerRecord};
use burn::tensor::{Bytes, DType, Device, Tensor};
use burn_pack::{Reader, Scalar};

use crate::module::keeps_device;

/// Name of the rank of a parameter among its scalars.
const RANK: &str = "__rank";
/// No step counter and no rank is larger.
const LARGEST: i64 = i32::MAX as i64;

/// State of one parameter in a record.
#[derive(Debug, Default)]
pub(super) struct Entry {
    tensors: BTreeMap<String, (DType, Vec<usize>)>,
    scalars: BTreeMap<String, Scalar>,
}

impl Entry {
    /// The names of everything but the rank.
    pub fn names(&self) -> Vec<String> {
        let names = self.tensors.keys().chain(self.scalars.keys());
        names.filter(|name| *name != RANK).cloned().collect()
    }

    /// Mismatch with what the optimizer writes, if any.
    fn compare(&self, expected: &Self) -> Result<(), String> {
        for name in self.tensors.keys().chain(self.scalars.keys()) {
            if !expected.tensors.contains_key(name) && !expected.scalars.contains_key(name) {
                return Err(format!("the optimizer keeps no `{name}`"));
            }
        }
        for (name, (dtype, shape)) in &expected.tensors {
            match self.tensors.get(name) {
                None => return Err(format!("`{name}` is missing")),
                Some(found) if found != &(*dtype, shape.clone()) => {
                    let (other, found) = found;
                    return Err(format!(
                        "`{name}` is {other:?} {found:?} in place of {dtype:?} {shape:?}"
                    ));
                }
                Some(_) => {}
            }
        }
        for (name, value) in &expected.scalars {
            let Some(found) = self.scalars.get(name) else {
                return Err(format!("`{name}` is missing"));
            };
            let same_kind = std::mem::discriminant(found) == std::mem::discriminant(value);
            let in_range = i64::try_from(*found).map_or(
                matches!(found, Scalar::Float(_) | Scalar::Bool(_)),
                |number| number.abs() <= LARGEST,
            );
            if !same_kind || !in_range || (name == RANK && found != value) {
                return Err(format!("`{name}` is {found:?}"));
            }
        }
        Ok(())
    }
}

/// The entries of a record by the id of their parameter.
///
/// # Errors
///
/// A record that cannot be read, an entry of no parameter, and a tensor without all its bytes.
pub(super) fn entries(record: Bytes) -> Result<BTreeMap<u64, Entry>, String> {
    let reader = Reader::from_bytes(record).map_err(|error| error.to_string())?;
    let mut entries: BTreeMap<u64, Entry> = BTreeMap::new();
    let split = |name: &str| -> Result<(u64, String), String> {
        let parts = name.split_once('.');
        let parts = parts.and_then(|(id, name)| Some((id.parse().ok()?, name.to_string())));
        parts.ok_or_else(|| format!("`{name}` is the state of no parameter"))
    };
    for (name, value) in reader.scalars() {
        let (id, name) = split(name)?;
        entries.entry(id).or_default().scalars.insert(name, *value);
    }
    for tensor in reader.into_tensors().map_err(|error| error.to_string())? {
        let (id, name) = split(&tensor.name)?;
        let elements: Option<usize> = tensor
            .shape
            .iter()
            .try_fold(1usize, |product, &size| product.checked_mul(size));
        let bytes = elements.and_then(|elements| elements.checked_mul(tensor.dtype.size()));
        if tensor.param_id != Some(id) || bytes != Some(tensor.byte_len()) {
            return Err(format!("`{}` is damaged", tensor.name));
        }
        let content = (tensor.dtype, tensor.shape.to_vec());
        entries.entry(id).or_default().tensors.insert(name, content);
    }
    Ok(entries)
}

/// A parameter that a record may hold the state of.
pub(super) struct Known {
    pub path: Vec<String>,
    pub id: u64,
    pub shape: Vec<usize>,
    pub dtype: DType,
    pub device: Device,
}

/// Refuses a record that `optimizer` would not have written for these parameters.
///
/// # Errors
///
/// All parameters whose state is another one, in words.
pub(super) fn check(
    optimizer: &ModuleOptimizer,
    record: Bytes,
    known: &[Known],
) -> Result<(), String> {
    let mut found = entries(record)?;
    let fresh = optimizer.clone().load_record(OptimizerRecord::default());
    let mut wrong = Vec::new();
    for parameter in known {
        if let Some(entry) = found.remove(&parameter.id) {
            let compared = written(&fresh, parameter).and_then(|own| entry.compare(&own));
            if let Err(reason) = compared {
                wrong.push(format!("`{}`: {reason}", parameter.path.join(".")));
            }
        }
    }
    if let Some(id) = found.keys().next() {
        wrong.push(format!("{id} is the id of no parameter of this chain"));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "the state of the optimizer is not that of the evaluator's optimizer: {}",
            wrong.join("; ")
        )),
    }
}

/// State that `optimizer` writes for a parameter after a step.
fn written(optimizer: &ModuleOptimizer, parameter: &Known) -> Result<Entry, String> {
    macro_rules! of_rank {
        ($($rank:literal)+) => {
            match parameter.shape.len() {
                $($rank => step::<$rank>(optimizer.clone(), parameter),)+
                rank => return Err(format!("Burn's optimizers know no rank {rank}")),
            }
        };
    }
    let record = of_rank!(1 2 3 4 5 6 7 8)?;
    let mut entries = entries(record)?;
    Ok(entries.remove(&parameter.id).unwrap_or_default())
}

fn step<const D: usize>(
    mut optimizer: ModuleOptimizer,
    parameter: &Known,
) -> Result<Bytes, String> {
    let Known {
        path,
        id,
        shape,
        dtype,
        device,
    } = parameter;
    let mut dims = [0; D];
    dims.copy_from_slice(shape);
    let zeros = Tensor::<D>::zeros(dims, (&device.clone().without_autodiff(), *dtype));
    let id = ParamId::from(*id);
    let mut gradients = GradientsParams::new();
    gradients.register(id, zeros.clone());
    let alone = Alone {
        path: path.clone(),
        param: Param::initialized(id, Tensor::from_inner(zeros).require_grad()),
    };
    optimizer.step(0.0, alone, gradients);
    let record = optimizer.to_record().into_bytes();
    record.map_err(|error| error.to_string())
}

/// One parameter at its place in a model.
#[derive(Clone, Debug)]
struct Alone<const D: usize> {
    path: Vec<String>,
    param: Param<Tensor<D>>,
}

impl<const D: usize> Module for Alone<D> {
    keeps_device!();

    fn valid(&self) -> Self {
        self.clone()
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.path
            .iter()
            .for_each(|name| visitor.enter_module(name, ""));
        visitor.visit_float(&self.param);
        self.path
            .iter()
            .rev()
            .for_each(|name| visitor.exit_module(name, ""));
    }

    fn map<T: ModuleMapper>(self, mapper: &mut T) -> Self {
        self.path
            .iter()
            .for_each(|name| mapper.enter_module(name, ""));
        let param = mapper.map_float(self.param);
        self.path
            .iter()
            .rev()
            .for_each(|name| mapper.exit_module(name, ""));
        Self { param, ..self }
    }
}

#[cfg(test)]
mod tests;
