//! Correction of biases for the shift that quantized weights cause in the mean of a layer's
//! outputs.
//!
//! Rounding the weights of a channel moves its outputs by an error whose mean is not zero, since
//! the inputs' mean is not. The mean can be measured and added to the bias:
//!
//! ```text
//! b <- b + E[y] - E[y']        per channel, over batch and positions
//! ```
//!
//! with the output `y` in full precision and the output `y'` of the quantized model before its own
//! rounding. Layers come one after another, so that each correction includes those before it; of a
//! layer that runs several times in a pass all outputs count.
//!
//! # References
//!
//! Nagel et al., *Data-Free Quantization Through Weight Equalization and Bias Correction*,
//! arXiv 1906.04721, section 4.2 and appendix D (empirical correction). Deviation: layers come in
//! module order, which is the order of execution in most models.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use burn_compress_core::config::Selected;
use burn_compress_core::layer::{LayerKind, PortChannels};
use burn_compress_core::{Error, Evaluator, FlatTensor, Target, TargetId, tap, with_parameters};
use indexmap::IndexMap;

use crate::parameters::raw;
use crate::targets::QuantTargets;
use crate::{ApplyMethod, QuantizationError, QuantizationSettings, precision};

/// The layers whose bias is corrected.
#[derive(Debug)]
pub(crate) struct BiasCorrection {
    layers: Vec<Corrected>,
}

#[derive(Debug)]
struct Corrected {
    bias: TargetId,
    output: TargetId,
    /// Whether the output channels are the last dimension, and not dimension 1.
    channels_last: bool,
    channels: usize,
}

impl BiasCorrection {
    /// The layers with a bias whose weight is selected.
    ///
    /// # Errors
    ///
    /// [`QuantizationError::BiasCorrection`] when such a layer is not wrapped, so that its outputs
    /// cannot be seen, and when there is no such layer.
    pub(crate) fn new(
        selected: &[Selected<QuantizationSettings>],
    ) -> Result<Self, QuantizationError> {
        let mut layers = Vec::new();
        for Selected {
            layer,
            target,
            settings,
            ..
        } in selected
        {
            let bypassed = settings.apply_method == Some(ApplyMethod::Bypass);
            let bias = layer.param("bias").filter(|bias| bias.shape.len() == 1);
            let (Some(bias), Some("weight"), false) = (bias, target.param_name(), bypassed) else {
                continue;
            };
            let path = layer.path.clone();
            if !layer.wrapped {
                let reason = format!(
                    "its outputs cannot be seen; make its field a `Wrapper<{}>`, or quantize it \
                     by another quantizer without `bias_correction`",
                    layer.kind
                );
                return Err(QuantizationError::BiasCorrection {
                    layer: path,
                    reason,
                });
            }
            layers.push(Corrected {
                bias: TargetId::new(&path, Target::param("bias")),
                output: TargetId::new(&path, Target::Output(0)),
                channels_last: LayerKind::of(&layer.kind).channels() == PortChannels::Last,
                channels: bias.shape[0],
            });
        }
        match layers.is_empty() {
            false => Ok(Self { layers }),
            true => Err(QuantizationError::BiasCorrection {
                layer: "any layer".to_string(),
                reason: "no layer whose weight is quantized has a bias".to_string(),
            }),
        }
    }

    /// The corrected biases. Quantized ones among them get the range of their new values.
    ///
    /// # Errors
    ///
    /// Data that fails, a layer that no forward pass reaches and an output whose channels are not
    /// those of the bias.
    pub(crate) fn biases<M: Module + 'static, I: 'static>(
        &self,
        model: &M,
        targets: &QuantTargets,
        evaluator: &Evaluator<M, I>,
        batches: usize,
    ) -> Result<IndexMap<TargetId, FlatTensor>, Error> {
        targets.disable();
        // A snapshot has states of its own, in full precision from now on.
        let full_precision = model.valid();
        targets.enable();
        let mut model = model.valid();
        let mut biases = IndexMap::new();
        for layer in &self.layers {
            let difference = layer.difference(&full_precision, &model, evaluator, batches)?;
            let mut corrected = raw(&model, std::slice::from_ref(&layer.bias));
            for bias in corrected.values_mut() {
                let device = bias.values.device();
                let difference = Tensor::from_data(TensorData::from(&difference[..]), &device);
                let difference = precision::in_dtype(difference, bias.values.dtype());
                bias.values = bias.values.clone() + difference;
            }
            model = with_parameters(model, corrected.clone())?;
            biases.extend(corrected);
        }
        for (id, bias) in &biases {
            targets.recompute(id, bias)?;
        }
        Ok(biases)
    }
}

impl Corrected {
    /// Shift of the mean of each output channel from `full_precision` to `quantized`, over all
    /// calls.
    fn difference<M: Module + 'static, I: 'static>(
        &self,
        full_precision: &M,
        quantized: &M,
        evaluator: &Evaluator<M, I>,
        batches: usize,
    ) -> Result<Vec<f32>, Error> {
        let output = std::slice::from_ref(&self.output);
        let (full_precision, wanted) = tap(full_precision, output)?;
        let (quantized, found) = tap(quantized, output)?;
        found[0].set_quantization(None);
        wanted[0].record_calls();
        found[0].record_calls();
        let mut means = [&wanted[0], &found[0]].map(|space| (space, vec![0.0; self.channels], 0));
        evaluator.forward(&[&full_precision, &quantized], batches, || {
            for (space, sums, count) in &mut means {
                let calls = space.take_calls();
                if calls.is_empty() {
                    return Err(Error::Unreached {
                        target: self.output.clone(),
                    });
                }
                for call in calls {
                    let (mean, values) = self.means(&call)?;
                    for (sum, mean) in sums.iter_mut().zip(mean) {
                        *sum += f64::from(mean) * values as f64;
                    }
                    *count += values;
                }
            }
            Ok(())
        })?;
        let [wanted, found] =
            means.map(|(_, sums, count)| sums.into_iter().map(move |sum| sum / count as f64));
        Ok(wanted
            .zip(found)
            .map(|(wanted, found)| (wanted - found) as f32)
            .collect())
    }

    /// The mean of each channel of an output, and the number of values in it.
    fn means(&self, output: &FlatTensor) -> Result<(Vec<f32>, usize), Error> {
        let shape = &output.shape;
        let channel = match self.channels_last {
            true => shape.len().saturating_sub(1),
            false => 1,
        };
        let elements: usize = shape.iter().product();
        if shape.get(channel) != Some(&self.channels) || elements == 0 {
            return Err(Error::ShapeMismatch {
                target: self.output.clone(),
                what: "the bias to be corrected",
                expected: shape.clone(),
                found: vec![self.channels],
            });
        }
        let outer: usize = shape[..channel].iter().product();
        let inner: usize = shape[channel + 1..].iter().product();
        let values = output.values.clone().detach().without_autodiff();
        let means = values
            .reshape([outer, self.channels, inner])
            .mean_dim(2)
            .mean_dim(0)
            .reshape([self.channels]);
        Ok((FlatTensor::new(means).to_vec()?, outer * inner))
    }
}
