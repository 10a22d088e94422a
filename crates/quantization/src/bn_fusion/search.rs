//! Search for the sequences of a configuration.

use burn_compress_core::config::Selected;
use burn_compress_core::graph::Successor;
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{Target, TargetId};
use indexmap::{IndexMap, IndexSet};

use super::sequence::{Chosen, Sequence, error};
use crate::QuantizationError;

/// Layers that a norm can be folded into.
pub(crate) const HOSTS: [&str; 4] = ["Conv1d", "Conv2d", "Conv3d", "Linear"];
pub(crate) const NORM: &str = "BatchNorm";
const ACTIVATION: &str = "Relu";

/// Search for sequences in a model.
pub(super) struct Search<'a> {
    pub(super) layers: &'a [LayerInfo],
    pub(super) successors: &'a IndexMap<String, Successor>,
    /// Targets that a compressor acts on, and whether they are quantized.
    pub(super) claimed: IndexMap<TargetId, bool>,
    pub(super) selected: &'a [Chosen],
}

impl Search<'_> {
    /// The sequences, those that are listed first.
    ///
    /// # Errors
    ///
    /// [`QuantizationError::Fusion`] for a listed sequence that cannot be fused, and for a sequence
    /// that another compressor of the chain is in the way of.
    pub(super) fn run(&self) -> Result<Vec<Sequence>, QuantizationError> {
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
            let free = !is_taken(&sequences, &one.layer.path);
            if free && one.settings.fuse == Some(true) {
                let found = self.discover(&one.layer)?;
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
            None => self.unclaimed(sequence),
            Some(reason) => refuse(reason),
        }
    }

    /// The longest sequence that begins with `host` and fits what is selected, if there is one.
    fn discover(&self, host: &LayerInfo) -> Result<Option<Sequence>, QuantizationError> {
        if !HOSTS.contains(&host.kind.as_str()) {
            return Ok(None);
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
        let fits =
            |one: &Sequence| one.followers().next().is_some() && self.obstacle(one).is_none();
        let found = candidates.find(fits);
        found.map(|one| self.unclaimed(one)).transpose()
    }

    /// The reason why a sequence does not fit the selected targets.
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
        let own = selected.next();
        own.map(|id| format!("`{id}` is selected for quantization of its own"))
    }

    /// The sequence, unless another compressor acts on what the fused layers do not have.
    fn unclaimed(&self, sequence: Sequence) -> Result<Sequence, QuantizationError> {
        let (host, norm) = (&sequence.host.path, sequence.norm.as_ref());
        let mut claimed = self.claimed.iter();
        let claimed = claimed.find(|(id, quantized)| match &id.target {
            Target::Output(_) if id.layer == *host => true,
            Target::Input(_) if Some(&id.layer) == norm => true,
            Target::Param(_) if id.layer == *host => **quantized && norm.is_some(),
            // Masks act on the norm before it is folded.
            _ => **quantized && sequence.followers().any(|name| *name == id.layer),
        });
        match claimed {
            None => Ok(sequence),
            Some((id, _)) => {
                let names: Vec<String> = sequence.names().cloned().collect();
                let elsewhere = match &id.target {
                    Target::Output(_) => {
                        format!("let it take `{}._output_0`, or ", sequence.last())
                    }
                    _ => String::new(),
                };
                let reason = format!(
                    "another compressor of the chain has claimed `{id}`: {elsewhere}leave these \
                     layers out of `fuse` and `fuse_names`"
                );
                Err(error(&names, reason))
            }
        }
    }
}

fn is_taken(sequences: &[Sequence], layer: &String) -> bool {
    let mut sequences = sequences.iter();
    sequences.any(|sequence| sequence.names().any(|name| name == layer))
}
