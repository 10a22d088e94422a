//! Plain norms over channels in a captured forward pass.
//!
//! A norm that is not wrapped takes its mean over all channels, so that they must stay. Burn composes
//! most of its norms of several operations, of which a `mean_dim` or a `reshape` is where the channels
//! are lost. The reason that a user can act on is the layer: this module finds which operations belong
//! to one, beginning at the parameter `gamma` that ends it.
//!
//! ```text
//! x ----------+
//!  \          v
//!   cast, square, mean_dim, add_scalar, sqrt --> div --> mul <-- gamma
//! ```

use std::collections::{BTreeMap, BTreeSet};

use burn_capture::TensorId;
use burn_ir::{
    BaseOperationIr as Base, FloatOperationIr as Float, ModuleOperationIr as Module,
    NumericOperationIr as Numeric, OperationIr,
};

use super::capture::{Captured, CapturedParam, place};

/// The layers of Burn whose statistics run over channels.
const KINDS: [&str; 3] = ["LayerNorm", "RmsNorm", "GroupNorm"];

/// More operations than a norm is made of.
const LONGEST: usize = 24;

/// Reason that keeps the channels of a norm, and its remedy.
#[derive(Debug, Clone)]
pub(super) struct PlainNorm {
    pub reason: String,
    pub remedy: String,
}

fn is_norm(param: &CapturedParam) -> bool {
    let kind = param.kinds.first();
    kind.is_some_and(|kind| KINDS.contains(&kind.as_str()))
}

/// The plain norms by each of the operations that they are made of.
pub(super) fn find(captured: &Captured) -> BTreeMap<usize, PlainNorm> {
    let is_gamma = |param: &&CapturedParam| param.path.ends_with("gamma") && is_norm(param);
    let mut found = BTreeMap::new();
    let mut links = None;
    for gamma in captured.params.iter().filter(is_gamma) {
        let links = links.get_or_insert_with(|| Links::new(&captured.graph.operations));
        let norm = PlainNorm::of(gamma);
        for end in links.ends(gamma.tensor) {
            for op in links.made_of(end) {
                found.insert(op, norm.clone());
            }
        }
    }
    found
}

/// The operations of a forward pass by the tensors that they read and make.
struct Links<'a> {
    operations: &'a [OperationIr],
    readers: BTreeMap<TensorId, Vec<usize>>,
    makers: BTreeMap<TensorId, usize>,
}

impl PlainNorm {
    fn of(gamma: &CapturedParam) -> Self {
        let (kind, place) = (&gamma.kinds[0], place(gamma.kinds.get(1)));
        let layer = crate::target::layer_of(&gamma.path);
        let reason = format!("the plain `{kind}` `{layer}` takes its statistics over them");
        let remedy =
            format!("make the field `{layer}` a `Wrapper<{kind}>`{place}, or exclude the layer");
        Self { reason, remedy }
    }
}

impl<'a> Links<'a> {
    fn new(operations: &'a [OperationIr]) -> Self {
        let (mut readers, mut makers) = (BTreeMap::new(), BTreeMap::new());
        for (index, op) in operations.iter().enumerate() {
            for input in op.inputs() {
                let readers: &mut Vec<usize> = readers.entry(input.id).or_default();
                readers.push(index);
            }
            makers.extend(op.outputs().map(|out| (out.id, index)));
        }
        Self {
            operations,
            readers,
            makers,
        }
    }

    /// Operations that scale by the parameter `gamma`.
    fn ends(&self, gamma: TensorId) -> Vec<usize> {
        let (mut waiting, mut ends) = (vec![gamma], Vec::new());
        while let Some(tensor) = waiting.pop() {
            for &reader in self.readers.get(&tensor).into_iter().flatten() {
                match &self.operations[reader] {
                    OperationIr::BaseFloat(Base::Reshape(op)) => waiting.push(op.out.id),
                    OperationIr::BaseFloat(Base::Cast(op)) => waiting.push(op.out.id),
                    OperationIr::NumericFloat(_, Numeric::Mul(_))
                    | OperationIr::Module(Module::LayerNorm(_)) => ends.push(reader),
                    _ => {}
                }
            }
        }
        ends
    }

    /// The operation at `end` and those before it that a norm can be made of.
    fn made_of(&self, end: usize) -> BTreeSet<usize> {
        let (mut waiting, mut found) = (vec![end], BTreeSet::from([end]));
        while let Some(at) = waiting.pop() {
            for input in self.operations[at].inputs() {
                let maker = self.makers.get(&input.id).copied();
                let part = maker.filter(|&maker| is_part(&self.operations[maker]));
                if let Some(part) = part.filter(|_| found.len() < LONGEST)
                    && found.insert(part)
                {
                    waiting.push(part);
                }
            }
        }
        found
    }
}

fn is_part(op: &OperationIr) -> bool {
    match op {
        OperationIr::BaseFloat(base) => matches!(base, Base::Reshape(_) | Base::Cast(_)),
        OperationIr::Float(_, float) => matches!(float, Float::Sqrt(_)),
        OperationIr::NumericFloat(_, numeric) => match numeric {
            Numeric::Mul(op) => op.lhs.id == op.rhs.id,
            Numeric::Div(_)
            | Numeric::Sub(_)
            | Numeric::AddScalar(_)
            | Numeric::Powi(_)
            | Numeric::PowiScalar(_)
            | Numeric::MeanDim(_) => true,
            _ => false,
        },
        _ => false,
    }
}
