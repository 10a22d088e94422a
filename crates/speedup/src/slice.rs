//! Cutting removed channels out of a module's parameters.
//!
//! A mapper walks the model and selects the kept indices of every parameter and running statistic
//! that the plan names. The model keeps its Rust type, its paths and parameter ids; only tensors get
//! smaller. Constants that depend on the number of channels (`groups` of a depthwise convolution)
//! are invisible to mappers; [`Wrapper`](burn_compress_core::Wrapper)s hand out the layer inside.
//!
//! Convolutions in groups gather instead of select: each group of rows keeps input columns of its
//! own.
//!
//! ```text
//! W'[i, j, ..] = W[rows[i], columns[rows[i] / (out / groups)][j], ..]
//! ```

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Int, Tensor, TensorData};
use burn_compress_core::graph::{LayerSizes, ParamSlice, SlicePlan};
use indexmap::IndexMap;

use crate::SpeedupError;

/// Cuts everything that `plan` does not keep out of `model`.
///
/// Works on a snapshot: Burn shares running statistics between clones, and the original's stay as
/// they are. Simulations that hang on the model are not sliced; take them off before.
///
/// # Errors
///
/// A path of the plan that the model does not have, kept indices that do not fit a shape, and
/// [`SpeedupError::ConstantField`] for a depthwise convolution, or another layer that
/// holds a number which follows its channels, without a wrapper. The model is
/// checked as a whole before anything is cut.
pub fn slice_module<M: Module>(model: M, plan: &SlicePlan) -> Result<M, SpeedupError> {
    check_all(&model, plan)?;
    let (model, is_autodiff) = snapshot(&model);
    let model = set_sizes(model, plan.layer_sizes())?;
    let model = model.map(&mut Slicer {
        path: Vec::new(),
        plan,
    });
    Ok(restore(model, is_autodiff))
}

/// The parameters and running statistics that `plan` leaves of `model`, whatever numbers its layers
/// hold beside them: its forward pass may not run any more.
pub(crate) fn slice_parameters<M: Module>(model: M, plan: &SlicePlan) -> Result<M, SpeedupError> {
    check_all(&model, plan)?;
    let path = Vec::new();
    Ok(model.valid().map(&mut Slicer { path, plan }))
}

/// Checks that all of the plan fits the model.
fn check_all<M: Module>(model: &M, plan: &SlicePlan) -> Result<(), SpeedupError> {
    let shapes = float_shapes(model);
    for (path, slice) in &plan.params {
        let shape = shapes
            .get(path)
            .ok_or_else(|| SpeedupError::UnknownParameter { path: path.clone() })?;
        check(path, shape, slice)?;
    }
    Ok(())
}

/// An independent copy off the autodiff device, and whether it came from one.
pub(crate) fn snapshot<M: Module>(model: &M) -> (M, bool) {
    (
        model.valid(),
        model.devices().iter().any(|device| device.is_autodiff()),
    )
}

/// Brings a [`snapshot`] back to where the original was.
pub(crate) fn restore<M: Module>(model: M, is_autodiff: bool) -> M {
    if is_autodiff { model.train() } else { model }
}

/// Sets numbers of wrapped layers that no parameter holds.
pub(crate) fn set_sizes<M: Module>(model: M, sizes: LayerSizes) -> Result<M, SpeedupError> {
    let (model, left) = burn_compress_core::set_sizes(model, sizes);
    let mut left = left.into_iter();
    let first = left.find_map(|(layer, fields)| Some((layer, fields.into_iter().next()?)));
    match first {
        Some((layer, (field, value))) => Err(SpeedupError::ConstantField {
            layer,
            field,
            value,
        }),
        None => Ok(model),
    }
}

/// The shapes of all float parameters and running statistics, as they are in memory.
pub(crate) fn float_shapes<M: Module>(model: &M) -> IndexMap<String, Vec<usize>> {
    struct Shapes {
        path: Vec<String>,
        found: IndexMap<String, Vec<usize>>,
    }

    impl ModuleVisitor for Shapes {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_string());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found
                .insert(self.path.join("."), param.base().dims().to_vec());
        }
    }

    let mut shapes = Shapes {
        path: Vec::new(),
        found: IndexMap::new(),
    };
    model.visit(&mut shapes);
    shapes.found
}

