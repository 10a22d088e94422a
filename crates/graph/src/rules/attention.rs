//! Rule of the operation that a wrapped multi-head attention records: the number of its heads.

use burn_ir::CustomOpIr;

use super::super::GraphError;
use super::super::analysis::Analysis;
use super::super::facts::{Count, SizeRule};
use super::super::operation::number;

/// Notes that the features of queries are in so many heads; the input goes on as it is.
pub(super) fn apply(a: &mut Analysis, op: &CustomOpIr) -> Result<(), GraphError> {
    let ([x, weight], [out], [heads]) = (&op.inputs[..], &op.outputs[..], &op.scalars[..]) else {
        let tensors: Vec<_> = op.inputs.iter().chain(&op.outputs).collect();
        return Err(a.shape_error(&tensors));
    };
    let (value, query) = (a.value(x), a.value(weight));
    a.same_source(x, out);
    a.set(out, value.axes, value.data);
    let path = a.layer(&query);
    // The path of `query`, one level deeper.
    let layer = path.rsplit_once('.').map_or("", |(layer, _)| layer);
    a.attentions.insert(layer.to_string());
    let axes = query.axes.iter();
    let labels = axes.map(|axis| axis.as_ref().map(|axis| axis.labels.clone()));
    let counts = [
        ("d_model", Count::Channels),
        ("n_heads", Count::Parts(number(*heads) as usize)),
    ];
    for ((field, count), labels) in counts.into_iter().zip(labels) {
        if let Some(labels) = labels {
            a.follow_size(SizeRule {
                layer: layer.to_string(),
                field,
                labels,
                count,
            });
        }
    }
    Ok(())
}
