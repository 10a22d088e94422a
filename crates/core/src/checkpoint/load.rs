//! Reading a checkpoint into a chain that was built with the same configuration.

use std::path::Path;

use burn::module::Module;
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::store::ModuleRecord;
use burn::tensor::Device;
use burn_pack::{Bytes, Reader};

use super::header::{Header, KEY, SavedSpace};
use super::tensors::{
    ADAM, MODEL, OPTIMIZER, Tensors, calibration_fields, learnable_name, mask_name, numbers,
    state_name,
};
use super::{At, SEAL, history};
use crate::Error;
use crate::algorithm::{AlgorithmState, HostTensor};
use crate::attach::settle_statistics;
use crate::compressor::Compressor;
use crate::history::History;
use crate::mask::Mask;
use crate::quantization::Quantization;
use crate::reads::Unread;
use crate::target::TargetId;

/// Restores what [`save`](super::save) wrote.
pub(crate) fn load<M: Module + 'static, I: 'static>(
    mut chain: Compressor<M, I>,
    path: &Path,
) -> Result<Compressor<M, I>, Error> {
    let at = At(path);
    let (header, tensors) = open(at)?;
    header
        .require_chain(&chain)
        .map_err(|reason| at.failed(reason))?;
    // Everything is read and checked before the chain is touched.
    let Content {
        model,
        optimizer,
        adam,
        spaces,
        states,
        learnables,
        history,
    } = Content::read(&chain, &header, tensors, at)?;

    settle_statistics(&chain.model);
    let loaded = chain.model.try_load_record(model);
    chain.model = loaded.map_err(|error| at.failed(error))?;
    for (id, mask, quantization) in spaces {
        let space = &chain.spaces[&id];
        space.set_mask(mask)?;
        space.set_quantization(quantization);
    }
    restore_states(&mut chain, &states)?;
    for learnable in learnables {
        learnable.restore(&chain, at)?;
    }
    chain.progress.optimizer = optimizer;
    chain.progress.adam = chain.progress.adam.load_record(adam);
    restore_progress(&mut chain, &header, history);
    Ok(chain)
}

/// The header of a file of this version, and its tensors.
fn open(at: At<'_>) -> Result<(Header, Tensors<'_>), Error> {
    let content = SEAL.read(at.0).map_err(|error| at.failed(error))?;
    let reader =
        Reader::from_bytes(Bytes::from_bytes_vec(content)).map_err(|error| at.failed(error))?;
    let header = reader
        .metadata()
        .get(KEY)
        .ok_or_else(|| at.failed("it has no header"))?;
    let header = Header::read(header).map_err(|reason| at.failed(reason))?;
    Ok((header, Tensors::read(reader, at)?))
}

/// What a checkpoint holds beside its header, in the form that a chain takes it.
struct Content {
    model: ModuleRecord,
    optimizer: Option<ModuleOptimizer>,
    adam: OptimizerRecord,
    spaces: Vec<(TargetId, Option<Mask>, Option<Quantization>)>,
    states: Vec<AlgorithmState>,
    learnables: Vec<LearnableValues>,
    history: History,
}

impl Content {
    fn read<M: Module + 'static, I: 'static>(
        chain: &Compressor<M, I>,
        header: &Header,
        mut tensors: Tensors,
        at: At<'_>,
    ) -> Result<Self, Error> {
        let model = ModuleRecord::from_bytes(tensors.bytes(MODEL)?);
        let model = model.map_err(|error| at.failed(error))?;
        let mut optimizer_record = |name: &str| {
            OptimizerRecord::from_bytes(tensors.bytes(name)?).map_err(|error| at.failed(error))
        };
        let optimizer = match chain.progress.optimizer.clone() {
            None => None,
            Some(optimizer) => Some(optimizer.load_record(optimizer_record(OPTIMIZER)?)),
        };
        let adam = optimizer_record(ADAM)?;
        let device = chain.model.devices().first().cloned().unwrap_or_default();
        let device = device.without_autodiff();
        let mut spaces = Vec::new();
        for (id, saved) in &header.spaces {
            let (mask, quantization) = read_space(id, saved, &mut tensors, &device)?;
            spaces.push((id.clone(), mask, quantization));
        }
        Ok(Self {
            model,
            optimizer,
            adam,
            spaces,
            learnables: read_learnables(header, &mut tensors)?,
            history: history::read(&mut tensors)?,
            states: read_states(header, &mut tensors),
        })
    }
}

