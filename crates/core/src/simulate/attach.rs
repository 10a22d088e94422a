//! Attaching simulations to a model, finding them again and taking them off.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::module::Module;
use indexmap::IndexMap;

use crate::Error;
use crate::graph::{self, Captured, DummyInput};
use crate::layer::LayerInfo;
use crate::simulate::folding::Folding;
use crate::simulate::masks::Masks;
use crate::simulate::quantization::Calibration;
use crate::simulate::simulation::Attach;
use crate::simulate::space::{Phase, TargetSpace};
use crate::simulate::walk::{self, Edited, Seen};
use crate::target::{Target, TargetId};

/// The states of a model's targets by name, in the order in which they were attached.
pub(crate) type Spaces = IndexMap<TargetId, Arc<TargetSpace>>;

/// Gives the model's simulations states of their own that follow `phase`, and returns them.
pub(crate) fn adopt<M: Module>(model: M, phase: Arc<Phase>) -> (M, Spaces) {
    walk::edit(model, Spaces::new(), move |spaces, found| {
        let mut take_over = |space: &mut Arc<TargetSpace>| {
            *space = space.fork(phase.clone());
            space.release();
            spaces.insert(space.id().clone(), space.clone());
        };
        match found {
            Edited::Simulation(space) => take_over(space),
            Edited::Wrapper { path, ports, .. } => {
                ports.set_path(path);
                ports.spaces_mut().for_each(take_over);
            }
        }
    })
}

/// Hangs `spaces` on a model that holds copies of them, as a snapshot does.
pub(crate) fn rejoin<M: Module>(model: M, spaces: &Spaces) -> M {
    let (model, _) = walk::edit(model, spaces.clone(), |spaces, found| {
        let rejoin = |space: &mut Arc<TargetSpace>| {
            if let Some(shared) = spaces.get(space.id()).cloned() {
                *space = shared;
            }
        };
        match found {
            Edited::Simulation(space) => rejoin(space),
            Edited::Wrapper { ports, .. } => ports.spaces_mut().for_each(rejoin),
        }
    });
    model
}

/// Hangs `foldings` on a model that holds copies of them.
pub(crate) fn rejoin_foldings<M: Module>(model: M, foldings: &[Arc<Folding>]) -> M {
    let (model, _) = walk::edit(model, foldings.to_vec(), |foldings, found| {
        if let Edited::Wrapper { ports, .. } = found {
            ports.rejoin_folding(foldings);
        }
    });
    model
}

/// The states that hang on a model.
pub(crate) fn spaces<M: Module>(model: &M) -> Spaces {
    walk::visit(model, Spaces::new(), |spaces, seen| {
        let mut add = |space: &Arc<TargetSpace>| {
            spaces.insert(space.id().clone(), space.clone());
        };
        match seen {
            Seen::Simulation(space) => add(space),
            Seen::Wrapper(ports) => ports.spaces().for_each(add),
        }
    })
}

/// States for targets that have none yet.
pub(crate) fn new_spaces(
    layers: &[LayerInfo],
    targets: &[TargetId],
    phase: &Arc<Phase>,
) -> Result<Spaces, Error> {
    let by_path: BTreeMap<&str, &LayerInfo> = layers
        .iter()
        .map(|layer| (layer.path.as_str(), layer))
        .collect();
    targets
        .iter()
        .map(|id| {
            let layer = by_path.get(id.layer.as_str()).copied();
            let shape = shape_in(layer, layers, id)?;
            Ok((
                id.clone(),
                Arc::new(TargetSpace::new(id.clone(), shape, phase.clone())),
            ))
        })
        .collect()
}

/// The shape of a target as far as the layers tell it: none of an input or output.
pub(crate) fn shape_of(layers: &[LayerInfo], id: &TargetId) -> Result<Option<Vec<usize>>, Error> {
    let layer = layers.iter().find(|layer| layer.path == id.layer);
    shape_in(layer, layers, id)
}

/// The shape of a target in `layer`, which is the one among `layers` that the target names.
fn shape_in(
    layer: Option<&LayerInfo>,
    layers: &[LayerInfo],
    id: &TargetId,
) -> Result<Option<Vec<usize>>, Error> {
    let unknown = |reason: String| Error::UnknownTarget {
        target: id.clone(),
        reason,
    };
    let layer = layer.ok_or_else(|| {
        let near = crate::config::did_you_mean(&id.layer, layers.iter().map(|l| l.path.as_str()));
        unknown(format!("there is no layer `{}`{near}", id.layer))
    })?;
    match &id.target {
        Target::Param(name) => match layer.param(name) {
            Some(param) => Ok(Some(param.shape.clone())),
            None => {
                let names: Vec<_> = layer.params.iter().map(|p| p.name.as_str()).collect();
                Err(unknown(format!(
                    "`{}` has the parameters {names:?}",
                    layer.path
                )))
            }
        },
        Target::Input(_) | Target::Output(_) if layer.wrapped => Ok(None),
        Target::Input(_) | Target::Output(_) => Err(unknown(format!(
            "`{}` is not wrapped; make its field a `Wrapper<{}>`",
            layer.path, layer.kind
        ))),
    }
}

