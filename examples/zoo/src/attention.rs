//! Attention of the transformers.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

/// Splits the features into heads: `[batch, tokens, heads * size]` to `[batch, heads, tokens, size]`.
///
/// The number of heads follows from the features, so that heads can be removed.
pub(crate) fn split_heads(x: Tensor<3>, size: usize) -> Tensor<4> {
    let [batch, tokens, _] = x.dims().map(|size| size as i64);
    x.reshape([batch, tokens, -1, size as i64]).swap_dims(1, 2)
}

/// Merges heads: `[batch, heads, tokens, size]` to `[batch, tokens, heads * size]`.
pub(crate) fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, _, tokens, _] = x.dims().map(|size| size as i64);
    x.swap_dims(1, 2).reshape([batch, tokens, -1])
}

/// `q k^T / sqrt(size)`, a score for each pair of tokens: `[.., tokens of q, tokens of k]`.
pub(crate) fn scores<const D: usize>(query: Tensor<D>, key: Tensor<D>) -> Tensor<D> {
    let size = query.dims()[D - 1] as f64;
    query.div_scalar(size.sqrt()).matmul(key.transpose())
}

/// `softmax(q k^T / sqrt(size)) v` of every head, each `[batch, heads, tokens, size]`.
pub(crate) fn attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    softmax(scores(query, key), 3).matmul(value)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn heads_are_split_and_merged() {
        let device = Device::flex();
        let values: Vec<f32> = (0..24).map(|value| value as f32).collect();
        let x = Tensor::<1>::from_floats(&values[..], &device).reshape([1, 2, 12]);
        let heads = split_heads(x.clone(), 4);
        assert_eq!(heads.dims(), [1, 3, 2, 4]);
        // The second head of the second token begins at 12 + 4.
        let second = heads.clone().slice([0..1, 1..2, 1..2, 0..1]);
        assert_eq!(second.into_scalar::<f32>(), 16.0);
        merge_heads(heads)
            .into_data()
            .assert_eq(&x.into_data(), true);
    }

    #[test]
    fn a_token_that_scores_higher_counts_more() {
        let device = Device::flex();
        let tensor = |values: [f32; 2]| Tensor::<1>::from_floats(values, &device);
        // A head of size 1: scores 0 and ln 3, weights 1/4 and 3/4.
        let query = Tensor::<4>::ones([1, 1, 1, 1], &device);
        let key = tensor([0.0, 3f32.ln()]).reshape([1, 1, 2, 1]);
        let value = tensor([4.0, 8.0]).reshape([1, 1, 2, 1]);
        let attended = attention(query, key, value).into_scalar::<f32>();
        assert!((attended - 7.0).abs() < 1e-5, "{attended}");
    }
}
