//! The tensors of a model on their way to a file and back.

use std::collections::BTreeSet;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, DType, Float, Int, Shape, Tensor, TensorData};
use burn_compress_core::{Calibration, Error, TargetId};
use indexmap::IndexMap;

use crate::SpeedupError;
use crate::integers::Integers;

/// A tensor of a file.
pub(crate) struct Saved {
    pub id: Option<u64>,
    pub data: TensorData,
    /// Whether the data is laid out as the parameter is in memory. A record may hold it otherwise:
    /// that of a linear layer with columns first is transposed.
    pub in_memory: bool,
}

/// The tensors of a file by path.
pub(crate) type Tensors = IndexMap<String, Saved>;

/// Checks that no value is infinite or not a number.
pub(crate) fn check_finite(
    name: &str,
    data: &TensorData,
    action: &'static str,
) -> Result<(), SpeedupError> {
    let is_finite = match data.dtype() {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => {
            data.iter::<f64>().all(f64::is_finite)
        }
        _ => true,
    };
    match is_finite {
        true => Ok(()),
        false => Err(SpeedupError::NotFinite {
            tensor: name.to_string(),
            action,
        }),
    }
}

/// Visits the three kinds of tensors in the form in which they are saved.
macro_rules! for_each_kind {
    ($macro:ident) => {
        $macro!(visit_float, map_float, Float);
        $macro!(visit_int, map_int, Int);
        $macro!(visit_bool, map_bool, Bool);
    };
}

/// A tensor of a model without its values.
pub(crate) struct Layout {
    pub name: String,
    pub id: ParamId,
    pub dtype: DType,
    /// As records hold it.
    pub saved: Shape,
    pub in_memory: Shape,
}

/// The layouts of all tensors of a model; no value is read.
pub(crate) fn layouts<M: Module>(model: &M) -> Vec<Layout> {
    let mut walk = Walk::default();
    model.visit(&mut walk);
    walk.found.into_iter().map(|(layout, _)| layout).collect()
}

/// All tensors of a model, raw, as records hold them.
pub(crate) fn collect<M: Module>(model: &M) -> Vec<(Layout, TensorData)> {
    let mut walk = Walk {
        reads: true,
        ..Walk::default()
    };
    model.visit(&mut walk);
    let found = walk.found.into_iter();
    found
        .filter_map(|(layout, data)| Some((layout, data?)))
        .collect()
}

#[derive(Default)]
struct Walk {
    path: Vec<String>,
    reads: bool,
    found: Vec<(Layout, Option<TensorData>)>,
}

macro_rules! collect {
    ($visit:ident, $map:ident, $kind:ty) => {
        fn $visit<const D: usize>(&mut self, param: &Param<Tensor<D, $kind>>) {
            let saved = param.transform_for_save().val();
            let layout = Layout {
                name: self.path.join("."),
                id: param.id,
                dtype: saved.dtype(),
                saved: saved.shape(),
                in_memory: param.base().shape(),
            };
            let data = self.reads.then(|| saved.into_data());
            self.found.push((layout, data));
        }
    };
}

impl ModuleVisitor for Walk {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    for_each_kind!(collect);
}

/// The integers of the parameters that `calibration` quantizes, as far as they can be had.
pub(crate) fn integers<M: Module>(
    model: &M,
    calibration: &Calibration,
) -> Result<IndexMap<String, Integers>, SpeedupError> {
    let mut finder = Finder {
        path: Vec::new(),
        targets: calibration
            .keys()
            .filter(|target| target.target.is_param())
            .map(|target| (target.to_string(), target))
            .collect(),
        calibration,
        found: IndexMap::new(),
        error: None,
    };
    model.visit(&mut finder);
    match finder.error {
        Some(error) => Err(error),
        None => Ok(finder.found),
    }
}

struct Finder<'a> {
    path: Vec<String>,
    targets: IndexMap<String, &'a TargetId>,
    calibration: &'a Calibration,
    found: IndexMap<String, Integers>,
    error: Option<SpeedupError>,
}

impl ModuleVisitor for Finder<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let Some(&target) = self.targets.get(&path) else {
            return;
        };
        let (base, entry) = (param.base(), &self.calibration[target]);
        if base.dtype() != DType::F32 {
            return;
        }
        let dims = base.dims();
        let elements = dims.iter().product::<usize>();
        let values = base.detach().without_autodiff().reshape([elements]);
        match Integers::of(values, &dims, entry) {
            Ok(Some(integers)) => {
                self.found.insert(path, integers);
            }
            Ok(None) if entry.enabled && entry.scale.is_some() => {
                log::warn!("`{path}` cannot be stored as integers of {}", entry.dtype);
            }
            Ok(None) => {}
            Err(reason) => {
                let target = target.clone();
                let error = SpeedupError::Core(Error::InvalidCalibration { target, reason });
                self.error.get_or_insert(error);
            }
        }
    }
}

/// Checks that the paths agree and that no saved tensor is larger than the model's.
pub(crate) fn check_architecture<M: Module>(
    model: &M,
    saved: &Tensors,
    path: &Path,
) -> Result<(), SpeedupError> {
    let error = |reason: String| SpeedupError::Architecture {
        path: path.to_path_buf(),
        reason,
    };
    let found = layouts(model);
    for Layout {
        name,
        dtype,
        saved: in_record,
        in_memory,
        ..
    } in &found
    {
        let saved = saved
            .get(name)
            .ok_or_else(|| error(format!("it has no `{name}`")))?;
        let full = if saved.in_memory {
            in_memory
        } else {
            in_record
        };
        let small = saved.data.shape();
        let fits = full.len() == small.len()
            && full
                .iter()
                .zip(small.iter())
                .all(|(full, small)| (1..=*full).contains(small));
        if !fits {
            let (full, small) = (full.to_vec(), small.to_vec());
            return Err(error(format!(
                "`{name}` is {small:?}, the model's {full:?}"
            )));
        }
        let kind = |dtype: DType| (dtype.is_float(), dtype.is_bool());
        if kind(*dtype) != kind(saved.data.dtype()) {
            let (full, small) = (dtype, saved.data.dtype());
            return Err(error(format!(
                "`{name}` holds {small:?}, the model's {full:?}"
            )));
        }
    }
    let known: BTreeSet<&String> = found.iter().map(|found| &found.name).collect();
    match saved.keys().find(|name| !known.contains(name)) {
        Some(name) => Err(error(format!("the model has no `{name}`"))),
        None => Ok(()),
    }
}

/// Gives a model of the same architecture the tensors of a file.
pub(crate) fn load<M: Module>(model: M, saved: Tensors) -> M {
    model.map(&mut Loader {
        path: Vec::new(),
        saved,
    })
}

struct Loader {
    path: Vec<String>,
    saved: Tensors,
}

macro_rules! load {
    ($visit:ident, $map:ident, $kind:ty) => {
        fn $map<const D: usize>(
            &mut self,
            param: Param<Tensor<D, $kind>>,
        ) -> Param<Tensor<D, $kind>> {
            let Some(saved) = self.saved.swap_remove(&self.path.join(".")) else {
                return param;
            };
            let id = saved.id.map_or(param.id, ParamId::from);
            let dtype = saved.data.dtype();
            let tensor = Tensor::from_data(saved.data, (&param.lazy_device(), dtype));
            if saved.in_memory {
                let (_, _, mapper) = param.consume();
                return Param::from_mapped_value(id, tensor, mapper);
            }
            param.transform_for_load(tensor, id)
        }
    };
}

impl ModuleMapper for Loader {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    for_each_kind!(load);
}
