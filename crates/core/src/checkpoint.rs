//! Stopping a run and going on bit for bit.
//!
//! A checkpoint is one file in Burn's pack format behind a header with its length and checksum: the
//! model and the optimizer as Burn's own records, the numbers of the history, of scales, of masks
//! and of the algorithms as tensors, everything else as JSON in the metadata. JSON holds no number
//! that must come back to the last bit.

use std::io::Write;
use std::path::Path;

use burn::module::Module;
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use burn_pack::{AtomicFile, Bytes, DType, Reader, Tensor as PackTensor, Writer};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::algorithm::{AlgorithmState, HostTensor};
use crate::attach::settle_statistics;
use crate::compressor::Compressor;
use crate::history::{History, StepRecord};
use crate::mask::{Mask, MaskMethod};
use crate::quantization::CalibrationEntry;
use crate::target::{Mode, TargetId};

/// What a checkpoint begins with; its length and its checksum follow, 8 bytes each.
const MAGIC: &[u8; 8] = b"BURNCCKP";
const PREFIX: usize = 24;
const HEADER: &str = "burn-compress-checkpoint";
const VERSION: u32 = 2;
const MODEL: &str = "model";
const OPTIMIZER: &str = "optimizer";
const ADAM: &str = "adam";
const STEPS: &str = "history/steps";
const EVALUATIONS: &str = "history/evaluations";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    step: usize,
    total_steps: usize,
    epoch: usize,
    position: usize,
    prepared: bool,
    algorithms: Vec<SavedAlgorithm>,
    spaces: IndexMap<TargetId, SavedSpace>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedAlgorithm {
    name: String,
    /// The bits of each number.
    values: IndexMap<String, u64>,
    /// The parameter id of each learnable tensor.
    learnables: IndexMap<String, u64>,
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

fn learnable_name(index: usize, name: &str) -> String {
    format!("learnable/{index}/{name}")
}

/// The numbers of a calibration, by the names of their tensors.
fn calibration_fields<'a>(
    id: &TargetId,
    entry: &'a mut CalibrationEntry,
) -> [(String, &'a mut Option<Vec<f32>>); 4] {
    [
        (format!("scale/{id}"), &mut entry.scale),
        (format!("zero_point/{id}"), &mut entry.zero_point),
        (format!("minimum/{id}"), &mut entry.minimum),
        (format!("maximum/{id}"), &mut entry.maximum),
    ]
}

/// Writes the chain to `path`; the file is replaced only when the new one is complete.
pub(crate) fn save<M: Module + 'static, I: 'static>(
    chain: &Compressor<M, I>,
    path: &Path,
) -> Result<(), Error> {
    let failed = |reason: String| Error::Checkpoint {
        path: path.to_path_buf(),
        reason,
    };
    let progress = &chain.progress;
    settle_statistics(&chain.model);
    let record = chain.model.clone().into_record();
    let mut tensors = vec![bytes(
        MODEL,
        &record
            .into_bytes()
            .map_err(|error| failed(error.to_string()))?,
    )];
    if let Some(optimizer) = &progress.optimizer {
        let record = optimizer.to_record().into_bytes();
        tensors.push(bytes(
            OPTIMIZER,
            &record.map_err(|error| failed(error.to_string()))?,
        ));
    }
    let adam = progress.adam.to_record().into_bytes();
    tensors.push(bytes(
        ADAM,
        &adam.map_err(|error| failed(error.to_string()))?,
    ));
    let mut spaces = IndexMap::new();
    for (id, space) in &chain.spaces {
        let mask = space.mask();
        if let Some(mask) = &mask {
            tensors.push(floats(mask_name(id), mask.values(), mask.shape()));
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
        let saved = SavedSpace {
            modes: space.modes(),
            mask: mask.map(|mask| mask.method()),
            quantization,
        };
        spaces.insert(id.clone(), saved);
    }
    let mut algorithms = Vec::new();
    for (index, algorithm) in chain.algorithms.iter().enumerate() {
        let name = algorithm.name();
        let state = algorithm.state().map_err(|source| Error::Algorithm {
            algorithm: name,
            source,
        })?;
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
        algorithms.push(SavedAlgorithm {
            name: name.to_string(),
            values: values.collect(),
            learnables,
        });
    }
    tensors.extend(history_tensors(&progress.history));
    let header = Header {
        version: VERSION,
        step: progress.step,
        total_steps: progress.total_steps,
        epoch: progress.epoch,
        position: progress.position,
        prepared: progress.prepared,
        algorithms,
        spaces,
    };
    let header = serde_json::to_string(&header).map_err(|error| failed(error.to_string()))?;
    let content = Writer::new(tensors)
        .with_metadata(HEADER, &header)
        .into_bytes()
        .map_err(|error| failed(error.to_string()))?;
    write(path, &content).map_err(failed)
}

fn write(path: &Path, content: &[u8]) -> Result<(), String> {
    let (scratch, mut file) = AtomicFile::create(path).map_err(|error| error.to_string())?;
    file.write_all(MAGIC)
        .and_then(|()| file.write_all(&(content.len() as u64).to_le_bytes()))
        .and_then(|()| file.write_all(&checksum(content).to_le_bytes()))
        .and_then(|()| file.write_all(content))
        .and_then(|()| file.sync_all())
        .map_err(|error| error.to_string())?;
    drop(file);
    scratch.commit().map_err(|error| error.to_string())
}

/// The content of the file, whole and undamaged.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut file = std::fs::read(path).map_err(|error| error.to_string())?;
    if !file.starts_with(MAGIC) {
        return Err("this is not a checkpoint of a compression run".to_string());
    }
    if file.len() < PREFIX {
        return Err(format!("it is cut off after {} bytes", file.len()));
    }
    let content = file.split_off(PREFIX);
    let number = |at: usize| {
        file[at..at + 8]
            .iter()
            .rev()
            .fold(0, |n, &b| (n << 8) | u64::from(b))
    };
    if number(8) != content.len() as u64 {
        let (expected, found) = (number(8), content.len());
        return Err(format!(
            "it is damaged: {found} bytes in place of {expected}"
        ));
    }
    if number(16) != checksum(&content) {
        return Err("it is damaged: its checksum is wrong".to_string());
    }
    Ok(content)
}

/// FNV-1a, 64 bits: against damage, not against forgery.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn history_tensors(history: &History) -> [PackTensor; 2] {
    let steps = history.steps.iter().flat_map(|record| {
        let StepRecord {
            step,
            loss,
            task_loss,
            learning_rate,
            sparsity,
        } = *record;
        [step as f64, loss, task_loss, learning_rate, sparsity]
    });
    let evaluations = history
        .evaluations
        .iter()
        .flat_map(|&(step, metric)| [step as f64, metric]);
    [
        doubles(STEPS, &steps.collect::<Vec<_>>(), [history.steps.len(), 5]),
        doubles(
            EVALUATIONS,
            &evaluations.collect::<Vec<_>>(),
            [history.evaluations.len(), 2],
        ),
    ]
}

