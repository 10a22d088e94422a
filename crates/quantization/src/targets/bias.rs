//! Biases of 32 bits, in steps of the scale of the input times that of the weight.
//!
//! ```text
//! b' = round(b / (s_x s_w)) s_x s_w        for each output channel
//! ```
//!
//! The scales are those of the layer's input and weight, which a step of the run may move; the bias
//! follows before each step and at the end of the run.
//!
//! # References
//!
//! Jacob et al., *Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference*, arXiv 1712.05877, section 2.4.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress_core::config::Selected;
use burn_compress_core::graph::Successor;
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{
    Chain, Error, Mode, Obstacle, QuantDtype, QuantScheme, Quantization, Target, TargetId,
    TargetSpace,
};
use indexmap::{IndexMap, IndexSet};

use crate::bn_fusion::{Fusions, HOSTS, NORM};
use crate::{ApplyMethod, Granularity, QuantizationError, QuantizationSettings, precision};

type Chosen = Selected<QuantizationSettings>;

/// A bias and the quantized tensors whose product it is added to.
#[derive(Debug)]
pub(super) struct Int32Bias {
    space: Arc<TargetSpace>,
    input: Arc<TargetSpace>,
    weight: Arc<TargetSpace>,
}

/// The targets of an [`Int32Bias`].
#[derive(Debug)]
pub(super) struct Planned {
    bias: TargetId,
    channels: usize,
    input: TargetId,
    weight: TargetId,
}

impl Int32Bias {
    /// Claims the biases; their inputs and weights are claimed.
    ///
    /// # Errors
    ///
    /// A bias that another quantizer has.
    pub(super) fn claim<M: Module + 'static, I: 'static>(
        chain: &mut Chain<'_, M, I>,
        planned: Vec<Planned>,
    ) -> Result<Vec<Self>, Error> {
        let ids: Vec<TargetId> = planned.iter().map(|one| one.bias.clone()).collect();
        let spaces = chain.claim(Mode::Quantization, &ids)?;
        let space_of = |id: TargetId| match chain.space(&id) {
            Some(space) => Ok(space.clone()),
            None => Err(Error::UnknownTarget {
                target: id,
                reason: "no compressor has claimed it".to_string(),
            }),
        };
        let claimed = planned.into_iter().zip(spaces).map(|(one, space)| {
            space.set_quantization(Some(Quantization::int32(one.channels)));
            Ok(Self {
                space,
                input: space_of(one.input)?,
                weight: space_of(one.weight)?,
            })
        });
        claimed.collect()
    }

    pub(super) fn id(&self) -> &TargetId {
        self.space.id()
    }

    /// Brings the steps of the bias to the scales of input and weight; nothing is rounded before
    /// both have one.
    pub(super) fn refresh(&self) {
        let (Some(mut state), Some(input), Some(weight)) = (
            self.space.quantization(),
            self.input.quantization(),
            self.weight.quantization(),
        ) else {
            return;
        };
        state.enabled = input.enabled && weight.enabled;
        if let (Some(input), Some(weight)) = (input.scale, weight.scale) {
            let plain = |scale: Tensor<1>| precision::single(scale.detach().without_autodiff());
            let weight = plain(weight);
            let input = plain(input).to_device(&weight.device());
            let steps = (weight * input).expand([state.grid.len()]);
            state.zero_point = Some(steps.zeros_like());
            state.scale = Some(steps);
        }
        self.space.set_quantization(Some(state));
    }
}

/// The biases that the settings ask for.
///
/// # Errors
///
/// [`QuantizationError::Int32Bias`] with all layers whose bias cannot be rounded, no dummy input, and
/// a forward pass that cannot be captured.
pub(super) fn plan<M: Module + 'static, I: 'static>(
    chain: &Chain<'_, M, I>,
    selected: &[Chosen],
    resolved: &[(QuantDtype, QuantScheme)],
    fusions: &Fusions,
    name: &'static str,
) -> Result<Vec<Planned>, Error> {
    let wanted = selected
        .iter()
        .filter(|one| one.settings.int32_bias == Some(true));
    let layers: IndexSet<&str> = wanted.map(|one| one.layer.path.as_str()).collect();
    if layers.is_empty() {
        return Ok(Vec::new());
    }
    let successors = chain.successors(name)?;
    let search = Search {
        layers: chain.layers(),
        selected,
        resolved,
        fusions,
        successors: &successors,
    };
    let (mut planned, mut obstacles) = (Vec::new(), Vec::new());
    for path in layers {
        let Some(layer) = search.layer(path) else {
            continue;
        };
        match search.biases(layer) {
            Ok(found) => planned.extend(found),
            Err((reason, remedy)) => obstacles.push(Obstacle {
                target: TargetId::new(path, Target::param("bias")),
                kind: layer.kind.clone(),
                reason,
                remedy,
            }),
        }
    }
    match obstacles.is_empty() {
        true => Ok(planned),
        false => Err(QuantizationError::Int32Bias { obstacles }.into()),
    }
}

/// Reason and remedy.
type Hindrance = (String, String);

fn hindrance(reason: impl Into<String>, remedy: impl Into<String>) -> Hindrance {
    (reason.into(), remedy.into())
}

