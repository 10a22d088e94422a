//! The output of one layer as a function of its weight, on recorded inputs.

use burn::module::{Module, Param, ParamId};
use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::tensor::{Tensor, TensorData};
use burn_compress_core::{
    Error, Evaluator, FlatTensor, Mask, MaskMethod, Target, TargetId, TargetSpace, edit_layers, tap,
};

use crate::{QuantizationError, blocks, precision};

/// A layer that can be run with another weight.
#[derive(Clone, Debug)]
enum Operation {
    Conv2d(Conv2d),
    Linear(Linear),
}

impl Operation {
    /// The layer at `path` of `model`, if it is one of these and wrapped.
    fn find<M: Module>(model: M, path: &str) -> Option<Self> {
        let path = path.to_string();
        let (_, found) = edit_layers(model, None, move |found, at, layer| {
            if at != path {
                return;
            }
            if let Some(conv) = layer.downcast_ref::<Conv2d>() {
                *found = Some(Self::Conv2d(conv.clone()));
            } else if let Some(linear) = layer.downcast_ref::<Linear>() {
                *found = Some(Self::Linear(linear.clone()));
            }
        });
        found
    }

    /// The output, flattened, and its number of channels.
    fn forward(&self, x: &FlatTensor, weight: Tensor<1>) -> (Tensor<1>, usize) {
        fn param<const D: usize>(weight: Tensor<1>, dims: [usize; D]) -> Param<Tensor<D>> {
            Param::initialized(ParamId::new(), weight.reshape(dims))
        }
        match self {
            Self::Conv2d(conv) => {
                let dims = conv.weight.dims();
                let weight = param(weight, dims);
                let conv = Conv2d {
                    weight,
                    ..conv.clone()
                };
                let shape: [usize; 4] = std::array::from_fn(|dim| x.shape[dim]);
                let output = conv.forward(x.values.clone().reshape(shape));
                (FlatTensor::new(output).values, dims[0])
            }
            Self::Linear(linear) => {
                let dims = linear.weight.dims();
                let weight = param(weight, dims);
                let linear = Linear {
                    weight,
                    ..linear.clone()
                };
                let rows = x.shape.iter().product::<usize>() / dims[0].max(1);
                let output = linear.forward(x.values.clone().reshape([rows, dims[0]]));
                (FlatTensor::new(output).values, dims[1])
            }
        }
    }
}

/// Recorded inputs of a layer of the quantized model, and the outputs in full precision.
#[derive(Debug)]
pub(crate) struct Samples {
    operation: Operation,
    mask: Option<(MaskMethod, Tensor<1>)>,
    batches: Vec<(FlatTensor, FlatTensor)>,
}

impl Samples {
    /// One batch of a linear layer.
    ///
    /// # Shapes
    ///
    /// - x: `[samples, features]`, of the layer
    /// - wanted: `[samples, outputs]`
    pub(crate) fn of_linear(layer: Linear, x: Tensor<2>, wanted: Tensor<2>) -> Self {
        Self {
            operation: Operation::Linear(layer),
            mask: None,
            batches: vec![(FlatTensor::new(x), FlatTensor::new(wanted))],
        }
    }

    /// Records the inputs of a layer of `quantized` and its outputs in `full_precision`, one batch for
    /// each call.
    ///
    /// `weight` is the weight of the layer, `shape` its shape and `mask` its mask.
    ///
    /// # Errors
    ///
    /// Data that fails, and a layer that no forward pass reaches.
    pub(crate) fn record<M: Module + 'static, I: 'static>(
        weight: &TargetId,
        mask: Option<&Mask>,
        shape: &[usize],
        (full_precision, quantized): (&M, &M),
        evaluator: &Evaluator<M, I>,
        batches: usize,
    ) -> Result<Self, Error> {
        let (input, output) = (Target::Input(0), Target::Output(0));
        let [input, output] = [input, output].map(|end| TargetId::new(&weight.layer, end));
        let (full_precision, outputs) = tap(full_precision, std::slice::from_ref(&output))?;
        let (quantized, inputs) = tap(quantized, std::slice::from_ref(&input))?;
        let (inputs, outputs) = (&inputs[0], &outputs[0]);
        inputs.record_calls();
        outputs.record_calls();
        let mut recorded = Vec::new();
        evaluator.forward(&[&full_precision, &quantized], batches, || {
            let take = |space: &TargetSpace| {
                let calls = space.take_calls().into_iter().map(FlatTensor::constant);
                calls.collect::<Vec<FlatTensor>>()
            };
            let (found, wanted) = (take(inputs), take(outputs));
            if found.is_empty() || found.len() != wanted.len() {
                return Err(Error::Unreached {
                    target: inputs.id().clone(),
                });
            }
            recorded.extend(found.into_iter().zip(wanted));
            Ok(())
        })?;
        let device = recorded[0].0.values.device();
        let spread = |mask: &Mask| {
            let values = Tensor::from_data(TensorData::from(mask.values()), &device);
            let values = precision::single(values);
            let grid = burn_compress_core::Grid::new(mask.shape());
            Ok((mask.method(), blocks::spread(values, &grid, shape)?))
        };
        let mask = mask.map(spread).transpose();
        let mask = mask.map_err(|error: QuantizationError| Error::InvalidMask {
            reason: error.to_string(),
        })?;
        let operation = Operation::find(quantized, &weight.layer);
        Ok(Self {
            operation: operation.ok_or_else(|| Error::UnknownTarget {
                target: weight.clone(),
                reason: "the layer is neither a `Conv2d` nor a `Linear`".to_string(),
            })?,
            mask,
            batches: recorded,
        })
    }

    /// The squared distance to the wanted output of one batch with this weight, summed over the
    /// channels and averaged over everything else.
    pub(crate) fn distance(&self, batch: usize, weight: Tensor<1>) -> Tensor<1> {
        let weight = match &self.mask {
            None => weight,
            Some((MaskMethod::Mul, mask)) => weight * mask.clone(),
            Some((MaskMethod::Add, mask)) => weight + (mask.clone() - 1.0) * 1000.0,
        };
        let (x, wanted) = &self.batches[batch % self.batches.len()];
        let weight = precision::in_dtype(weight, x.values.dtype());
        let (output, channels) = self.operation.forward(x, weight);
        let positions = output.dims()[0] / channels.max(1);
        let difference = precision::single(output - wanted.values.clone());
        difference.square().sum() / positions as f64
    }

    /// The distance of all batches.
    ///
    /// # Errors
    ///
    /// A device failed to hand over its values.
    pub(crate) fn total(&self, weight: &Tensor<1>) -> Result<f64, Error> {
        let mut total = 0.0;
        for batch in 0..self.batches.len() {
            let distance = FlatTensor::new(self.distance(batch, weight.clone())).to_vec()?;
            total += distance.into_iter().map(f64::from).sum::<f64>();
        }
        Ok(total)
    }
}