fn history(steps: &[u8], evaluations: &[u8]) -> History {
    let doubles = |content: &[u8]| -> Vec<f64> {
        let (numbers, _) = content.as_chunks::<8>();
        numbers.iter().map(|&raw| f64::from_le_bytes(raw)).collect()
    };
    let (steps, evaluations) = (doubles(steps), doubles(evaluations));
    let record = |&[step, loss, task_loss, learning_rate, sparsity]: &[f64; 5]| StepRecord {
        step: step as usize,
        loss,
        task_loss,
        learning_rate,
        sparsity,
    };
    History {
        steps: steps.as_chunks().0.iter().map(record).collect(),
        evaluations: evaluations
            .as_chunks()
            .0
            .iter()
            .map(|&[step, metric]: &[f64; 2]| (step as usize, metric))
            .collect(),
    }
}

fn bytes(name: &str, content: &[u8]) -> PackTensor {
    let shape = vec![content.len()];
    PackTensor::new(
        name.into(),
        DType::U8,
        shape,
        None,
        Bytes::from_bytes_vec(content.to_vec()),
    )
}

fn floats(name: String, values: &[f32], shape: &[usize]) -> PackTensor {
    let raw = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    PackTensor::new(
        name,
        DType::F32,
        shape.to_vec(),
        None,
        Bytes::from_bytes_vec(raw),
    )
}

fn doubles(name: &str, values: &[f64], shape: [usize; 2]) -> PackTensor {
    let raw = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    PackTensor::new(
        name.into(),
        DType::F64,
        shape.to_vec(),
        None,
        Bytes::from_bytes_vec(raw),
    )
}

