//! Fusion of layers that run as one operation in a deployed network.
//!
//! A convolution or linear layer, the batch norm behind it and the rectifier behind that become one
//! operation: the norm is folded into the first layer, the *host* (see [`fold`]), and
//! the result leaves the operation only after the rectifier. The folded weight and the output at
//! the end of the sequence are rounded. A norm that is folded nowhere can be fused with
//! the rectifier behind it, where it is listed. While the model trains, every forward pass
//! folds anew, with the running statistics, and the output is rescaled to the statistics of the
//! batch, so that the norm continues to normalize. At the end of the run the folded values take the
//! place of the raw ones for good.

pub mod fold;
mod search;
mod sequence;

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{Chain, Error, FlatTensor, Fold, Folding, Mode, Norm, Target, TargetId};
use indexmap::IndexMap;

use crate::QuantizationError;
use crate::parameters::{raw, simulated};

use fold::{BatchNormFold, remainder};
use search::Search;
pub(crate) use search::{HOSTS, NORM};
pub(crate) use sequence::is_wanted;
use sequence::{Chosen, Sequence, error};

/// The sequences of a quantizer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fusions {
    sequences: Vec<Sequence>,
    foldings: Vec<(LayerInfo, Arc<Folding>)>,
}

impl Fusions {
    /// Finds the sequences of the settings, and moves the quantization of each output to
    /// the end of its sequence; rejects parameters that another quantizer folds a norm into.
    ///
    /// # Errors
    ///
    /// [`QuantizationError::Fusion`], and a forward pass that cannot be captured.
    pub(crate) fn plan<M: Module + 'static, I: 'static>(
        chain: &Chain<'_, M, I>,
        selected: &mut [Chosen],
        name: &'static str,
    ) -> Result<Self, Error> {
        reject_folded(chain, selected)?;
        if !selected.iter().any(|one| is_wanted(&one.settings)) {
            return Ok(Self::default());
        }
        let successors = chain.successors(name)?;
        let acting = chain.spaces().filter(|space| !space.is_idle());
        let claimed = acting.map(|space| {
            let claimed = space.is_claimed(Mode::Quantization);
            (
                space.id().clone(),
                claimed || space.quantization().is_some(),
            )
        });
        let search = Search {
            layers: chain.layers(),
            successors: &successors,
            claimed: claimed.collect(),
            selected,
        };
        let sequences = search.run()?;
        for one in selected.iter_mut() {
            let mut hosts = sequences.iter();
            let sequence = hosts.find(|sequence| sequence.host.path == one.layer.path);
            if let (Some(sequence), Target::Output(0)) = (sequence, &one.target) {
                // Still the output of a host, as far as its channels are concerned.
                one.layer.path = sequence.last().to_string();
            }
        }
        Ok(Self {
            sequences,
            foldings: Vec::new(),
        })
    }

    /// Folds the norms from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Folding`].
    pub(crate) fn start<M: Module + 'static, I: 'static>(
        mut self,
        chain: &mut Chain<'_, M, I>,
    ) -> Result<Self, Error> {
        for sequence in &self.sequences {
            if let Some(norm) = &sequence.norm {
                let fold = Arc::new(BatchNormFold::of(&sequence.host.kind));
                let folding = chain.fold(&sequence.host.path, norm, fold)?;
                self.foldings.push((sequence.host.clone(), folding));
            }
        }
        Ok(self)
    }

    /// The norm that is folded into `layer` while the model trains.
    pub(crate) fn norm_of(&self, layer: &str) -> Option<&str> {
        let mut sequences = self.sequences.iter();
        let sequence = sequences.find(|sequence| sequence.host.path == layer)?;
        sequence.norm.as_deref()
    }

    /// The layers of each sequence, by path.
    pub(crate) fn names(&self) -> Vec<Vec<String>> {
        let sequences = self.sequences.iter();
        sequences
            .map(|sequence| sequence.names().cloned().collect())
            .collect()
    }

    /// The layer whose output is that of the sequence which `layer` begins, or of `layer` alone.
    pub(crate) fn last<'a>(&'a self, layer: &'a str) -> &'a str {
        let mut sequences = self.sequences.iter();
        let sequence = sequences.find(|sequence| sequence.host.path == layer);
        sequence.map_or(layer, Sequence::last)
    }

    /// Whether `layer` is the activation at the end of a sequence.
    pub(crate) fn is_activation(&self, layer: &str) -> bool {
        let mut activations = self.sequences.iter().flat_map(|one| &one.activation);
        activations.any(|activation| activation == layer)
    }

