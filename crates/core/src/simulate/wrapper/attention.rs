//! Multi-head attention with the sizes of its heads from the weights.
//!
//! ```text
//! weights = softmax(Q K^T / sqrt(d_k)),  context = weights V,  each head by itself
//! ```
//!
//! Burn's forward pass compares the width of its inputs with a number of the layer and merges the heads
//! to that width, so that neither heads nor their features can be removed. The wrapper computes the
//! same, operation by operation, with the features of a head read from the weights: those of `query`
//! and `key` and those of `value` may differ. `n_heads` follows a cut of whole heads. `d_k` stays: scores
//! are divided by the root of what they were divided by before.

use burn::nn::Linear;
use burn::nn::attention::{MhaInput, MhaOutput, MultiHeadAttention};
use burn::tensor::activation::{quiet_softmax, softmax};
use burn::tensor::{Bool, Tensor};
use burn_compress_graph::{CustomOp, builtin};

use super::{Activation, Layer, Port};
use crate::graph::ports::recording_layers;

/// Inputs of a wrapped `MultiHeadAttention`, with the masks that Burn's `MhaInput` keeps to itself.
///
/// ```
/// use burn::nn::attention::{MultiHeadAttention, MultiHeadAttentionConfig};
/// use burn::tensor::{Bool, Device, Tensor};
/// use burn_compress_core::{AttentionInput, Wrapper};
///
/// let device = Device::flex();
/// let config = MultiHeadAttentionConfig::new(8, 2);
/// let attention: Wrapper<MultiHeadAttention> = config.init(&device).into();
/// let input = AttentionInput::self_attn(Tensor::ones([1, 5, 8], &device));
/// let input = input.mask_attn(Tensor::<3, Bool>::tril_mask([1, 5, 5], 0, &device));
/// assert_eq!(attention.forward(input).context.dims(), [1, 5, 8]);
/// ```
#[derive(Clone, Debug)]
pub struct AttentionInput {
    /// `[batch, places of queries, width]`
    pub query: Tensor<3>,
    /// `[batch, places of keys, width]`
    pub key: Tensor<3>,
    /// `[batch, places of keys, width]`
    pub value: Tensor<3>,
    /// Keys that no query attends to, `[batch, places of keys]`.
    pub mask_pad: Option<Tensor<2, Bool>>,
    /// Keys that a query does not attend to, `[batch, places of queries, places of keys]`.
    pub mask_attn: Option<Tensor<3, Bool>>,
}

impl AttentionInput {
    /// Queries, keys and values without a mask.
    pub fn new(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>) -> Self {
        Self {
            query,
            key,
            value,
            mask_pad: None,
            mask_attn: None,
        }
    }

    /// Queries, keys and values of one tensor, `[batch, places, width]`.
    pub fn self_attn(x: Tensor<3>) -> Self {
        Self::new(x.clone(), x.clone(), x)
    }

    /// Sets the keys that no query attends to, `[batch, places of keys]`.
    pub fn mask_pad(mut self, mask: Tensor<2, Bool>) -> Self {
        self.mask_pad = Some(mask);
        self
    }

    /// Sets the keys that a query does not attend to, `[batch, places of queries, places of keys]`.
    pub fn mask_attn(mut self, mask: Tensor<3, Bool>) -> Self {
        self.mask_attn = Some(mask);
        self
    }
}

/// `[batch, places, heads * features] -> [batch, heads, places, features]`
fn heads(x: Tensor<3>, layer: &Linear, count: usize) -> Tensor<4> {
    let x = layer.forward(x);
    let [batch, places, features] = x.dims();
    x.reshape([batch, places, count, features / count])
        .swap_dims(1, 2)
}

/// The input of `query`, noted as the one whose features are in so many heads.
fn note(attention: &MultiHeadAttention, x: Tensor<3>) -> Tensor<3> {
    if !recording_layers() {
        return x;
    }
    let op = CustomOp::new(builtin::ATTENTION).input(&x);
    let op = op.input(&attention.query.weight.val());
    let op = op.scalar(attention.n_heads as f64);
    op.output(x.dims()).unwrap_or(x)
}

