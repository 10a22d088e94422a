//! A forward pass as operations, with the sizes that vary.
//!
//! The pass is captured several times, with other sizes along the dynamic dimensions of the inputs. The
//! captures have to be the same operation by operation; a size that differs between them is dynamic. No
//! size is guessed: which one follows which input is found from three different sizes of each.

mod axes;
mod compare;
mod linear;
mod sizes;

use std::collections::HashMap;

use burn::module::{Module, ParamId};
use burn::tensor::{DType, TensorData};
use burn_compress_core::graph::{Captured, DummyInput, GraphError, capture_operations};
use burn_compress_core::{Error, TargetId};
use burn_ir::{OperationIr, TensorId};

use crate::{ExportError, OnnxConfig};
use axes::Named;
pub(crate) use sizes::{Axis, Formula, Sizes, line};

/// A forward pass whose captures agree.
pub(crate) struct Trace {
    /// The operations that the outputs depend on.
    pub operations: Vec<OperationIr>,
    /// The same operations in every further capture.
    pub others: Vec<Vec<OperationIr>>,
    /// The sizes of every tensor.
    pub shapes: HashMap<TensorId, Vec<Sizes>>,
    /// The values of constants, in every capture.
    pub constants: HashMap<TensorId, Vec<TensorData>>,
    /// Path and identity of the parameters.
    pub parameters: HashMap<TensorId, (String, ParamId)>,
    pub inputs: Vec<(TensorId, DType)>,
    pub outputs: Vec<TensorId>,
    /// The tensors at inputs and outputs of wrapped layers.
    pub ports: Vec<(TargetId, TensorId)>,
    /// The sizes of the inputs that vary.
    pub axes: Vec<Axis>,
    /// Sizes for which the pass has other operations.
    pub notes: Vec<String>,
}

/// A capture and its live operations.
struct Pass {
    captured: Captured,
    operations: Vec<OperationIr>,
}

