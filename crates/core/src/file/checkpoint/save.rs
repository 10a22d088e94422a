//! Writing a chain to a checkpoint.

use std::path::Path;

use burn::module::Module;
use burn_pack::{Bytes, Tensor as PackTensor, Writer};
use indexmap::IndexMap;

use super::header::{Header, KEY, SavedAlgorithm, SavedSpace};
use super::profile::{Profile, trained};
use super::tensors::{
    ADAM, MODEL, OPTIMIZER, bits, bytes, calibration_fields, floats, learnable_name, mask_name,
    state_name,
};
use super::{At, SEAL, history};
use crate::Error;
use crate::erased::{AnyBatch, AnyModel};
use crate::run::algorithm::Algorithm;
use crate::run::any_chain::AnyChain;
use crate::run::finite;
use crate::simulate::attach::settle_statistics;
use crate::simulate::space::TargetSpace;

/// Writes the chain to `path`; the file is replaced only when the new one is complete.
pub(crate) fn save(chain: &AnyChain, path: &Path) -> Result<(), Error> {
    let at = At::File(path);
    // A checkpoint that cannot be used must not replace one that can.
    finite::require(&chain.model, &chain.spaces, chain.progress.step)?;
    let tensors = records(chain, at)?;
    let content = pack(chain, profile_of(chain)?, tensors, at)?;
    SEAL.write(path, &content).map_err(|error| at.failed(error))
}

/// The chain without its model and the evaluator's optimizer.
pub(crate) fn to_bytes(chain: &AnyChain) -> Result<Bytes, Error> {
    pack(chain, None, vec![adam(chain, At::Record)?], At::Record)
}

/// The header and all tensors, behind those that are `given`.
fn pack(
    chain: &AnyChain,
    profile: Option<Profile>,
    given: Vec<PackTensor>,
    at: At<'_>,
) -> Result<Bytes, Error> {
    let progress = &chain.progress;
    let mut tensors = given;
    let mut spaces = IndexMap::new();
    for (id, space) in &chain.spaces {
        spaces.insert(id.clone(), save_space(space, &mut tensors)?);
    }
    let mut algorithms = Vec::new();
    for (index, algorithm) in chain.algorithms.iter().enumerate() {
        algorithms.push(save_algorithm(index, algorithm.as_ref(), &mut tensors)?);
    }
    let history = progress.unread.complete_history(&progress.history)?;
    tensors.extend(history::write(&history));
    let header = Header {
        step: progress.step,
        total_steps: progress.total_steps,
        epoch: progress.epoch,
        position: progress.position,
        prepared: progress.prepared,
        seed: chain.evaluator.seed(),
        profile,
        algorithms,
        spaces,
    };
    let header = serde_json::to_string(&header).map_err(|error| at.failed(error))?;
    Writer::new(tensors)
        .with_metadata(KEY, &header)
        .into_bytes()
        .map_err(|error| at.failed(error))
}

/// Fingerprint of the evaluator's training, computed once for a length of the run.
fn profile_of(chain: &AnyChain) -> Result<Option<Profile>, Error> {
    let Some(parts) = chain.evaluator.trains_with() else {
        return Ok(None);
    };
    let steps = Profile::sampled(chain.progress.total_steps);
    let mut known = chain.progress.profile.lock();
    let profile = match known.take() {
        Some(profile) if profile.steps() == steps => profile,
        _ => Profile::of(parts, &chain.model, &trained(&chain.model), steps)?,
    };
    *known = Some(profile.clone());
    Ok(Some(profile))
}

/// The model and the optimizers as Burn's own records.
fn records(chain: &AnyChain, at: At<'_>) -> Result<Vec<PackTensor>, Error> {
    settle_statistics(&chain.model);
    let model = chain.model.clone().into_record().into_bytes();
    let mut tensors = vec![bytes(MODEL, model.map_err(|error| at.failed(error))?)];
    if let Some(optimizer) = &chain.progress.optimizer {
        let record = optimizer.to_record().into_bytes();
        tensors.push(bytes(OPTIMIZER, record.map_err(|error| at.failed(error))?));
    }
    tensors.push(adam(chain, at)?);
    Ok(tensors)
}

fn adam(chain: &AnyChain, at: At<'_>) -> Result<PackTensor, Error> {
    let record = chain.progress.adam.to_record().into_bytes();
    Ok(bytes(ADAM, record.map_err(|error| at.failed(error))?))
}

fn save_space(space: &TargetSpace, tensors: &mut Vec<PackTensor>) -> Result<SavedSpace, Error> {
    let id = space.id();
    let mask = space.mask();
    if let Some(mask) = &mask {
        tensors.push(bits(mask_name(id), mask.values(), mask.shape()));
    }
    let mut quantization = space
        .quantization()
        .map(|state| state.to_calibration())
        .transpose()?;
    for (name, values) in quantization
        .iter_mut()
        .flat_map(|entry| calibration_fields(id, entry))
    {
        if let Some(values) = values.take() {
            tensors.push(floats(name, &values, &[values.len()]));
        }
    }
    Ok(SavedSpace {
        modes: space.modes(),
        mask: mask.map(|mask| mask.method()),
        quantization,
    })
}

fn save_algorithm(
    index: usize,
    algorithm: &dyn Algorithm<AnyModel, AnyBatch>,
    tensors: &mut Vec<PackTensor>,
) -> Result<SavedAlgorithm, Error> {
    let name = algorithm.name();
    let state = algorithm.state().map_err(Error::met_by(name))?;
    for (tensor, host) in &state.tensors {
        tensors.push(floats(state_name(index, tensor), &host.values, &host.shape));
    }
    let values = state
        .values
        .iter()
        .map(|(key, value)| (key.clone(), value.to_bits()));
    let mut learnables = IndexMap::new();
    for learnable in algorithm.learnables() {
        let (id, host) = learnable.to_host()?;
        let name = learnable.name();
        tensors.push(floats(
            learnable_name(index, name),
            &host.values,
            &host.shape,
        ));
        learnables.insert(name.to_string(), id);
    }
    Ok(SavedAlgorithm {
        name: name.to_string(),
        configuration: algorithm.configuration().map_err(Error::met_by(name))?,
        values: values.collect(),
        learnables,
    })
}
