//! Slices of single layers and small models.

use std::collections::BTreeMap;

use super::*;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, LinearLayout};
use burn::tensor::{Device, Distribution};
use burn_compress_core::Wrapper;
use burn_compress_core::graph::{GroupedRows, SizeSlice};
use rstest::rstest;

#[derive(Module, Debug)]
struct Net {
    conv1: Conv2d,
    norm: BatchNorm,
    conv2: Conv2d,
    pool: MaxPool2d,
    fc: Linear,
}

impl Net {
    fn new(layout: LinearLayout, device: &Device) -> Self {
        device.seed(7);
        Self {
            conv1: Conv2dConfig::new([2, 4], [3, 3]).init(device),
            norm: BatchNormConfig::new(4).init(device),
            conv2: Conv2dConfig::new([4, 3], [1, 1]).init(device),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            fc: LinearConfig::new(3 * 4, 2).with_layout(layout).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.norm.forward(self.conv1.forward(x));
        let x = self.pool.forward(self.conv2.forward(x));
        self.fc.forward(x.flatten(1, 3))
    }
}

pub(crate) fn dims(path: &str, keep: &[(usize, &[usize])], shape: &[usize]) -> ParamSlice {
    ParamSlice {
        path: path.to_string(),
        keep: keep
            .iter()
            .map(|(dim, keep)| (*dim, keep.to_vec()))
            .collect(),
        columns: None,
        shape: shape.to_vec(),
    }
}

fn plan(slices: Vec<ParamSlice>) -> SlicePlan {
    SlicePlan {
        params: slices
            .into_iter()
            .map(|slice| (slice.path.clone(), slice))
            .collect(),
        ..SlicePlan::default()
    }
}

/// Removes channel 1 of conv1 and channel 0 of conv2, which are 4 features of fc after pooling
/// 4x4 to 2x2.
fn net_plan() -> SlicePlan {
    let keep: &[usize] = &[0, 2, 3];
    plan(vec![
        dims("conv1.weight", &[(0, keep)], &[3, 2, 3, 3]),
        dims("conv1.bias", &[(0, keep)], &[3]),
        dims("norm.gamma", &[(0, keep)], &[3]),
        dims("norm.beta", &[(0, keep)], &[3]),
        dims("norm.running_mean", &[(0, keep)], &[3]),
        dims("norm.running_var", &[(0, keep)], &[3]),
        dims("conv2.weight", &[(0, &[1, 2]), (1, keep)], &[2, 3, 1, 1]),
        dims("conv2.bias", &[(0, &[1, 2])], &[2]),
        dims("fc.weight", &[(0, &[4, 5, 6, 7, 8, 9, 10, 11])], &[8, 2]),
    ])
}

/// Zeros the removed channels where they are made, so that removing them changes nothing.
struct Zero;

impl Zero {
    fn entry<const D: usize>(param: Param<Tensor<D>>, index: usize) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let is_grad = tensor.is_require_grad();
            let mut at: [std::ops::Range<usize>; D] = tensor.dims().map(|size| 0..size);
            at[0] = index..index + 1;
            let zeros = tensor.clone().slice(at.clone()) * 0.0;
            tensor
                .slice_assign(at, zeros)
                .detach()
                .set_require_grad(is_grad)
        })
    }

    fn channels(mut net: Net) -> Net {
        net.conv1.weight = Self::entry(net.conv1.weight, 1);
        net.conv1.bias = net.conv1.bias.map(|bias| Self::entry(bias, 1));
        net.norm.gamma = Self::entry(net.norm.gamma, 1);
        net.norm.beta = Self::entry(net.norm.beta, 1);
        net.conv2.weight = Self::entry(net.conv2.weight, 0);
        net.conv2.bias = net.conv2.bias.map(|bias| Self::entry(bias, 0));
        net
    }
}

fn assert_equal<const D: usize>(a: Tensor<D>, b: Tensor<D>) {
    let (a, b) = (
        a.into_data().try_to_vec::<f32>().unwrap(),
        b.into_data().try_to_vec::<f32>().unwrap(),
    );
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(0f32, |max, value| max.max(value.abs()));
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() <= 1e-6 * largest, "{a} {b}");
    }
}

#[rstest]
#[case(LinearLayout::Row)]
#[case(LinearLayout::Col)]
fn conv_norm_pool_flatten_linear_compute_the_same(#[case] layout: LinearLayout) {
    let device = Device::flex();
    let net = Zero::channels(Net::new(layout, &device));
    let x = Tensor::random([3, 2, 6, 6], Distribution::Default, &device);
    let small = slice_module(net.clone(), &net_plan()).unwrap();
    assert_eq!(small.fc.weight.dims(), [8, 2]);
    assert_eq!(small.norm.running_var.value().dims(), [3]);
    assert_eq!(small.conv1.weight.id, net.conv1.weight.id);
    assert_equal(net.forward(x.clone()), small.forward(x));
}

#[test]
fn the_original_and_what_requires_gradients_stay() {
    let device = Device::flex().autodiff();
    let mut net = Net::new(LinearLayout::Row, &device);
    net.fc.weight = net.fc.weight.set_require_grad(false);
    let small = slice_module(net.clone(), &net_plan()).unwrap();
    assert_eq!(net.norm.running_mean.value().dims(), [4]);
    assert_eq!(net.conv1.weight.dims(), [4, 2, 3, 3]);
    assert!(small.conv1.weight.is_require_grad());
    assert!(!small.fc.weight.is_require_grad());
    let x = Tensor::random([3, 2, 6, 6], Distribution::Default, &device);
    let gradients = small.forward(x).sum().backward();
    assert_eq!(
        small.conv1.weight.grad(&gradients).unwrap().dims(),
        [3, 2, 3, 3]
    );
}