struct Search<'a> {
    layers: &'a [LayerInfo],
    selected: &'a [Chosen],
    resolved: &'a [(QuantDtype, QuantScheme)],
    fusions: &'a Fusions,
    successors: &'a IndexMap<String, Successor>,
}

impl Search<'_> {
    fn layer(&self, path: &str) -> Option<&LayerInfo> {
        self.layers.iter().find(|layer| layer.path == path)
    }

    /// The biases of a layer; none where a deployed network has none.
    fn biases(&self, layer: &LayerInfo) -> Result<Vec<Planned>, Hindrance> {
        if !HOSTS.contains(&layer.kind.as_str()) {
            return Err(hindrance(
                "only convolutions and linear layers add to an accumulator",
                "leave `int32_bias` out for this layer",
            ));
        }
        let input = self.factor(layer, Target::Input(0))?;
        let weight = self.factor(layer, Target::param("weight"))?;
        let planned = self.places(layer)?.into_iter().map(|bias| {
            let selected = self.selected.iter().any(|one| one.id() == bias);
            let channels = self.layer(&bias.layer).and_then(|layer| {
                let param = layer.param(bias.target.param_name()?)?;
                Some(param.shape[0])
            });
            match (selected, channels) {
                (false, Some(channels)) => Ok(Planned {
                    bias,
                    channels,
                    input: input.clone(),
                    weight: weight.clone(),
                }),
                _ => Err(hindrance(
                    format!("`{bias}` is selected with a quantization of its own"),
                    format!("leave out `{bias}`, or `int32_bias`"),
                )),
            }
        });
        planned.collect()
    }

    /// A norm that is not wrapped.
    fn plain_norm(&self) -> Option<&LayerInfo> {
        let mut layers = self.layers.iter();
        layers.find(|layer| layer.kind == NORM && !layer.wrapped)
    }

    /// The input or weight of a layer, whose scale is a factor of the step.
    fn factor(&self, layer: &LayerInfo, target: Target) -> Result<TargetId, Hindrance> {
        let is_weight = target.is_param();
        let id = TargetId::new(&layer.path, target);
        let mut chosen = self.selected.iter().zip(self.resolved);
        let Some((one, (dtype, scheme))) = chosen.find(|(one, _)| one.id() == id) else {
            return Err(hindrance(
                format!("`{id}` is not quantized, so the bias has no step"),
                format!(
                    "select `{}` in the same configuration, or leave `int32_bias` out",
                    id.target
                ),
            ));
        };
        let granularity = one.settings.granularity();
        let fits = match is_weight {
            true => [Granularity::Default, Granularity::OutChannel].contains(&granularity),
            false => granularity == Granularity::Default,
        };
        if !fits {
            let remedy = match is_weight {
                true => "use `out_channel` for the weight, or leave `granularity` out",
                false => "leave `granularity` out for the input",
            };
            let reason =
                format!("`{id}` has the granularity `{granularity}`: an accumulator has one step");
            return Err(hindrance(reason, remedy));
        }
        if is_weight && *scheme != QuantScheme::Symmetric {
            return Err(hindrance(
                format!("`{id}` is quantized with the scheme `{scheme}`"),
                "use `symmetric` for the weight",
            ));
        }
        if dtype.is_binary() || one.settings.apply_method == Some(ApplyMethod::Bypass) {
            return Err(hindrance(
                format!("`{id}` is not rounded to integers that are multiplied"),
                "use another `quant_dtype` or `apply_method`, or leave `int32_bias` out",
            ));
        }
        Ok(id)
    }

    /// The parameters that hold the bias: of the layer, and of the norm behind it.
    fn places(&self, layer: &LayerInfo) -> Result<Vec<TargetId>, Hindrance> {
        let own = layer
            .param("bias")
            .map(|_| TargetId::new(&layer.path, Target::param("bias")));
        if let Some(norm) = self.fusions.norm_of(&layer.path) {
            return match own {
                Some(own) => Ok(vec![own]),
                None => Err(hindrance(
                    format!(
                        "`{norm}` is folded while the model trains, and the layer has no bias to \
                         take up what is left"
                    ),
                    "give the layer a bias, or leave `fuse` and `fuse_names` out: the norm is \
                     folded when the network is deployed",
                )),
            };
        }
        let next = self.successors.get(&layer.path);
        let norm = next.filter(|next| layer.kind != "Linear" || next.rank == 2);
        let norm = norm.and_then(|next| self.layer(&next.layer));
        let norm = norm.filter(|norm| norm.kind == NORM);
        let norm = norm.map(|norm| TargetId::new(&norm.path, Target::param("beta")));
        match (own, norm) {
            // Multiples of one step, and so is their sum.
            (own, Some(norm)) => Ok(own.into_iter().chain([norm]).collect()),
            (Some(own), None) => Ok(vec![own]),
            (None, None) => match self.plain_norm() {
                None => Ok(Vec::new()),
                Some(norm) => Err(hindrance(
                    format!(
                        "the layer has no bias, and whether `{}` is behind it cannot be seen, as it \
                         is not wrapped",
                        norm.path
                    ),
                    format!("make its field a `Wrapper<{NORM}>`"),
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests;
