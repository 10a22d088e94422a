use burn::module::{Param, RunningState};
use burn::nn::conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, TensorData};

use super::*;

fn vector<const N: usize>(values: [f32; N]) -> Tensor<1> {
    Tensor::from_floats(values, &Device::flex())
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Factors 2 / sqrt(3.75 + 0.25) = 1 and -1 / sqrt(0 + 0.25) = -2.
fn norm() -> Norm {
    Norm {
        gamma: Some(vector([2.0, -1.0])),
        beta: Some(vector([0.5, 1.0])),
        mean: vector([3.0, -1.0]),
        variance: vector([3.75, 0.0]),
        epsilon: 0.25,
    }
}

#[test]
fn worked_by_hand() {
    // Convolution: one row of the weight is one output channel.
    let conv = Tensor::<3>::from_floats([[[1.0, 2.0]], [[3.0, -4.0]]], &Device::flex());
    assert_eq!(host(weight(conv, 0, &norm())), [1.0, 2.0, -6.0, 8.0]);
    // Linear: one column is.
    let linear = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, -4.0]], &Device::flex());
    assert_eq!(host(weight(linear, 1, &norm())), [1.0, -4.0, 3.0, 8.0]);
    // (4 - 3) * 1 + 0.5 and (0.5 + 1) * -2 + 1.
    assert_eq!(host(bias(Some(vector([4.0, 0.5])), &norm())), [1.5, -2.0]);
    // (0 - 3) * 1 + 0.5 and (0 + 1) * -2 + 1.
    assert_eq!(host(bias(None, &norm())), [-2.5, -1.0]);
}

#[test]
fn a_norm_without_gamma_and_beta() {
    let norm = Norm {
        gamma: None,
        beta: None,
        ..norm()
    };
    // Factors 1 / 2 and 1 / 0.5.
    let linear = Tensor::<2>::from_floats([[1.0, 2.0]], &Device::flex());
    assert_eq!(host(weight(linear, 1, &norm)), [0.5, 4.0]);
    // (4 - 3) / 2 and (0.5 + 1) / 0.5.
    assert_eq!(host(bias(Some(vector([4.0, 0.5])), &norm)), [0.5, 3.0]);
}

#[test]
fn statistics_of_a_batch() {
    // Channel 0: 1, 3, 5, 7; channel 1: 0, 0, 2, 2.
    let output = Tensor::<3>::from_floats(
        [[[1.0, 3.0], [0.0, 0.0]], [[5.0, 7.0], [2.0, 2.0]]],
        &Device::flex(),
    );
    let (mean, variance) = batch_statistics(output);
    assert_eq!(host(mean), [4.0, 1.0]);
    // (9 + 1 + 1 + 9) / 4 and 1.
    assert_eq!(host(variance), [5.0, 1.0]);
}

#[test]
fn what_is_left_of_a_norm_only_shifts() {
    let folded = vector([7.0, 8.0]);
    for (has_bias, mean) in [(true, [0.0, 0.0]), (false, [-7.0, -8.0])] {
        let (bias, left) = remainder(&norm(), folded.clone(), has_bias);
        assert_eq!(host(bias), [7.0, 8.0]);
        assert_eq!(host(left.gamma.clone().unwrap()), [1.0, 1.0]);
        assert_eq!(host(left.beta.clone().unwrap()), [0.0, 0.0]);
        assert_eq!(host(factor(&left)), [1.0, 1.0]);
        assert_eq!(host(left.mean), mean);
    }
}

#[test]
fn channels_without_a_factor_are_left_to_the_norm() {
    let norm = Norm {
        gamma: Some(vector([2.0, 0.0])),
        ..norm()
    };
    for (has_bias, mean) in [(true, [0.0, 0.0]), (false, [-7.0, 0.0])] {
        let (bias, left) = remainder(&norm, vector([7.0, 1.0]), has_bias);
        assert_eq!(host(bias), [7.0, 0.0]);
        assert_eq!(host(left.beta.unwrap()), [0.0, 1.0]);
        assert_eq!(host(left.mean), mean);
    }
}