fn attend(attention: &MultiHeadAttention, input: AttentionInput) -> MhaOutput {
    let AttentionInput {
        query,
        key,
        value,
        mask_pad,
        mask_attn,
    } = input;
    let [batch, places, _] = query.dims();
    let count = attention.n_heads;
    let query = heads(note(attention, query), &attention.query, count);
    let key = heads(key, &attention.key, count);
    let value = heads(value, &attention.value, count);

    let mut scores = query
        .matmul(key.transpose())
        .div_scalar((attention.d_k as f32).sqrt());
    if let Some(mask) = mask_pad {
        let [batch, keys] = mask.dims();
        scores = scores.mask_fill(mask.reshape([batch, 1, 1, keys]), attention.min_float);
    }
    if let Some(mask) = mask_attn {
        let [batch, queries, keys] = mask.dims();
        scores = scores.mask_fill(mask.reshape([batch, 1, queries, keys]), attention.min_float);
    }
    let weights = match attention.quiet_softmax {
        true => quiet_softmax(scores, 3),
        false => softmax(scores, 3),
    };
    let weights = attention.dropout.forward(weights);
    let context = weights.clone().matmul(value).swap_dims(1, 2);
    let features = context.dims()[2] * context.dims()[3];
    let context = attention
        .output
        .forward(context.reshape([batch, places, features]));
    MhaOutput { weights, context }
}

impl Layer<AttentionInput> for MultiHeadAttention {
    type Output = MhaOutput;

    fn forward(&self, input: AttentionInput) -> MhaOutput {
        attend(self, input)
    }
}

/// Query, key and value as inputs 0, 1 and 2.
impl Layer<(Tensor<3>, Tensor<3>, Tensor<3>)> for MultiHeadAttention {
    type Output = MhaOutput;

    fn forward(&self, (query, key, value): (Tensor<3>, Tensor<3>, Tensor<3>)) -> MhaOutput {
        attend(self, AttentionInput::new(query, key, value))
    }
}

/// Burn's forward pass, of which no head and no feature can be removed; see [`AttentionInput`].
impl Layer<MhaInput> for MultiHeadAttention {
    type Output = MhaOutput;

    fn forward(&self, input: MhaInput) -> MhaOutput {
        MultiHeadAttention::forward(self, input)
    }
}

/// Query, key and value are inputs 0, 1 and 2.
impl Activation for AttentionInput {
    fn pass(self, port: &Port<'_>) -> Self {
        Self {
            query: port.tensor(0, self.query),
            key: port.tensor(1, self.key),
            value: port.tensor(2, self.value),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::attention::MultiHeadAttentionConfig;
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::Wrapper;

    /// With masks and without, whatever softmax: Burn's numbers, bit for bit.
    #[test]
    fn attention_is_itself_in_a_wrapper() {
        let device = Device::flex();
        for quiet in [false, true] {
            let config = MultiHeadAttentionConfig::new(8, 2).with_quiet_softmax(quiet);
            let attention = config.init(&device);
            let x = Tensor::<3>::random([2, 5, 8], Distribution::Default, &device);
            let pad = Tensor::<2, Bool>::from_data([[false, false, false, true, true]; 2], &device);
            let causal = Tensor::<3, Bool>::tril_mask([2, 5, 5], 0, &device);
            let own = MhaInput::self_attn(x.clone());
            let own = attention.forward(own.mask_pad(pad.clone()).mask_attn(causal.clone()));
            let wrapped = Wrapper::new(attention);
            let input = AttentionInput::self_attn(x);
            let found = wrapped.forward(input.mask_pad(pad).mask_attn(causal));
            found
                .context
                .into_data()
                .assert_eq(&own.context.into_data(), true);
            found
                .weights
                .into_data()
                .assert_eq(&own.weights.into_data(), true);
        }
    }
}
