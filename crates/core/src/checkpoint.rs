//! Stopping a run and going on bit for bit.
//!
//! A checkpoint is one file in Burn's pack format: the model and the optimizer as Burn's own
//! records, masks and the algorithms' tensors as tensors, everything else as JSON in the metadata.

use std::path::Path;

use burn::module::Module;
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use burn_pack::{Bytes, DType, Reader, Tensor as PackTensor, Writer};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::algorithm::{AlgorithmState, HostTensor};
use crate::compressor::Compressor;
use crate::history::History;
use crate::mask::{Mask, MaskMethod};
use crate::quantization::CalibrationEntry;
use crate::target::{Mode, TargetId};

const HEADER: &str = "burn-compress-checkpoint";
const VERSION: u32 = 1;
const MODEL: &str = "model";
const OPTIMIZER: &str = "optimizer";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    step: usize,
    total_steps: usize,
    epoch: usize,
    position: usize,
    prepared: bool,
    history: History,
    algorithms: Vec<SavedAlgorithm>,
    spaces: IndexMap<TargetId, SavedSpace>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedAlgorithm {
    name: String,
    state: AlgorithmState,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedSpace {
    modes: Vec<Mode>,
    mask: Option<MaskMethod>,
    quantization: Option<CalibrationEntry>,
}

fn mask_name(id: &TargetId) -> String {
    format!("mask/{id}")
}

fn state_name(index: usize, name: &str) -> String {
    format!("algorithm/{index}/{name}")
}

/// Writes the chain to `path`; the writer replaces the file only when it is complete.
pub(crate) fn save<M: Module + 'static, I: 'static>(
    chain: &Compressor<M, I>,
    path: &Path,
) -> Result<(), Error> {
    let failed = |reason: String| Error::Checkpoint { path: path.to_path_buf(), reason };
    let progress = &chain.progress;
    let record = chain.model.clone().into_record();
    let mut tensors =
        vec![bytes(MODEL, &record.into_bytes().map_err(|error| failed(error.to_string()))?)];
    if let Some(optimizer) = &progress.optimizer {
        let record = optimizer.to_record().into_bytes();
        tensors.push(bytes(OPTIMIZER, &record.map_err(|error| failed(error.to_string()))?));
    }
    let mut spaces = IndexMap::new();
    for (id, space) in &chain.spaces {
        let mask = space.mask();
        if let Some(mask) = &mask {
            tensors.push(floats(mask_name(id), mask.values(), mask.shape()));
        }
        let quantization = space.quantization();
        let saved = SavedSpace {
            modes: space.modes(),
            mask: mask.map(|mask| mask.method()),
            quantization: quantization.map(|state| state.to_calibration()).transpose()?,
        };
        spaces.insert(id.clone(), saved);
    }
    let mut algorithms = Vec::new();
    for (index, algorithm) in chain.algorithms.iter().enumerate() {
        let name = algorithm.name();
        let state = algorithm
            .state()
            .map_err(|source| Error::Algorithm { algorithm: name, source })?;
        for (tensor, host) in &state.tensors {
            tensors.push(floats(state_name(index, tensor), &host.values, &host.shape));
        }
        algorithms.push(SavedAlgorithm { name: name.to_string(), state });
    }
    let header = Header {
        version: VERSION,
        step: progress.step,
        total_steps: progress.total_steps,
        epoch: progress.epoch,
        position: progress.position,
        prepared: progress.prepared,
        history: progress.history.clone(),
        algorithms,
        spaces,
    };
    let header = serde_json::to_string(&header).map_err(|error| failed(error.to_string()))?;
    Writer::new(tensors)
        .with_metadata(HEADER, &header)
        .auto_extension(false)
        .overwrite(true)
        .write_to_file(path)
        .map_err(|error| failed(error.to_string()))
}

fn bytes(name: &str, content: &[u8]) -> PackTensor {
    let shape = vec![content.len()];
    PackTensor::new(name.into(), DType::U8, shape, None, Bytes::from_bytes_vec(content.to_vec()))
}

fn floats(name: String, values: &[f32], shape: &[usize]) -> PackTensor {
    let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    PackTensor::new(name, DType::F32, shape.to_vec(), None, Bytes::from_bytes_vec(raw))
}

/// Restores what [`save`] wrote into a chain that was built with the same configuration.
pub(crate) fn load<M: Module + 'static, I: 'static>(
    mut chain: Compressor<M, I>,
    path: &Path,
) -> Result<Compressor<M, I>, Error> {
    let failed = |reason: String| Error::Checkpoint { path: path.to_path_buf(), reason };
    let reader = Reader::from_file_exact(path).map_err(|error| failed(error.to_string()))?;
    let header = reader
        .metadata()
        .get(HEADER)
        .ok_or_else(|| failed("this is not a checkpoint of a compression run".to_string()))?;
    let header: Header =
        serde_json::from_str(header).map_err(|error| failed(format!("damaged header: {error}")))?;
    if header.version != VERSION {
        return Err(failed(format!(
            "it has version {}, this library reads version {VERSION}",
            header.version
        )));
    }
    require_same_chain(&chain, &header).map_err(failed)?;
    let mut tensors = IndexMap::new();
    for tensor in reader.into_tensors().map_err(|error| failed(error.to_string()))? {
        let (name, _, shape, _, content) =
            tensor.into_parts().map_err(|error| failed(error.to_string()))?;
        tensors.insert(name, (shape.to_vec(), content));
    }
    let mut take = |name: &str| {
        tensors
            .swap_remove(name)
            .ok_or_else(|| failed(format!("the tensor `{name}` is missing")))
    };

    // Everything is read and checked before the chain is touched.
    let record = ModuleRecord::from_bytes(take(MODEL)?.1)
        .map_err(|error| failed(error.to_string()))?;
    let optimizer = match chain.progress.optimizer.take() {
        None => None,
        Some(optimizer) => {
            let record = OptimizerRecord::from_bytes(take(OPTIMIZER)?.1)
                .map_err(|error| failed(error.to_string()))?;
            Some(optimizer.load_record(record))
        }
    };
    let device = chain.model.devices().first().cloned().unwrap_or_default().without_autodiff();
    let mut spaces = Vec::new();
    for (id, saved) in &header.spaces {
        let mask = match saved.mask {
            None => None,
            Some(method) => {
                let (shape, content) = take(&mask_name(id))?;
                Some(Mask::new(numbers(&content), shape)?.with_method(method))
            }
        };
        let quantization = saved.quantization.as_ref().map(|entry| entry.to_quantization(&device));
        let quantization = quantization
            .transpose()
            .map_err(|reason| Error::InvalidCalibration { target: id.clone(), reason })?;
        spaces.push((id, mask, quantization));
    }
    let mut states = Vec::new();
    for (index, saved) in header.algorithms.iter().enumerate() {
        let mut state = saved.state.clone();
        let prefix = state_name(index, "");
        let names: Vec<String> =
            tensors.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
        for name in names {
            let Some((shape, content)) = tensors.swap_remove(&name) else { continue };
            let tensor = HostTensor { values: numbers(&content), shape };
            state.tensors.insert(name[prefix.len()..].to_string(), tensor);
        }
        states.push(state);
    }

    chain.model =
        chain.model.try_load_record(record).map_err(|error| failed(error.to_string()))?;
    for (id, mask, quantization) in spaces {
        let space = &chain.spaces[id];
        space.set_mask(mask)?;
        space.set_quantization(quantization);
    }
    for (algorithm, state) in chain.algorithms.iter_mut().zip(&states) {
        let name = algorithm.name();
        algorithm
            .load_state(state)
            .map_err(|source| Error::Algorithm { algorithm: name, source })?;
    }
    let progress = &mut chain.progress;
    progress.optimizer = optimizer;
    // A schedule is a function of its number of steps, so stepping restores it exactly.
    if let Some(schedule) = progress.schedule.as_mut() {
        for _ in 0..header.step {
            schedule.step();
        }
    }
    progress.step = header.step;
    progress.total_steps = header.total_steps;
    progress.epoch = header.epoch;
    progress.position = header.position;
    progress.prepared = header.prepared;
    progress.history = header.history;
    Ok(chain)
}

fn numbers(content: &[u8]) -> Vec<f32> {
    content.chunks_exact(4).map(|raw| f32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]])).collect()
}

fn require_same_chain<M: Module + 'static, I: 'static>(
    chain: &Compressor<M, I>,
    header: &Header,
) -> Result<(), String> {
    let here = chain.algorithms();
    let there: Vec<&str> = header.algorithms.iter().map(|saved| saved.name.as_str()).collect();
    if here != there {
        return Err(format!("it was written by the chain {there:?}, this chain is {here:?}"));
    }
    if let Some(id) = header.spaces.keys().find(|id| !chain.spaces.contains_key(*id)) {
        return Err(format!("it holds `{id}`, which is no target of this chain"));
    }
    if let Some(id) = chain.spaces.keys().find(|id| !header.spaces.contains_key(*id)) {
        return Err(format!("it lacks `{id}`, which is a target of this chain"));
    }
    Ok(())
}