fn check(path: &str, shape: &[usize], slice: &ParamSlice) -> Result<(), SpeedupError> {
    let error = |reason: String| SpeedupError::Slice {
        path: path.to_string(),
        shape: shape.to_vec(),
        reason,
    };
    let mut after = shape.to_vec();
    for (&dim, keep) in &slice.keep {
        if dim >= shape.len() {
            return Err(error(format!("there is no dimension {dim}")));
        }
        check_indices(keep, shape[dim]).map_err(|why| error(format!("dimension {dim}: {why}")))?;
        after[dim] = keep.len();
    }
    if let Some(columns) = &slice.columns {
        let groups = columns.keep.len();
        if shape.len() < 2 || slice.keep.contains_key(&1) {
            return Err(error(
                "a grouped weight is sliced along its columns alone".to_string(),
            ));
        }
        if groups == 0 || !shape[0].is_multiple_of(groups) {
            return Err(error(format!("{groups} groups do not divide its rows")));
        }
        for (group, keep) in columns.keep.iter().enumerate() {
            check_indices(keep, shape[1]).map_err(|why| error(format!("group {group}: {why}")))?;
            if keep.len() != columns.keep[0].len() {
                return Err(error(
                    "the groups keep different numbers of columns".to_string(),
                ));
            }
        }
        let rows = rows_by_group(shape[0], slice, groups);
        if rows.iter().any(|group| group.len() != rows[0].len()) {
            return Err(error(
                "the groups keep different numbers of rows".to_string(),
            ));
        }
        after[1] = columns.keep[0].len();
    }
    match after == slice.shape {
        true => Ok(()),
        false => Err(error(format!(
            "{after:?} would be left, but {:?} was planned",
            slice.shape
        ))),
    }
}

fn check_indices(keep: &[usize], size: usize) -> Result<(), String> {
    if keep.is_empty() {
        return Err("nothing is kept".to_string());
    }
    if let Some(bad) = keep.iter().find(|&&index| index >= size) {
        return Err(format!("index {bad} is outside of 0..{size}"));
    }
    match keep.windows(2).all(|pair| pair[0] < pair[1]) {
        true => Ok(()),
        false => Err("the kept indices do not increase".to_string()),
    }
}

/// The kept rows of a grouped weight, group by group.
fn rows_by_group(rows: usize, slice: &ParamSlice, groups: usize) -> Vec<Vec<usize>> {
    let per_group = rows / groups;
    let mut split = vec![Vec::new(); groups];
    match slice.keep.get(&0) {
        Some(keep) => keep
            .iter()
            .for_each(|&row| split[row / per_group].push(row)),
        None => (0..rows).for_each(|row| split[row / per_group].push(row)),
    }
    split
}

struct Slicer<'a> {
    path: Vec<String>,
    plan: &'a SlicePlan,
}

impl ModuleMapper for Slicer<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.plan.params.get(&self.path.join(".")) {
            Some(slice) => param.map(|tensor| cut(tensor, slice)),
            None => param,
        }
    }
}

fn cut<const D: usize>(mut tensor: Tensor<D>, slice: &ParamSlice) -> Tensor<D> {
    if let Some(columns) = &slice.columns {
        let rows = rows_by_group(tensor.dims()[0], slice, columns.keep.len());
        let groups = rows.iter().zip(&columns.keep);
        return Tensor::cat(
            groups
                .map(|(rows, columns)| select(select(tensor.clone(), 0, rows), 1, columns))
                .collect(),
            0,
        );
    }
    for (&dim, keep) in &slice.keep {
        tensor = select(tensor, dim, keep);
    }
    tensor
}

fn select<const D: usize>(tensor: Tensor<D>, dim: usize, keep: &[usize]) -> Tensor<D> {
    let indices: Vec<i64> = keep.iter().map(|&index| index as i64).collect();
    let device = tensor.device();
    tensor.select(
        dim,
        Tensor::<1, Int>::from_data(TensorData::from(indices.as_slice()), &device),
    )
}

#[cfg(test)]
mod tests;