/// Rows 0 1 | 2 3 of two groups with 3 columns each.
fn grouped_slice() -> ParamSlice {
    ParamSlice {
        columns: Some(GroupedRows {
            keep: vec![vec![0, 2], vec![1, 2]],
        }),
        ..dims("weight", &[(0, &[1, 2])], &[2, 2, 1, 1])
    }
}

#[test]
fn groups_gather_columns_of_their_own() {
    let device = Device::flex();
    let mut conv = Conv2dConfig::new([6, 4], [1, 1])
        .with_groups(2)
        .with_bias(false)
        .init(&device);
    let weight: Vec<f32> = (0..12).map(|value| value as f32).collect();
    conv.weight = Param::from_data(TensorData::new(weight, [4, 3, 1, 1]), &device);
    let x = Tensor::random([2, 6, 3, 3], Distribution::Default, &device);
    let small = slice_module(conv.clone(), &plan(vec![grouped_slice()])).unwrap();
    // Row 1 is 3 4 5 and keeps columns 0 2, row 2 is 6 7 8 and keeps columns 1 2.
    let weight = small.weight.val().into_data().try_to_vec::<f32>().unwrap();
    assert_eq!(weight, [3.0, 5.0, 7.0, 8.0]);
    // Inputs 1 and 3 are zero, so that the kept rows compute the same without them.
    let kept = select(x, 1, &[0, 2, 4, 5]);
    let zero = Tensor::zeros([2, 1, 3, 3], &device);
    let part = |from: usize, to: usize| kept.clone().narrow(1, from, to - from);
    let full = Tensor::cat(
        vec![part(0, 1), zero.clone(), part(1, 2), zero, part(2, 4)],
        1,
    );
    assert_equal(select(conv.forward(full), 1, &[1, 2]), small.forward(kept));
}

#[derive(Module, Debug)]
struct Depthwise<L: Module> {
    conv: L,
}

fn depthwise_plan() -> SlicePlan {
    let keep: &[usize] = &[0, 3];
    SlicePlan {
        sizes: vec![SizeSlice {
            layer: "conv".to_string(),
            field: "groups".into(),
            before: 4,
            after: 2,
        }],
        ..plan(vec![
            dims("conv.weight", &[(0, keep)], &[2, 1, 3, 3]),
            dims("conv.bias", &[(0, keep)], &[2]),
        ])
    }
}

#[test]
fn groups_of_a_wrapped_depthwise_convolution_follow() {
    let device = Device::flex();
    let conv = Conv2dConfig::new([4, 4], [3, 3])
        .with_groups(4)
        .init(&device);
    let net = Depthwise {
        conv: Wrapper::new(conv),
    };
    let small = slice_module(net.clone(), &depthwise_plan()).unwrap();
    assert_eq!((small.conv.groups, net.conv.groups), (2, 4));
    let x = Tensor::<4>::random([1, 4, 5, 5], Distribution::Default, &device);
    let expected = select(net.conv.forward(x.clone()), 1, &[0, 3]);
    assert_equal(expected, small.conv.forward(select(x, 1, &[0, 3])));
}

#[test]
fn a_plain_depthwise_convolution_asks_for_a_wrapper() {
    let conv = Conv2dConfig::new([4, 4], [3, 3])
        .with_groups(4)
        .init(&Device::flex());
    let error = slice_module(Depthwise { conv }, &depthwise_plan()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`groups` of `conv` must become 2"),
        "{error}"
    );
    assert!(matches!(
        error,
        SpeedupError::ConstantField { field, .. } if field == "groups"
    ));
}

#[rstest]
#[case::path(dims("wieght", &[(0, &[0])], &[1, 3, 1, 1]), "no float parameter `wieght`")]
#[case::dimension(dims("weight", &[(4, &[0])], &[4, 3, 1, 1]), "no dimension 4")]
#[case::index(dims("weight", &[(0, &[4])], &[1, 3, 1, 1]), "index 4 is outside of 0..4")]
#[case::order(dims("weight", &[(0, &[1, 0])], &[2, 3, 1, 1]), "do not increase")]
#[case::empty(dims("weight", &[(0, &[])], &[0, 3, 1, 1]), "nothing is kept")]
#[case::shape(dims("weight", &[(0, &[1])], &[2, 3, 1, 1]), "was planned")]
#[case::columns(
    ParamSlice { columns: Some(GroupedRows { keep: vec![vec![0], vec![0, 1]] }), ..grouped_slice() },
    "different numbers of columns"
)]
#[case::rows(
    ParamSlice { keep: BTreeMap::from([(0, vec![0, 1])]), ..grouped_slice() },
    "different numbers of rows"
)]
fn plans_that_do_not_fit_are_refused(#[case] slice: ParamSlice, #[case] message: &str) {
    let conv = Conv2dConfig::new([6, 4], [1, 1])
        .with_groups(2)
        .init(&Device::flex());
    let error = slice_module(conv, &plan(vec![slice]))
        .unwrap_err()
        .to_string();
    assert!(error.contains(message), "{error}");
}
