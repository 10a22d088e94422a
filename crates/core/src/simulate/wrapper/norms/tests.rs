//! Norms whose masked channels are left out, with numbers worked out by hand.

use burn::module::{Module, ModuleDisplay};
use burn::nn::{GroupNormConfig, InstanceNormConfig, LayerNormConfig, RmsNormConfig};
use burn::tensor::{Device, Tensor};
use rstest::rstest;

use crate::{Activation, Compressor, Evaluator, Layer, Mask, Masks, Target, TargetId, Wrapper};

/// The wrapped norm with this mask of these of its parameters.
fn masked<L: Module + ModuleDisplay + 'static>(
    norm: L,
    names: &[&str],
    mask: &[f32],
) -> Wrapper<L> {
    let masks = names.iter().map(|name| {
        let mask = Mask::new(mask.to_vec(), [mask.len()]).unwrap();
        (TargetId::new("", Target::param(*name)), mask)
    });
    let masks: Masks = masks.collect();
    let mut chain = Compressor::<_, ()>::from_model(Wrapper::new(norm), Evaluator::new());
    chain.update_masks(&masks).unwrap();
    chain.model().valid()
}

#[track_caller]
fn assert_values<const D: usize>(found: Tensor<D>, expected: &[f32]) {
    let found = found.into_data().try_to_vec::<f32>().unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

/// Of 1, 9, 3, 5 the second is masked: the mean of 1, 3, 5 is 3, the variance 8 / 3.
#[test]
fn a_layer_norm_over_three_of_four_channels() {
    let device = Device::flex();
    let layer = LayerNormConfig::new(4)
        .with_epsilon(1.0 / 3.0)
        .init(&device);
    let norm = masked(layer, &["gamma", "beta"], &[1.0, 0.0, 1.0, 1.0]);
    let y = norm.forward(Tensor::<2>::from_floats([[1.0, 9.0, 3.0, 5.0]], &device));
    // sqrt(8 / 3 + 1 / 3) = sqrt(3)
    let edge = 2.0 / 3.0_f32.sqrt();
    assert_values(y, &[-edge, 0.0, 0.0, edge]);
}

/// A channel that one of the two keeps takes part: the mean of 1, 9, 3, 3 is 4, the variance 9.
#[test]
fn gamma_alone_takes_no_channel_out() {
    let device = Device::flex();
    let layer = LayerNormConfig::new(4).with_epsilon(1e-12).init(&device);
    let norm = masked(layer, &["gamma"], &[1.0, 0.0, 1.0, 1.0]);
    let y = norm.forward(Tensor::<2>::from_floats([[1.0, 9.0, 3.0, 3.0]], &device));
    assert_values(y, &[-1.0, 0.0, -1.0 / 3.0, -1.0 / 3.0]);
}

/// Of 3, 7, 4, 5 the second and the last are masked: the mean of 9 and 16 is 12.5.
#[test]
fn an_rms_norm_over_two_of_four_channels() {
    let device = Device::flex();
    let layer = RmsNormConfig::new(4).with_epsilon(3.5).init(&device);
    let norm = masked(layer, &["gamma"], &[1.0, 0.0, 1.0, 0.0]);
    let y = norm.forward(Tensor::<2>::from_floats([[3.0, 7.0, 4.0, 5.0]], &device));
    // sqrt(12.5 + 3.5) = 4
    assert_values(y, &[0.75, 0.0, 1.0, 0.0]);
}

/// Two groups of two channels with two places; the second channel is masked, and then a whole group.
#[rstest]
#[case::one_channel([1.0, 0.0, 1.0, 1.0], [-1.0, 1.0, 0.0, 0.0, -1.0, -1.0, 1.0, 1.0])]
#[case::a_group([1.0, 1.0, 0.0, 0.0], [-1.0, -1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])]
fn a_group_norm_over_what_is_kept_of_each_group(#[case] mask: [f32; 4], #[case] y: [f32; 8]) {
    let device = Device::flex();
    let layer = GroupNormConfig::new(2, 4).with_epsilon(1e-12).init(&device);
    let norm = masked(layer, &["gamma", "beta"], &mask);
    // Over both channels: mean 4, deviation 2 for 2, 6 in any order.
    let x = match mask[1] == 0.0 {
        true => [2.0, 6.0, 50.0, 60.0, 2.0, 2.0, 6.0, 6.0],
        false => [2.0, 2.0, 6.0, 6.0, 50.0, 60.0, 70.0, 80.0],
    };
    let x = Tensor::<1>::from_floats(x, &device).reshape([1, 4, 2]);
    assert_values(norm.forward(x), &y);
}

/// Masks that remove nothing leave the layer's own forward pass, bit for bit; so does no mask.
#[test]
fn without_a_masked_channel_the_layer_is_itself() {
    fn check<L>(layer: L)
    where
        L: Layer<Tensor<3>, Output = Tensor<3>> + Module + ModuleDisplay + 'static,
        Tensor<3>: Activation,
    {
        let device = Device::flex();
        let x = Tensor::<1>::from_floats([0.3, -1.7, 2.9, 0.1, 5.3, 1.1, -0.7, 0.9], &device);
        let x = x.reshape([2, 4, 1]).swap_dims(1, 2).reshape([2, 4, 1]);
        let x = x.repeat_dim(2, 4);
        let own = layer.forward(x.clone()).into_data();
        let wrapped = masked(layer.clone(), &[], &[]).forward(x.clone());
        wrapped.into_data().assert_eq(&own, true);
        let kept = masked(layer, &["gamma"], &[1.0; 4]).forward(x);
        kept.into_data().assert_eq(&own, true);
    }
    let device = Device::flex();
    check(LayerNormConfig::new(4).init(&device));
    check(RmsNormConfig::new(4).init(&device));
    check(GroupNormConfig::new(2, 4).init(&device));
    check(InstanceNormConfig::new(4).init(&device));
}

/// A wider norm with masks is the narrow norm on the kept channels, bit for bit, in training too:
/// gradients are equal.
#[test]
fn masked_norms_are_the_narrow_ones() {
    let device = Device::flex().autodiff();
    let wide = [0.3, -1.7, 2.9, 0.1, 5.3, 1.1, -0.7, 0.9];
    let narrow = [0.3, 2.9, 0.1, 5.3, -0.7, 0.9];
    let layer = LayerNormConfig::new(4).init(&device);
    let norm = masked(layer, &["gamma", "beta"], &[1.0, 0.0, 1.0, 1.0]);
    let x = Tensor::<1>::from_floats(wide, &device)
        .reshape([2, 4])
        .require_grad();
    let y = norm.train().forward(x.clone());
    let small = LayerNormConfig::new(3).init(&device);
    let x3 = Tensor::<1>::from_floats(narrow, &device)
        .reshape([2, 3])
        .require_grad();
    let y3 = small.forward(x3.clone());
    let pick = |y: Tensor<2>| {
        let values = y.into_data().try_to_vec::<f32>().unwrap();
        let kept = values.into_iter().enumerate().filter(|(at, _)| at % 4 != 1);
        kept.map(|(_, value)| value).collect::<Vec<_>>()
    };
    assert_eq!(pick(y.clone()), y3.to_data().try_to_vec::<f32>().unwrap());
    let (all, few) = (
        y.powi_scalar(3).sum().backward(),
        y3.powi_scalar(3).sum().backward(),
    );
    let few = x3
        .grad(&few)
        .unwrap()
        .into_data()
        .try_to_vec::<f32>()
        .unwrap();
    assert_eq!(pick(x.grad(&all).unwrap()), few);
}