    /// Whether the values of a parameter are folded before they are rounded.
    pub(crate) fn folds(&self, id: &TargetId) -> bool {
        let host = |(host, _): &(LayerInfo, _)| host.path == id.layer;
        id.target.is_param() && self.foldings.iter().any(host)
    }

    /// Ends the folding in the forward pass; returns the folded values.
    ///
    /// # Errors
    ///
    /// A parameter that the model does not visit.
    pub(crate) fn finish<M: Module>(
        &self,
        model: &M,
    ) -> Result<IndexMap<TargetId, FlatTensor>, Error> {
        // Brings running statistics up to date, whose last update waits beside them.
        drop(model.valid());
        let mut values = IndexMap::new();
        for (host, folding) in &self.foldings {
            values.extend(finished(model, host, folding)?);
            folding.end();
        }
        Ok(values)
    }

    /// [`finish`](Self::finish), with the raw values of those `params` that nothing is folded into.
    ///
    /// # Errors
    ///
    /// A parameter that the model does not visit.
    pub(crate) fn finish_with<M: Module>(
        &self,
        model: &M,
        params: &[TargetId],
    ) -> Result<IndexMap<TargetId, FlatTensor>, Error> {
        let mut values = self.finish(model)?;
        let unfolded = params.iter().filter(|id| !values.contains_key(*id));
        let unfolded: Vec<TargetId> = unfolded.cloned().collect();
        values.extend(raw(model, &unfolded));
        Ok(values)
    }
}

/// Rejects parameters that another quantizer folds a norm into.
fn reject_folded<M: Module + 'static, I: 'static>(
    chain: &Chain<'_, M, I>,
    selected: &[Chosen],
) -> Result<(), QuantizationError> {
    for folding in chain.foldings() {
        let folded = |one: &&Chosen| one.target.is_param() && one.layer.path == folding.host();
        if let Some(one) = selected.iter().find(folded) {
            let names = [folding.host().to_string(), folding.norm().to_string()];
            let reason = format!(
                "`{}` is read with the norm folded into it by another quantizer of the chain: let \
                 that one quantize it, or leave it out",
                one.id()
            );
            return Err(error(&names, reason));
        }
    }
    Ok(())
}

/// The values of one host and its norm, whose masks stay attached.
fn finished<M: Module>(
    model: &M,
    host: &LayerInfo,
    folding: &Folding,
) -> Result<IndexMap<TargetId, FlatTensor>, Error> {
    let id = |layer: &str, name: &str| TargetId::new(layer, Target::param(name));
    let ids = |layer: &str, names: &[&str]| -> Vec<TargetId> {
        names.iter().map(|name| id(layer, name)).collect()
    };
    let statistics = ["gamma", "beta", "running_mean", "running_var"];
    let mut found = raw(model, &ids(&host.path, &["weight", "bias"]));
    // Masks of the norm act before it is folded, those of the host on what was folded.
    found.extend(simulated(model, &ids(folding.norm(), &statistics)));
    let mut take = |id: &TargetId| found.swap_remove(id);
    let missing = |target: TargetId| Error::UnknownTarget {
        target,
        reason: "the model does not visit such a parameter".to_string(),
    };
    let mut vector = |name: &str| -> Result<Tensor<1>, Error> {
        let id = id(folding.norm(), name);
        take(&id).map(|flat| flat.values).ok_or_else(|| missing(id))
    };
    let norm = Norm {
        gamma: Some(vector("gamma")?),
        beta: Some(vector("beta")?),
        mean: vector("running_mean")?,
        variance: vector("running_var")?,
        epsilon: folding.epsilon(),
    };
    let (weight_id, bias_id) = (id(&host.path, "weight"), id(&host.path, "bias"));
    let fold = BatchNormFold::of(&host.kind);
    let weight = take(&weight_id).ok_or_else(|| missing(weight_id.clone()))?;
    let own = take(&bias_id).map(|flat| flat.values);
    let has_bias = own.is_some();
    let (bias, left) = remainder(&norm, fold.bias(own, &norm), has_bias);
    let mut values = IndexMap::from([(weight_id, fold.weight(weight, &norm))]);
    if has_bias {
        values.insert(bias_id, FlatTensor::new(bias));
    }
    let left = [left.gamma, left.beta, Some(left.mean), Some(left.variance)];
    for (name, value) in statistics.into_iter().zip(left) {
        if let Some(value) = value {
            values.insert(id(folding.norm(), name), FlatTensor::new(value));
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