/// Attaches states to the model's parameters and wrappers, which have none of these targets yet.
pub(crate) fn attach<M: Module>(model: M, spaces: &Spaces) -> Result<M, Error> {
    let mut params = IndexMap::new();
    let mut ports: IndexMap<String, Vec<Arc<TargetSpace>>> = IndexMap::new();
    for (id, space) in spaces {
        match id.target {
            Target::Param(_) => {
                params.insert(id.to_string(), Some(space.clone()));
            }
            Target::Input(_) | Target::Output(_) => {
                ports
                    .entry(id.layer.clone())
                    .or_default()
                    .push(space.clone());
            }
        }
    }
    let mut attach = Attach { spaces: params };
    let model = model.apply_reparameterization(&mut attach);
    if let Some(space) = attach.spaces.values().flatten().next() {
        return Err(Error::UnknownTarget {
            target: space.id().clone(),
            reason: "the model does not visit such a parameter".to_string(),
        });
    }
    // A parameter that has a reparameterization keeps it and drops the new one.
    let attached = self::spaces(&model);
    let mut params = spaces.iter().filter(|(id, _)| id.target.is_param());
    let holds = |(id, space): &(&TargetId, &Arc<TargetSpace>)| {
        let found = attached.get(*id);
        found.is_some_and(|found| Arc::ptr_eq(found, space))
    };
    if let Some((id, _)) = params.find(|param| !holds(param)) {
        return Err(Error::Reparameterized { target: id.clone() });
    }
    let (model, left) = walk::edit(model, ports, |ports, found| {
        if let Edited::Wrapper {
            path,
            ports: wrapper,
            ..
        } = found
        {
            wrapper.set_path(path);
            for space in ports.get_mut(path).map(std::mem::take).unwrap_or_default() {
                wrapper.attach(space.id().target.clone(), space);
            }
        }
    });
    match left.values().flatten().next() {
        Some(space) => Err(Error::UnknownTarget {
            target: space.id().clone(),
            reason: "the model does not visit such a wrapper".to_string(),
        }),
        None => Ok(model),
    }
}

/// The plain model: raw parameters, no simulation, nothing on the wrappers but their paths.
pub(crate) fn plain<M: Module>(model: M) -> M {
    let (model, ()) = walk::edit(model, (), |(), found| match found {
        Edited::Simulation(space) => {
            *space = space.snapshot();
            space.set_bypassed(true);
        }
        Edited::Wrapper { path, ports, .. } => {
            ports.set_path(path);
            ports.detach_all();
        }
    });
    model.materialize()
}

/// Brings the running statistics up to date.
///
/// Burn keeps the last update of a running statistic apart from its value until the next forward
/// pass: a record would be one step behind, and the update would win over a record that was loaded.
/// `valid` puts them together.
pub(crate) fn settle_statistics<M: Module>(model: &M) {
    drop(model.valid());
}

/// Captures the forward pass of a model as if nothing acted on its parameters, inputs and outputs,
/// with the [ports](Captured::port_targets) of its wrapped layers.
///
/// # Errors
///
/// A forward pass that cannot be captured.
pub fn capture<M: Module>(model: &M, dummy: &DummyInput<M>) -> Result<Captured, Error> {
    Ok(graph::capture(&plain(model.valid()), dummy)?)
}

/// Captures and analyses the plain model.
#[cfg(test)]
pub(crate) fn analyze<M: Module>(
    model: &M,
    dummy: &DummyInput<M>,
    heads: &std::collections::BTreeSet<(String, usize)>,
) -> Result<graph::ChannelGraph, Error> {
    Ok(graph::ChannelGraph::analyze_heads(
        &capture(model, dummy)?,
        heads,
    )?)
}

pub(crate) fn masks(spaces: &Spaces) -> Masks {
    spaces
        .iter()
        .filter_map(|(id, space)| Some((id.clone(), space.mask()?)))
        .collect()
}

pub(crate) fn calibration(spaces: &Spaces) -> Result<Calibration, Error> {
    spaces
        .iter()
        .filter_map(|(id, space)| Some((id, space.quantization()?)))
        .map(|(id, quantization)| Ok((id.clone(), quantization.to_calibration()?)))
        .collect()
}

/// The model with masks but without quantization, its states independent of the given model's.
pub(crate) fn masked<M: Module>(model: M) -> M {
    let without_quantization = |space: &mut Arc<TargetSpace>| {
        *space = space.snapshot();
        space.set_quantization(None);
    };
    let (model, ()) = walk::edit(model, (), move |(), found| match found {
        Edited::Simulation(space) => without_quantization(space),
        Edited::Wrapper { ports, .. } => {
            ports.set_folding(None);
            ports.spaces_mut().for_each(without_quantization);
        }
    });
    model
}

/// A validation snapshot of `model` that records the hidden states of `targets`, and their states.
///
/// This is how a teacher is read: it shares nothing with the model that it was taken from.
///
/// # Errors
///
/// A target that is no input or output of a wrapped layer of the model.
pub fn tap<M: Module>(
    model: &M,
    targets: &[TargetId],
) -> Result<(M, Vec<Arc<TargetSpace>>), Error> {
    let phase = Arc::new(Phase::default());
    let (model, existing) = adopt(model.valid(), phase.clone());
    let layers = crate::layer::layers(&model);
    let missing: Vec<TargetId> = targets
        .iter()
        .filter(|id| !existing.contains_key(*id))
        .cloned()
        .collect();
    let mut spaces = new_spaces(&layers, &missing, &phase)?;
    let model = attach(model, &spaces)?;
    spaces.extend(existing);
    let tapped: Vec<_> = targets.iter().map(|id| spaces[id].clone()).collect();
    tapped.iter().for_each(|space| space.set_recording(true));
    Ok((model, tapped))
}
