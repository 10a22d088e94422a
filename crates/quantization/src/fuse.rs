//! Layers that run as one in a deployed network, and are quantized as one.
//!
//! A convolution or linear layer, the batch norm behind it and the rectifier behind that become one
//! operation: the norm is folded into the first layer, the *host* (see [`fold`](crate::fold)), and
//! the result leaves the operation only after the rectifier. So what is rounded is the folded
//! weight, and the output at the end of the sequence. A norm that is folded nowhere can be fused with
//! the rectifier behind it, where it is listed. While the model trains, every forward pass
//! folds anew, with the running statistics. At the end of the run the folded values take the place
//! of the raw ones for good.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress_core::config::Selected;
use burn_compress_core::graph::Successor;
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{
    Compressor, Error, FlatTensor, Fold, Folding, Mode, Norm, Target, TargetId, parameters,
};
use indexmap::{IndexMap, IndexSet};

use crate::claim::error_of;
use crate::fold::{BatchNormFold, remainder};
use crate::raw::raw;
use crate::{QuantizationError, QuantizationSettings};

/// Layers that a norm can be folded into.
const HOSTS: [&str; 4] = ["Conv1d", "Conv2d", "Conv3d", "Linear"];
const NORM: &str = "BatchNorm";
const ACTIVATION: &str = "Relu";

type Chosen = Selected<QuantizationSettings>;

/// A host and what follows it.
#[derive(Clone, Debug)]
struct Sequence {
    host: LayerInfo,
    norm: Option<String>,
    activation: Option<String>,
}

impl Sequence {
    /// The layer whose output is that of the sequence.
    fn last(&self) -> &str {
        let last = self.activation.as_ref().or(self.norm.as_ref());
        last.unwrap_or(&self.host.path)
    }

    fn followers(&self) -> impl Iterator<Item = &String> {
        self.norm.iter().chain(&self.activation)
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.host.path).chain(self.followers())
    }
}

/// The sequences of a quantizer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fusions {
    sequences: Vec<Sequence>,
    foldings: Vec<(LayerInfo, Arc<Folding>)>,
}

/// Whether settings ask for a fusion.
pub(crate) fn is_wanted(settings: &QuantizationSettings) -> bool {
    settings.fuse == Some(true) || settings.fuse_names.is_some()
}

