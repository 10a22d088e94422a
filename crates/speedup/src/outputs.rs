//! Masks of outputs, seen as masks of the parameters that make them.
//!
//! A layer whose output is multiplied by a mask that is zero all over channel `c` puts out what it
//! would put out with the parameters of `c` masked:
//!
//! ```text
//! m[c] (sum_i w[c, i] x[i] + b[c])  =  sum_i 0 x[i] + 0                  convolution, linear
//! m[c] (gamma[c] n[c] + beta[c])    =  0 n[c] + 0                        batch norm
//! m[c] w[i, c]                      =  0                                 embedding
//! ```
//!
//! The search for removable channels reads masks of parameters only, so masks of outputs are
//! carried over for it. The simulation keeps the mask of the output. This is how NNI masks a batch
//! norm in step with its convolution.
//!
//! Stay as they are: masks of other layers' outputs, which have no parameters to carry them over
//! to; single values of an output; and outputs whose channels differ from call to call. A parameter
//! that is used outside of its layer as well is not made zero by a mask on the layer's output; the
//! verification refuses the small model then.

use burn_compress_core::graph::{ChannelGraph, Position, entries_at};
use burn_compress_core::layer::{LayerInfo, channel_dims};
use burn_compress_core::{Mask, MaskMethod, Masks, Target, TargetId};
use indexmap::IndexMap;

use crate::SpeedupError;

/// The masks that make values zero, by parameter, with those of outputs carried over.
pub(crate) fn parameter_masks(
    graph: &ChannelGraph,
    layers: &[LayerInfo],
    masks: &Masks,
) -> Result<IndexMap<String, Mask>, SpeedupError> {
    let zeroing = || {
        masks
            .iter()
            .filter(|(_, mask)| mask.method() == MaskMethod::Mul)
    };
    let mut by_parameter: IndexMap<String, Mask> = zeroing()
        .filter(|(target, _)| target.target.is_param())
        .map(|(target, mask)| (target.to_string(), mask.clone()))
        .collect();
    for (target, mask) in zeroing() {
        let Some(output) = MaskableOutput::find(graph, layers, target, mask) else {
            continue;
        };
        let gone = mask.removed_along(output.dim);
        for (path, dim, shape) in output.params {
            let (mut values, shape) = match by_parameter.get(&path) {
                Some(mask) => (mask.values().to_vec(), mask.shape().to_vec()),
                None => (vec![1.0; shape.iter().product()], shape),
            };
            for index in (0..gone.len()).filter(|&index| gone[index]) {
                for at in entries_at(&shape, &Position::new(&path, dim, index))? {
                    values[at] = 0.0;
                }
            }
            by_parameter.insert(path, Mask::new(values, shape)?);
        }
    }
    Ok(by_parameter)
}

/// The output of a layer whose parameters make its channels, index by index.
pub(crate) struct MaskableOutput {
    /// The dimension of the output that its channels run along.
    pub dim: usize,
    /// The parameters that make them: path, dimension of the channels and shape.
    params: Vec<(String, usize, Vec<usize>)>,
}

impl MaskableOutput {
    /// `None` for other targets, and for a mask that is the same for all channels.
    pub fn find(
        graph: &ChannelGraph,
        layers: &[LayerInfo],
        target: &TargetId,
        mask: &Mask,
    ) -> Option<Self> {
        if target.target != Target::Output(0) || mask.method() != MaskMethod::Mul {
            return None;
        }
        let layer = layers.iter().find(|layer| layer.path == target.layer)?;
        let is_known = ["Conv", "Linear", "BatchNorm", "Embedding"]
            .iter()
            .any(|kind| layer.kind.starts_with(kind));
        let (dim, channels) = graph.port_channels(&target.layer, &target.target)?;
        if !is_known || mask.shape().get(dim) != Some(&channels.len()) {
            return None;
        }
        let params = layer.params.iter().map(|param| {
            let path = TargetId::new(&layer.path, Target::param(&param.name)).to_string();
            let along = channel_dims(&layer.kind, &param.name, param.shape.len()).output?;
            let same = graph.param_channels(&path, along)? == channels;
            same.then(|| (path, along, param.shape.clone()))
        });
        let params: Option<Vec<_>> = params.collect();
        Some(Self {
            dim,
            params: params?,
        })
    }
}