fn read_space(
    id: &TargetId,
    saved: &SavedSpace,
    tensors: &mut Tensors,
    device: &Device,
) -> Result<(Option<Mask>, Option<Quantization>), Error> {
    let mask = match saved.mask {
        None => None,
        Some(method) => {
            let HostTensor { values, shape } = tensors.floats(&mask_name(id))?;
            Some(Mask::new(values, shape)?.with_method(method))
        }
    };
    let mut entry = saved.quantization.clone();
    for (name, values) in entry
        .iter_mut()
        .flat_map(|entry| calibration_fields(id, entry))
    {
        *values = tensors.find(&name).map(|(_, content)| numbers(&content));
    }
    let quantization = entry
        .map(|entry| entry.to_quantization(device))
        .transpose()
        .map_err(|reason| Error::InvalidCalibration {
            target: id.clone(),
            reason,
        })?;
    Ok((mask, quantization))
}

/// The states of the algorithms, oldest first.
fn read_states(header: &Header, tensors: &mut Tensors) -> Vec<AlgorithmState> {
    let algorithms = header.algorithms.iter().enumerate();
    let state = |(index, saved): (usize, &super::header::SavedAlgorithm)| {
        let values = saved.values.iter();
        AlgorithmState {
            values: values
                .map(|(key, &bits)| (key.clone(), f64::from_bits(bits)))
                .collect(),
            tensors: tensors.under(&state_name(index, "")),
        }
    };
    algorithms.map(state).collect()
}

fn restore_states<M: Module + 'static, I: 'static>(
    chain: &mut Compressor<M, I>,
    states: &[AlgorithmState],
) -> Result<(), Error> {
    for (algorithm, state) in chain.algorithms.iter_mut().zip(states) {
        let name = algorithm.name();
        algorithm.load_state(state).map_err(Error::met_by(name))?;
    }
    Ok(())
}

/// What a learnable of the algorithm at `index` held.
struct LearnableValues {
    index: usize,
    name: String,
    id: u64,
    values: HostTensor,
}

fn read_learnables(header: &Header, tensors: &mut Tensors) -> Result<Vec<LearnableValues>, Error> {
    let mut found = Vec::new();
    for (index, saved) in header.algorithms.iter().enumerate() {
        for (name, &id) in &saved.learnables {
            found.push(LearnableValues {
                index,
                name: name.clone(),
                id,
                values: tensors.floats(&learnable_name(index, name))?,
            });
        }
    }
    Ok(found)
}

impl LearnableValues {
    fn restore<M: Module + 'static, I: 'static>(
        self,
        chain: &Compressor<M, I>,
        at: At<'_>,
    ) -> Result<(), Error> {
        let algorithm = &chain.algorithms[self.index];
        let learnables = algorithm.learnables();
        let found = learnables
            .iter()
            .find(|learnable| learnable.name() == self.name);
        let learnable = found.ok_or_else(|| {
            let algorithm = algorithm.name();
            at.failed(format!("{algorithm} trains no tensor `{}`", self.name))
        })?;
        learnable.restore(self.id, self.values)
    }
}

fn restore_progress<M: Module + 'static, I: 'static>(
    chain: &mut Compressor<M, I>,
    header: &Header,
    history: History,
) {
    let progress = &mut chain.progress;
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
    progress.unread = Unread::default();
    progress.pass = 0;
}