/// Values between `low` and `high` without a pattern.
pub(crate) fn spread<const D: usize>(
    shape: [usize; D],
    seed: usize,
    (low, high): (f32, f32),
) -> Tensor<D> {
    let elements = shape.iter().product::<usize>();
    let unit = |i: usize| (((i + 1) * 7919 + seed * 104_729) % 1009) as f32 / 1008.0;
    let values: Vec<f32> = (0..elements)
        .map(|i| low + (high - low) * unit(i))
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// A batch norm that has been trained.
pub(crate) fn trained_norm(channels: usize, seed: usize) -> BatchNorm {
    let vector = |at, range| spread([channels], seed + at, range);
    BatchNorm {
        gamma: Param::from_tensor(vector(0, (0.5, 2.0))),
        beta: Param::from_tensor(vector(1, (-0.5, 0.5))),
        running_mean: RunningState::new(vector(2, (-0.5, 0.5))),
        running_var: RunningState::new(vector(3, (0.2, 2.0))),
        ..BatchNormConfig::new(channels).init(&Device::flex())
    }
}

/// What a batch norm computes with.
pub(crate) fn values_of(norm: &BatchNorm) -> Norm {
    Norm {
        gamma: Some(norm.gamma.val()),
        beta: Some(norm.beta.val()),
        mean: norm.running_mean.value(),
        variance: norm.running_var.value(),
        epsilon: norm.epsilon,
    }
}

fn assert_close<const D: usize>(a: Tensor<D>, b: Tensor<D>) {
    for (a, b) in host(a).into_iter().zip(host(b)) {
        assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} and {b}");
    }
}

#[test]
fn a_folded_layer_computes_what_both_did() {
    let device = Device::flex();
    for has_bias in [true, false] {
        let norm = trained_norm(6, 1);
        let values = values_of(&norm);

        let conv: Conv2d = Conv2dConfig::new([4, 6], [3, 3])
            .with_groups(2)
            .with_bias(has_bias)
            .init(&device);
        let x = spread([2, 4, 5, 5], 7, (-1.0, 1.0));
        let folded = Conv2d {
            weight: Param::from_tensor(weight(conv.weight.val(), 0, &values)),
            bias: Some(Param::from_tensor(bias(
                conv.bias.as_ref().map(Param::val),
                &values,
            ))),
            ..conv.clone()
        };
        assert_close(folded.forward(x.clone()), norm.forward(conv.forward(x)));

        let conv: Conv1d = Conv1dConfig::new(4, 6, 3).with_bias(has_bias).init(&device);
        let x = spread([2, 4, 7], 7, (-1.0, 1.0));
        let folded = Conv1d {
            weight: Param::from_tensor(weight(conv.weight.val(), 0, &values)),
            bias: Some(Param::from_tensor(bias(
                conv.bias.as_ref().map(Param::val),
                &values,
            ))),
            ..conv.clone()
        };
        assert_close(folded.forward(x.clone()), norm.forward(conv.forward(x)));

        let linear: Linear = LinearConfig::new(5, 6).with_bias(has_bias).init(&device);
        let x = spread([3, 5], 7, (-1.0, 1.0));
        let own = linear.bias.as_ref().map(Param::val);
        let folded = Linear {
            weight: Param::from_tensor(weight(linear.weight.val(), 1, &values)),
            bias: Some(Param::from_tensor(bias(own, &values))),
        };
        assert_close(folded.forward(x.clone()), norm.forward(linear.forward(x)));
    }
}

#[test]
fn gradients_reach_the_layer_and_the_norm() {
    // L = sum(u W') + sum(v b'), for W [2, 3], b, gamma and beta [2], in one vector.
    let start = [
        0.5, -1.0, 2.0, 1.5, 0.25, -0.75, // W
        0.3, -0.6, // b
        1.2, -0.7, // gamma
        0.1, 0.9, // beta
    ];
    let loss = |p: Tensor<1>| {
        let device = p.device();
        let part = |from: usize, to: usize| p.clone().slice(from..to);
        let norm = Norm {
            gamma: Some(part(8, 10)),
            beta: Some(part(10, 12)),
            mean: Tensor::from_floats([0.4, -0.2], &device),
            variance: Tensor::from_floats([0.8, 2.5], &device),
            epsilon: 1e-5,
        };
        let u = Tensor::<2>::from_floats([[1.0, 2.0, -1.0], [0.5, -2.0, 1.0]], &device);
        let v = Tensor::<1>::from_floats([3.0, -1.0], &device);
        let folded = weight(part(0, 6).reshape([2, 3]), 0, &norm);
        (folded * u).sum() + (bias(Some(part(6, 8)), &norm) * v).sum()
    };
    let device = Device::flex().autodiff();
    let p = Tensor::<1>::from_floats(start, &device).require_grad();
    let gradient = host(p.grad(&loss(p.clone()).backward()).unwrap());
    for i in 0..start.len() {
        let at = |step: f32| {
            let mut values = start;
            values[i] += step;
            loss(vector(values)).into_scalar::<f32>()
        };
        let numeric = (at(0.05) - at(-0.05)) / 0.1;
        assert!(
            (gradient[i] - numeric).abs() <= 1e-3 * (1.0 + numeric.abs()),
            "{i}: {} and {numeric}",
            gradient[i]
        );
        assert!(gradient[i] != 0.0);
    }
}

#[test]
fn hosts_know_their_channels() {
    assert_eq!(BatchNormFold::of("Conv2d").channel, 0);
    assert_eq!(BatchNormFold::of("Linear").channel, 1);
}