impl Trace {
    /// Captures the forward pass of a plain model.
    pub fn of<M: Module + 'static>(
        model: &M,
        dummy: &DummyInput<M>,
        config: &OnnxConfig,
    ) -> Result<Self, ExportError> {
        Self::captured(&|dummy| capture_operations(model, dummy), dummy, config)
    }

    /// The forward pass as `capture` gives it for a dummy input.
    pub fn captured<M: 'static>(
        capture: Capture<'_, M>,
        dummy: &DummyInput<M>,
        config: &OnnxConfig,
    ) -> Result<Self, ExportError> {
        let given = pass(capture, dummy)?;
        let shapes = given.input_shapes();
        if shapes.is_empty() {
            return Err(ExportError::NoInputs);
        }
        let named = axes::named(config, &shapes)?;
        let mut search = Search {
            capture,
            dummy,
            base: shapes.clone(),
            named: &named,
        };
        let mut base = given;
        if search.enlarge() {
            base = search.pass(&search.base)?;
        }
        let (mut others, mut notes) = (Vec::new(), Vec::new());
        for name in named.keys() {
            others.extend(search.others(&base, name)?);
            match search.neighbour(&base, name) {
                Some(Ok(pass)) => others.push(pass),
                Some(Err(note)) => notes.push(note),
                None => {}
            }
        }
        let random = search.randomized(&base)?;
        let all = std::iter::once(&base).chain(&others).chain(&random);
        let trace = Self {
            notes,
            ..Self::merged(&all.collect::<Vec<_>>(), &named)
        };
        if random.is_some() {
            trace.check_constants()?;
        }
        Ok(trace)
    }

    /// Refuses constants that are other ones in the last capture, whose inputs have other values.
    fn check_constants(&self) -> Result<(), ExportError> {
        let same = |values: &Vec<TensorData>| match &values[..] {
            [first, .., last] => first.as_bytes() == last.as_bytes(),
            _ => true,
        };
        match self.constants.values().all(same) {
            true => Ok(()),
            false => Err(ExportError::ReadsValues {
                reason: "it makes a tensor of them on the host".to_string(),
            }),
        }
    }

    fn merged(passes: &[&Pass], named: &Named) -> Self {
        let mut trace = Self {
            operations: passes[0].operations.clone(),
            others: passes[1..].iter().map(|p| p.operations.clone()).collect(),
            shapes: HashMap::new(),
            constants: HashMap::new(),
            parameters: HashMap::new(),
            inputs: Vec::new(),
            outputs: passes[0].captured.outputs().to_vec(),
            ports: passes[0].captured.ports().to_vec(),
            axes: Vec::new(),
            notes: Vec::new(),
        };
        let captured = &passes[0].captured;
        for (path, id, tensor) in captured.parameters() {
            trace.parameters.insert(tensor, (path.to_string(), id));
        }
        let inputs: Vec<Vec<Vec<usize>>> = passes.iter().map(|p| p.input_shapes()).collect();
        let sizes_of = |input: usize, dim: usize| -> Sizes {
            Sizes::new(inputs.iter().map(|shapes| shapes[input][dim]).collect())
        };
        for (at, &id) in captured.inputs().iter().enumerate() {
            let dtype = captured.values()[&id].dtype();
            let dims = 0..inputs[0][at].len();
            trace.inputs.push((id, dtype));
            trace
                .shapes
                .insert(id, dims.map(|dim| sizes_of(at, dim)).collect());
        }
        for (name, dims) in named {
            let (input, dim) = dims[0];
            let (name, sizes) = (name.clone(), sizes_of(input, dim));
            trace.axes.push(Axis {
                name,
                sizes,
                input,
                dim,
            });
        }
        for at in 0..trace.operations.len() {
            let nodes: Vec<_> = passes.iter().map(|p| p.operations[at].nodes()).collect();
            for (position, tensor) in nodes[0].iter().enumerate() {
                let same = || nodes.iter().map(move |nodes| nodes[position]);
                let rank = tensor.shape.to_vec().len();
                let sizes = (0..rank).map(|dim| same().map(|t| t.shape.to_vec()[dim]).collect());
                let sizes = sizes.map(Sizes::new).collect();
                trace.shapes.entry(tensor.id).or_insert(sizes);
                let ids = same().map(|tensor| tensor.id);
                trace.note_constant(passes, tensor.id, ids);
            }
        }
        for (at, &id) in captured.outputs().iter().enumerate() {
            let ids = passes.iter().map(|pass| pass.captured.outputs()[at]);
            trace.note_constant(passes, id, ids);
        }
        trace
    }

    fn note_constant(
        &mut self,
        passes: &[&Pass],
        id: TensorId,
        same: impl Iterator<Item = TensorId>,
    ) {
        let is_input = self.inputs.iter().any(|(input, _)| *input == id);
        if is_input || self.constants.contains_key(&id) {
            return;
        }
        let values = same.zip(passes);
        let values = values.map(|(id, pass)| pass.captured.values().get(&id).cloned());
        if let Some(values) = values.collect::<Option<Vec<TensorData>>>() {
            let dims = 0..values[0].shape().to_vec().len();
            let sizes = |dim| values.iter().map(move |data| data.shape().to_vec()[dim]);
            let shape = dims.map(|dim| Sizes::new(sizes(dim).collect())).collect();
            self.shapes.entry(id).or_insert(shape);
            self.constants.insert(id, values);
        }
    }
}

impl Pass {
    fn input_shapes(&self) -> Vec<Vec<usize>> {
        let inputs = self.captured.inputs().iter();
        let values = self.captured.values();
        inputs
            .map(|id| {
                values
                    .get(id)
                    .map_or_else(Vec::new, |data| data.shape().to_vec())
            })
            .collect()
    }
}

/// What captures a forward pass.
type Capture<'a, M> = &'a dyn Fn(&DummyInput<M>) -> Result<Captured, GraphError>;

fn pass<M>(capture: Capture<'_, M>, dummy: &DummyInput<M>) -> Result<Pass, ExportError> {
    let captured = capture(dummy).map_err(Error::from)?;
    let outputs = captured.outputs();
    let live = compare::live(&captured.graph().operations, outputs);
    let operations = compare::live(&linear::joined(live, outputs), outputs);
    Ok(Pass {
        captured,
        operations,
    })
}

