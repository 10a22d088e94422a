//! The state of an optimizer after a cut.
//!
//! Burn keeps the moments of a parameter in tensors of its shape, under its identity, and a cut leaves
//! identities alone. So the kept entries of the moments are those of the kept entries of the parameter:
//!
//! ```text
//! m'[i, j, ..] = m[rows[i], columns[j], ..]
//! ```
//!
//! Counters of steps stay. A state of another shape, as an optimizer keeps that factors its moments,
//! cannot follow.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::optim::OptimizerRecord;
use burn::tensor::Bytes;
use burn_compress_core::Error;
use burn_compress_core::graph::ParamSlice;
use burn_pack::{Reader, Tensor, Writer};

use crate::SpeedupError;
use crate::reindex::reindex;
use crate::speedup::Speedup;
use crate::tensors::layouts;

/// A parameter that was cut: its path, its shape before and what is left of it.
type CutParameter<'a> = (&'a str, &'a [usize], &'a ParamSlice);

impl<M: Module> Speedup<M> {
    /// The state of an optimizer that has trained the whole model, for the small one: a run that goes
    /// on keeps its moments.
    ///
    /// The record of a chain is [`Compressor::optimizer_record`](burn_compress_core::Compressor::optimizer_record),
    /// between the last step and [`finish`](burn_compress_core::Compressor::finish).
    ///
    /// ```
    /// use burn::nn::{Linear, LinearConfig};
    /// use burn::optim::AdamConfig;
    /// use burn::prelude::*;
    /// use burn_compress_core::{Budget, Compressor, DummyInput, Evaluator, Mask, Masks};
    /// use burn_compress_speedup::SpeedupExt;
    ///
    /// # #[derive(Module, Debug)]
    /// # struct Mlp { first: Linear, second: Linear }
    /// # let device = Device::flex();
    /// # let model = Mlp {
    /// #     first: LinearConfig::new(4, 3).with_bias(false).init(&device),
    /// #     second: LinearConfig::new(3, 2).init(&device),
    /// # };
    /// # let x = Tensor::<2>::ones([1, 4], &device);
    /// # let forward = |model: &Mlp, x| model.second.forward(model.first.forward(x));
    /// # let (batch, loss) = (x.clone(), move |model: &Mlp, x: &Tensor<2>| forward(model, x.clone()).sum());
    /// let evaluator = Evaluator::new()
    ///     .with_dummy_input(DummyInput::new(x, forward))
    ///     .with_data(move |_| vec![batch.clone()])
    ///     .with_optimizer(AdamConfig::new().init())
    ///     .with_learning_rate(1e-3)
    ///     .with_loss(loss);
    /// let mut chain = Compressor::from_model(model, evaluator);
    /// # let mask = Mask::new([1.0, 0.0, 1.0].repeat(4), [4, 3])?;
    /// # chain.update_masks(&Masks::from([("first.weight".parse()?, mask)]))?;
    /// chain.advance(&Budget::steps(2), None)?;
    /// let record = chain.optimizer_record().expect("Adam has moments after a step");
    /// let small = chain.finish()?.speedup()?;
    /// let record = small.optimizer_record(record)?;
    /// let optimizer = AdamConfig::new().init().load_record(record); // for the next evaluator
    /// # let _ = optimizer;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A record of another model, and one whose state of a parameter that was cut has neither its
    /// shape nor a single value.
    pub fn optimizer_record(&self, record: OptimizerRecord) -> Result<OptimizerRecord, Error> {
        let mut cut: BTreeMap<u64, CutParameter<'_>> = BTreeMap::new();
        let mut known = Vec::new();
        let layouts = layouts(&self.model);
        for layout in &layouts {
            known.push(layout.id.val());
            let slice = self.plan.params.get(&layout.name);
            if let (Some(slice), Some(shape)) = (slice, self.shapes.get(&layout.name)) {
                cut.insert(layout.id.val(), (&layout.name, shape, slice));
            }
        }
        let error = |reason: String| Error::from(SpeedupError::OptimizerRecord { reason });
        let bytes = record.into_bytes();
        let bytes = bytes.map_err(|source| error(source.to_string()))?;
        cut_record(bytes, &known, &cut).map_err(error)
    }
}

fn cut_record(
    bytes: Bytes,
    known: &[u64],
    cut: &BTreeMap<u64, CutParameter<'_>>,
) -> Result<OptimizerRecord, String> {
    let reader = Reader::from_bytes(bytes).map_err(|source| source.to_string())?;
    let (scalars, paths) = (reader.scalars().clone(), reader.metadata().clone());
    let mut tensors = Vec::new();
    for tensor in reader.into_tensors().map_err(|source| source.to_string())? {
        let id = tensor.param_id;
        if !id.is_some_and(|id| known.contains(&id)) {
            return Err(format!("the model has no parameter of `{}`", tensor.name));
        }
        tensors.push(match id.and_then(|id| cut.get(&id)) {
            Some(cut) => cut_tensor(tensor, cut)?,
            None => tensor,
        });
    }
    let mut writer = Writer::new(tensors);
    for (name, value) in scalars {
        writer = writer.with_scalar(&name, value);
    }
    for (name, value) in paths {
        writer = writer.with_metadata(&name, &value);
    }
    let bytes = writer.into_bytes().map_err(|source| source.to_string())?;
    OptimizerRecord::from_bytes(bytes).map_err(|source| source.to_string())
}

fn cut_tensor(tensor: Tensor, cut: &CutParameter<'_>) -> Result<Tensor, String> {
    let (path, before, slice) = *cut;
    if tensor.shape.num_elements() == 1 && before.iter().product::<usize>() != 1 {
        return Ok(tensor);
    }
    let found = tensor.shape.to_vec();
    if found != before {
        return Err(format!(
            "`{}` of `{path}` is {found:?}, the parameter was {before:?} before the cut",
            tensor.name
        ));
    }
    let (shape, order) = reindex(before, before, slice)?;
    let parts = tensor.into_parts().map_err(|source| source.to_string())?;
    let (name, dtype, _, id, bytes) = parts;
    let size = dtype.size();
    let mut kept = Vec::with_capacity(order.len() * size);
    for at in order {
        kept.extend_from_slice(&bytes[at * size..][..size]);
    }
    let kept = Bytes::from_bytes_vec(kept);
    Ok(Tensor::new(name, dtype, shape, id, kept))
}

#[cfg(test)]
mod tests;
