//! Comparison of two captures of one forward pass, operation by operation.

use std::collections::{HashMap, HashSet};

use burn::tensor::{Shape, Slice};
use burn_compress_core::graph::{Captured, operation_name};
use burn_ir::{
    BaseOperationIr as Base, IrVisitorMut, ModuleOperationIr as Module, OperationIr, ScalarIr,
    TensorId, TensorIr, TensorStatus,
};

/// The operations that the outputs depend on, in their order.
pub(crate) fn live(operations: &[OperationIr], outputs: &[TensorId]) -> Vec<OperationIr> {
    let mut read: HashSet<TensorId> = outputs.iter().copied().collect();
    let mut live = Vec::new();
    for op in operations.iter().rev() {
        if matches!(op, OperationIr::Init(_) | OperationIr::Drop(_)) {
            continue;
        }
        if op.outputs().any(|out| read.contains(&out.id)) {
            read.extend(op.inputs().map(|input| input.id));
            live.push(op.clone());
        }
    }
    live.reverse();
    live
}

/// The first difference of two captures that is more than a size, in words.
pub(crate) fn difference(
    base: (&Captured, &[OperationIr]),
    other: (&Captured, &[OperationIr]),
) -> Option<String> {
    if base.1.len() != other.1.len() {
        return Some(format!(
            "it has {} operations and not {}, as of a loop over the dimension",
            other.1.len(),
            base.1.len()
        ));
    }
    let mut numbers = [Numbers::of(base.0), Numbers::of(other.0)];
    for (op, same) in base.1.iter().zip(other.1) {
        let [first, second] = &mut numbers;
        let (is, was) = (first.without_sizes(op), second.without_sizes(same));
        if is != was {
            let (op, same) = (operation_name(op), operation_name(same));
            return Some(match op == same {
                true => format!("`{op}` computes with another number or of another tensor"),
                false => format!("`{same}` takes the place of `{op}`"),
            });
        }
    }
    let [first, second] = &mut numbers;
    let outputs = |numbers: &mut Numbers, captured: &Captured| -> Vec<u64> {
        let outputs = captured.outputs().iter();
        outputs.map(|&id| numbers.of_tensor(id)).collect()
    };
    (outputs(first, base.0) != outputs(second, other.0))
        .then(|| "the outputs come from other operations".to_string())
}

/// Tensors by the order in which they appear; parameters and inputs first.
struct Numbers(HashMap<TensorId, u64>);

impl Numbers {
    fn of(captured: &Captured) -> Self {
        let params = captured.parameters().map(|(_, _, tensor)| tensor);
        let mut numbers = Self(HashMap::new());
        for id in params.chain(captured.inputs().iter().copied()) {
            numbers.of_tensor(id);
        }
        numbers
    }

    fn of_tensor(&mut self, id: TensorId) -> u64 {
        let next = self.0.len() as u64;
        *self.0.entry(id).or_insert(next)
    }

    /// The operation with numbers in the place of tensors and without the sizes that may vary.
    fn without_sizes(&mut self, op: &OperationIr) -> OperationIr {
        let mut op = op.clone();
        op.visit_mut(self);
        match &mut op {
            OperationIr::BaseFloat(base)
            | OperationIr::BaseInt(base)
            | OperationIr::BaseBool(base) => {
                if let Base::RepeatDim(op) = base {
                    op.times = 0;
                }
            }
            OperationIr::Module(Module::Interpolate(op)) => op.output_size = [0; 2],
            OperationIr::Module(Module::AdaptiveAvgPool1d(op)) => op.output_size = 0,
            OperationIr::Module(Module::AdaptiveAvgPool2d(op)) => op.output_size = [0; 2],
            OperationIr::Module(Module::AdaptiveAvgPool3d(op)) => op.output_size = [0; 3],
            _ => {}
        }
        op
    }
}

impl IrVisitorMut for Numbers {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        tensor.id = TensorId::new(self.of_tensor(tensor.id));
        tensor.status = TensorStatus::ReadOnly;
        tensor.shape = Shape::from(vec![0; tensor.shape.to_vec().len()]);
    }

    fn visit_scalar_mut(&mut self, _scalar: &mut ScalarIr) {}

    fn visit_range_mut(&mut self, range: &mut Slice) {
        *range = Slice::new(0, None, range.step);
    }
}
