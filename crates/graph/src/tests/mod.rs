//! Small nets with the groups they must have, and the test that a group is what it claims to be:
//! masking it and cutting it off give the same function.

mod attention;
mod branches;
mod chains;
mod custom;
mod cut;
mod errors;
mod grouped;
mod layers;
mod memory;
mod norms;
mod operations;
mod protection;
mod recurrent;
mod sequences;
mod splits;
mod whole;

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};

use super::*;
use layers::{analyze, conv, device, images, norm, pick};

/// The groups as text, without the line numbers.
fn lines(graph: &ChannelGraph) -> Vec<String> {
    let text = graph.to_string();
    let line = |line: &str| line.split_once(": ").map(|(_, rest)| rest.to_string());
    text.lines().filter_map(line).collect()
}

/// Walks parameters by path.
struct Edit<F> {
    path: Vec<String>,
    edit: F,
}

trait Edits {
    fn edit<const D: usize>(&mut self, path: &str, tensor: Tensor<D>) -> Tensor<D>;
}

impl<F: Edits> ModuleMapper for Edit<F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        param.map(|tensor| self.edit.edit(&path, tensor))
    }
}

fn map<M: Module, F: Edits>(model: M, edit: F) -> M {
    model.map(&mut Edit {
        path: Vec::new(),
        edit,
    })
}

/// Random parameters and statistics, so that no bias or beta is zero by chance.
struct Randomize;

impl Edits for Randomize {
    fn edit<const D: usize>(&mut self, _path: &str, tensor: Tensor<D>) -> Tensor<D> {
        // Variances have to be positive.
        tensor.random_like(Distribution::Uniform(0.1, 0.9))
    }
}

/// Zeroes what the members of the groups hold of the removed channels.
struct Mask<'a>(&'a ChannelGraph, &'a BTreeSet<ChannelId>);

impl Edits for Mask<'_> {
    fn edit<const D: usize>(&mut self, path: &str, mut tensor: Tensor<D>) -> Tensor<D> {
        for group in self.0.groups() {
            for member in group.members.iter().filter(|member| member.param == path) {
                let mut keep = vec![1.0f32; tensor.dims()[member.dim]];
                for (channel, positions) in group.channels.iter().zip(member.positions.iter()) {
                    if self.1.contains(channel) {
                        positions.iter().for_each(|&position| keep[position] = 0.0);
                    }
                }
                let mut shape = [1; D];
                shape[member.dim] = keep.len();
                let data = TensorData::new(keep, shape);
                tensor = tensor.clone() * Tensor::from_data(data, &tensor.device());
            }
        }
        tensor
    }
}

/// Keeps what a plan says.
struct Cut<'a>(&'a SlicePlan);

fn rows<const D: usize>(tensor: Tensor<D>, dim: usize, keep: &[usize]) -> Tensor<D> {
    let keep: Vec<i64> = keep.iter().map(|&index| index as i64).collect();
    let keep = Tensor::<1, Int>::from_data(TensorData::from(keep.as_slice()), &tensor.device());
    tensor.select(dim, keep)
}

impl Edits for Cut<'_> {
    fn edit<const D: usize>(&mut self, path: &str, mut tensor: Tensor<D>) -> Tensor<D> {
        let Some(slice) = self.0.params.get(path) else {
            return tensor;
        };
        if let Some(columns) = &slice.columns {
            let groups = tensor
                .chunk(columns.keep.len(), 0)
                .into_iter()
                .zip(&columns.keep);
            tensor = Tensor::cat(
                groups.map(|(group, keep)| rows(group, 1, keep)).collect(),
                0,
            );
        }
        for (&dim, keep) in &slice.keep {
            tensor = rows(tensor, dim, keep);
        }
        assert_eq!(tensor.dims().to_vec(), slice.shape);
        tensor
    }
}

/// Removing `removed` must give the function of the masked model. `fix` sets the constants of
/// layers that a plan cannot.
fn assert_exact<M: Module>(
    model: &M,
    dummy: &DummyInput<M>,
    removed: &BTreeSet<ChannelId>,
    fix: impl Fn(&mut M, &SlicePlan),
) {
    let model = map(model.valid(), Randomize);
    let graph = analyze(&model, dummy);
    let plan = graph.slice_plan(removed).unwrap();
    assert!(!plan.params.is_empty());
    let masked = map(model.valid(), Mask(&graph, removed));
    let mut small = map(model.valid(), Cut(&plan));
    fix(&mut small, &plan);
    let (masked, cut) = (dummy.run(&masked, &device()), dummy.run(&small, &device()));
    let full = dummy.run(&model, &device());
    for (index, (masked, cut)) in masked.iter().zip(&cut).enumerate() {
        let read = |data: &TensorData| data.try_to_vec::<f32>().unwrap();
        let (masked, cut) = (read(masked), read(cut));
        assert_eq!(masked.len(), cut.len());
        let largest = masked.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let difference = masked
            .iter()
            .zip(&cut)
            .map(|(x, y)| (x - y).abs())
            .fold(0.0, f32::max);
        assert!(
            difference <= 1e-6 * largest.max(1e-3),
            "{difference} of {largest}"
        );
        assert_ne!(read(&full[index]), masked, "the mask changed nothing");
    }
    cut::assert_cut_alike(&model, dummy, &graph, removed, &small);
    // Cut models are counted as the plan said.
    let small = analyze(&small, dummy);
    assert_eq!(small.macs(), graph.macs_after(removed));
}