/// Search for captures with other sizes.
struct Search<'a, M> {
    capture: Capture<'a, M>,
    dummy: &'a DummyInput<M>,
    base: Vec<Vec<usize>>,
    named: &'a Named,
}

impl<M: 'static> Search<'_, M> {
    /// Makes dynamic dimensions of size 1 larger, which an operation would repeat; whether any was.
    fn enlarge(&mut self) -> bool {
        let before = self.base.clone();
        for dims in self.named.values() {
            for &(input, dim) in dims {
                self.base[input][dim] = self.base[input][dim].max(2);
            }
        }
        before != self.base
    }

    fn pass(&self, shapes: &[Vec<usize>]) -> Result<Pass, ExportError> {
        let dummy = self.dummy.resized(shapes);
        pass(self.capture, &dummy.ok_or(ExportError::FixedInputs)?)
    }

    /// A capture with random inputs; none where they have no random ones.
    fn randomized(&self, base: &Pass) -> Result<Option<Pass>, ExportError> {
        let dummy = match self.named.is_empty() {
            true => Some(self.dummy.clone()),
            false => self.dummy.resized(&self.base),
        };
        let Some(dummy) = dummy.and_then(|dummy| dummy.randomized(1)) else {
            return Ok(None);
        };
        let refuse = |reason: String| Err(ExportError::ReadsValues { reason });
        let pass = match pass(self.capture, &dummy) {
            Ok(pass) if pass.captured.inputs().is_empty() => return Ok(None),
            Ok(pass) => pass,
            Err(error) => return refuse(error.to_string()),
        };
        let found = compare::difference(
            (&base.captured, &base.operations),
            (&pass.captured, &pass.operations),
        );
        found.map_or(Ok(Some(pass)), refuse)
    }

    /// Two captures with other sizes of the dimensions `name`.
    fn others(&self, base: &Pass, name: &str) -> Result<Vec<Pass>, ExportError> {
        let dims = &self.named[name];
        let (input, dim) = dims[0];
        let size = self.base[input][dim];
        let mut reason = String::new();
        for sizes in axes::candidates(size, name == axes::BATCH) {
            let passes = sizes.map(|size| Ok((size, self.with_size(base, dims, size)?)));
            let mut agreeing = Vec::new();
            for pass in passes {
                match pass {
                    Err(ExportError::FixedInputs) => return Err(ExportError::FixedInputs),
                    // What is tried first tells most.
                    Err(error) if reason.is_empty() => reason = error.to_string(),
                    Ok((size, Err(difference))) if reason.is_empty() => {
                        reason = format!("with a size of {size}, {difference}");
                    }
                    Err(_) | Ok((_, Err(_))) => {}
                    Ok((_, Ok(pass))) => agreeing.push(pass),
                }
            }
            if agreeing.len() == 2 {
                return Ok(agreeing);
            }
        }
        Err(ExportError::NotDynamic {
            axis: name.to_string(),
            reason,
        })
    }

    /// A capture with another size of `dims`, or how it differs from the first one.
    fn with_size(
        &self,
        base: &Pass,
        dims: &[(usize, usize)],
        size: usize,
    ) -> Result<Result<Pass, String>, ExportError> {
        let mut shapes = self.base.clone();
        for &(input, dim) in dims {
            shapes[input][dim] = size;
        }
        let pass = self.pass(&shapes)?;
        let found = compare::difference(
            (&base.captured, &base.operations),
            (&pass.captured, &pass.operations),
        );
        Ok(found.map_or(Ok(pass), Err))
    }

    /// A capture with the size below that of the dummy input, where the forward pass takes it: one that
    /// every divisor of the other sizes does not divide. A note where it has other operations.
    fn neighbour(&self, base: &Pass, name: &str) -> Option<Result<Pass, String>> {
        let dims = &self.named[name];
        let (input, dim) = dims[0];
        let size = self.base[input][dim] - 1;
        if name == axes::BATCH || size < 2 {
            return None;
        }
        let found = self.with_size(base, dims, size).ok()?;
        Some(found.map_err(|difference| {
            format!(
                "the forward pass is another one where `{name}` is {size} ({difference}): sizes of that \
                 kind are not in the file"
            )
        }))
    }
}
