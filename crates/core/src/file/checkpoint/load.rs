//! Reading a checkpoint into a chain that was built with the same configuration.

use std::path::Path;

use burn::module::Module;
use burn::optim::{ModuleOptimizer, OptimizerRecord};
use burn::store::ModuleRecord;
use burn::tensor::{Bytes, DType, Device};
use burn_pack::Reader;

use super::changes::Changes;
use super::header::{Header, KEY, SavedSpace};
use super::optimizer::{self, Known};
use super::params::Params;
use super::tensors::{
    ADAM, MODEL, OPTIMIZER, Tensors, calibration_fields, learnable_name, mask_name, state_name,
};
use super::{At, SEAL, history};
use crate::Error;
use crate::run::algorithm::AlgorithmState;
use crate::run::any_chain::AnyChain;
use crate::run::history::History;
use crate::run::unread::Unread;
use crate::simulate::attach::settle_statistics;
use crate::simulate::flat::HostTensor;
use crate::simulate::mask::Mask;
use crate::simulate::quantization::Quantization;
use crate::target::TargetId;

/// Restores what [`save`](super::save) wrote; with `accept`, also where the configuration of the
/// chain is another one.
pub(crate) fn load(mut chain: AnyChain, path: &Path, accept: bool) -> Result<AnyChain, Error> {
    let at = At::File(path);
    let content = SEAL.read(path).map_err(|error| at.failed(error))?;
    let (header, mut tensors) = open(Bytes::from_bytes_vec(content), at)?;
    header
        .require_chain(&chain)
        .map_err(|reason| at.failed(reason))?;
    // Everything is read and checked before the chain is touched.
    let model = tensors.bytes(MODEL)?;
    let params = Params::of(&chain.model, model.clone()).map_err(|reason| at.failed(reason))?;
    let model = ModuleRecord::from_bytes(model).map_err(|error| at.failed(error))?;
    let changes = Changes::of(&chain, &header, Some(&params), accept, at)?;
    let content = Content::read(&chain, &header, &changes, &mut tensors, at)?;
    let optimizer = match chain.evaluator.optimizer() {
        Some(fresh) if !changes.optimizer => {
            let record = tensors.bytes(OPTIMIZER)?;
            let mut known = params.known;
            known.extend(content.known(&chain));
            let loaded = load_optimizer(fresh, "the evaluator", record, &known);
            Some(loaded.map_err(|reason| at.failed(reason))?)
        }
        fresh => fresh,
    };

    settle_statistics(&chain.model);
    let loaded = chain.model.try_load_record(model);
    chain.model = loaded.map_err(|error| at.failed(error))?;
    let progress = &mut chain.progress;
    progress.optimizer = optimizer;
    // A schedule is a function of its number of steps, so stepping restores it exactly.
    progress.schedule = chain.evaluator.learning_rate();
    if let Some(schedule) = progress.schedule.as_mut() {
        for _ in 0..header.step {
            schedule.step();
        }
    }
    progress.total_steps = header.total_steps;
    progress.epoch = header.epoch;
    progress.position = header.position;
    progress.prepared = header.prepared;
    content.restore(&mut chain, &header, &changes, at)?;
    Ok(chain)
}

/// Restores what [`to_bytes`](super::to_bytes) gave into the chain of a trainee.
pub(crate) fn restore(chain: &mut AnyChain, bytes: Bytes, accept: bool) -> Result<(), Error> {
    let at = At::Record;
    let (header, mut tensors) = open(bytes, at)?;
    header
        .require_chain(chain)
        .map_err(|reason| at.failed(reason))?;
    let (step, total) = (header.step, chain.progress.total_steps);
    if step > total {
        let reason = format!(
            "{step} steps are done, the run has {total}: give `into_trainee` the steps of the \
             whole run"
        );
        return Err(Error::Budget { reason });
    }
    let changes = Changes::of(chain, &header, None, accept, at)?;
    let content = Content::read(chain, &header, &changes, &mut tensors, at)?;
    content.restore(chain, &header, &changes, at)
}

/// The header of a file of this version, and its tensors.
fn open(content: Bytes, at: At<'_>) -> Result<(Header, Tensors<'_>), Error> {
    let reader = Reader::from_bytes(content).map_err(|error| at.failed(error))?;
    let header = reader
        .metadata()
        .get(KEY)
        .ok_or_else(|| at.failed("it has no header"))?;
    let header = Header::read(header).map_err(|reason| at.failed(reason))?;
    Ok((header, Tensors::read(reader, at)?))
}

/// The optimizer with the state of `record`, if it is the state of such an optimizer.
fn load_optimizer(
    fresh: ModuleOptimizer,
    whose: &str,
    record: Bytes,
    known: &[Known],
) -> Result<ModuleOptimizer, String> {
    optimizer::check(&fresh, record.clone(), known)
        .map_err(|reason| format!("the optimizer state of {whose} does not fit: {reason}"))?;
    let record = OptimizerRecord::from_bytes(record).map_err(|error| error.to_string())?;
    Ok(fresh.load_record(record))
}

/// Parts of a checkpoint for a chain: all but header, model and the evaluator's optimizer.
struct Content {
    adam: ModuleOptimizer,
    spaces: Vec<(TargetId, Option<Mask>, Option<Quantization>)>,
    states: Vec<AlgorithmState>,
    learnables: Vec<LearnableValues>,
    history: History,
}