/// Restores what [`save`] wrote into a chain that was built with the same configuration.
pub(crate) fn load<M: Module + 'static, I: 'static>(
    mut chain: Compressor<M, I>,
    path: &Path,
) -> Result<Compressor<M, I>, Error> {
    let failed = |reason: String| Error::Checkpoint {
        path: path.to_path_buf(),
        reason,
    };
    let content = Bytes::from_bytes_vec(read(path).map_err(failed)?);
    let reader = Reader::from_bytes(content).map_err(|error| failed(error.to_string()))?;
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
    for tensor in reader
        .into_tensors()
        .map_err(|error| failed(error.to_string()))?
    {
        let (name, _, shape, _, content) = tensor
            .into_parts()
            .map_err(|error| failed(error.to_string()))?;
        tensors.insert(name, (shape.to_vec(), content));
    }
    let mut take = |name: &str| {
        tensors
            .swap_remove(name)
            .ok_or_else(|| failed(format!("the tensor `{name}` is missing")))
    };

    // Everything is read and checked before the chain is touched.
    let record =
        ModuleRecord::from_bytes(take(MODEL)?.1).map_err(|error| failed(error.to_string()))?;
    let optimizer = match chain.progress.optimizer.take() {
        None => None,
        Some(optimizer) => {
            let record = OptimizerRecord::from_bytes(take(OPTIMIZER)?.1)
                .map_err(|error| failed(error.to_string()))?;
            Some(optimizer.load_record(record))
        }
    };
    let adam =
        OptimizerRecord::from_bytes(take(ADAM)?.1).map_err(|error| failed(error.to_string()))?;
    let mut learned = Vec::new();
    for (index, saved) in header.algorithms.iter().enumerate() {
        for (name, &id) in &saved.learnables {
            let (shape, content) = take(&learnable_name(index, name))?;
            let values = numbers(&content);
            learned.push((index, name, id, HostTensor { values, shape }));
        }
    }
    let device = chain
        .model
        .devices()
        .first()
        .cloned()
        .unwrap_or_default()
        .without_autodiff();
    let mut spaces = Vec::new();
    for (id, saved) in &header.spaces {
        let mask = match saved.mask {
            None => None,
            Some(method) => {
                let (shape, content) = take(&mask_name(id))?;
                Some(Mask::new(numbers(&content), shape)?.with_method(method))
            }
        };
        let mut entry = saved.quantization.clone();
        for (name, values) in entry
            .iter_mut()
            .flat_map(|entry| calibration_fields(id, entry))
        {
            *values = take(&name).ok().map(|(_, content)| numbers(&content));
        }
        let quantization = entry
            .map(|entry| entry.to_quantization(&device))
            .transpose()
            .map_err(|reason| Error::InvalidCalibration {
                target: id.clone(),
                reason,
            })?;
        spaces.push((id, mask, quantization));
    }
    let history = history(&take(STEPS)?.1, &take(EVALUATIONS)?.1);
    let mut states = Vec::new();
    for (index, saved) in header.algorithms.iter().enumerate() {
        let values = saved
            .values
            .iter()
            .map(|(key, &bits)| (key.clone(), f64::from_bits(bits)));
        let mut state = AlgorithmState {
            values: values.collect(),
            ..AlgorithmState::default()
        };
        let prefix = state_name(index, "");
        let names: Vec<String> = tensors
            .keys()
            .filter(|name| name.starts_with(&prefix))
            .cloned()
            .collect();
        for name in names {
            let Some((shape, content)) = tensors.swap_remove(&name) else {
                continue;
            };
            let tensor = HostTensor {
                values: numbers(&content),
                shape,
            };
            state
                .tensors
                .insert(name[prefix.len()..].to_string(), tensor);
        }
        states.push(state);
    }

    settle_statistics(&chain.model);
    chain.model = chain
        .model
        .try_load_record(record)
        .map_err(|error| failed(error.to_string()))?;
    for (id, mask, quantization) in spaces {
        let space = &chain.spaces[id];
        space.set_mask(mask)?;
        space.set_quantization(quantization);
    }
    for (algorithm, state) in chain.algorithms.iter_mut().zip(&states) {
        let name = algorithm.name();
        algorithm
            .load_state(state)
            .map_err(|source| Error::Algorithm {
                algorithm: name,
                source,
            })?;
    }
    for (index, name, id, saved) in learned {
        let learnables = chain.algorithms[index].learnables();
        let learnable = learnables
            .iter()
            .find(|learnable| learnable.name() == name)
            .ok_or_else(|| {
                let algorithm = chain.algorithms[index].name();
                failed(format!("{algorithm} trains no tensor `{name}`"))
            })?;
        learnable.restore(id, saved)?;
    }
    let progress = &mut chain.progress;
    progress.optimizer = optimizer;
    progress.adam = progress.adam.clone().load_record(adam);
    // A schedule is a function of its number of steps, so stepping restores it exactly.
    progress.schedule = chain.evaluator.learning_rate();
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
    progress.history = history;
    progress.record = None;
    Ok(chain)
}

fn numbers(content: &[u8]) -> Vec<f32> {
    content
        .chunks_exact(4)
        .map(|raw| f32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]))
        .collect()
}

fn require_same_chain<M: Module + 'static, I: 'static>(
    chain: &Compressor<M, I>,
    header: &Header,
) -> Result<(), String> {
    let here = chain.algorithms();
    let there: Vec<&str> = header
        .algorithms
        .iter()
        .map(|saved| saved.name.as_str())
        .collect();
    if here != there {
        return Err(format!(
            "it was written by the chain {there:?}, this chain is {here:?}"
        ));
    }
    if let Some(id) = header
        .spaces
        .keys()
        .find(|id| !chain.spaces.contains_key(*id))
    {
        return Err(format!("it holds `{id}`, which is no target of this chain"));
    }
    if let Some(id) = chain
        .spaces
        .keys()
        .find(|id| !header.spaces.contains_key(*id))
    {
        return Err(format!("it lacks `{id}`, which is a target of this chain"));
    }
    Ok(())
}