impl Fusions {
    /// Finds the sequences that the settings ask for, and moves the quantization of each output to
    /// the end of its sequence.
    ///
    /// # Errors
    ///
    /// [`QuantizationError::Fusion`], and a forward pass that cannot be captured.
    pub(crate) fn plan<M: Module + 'static, I: 'static>(
        compressor: &Compressor<M, I>,
        selected: &mut [Chosen],
        name: &'static str,
    ) -> Result<Self, Error> {
        if !selected.iter().any(|one| is_wanted(&one.settings)) {
            return Ok(Self::default());
        }
        let successors = compressor.successors(name)?;
        let claimed = compressor.spaces().map(|space| {
            let quantized = space.is_claimed(Mode::Quantization);
            (space.id().clone(), quantized)
        });
        let search = Search {
            layers: compressor.layers(),
            successors: &successors,
            claimed: claimed.collect(),
            selected,
        };
        let sequences = search.run().map_err(error_of(name))?;
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
        &mut self,
        compressor: &mut Compressor<M, I>,
    ) -> Result<(), Error> {
        for sequence in &self.sequences {
            if let Some(norm) = &sequence.norm {
                let fold = Arc::new(BatchNormFold::of(&sequence.host.kind));
                let folding = compressor.fold(&sequence.host.path, norm, fold)?;
                self.foldings.push((sequence.host.clone(), folding));
            }
        }
        Ok(())
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

    /// Ends the folding in the forward pass; the values that do the same for good.
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

/// Refuses parameters that another quantizer folds a norm into.
pub(crate) fn refuse_folded<M: Module + 'static, I: 'static>(
    compressor: &Compressor<M, I>,
    selected: &[Chosen],
) -> Result<(), QuantizationError> {
    for folding in compressor.foldings() {
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

/// The values of one host and its norm.
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
    let all = [
        ids(&host.path, &["weight", "bias"]),
        ids(folding.norm(), &statistics),
    ];
    let paths: IndexSet<String> = all.concat().iter().map(TargetId::to_string).collect();
    let mut found = parameters(model, &paths);
    let mut take = |id: &TargetId| found.swap_remove(&id.to_string());
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
    let bias = fold.bias(own, &norm);
    let mut values = IndexMap::from([(weight_id, fold.weight(weight, &norm))]);
    if has_bias {
        values.insert(bias_id, FlatTensor::new(bias.clone()));
    }
    let left = remainder(&norm, bias, has_bias);
    let left = [left.gamma, left.beta, Some(left.mean), Some(left.variance)];
    for (name, value) in statistics.into_iter().zip(left) {
        if let Some(value) = value {
            values.insert(id(folding.norm(), name), FlatTensor::new(value));
        }
    }
    Ok(values)
}

/// Looks for sequences in a model.
struct Search<'a> {
    layers: &'a [LayerInfo],
    successors: &'a IndexMap<String, Successor>,
    /// The targets of all compressors, and whether a quantizer has them.
    claimed: IndexMap<TargetId, bool>,
    selected: &'a [Chosen],
}

impl Search<'_> {
    fn run(&self) -> Result<Vec<Sequence>, QuantizationError> {
        let mut sequences: Vec<Sequence> = Vec::new();
        let mut listed: IndexSet<&Vec<String>> = IndexSet::new();
        for one in self.selected {
            listed.extend(one.settings.fuse_names.iter().flatten());
        }
        for names in listed {
            let sequence = self.named(names)?;
            let taken: Vec<&String> = sequences.iter().flat_map(Sequence::names).collect();
            if let Some(twice) = taken.iter().find(|taken| names.contains(taken)) {
                return Err(error(names, format!("`{twice}` is in two fusions")));
            }
            sequences.push(sequence);
        }
        for one in self.selected {
            let is_weight = one.target.param_name() == Some("weight");
            let free = !is_taken(&sequences, &one.layer.path);
            if is_weight && free && one.settings.fuse == Some(true) {
                let found = self.discover(&one.layer);
                let is_free =
                    |found: &Sequence| !found.names().any(|name| is_taken(&sequences, name));
                let found = found.filter(is_free);
                sequences.extend(found);
            }
        }
        Ok(sequences)
    }

    /// The sequence that a configuration lists.
    fn named(&self, names: &[String]) -> Result<Sequence, QuantizationError> {
        let refuse = |reason: String| Err(error(names, reason));
        if !(2..=3).contains(&names.len()) {
            return refuse("a fusion has two or three layers".to_string());
        }
        let mut infos = Vec::new();
        for name in names {
            match self.layers.iter().find(|layer| layer.path == *name) {
                Some(layer) if layer.wrapped => infos.push(layer),
                Some(layer) => {
                    let kind = &layer.kind;
                    let fix = format!("make its field a `Wrapper<{kind}>`");
                    return refuse(format!("`{name}` is not wrapped; {fix}"));
                }
                None => return refuse(format!("the model has no layer `{name}`")),
            }
        }
        let kinds: Vec<&str> = infos.iter().map(|layer| layer.kind.as_str()).collect();
        let is_host = HOSTS.contains(&kinds[0]);
        let (norm, activation) = match kinds[..] {
            [_, NORM] if is_host => (Some(&names[1]), None),
            [_, ACTIVATION] if is_host => (None, Some(&names[1])),
            [_, NORM, ACTIVATION] if is_host => (Some(&names[1]), Some(&names[2])),
            [NORM, ACTIVATION] => (None, Some(&names[1])),
            _ => {
                return refuse(format!(
                    "{kinds:?} cannot be fused: a fusion is one of {HOSTS:?}, then a `{NORM}`, a \
                     `{ACTIVATION}` or both in this order, or a `{NORM}` and a `{ACTIVATION}`"
                ));
            }
        };
        for pair in names.windows(2) {
            let next = self.successors.get(&pair[0]);
            if next.is_none_or(|next| next.layer != pair[1]) {
                return refuse(format!(
                    "`{}` does not directly follow `{}`: both must be called once in a forward \
                     pass, the second on what the first returns, and nothing else may read it",
                    pair[1], pair[0]
                ));
            }
        }
        let sequence = Sequence {
            host: infos[0].clone(),
            norm: norm.cloned(),
            activation: activation.cloned(),
        };
        match self.obstacle(&sequence) {
            None => Ok(sequence),
            Some(reason) => refuse(reason),
        }
    }

    /// The longest sequence that begins with `host`, if there is one.
    fn discover(&self, host: &LayerInfo) -> Option<Sequence> {
        if !HOSTS.contains(&host.kind.as_str()) {
            return None;
        }
        let kind = |path: &String| {
            let layer = self.layers.iter().find(|layer| layer.path == *path);
            layer.map_or("", |layer| layer.kind.as_str())
        };
        let after = |path: &String, wanted: &str| {
            let next = self.successors.get(path).map(|next| next.layer.clone());
            next.filter(|next| kind(next) == wanted)
        };
        let norm = after(&host.path, NORM);
        let last = norm.clone().unwrap_or_else(|| host.path.clone());
        let activation = after(&last, ACTIVATION);
        let sequence = |norm: &Option<String>, activation: &Option<String>| Sequence {
            host: host.clone(),
            norm: norm.clone(),
            activation: activation.clone(),
        };
        let candidates = [sequence(&norm, &activation), sequence(&norm, &None)];
        let mut candidates = candidates.into_iter();
        candidates.find(|one| one.followers().next().is_some() && self.obstacle(one).is_none())
    }

    /// Why a sequence cannot be fused.
    fn obstacle(&self, sequence: &Sequence) -> Option<String> {
        let host = &sequence.host.path;
        let selects = |target: &Target| {
            let mut selected = self.selected.iter();
            selected.any(|one| one.layer.path == *host && one.target == *target)
        };
        if sequence.norm.is_some() && !selects(&Target::param("weight")) {
            return Some(format!(
                "the norm is folded into the weight of `{host}`, which is not quantized"
            ));
        }
        if sequence.activation.is_some() && !selects(&Target::Output(0)) {
            return Some(format!(
                "the output of `{host}` is to be quantized behind the activation, but \
                 `{host}._output_0` is not selected: select it, or leave the activation out"
            ));
        }
        let next = self.successors.get(host);
        if let (Some(norm), "Linear", Some(next)) = (&sequence.norm, &*sequence.host.kind, next)
            && next.rank != 2
        {
            return Some(format!(
                "`{norm}` normalizes dimension 1 of {} dimensions, but the channels of `{host}` \
                 are the last",
                next.rank
            ));
        }
        let selected = self.selected.iter().map(Selected::id);
        let mut selected = selected.filter(|id| sequence.followers().any(|name| *name == id.layer));
        if let Some(id) = selected.next() {
            return Some(format!("`{id}` is selected for quantization of its own"));
        }
        let mut claimed = self.claimed.iter();
        let claimed = claimed.find(|(id, quantized)| match &id.target {
            Target::Output(_) if id.layer == *host => true,
            Target::Param(_) if id.layer == *host => **quantized && sequence.norm.is_some(),
            _ if Some(&id.layer) == sequence.norm.as_ref() => {
                !matches!(id.target, Target::Output(_))
            }
            _ => **quantized && sequence.followers().any(|name| *name == id.layer),
        });
        claimed.map(|(id, _)| format!("another compressor of the chain has claimed `{id}`"))
    }
}

fn is_taken(sequences: &[Sequence], layer: &String) -> bool {
    let mut sequences = sequences.iter();
    sequences.any(|sequence| sequence.names().any(|name| name == layer))
}

fn error(names: &[String], reason: impl Into<String>) -> QuantizationError {
    QuantizationError::Fusion {
        names: names.to_vec(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;