impl Content {
    fn read(
        chain: &AnyChain,
        header: &Header,
        changes: &Changes,
        tensors: &mut Tensors,
        at: At<'_>,
    ) -> Result<Self, Error> {
        let device = chain.model.devices().first().cloned().unwrap_or_default();
        let device = device.without_autodiff();
        let mut spaces = Vec::new();
        for (id, saved) in &header.spaces {
            let space = &chain.spaces[id];
            let (mask, quantization) = read_space(id, saved, space.shape(), tensors, &device)?;
            let quantization = match (quantization, space.quantization()) {
                (_, own) if changes.targets.contains(id) => own,
                (Some(state), Some(own)) if changes.enabled.contains(id) => Some(Quantization {
                    enabled: own.enabled,
                    ..state
                }),
                (state, _) => state,
            };
            spaces.push((id.clone(), mask, quantization));
        }
        let learnables = read_learnables(header, tensors)?;
        let adam = tensors.bytes(ADAM)?;
        let known: Vec<Known> = learnables.iter().map(|one| one.known(&device)).collect();
        let adam = load_optimizer(chain.progress.adam.clone(), "the learnables", adam, &known);
        Ok(Self {
            adam: adam.map_err(|reason| at.failed(reason))?,
            spaces,
            learnables,
            history: history::read(tensors)?,
            states: read_states(header, changes, tensors)?,
        })
    }

    /// The learnables as parameters that the evaluator's optimizer may train.
    fn known(&self, chain: &AnyChain) -> Vec<Known> {
        let device = chain.model.devices().first().cloned().unwrap_or_default();
        let known = self.learnables.iter().map(|one| one.known(&device));
        known.collect()
    }

    fn restore(
        self,
        chain: &mut AnyChain,
        header: &Header,
        changes: &Changes,
        at: At<'_>,
    ) -> Result<(), Error> {
        for (id, mask, quantization) in self.spaces {
            let space = &chain.spaces[&id];
            space.set_mask(mask)?;
            space.set_quantization(quantization);
        }
        restore_states(chain, &self.states)?;
        for learnable in self.learnables {
            learnable.restore(chain, changes, at)?;
        }
        let progress = &mut chain.progress;
        progress.adam = self.adam;
        progress.step = header.step;
        progress.history = self.history;
        progress.unread = Unread::default();
        progress.pass = 0;
        *progress.profile.lock() = None;
        chain.events.resume(&progress.history, &chain.spaces);
        Ok(())
    }
}

fn read_space(
    id: &TargetId,
    saved: &SavedSpace,
    shape: Option<Vec<usize>>,
    tensors: &mut Tensors,
    device: &Device,
) -> Result<(Option<Mask>, Option<Quantization>), Error> {
    let mask = match saved.mask {
        None => None,
        Some(method) => {
            let HostTensor { values, shape } = tensors.bits(&mask_name(id))?;
            Some(Mask::new(values, shape)?.with_method(method))
        }
    };
    if let (Some(mask), Some(shape)) = (&mask, &shape) {
        mask.check_shape(id, shape)?;
    }
    let mut entry = saved.quantization.clone();
    for (name, values) in entry
        .iter_mut()
        .flat_map(|entry| calibration_fields(id, entry))
    {
        *values = tensors.find_floats(&name)?.map(|tensor| tensor.values);
    }
    let quantization = entry
        .map(|entry| entry.quantization_of(id, shape, device))
        .transpose()?;
    Ok((mask, quantization))
}

/// The states of the algorithms, oldest first.
fn read_states(
    header: &Header,
    changes: &Changes,
    tensors: &mut Tensors,
) -> Result<Vec<AlgorithmState>, Error> {
    // What was observed of a target that begins anew has its name at the end.
    let stays = |name: &str| {
        let mut anew = changes.targets.iter().map(ToString::to_string);
        !anew.any(|target| name.ends_with(&format!("/{target}")))
    };
    let mut states = Vec::new();
    for (index, saved) in header.algorithms.iter().enumerate() {
        let values = saved.values.iter();
        let mut tensors = tensors.under(&state_name(index, ""))?;
        tensors.retain(|name, _| stays(name));
        states.push(AlgorithmState {
            values: values
                .map(|(key, &bits)| (key.clone(), f64::from_bits(bits)))
                .collect(),
            tensors,
        });
    }
    Ok(states)
}

fn restore_states(chain: &mut AnyChain, states: &[AlgorithmState]) -> Result<(), Error> {
    for (algorithm, state) in chain.algorithms.iter_mut().zip(states) {
        let name = algorithm.name();
        algorithm.load_state(state).map_err(Error::met_by(name))?;
    }
    Ok(())
}

/// Saved values of a learnable of the algorithm at `index`.
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
    fn known(&self, device: &Device) -> Known {
        Known {
            path: vec![self.name.clone()],
            id: self.id,
            shape: vec![self.values.values.len()],
            dtype: DType::F32,
            device: device.clone(),
        }
    }

    fn restore(self, chain: &AnyChain, changes: &Changes, at: At<'_>) -> Result<(), Error> {
        let algorithm = &chain.algorithms[self.index];
        let learnables = algorithm.learnables();
        let found = learnables
            .iter()
            .find(|learnable| learnable.name() == self.name);
        match found {
            Some(learnable) => learnable.restore(self.id, self.values),
            // A target that begins anew has not made its tensors yet.
            None if changes.any => Ok(()),
            None => {
                let algorithm = algorithm.name();
                Err(at.failed(format!("{algorithm} trains no tensor `{}`", self.name)))
            }
        }
    }
}
