//! The operation on the compiled backends against its formula, and gradients by hand.

use burn::tensor::{Bool, Device, Tensor, TensorData};

use super::*;
use crate::simulate::block::Grid;
use crate::simulate::flat::FlatTensor;
use crate::simulate::operation::learned::{LearnedGrid, fake_quantize_learned};
use crate::simulate::operation::learned_range::LearnedRange;
use crate::simulate::quant_dtype::{QuantDtype, int32};

/// Devices that the operation is tested on: one of each backend that is compiled.
#[allow(deprecated)] // Burn is about to drop LibTorch.
fn devices() -> Vec<Device> {
    vec![
        #[cfg(feature = "flex")]
        Device::flex(),
        #[cfg(feature = "tch")]
        Device::libtorch(),
        #[cfg(feature = "wgpu")]
        Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "vulkan")]
        Device::vulkan(burn::tensor::DeviceKind::DefaultDevice),
        #[cfg(feature = "cuda")]
        Device::cuda(0),
    ]
}

/// Values of a sequence without repetition, over and beyond a range of 8 bits with steps of 0.05,
/// with what has no place on a grid among them.
fn values(count: usize) -> Vec<f32> {
    let special = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        f32::MAX,
        f32::MIN_POSITIVE,
        1e-40,
        0.025,
        0.075,
        -0.125,
    ];
    let mut values: Vec<f32> = (0..count as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 500_000.0 - 16.7)
        .collect();
    for (value, special) in values.iter_mut().skip(1).step_by(3).zip(special) {
        *value = special;
    }
    values
}

fn tensor<const D: usize>(values: &[f32], dims: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), dims), device)
}

/// Factors or scales of a shape that broadcasts.
fn parameters<const D: usize>(
    dims: [usize; D],
    device: &Device,
    value: impl Fn(usize) -> f32,
) -> Tensor<D> {
    let count: usize = dims.iter().product();
    let values: Vec<f32> = (0..count).map(value).collect();
    tensor(&values, dims, device)
}

fn bits<const D: usize>(tensor: Tensor<D>) -> Vec<u32> {
    let values: Vec<f32> = tensor.into_data().try_to_vec().unwrap();
    // The sign and payload of a NaN are those of the processor.
    let bits = |x: f32| {
        if x.is_nan() {
            f32::NAN.to_bits()
        } else {
            x.to_bits()
        }
    };
    values.into_iter().map(bits).collect()
}

fn flags<const D: usize>(tensor: Option<Tensor<D, Bool>>) -> Option<Vec<bool>> {
    let data = tensor?.into_data();
    Some(data.iter::<bool>().collect())
}

/// The operation and its gradient against their formulas.
fn compare<const D: usize>(x: &Tensor<D>, operation: &Operation<D>) {
    for with_outside in [false, operation.rounding.is_some()] {
        let expected = composed::forward(x.clone(), operation, with_outside);
        // Shared memory is copied, and that of one owner is changed in place.
        let shared = operation.forward(x.clone(), with_outside);
        let own = operation.forward(x.clone() * 1.0, with_outside);
        let outside = expected.outside.clone();
        let expected_outside = flags(expected.outside);
        let bits_of_expected = bits(expected.value);
        for found in [shared, own] {
            assert_eq!(bits(found.value), bits_of_expected, "{operation:?}");
            assert_eq!(flags(found.outside), expected_outside, "{operation:?}");
        }
        let gradient = x.clone() + 1.0;
        let mask = operation.mask.clone();
        let expected = composed::backward(gradient.clone(), mask.clone(), outside.clone());
        let shared = backward(gradient.clone(), mask.clone(), outside.clone());
        let own = backward(gradient.clone() * 1.0, mask, outside);
        let expected = bits(expected);
        assert_eq!(bits(shared), expected, "{operation:?}");
        assert_eq!(bits(own), expected, "{operation:?}");
    }
}

/// All operations over scales of shape `scales` and masks of shape `masks`.
fn compare_all<const D: usize>(dims: [usize; D], scales: [usize; D], masks: [usize; D]) {
    for device in devices() {
        let count = dims.iter().product();
        let x = tensor(&values(count), dims, &device);
        let scale = parameters(scales, &device, |i| 0.05 + 0.013 * i as f32);
        let mask = parameters(masks, &device, |i| (i % 3 != 1) as u8 as f32);
        let names = |bits| ["int", "uint"].map(|kind| format!("{kind}{bits}"));
        let types = (2..=8).flat_map(names).chain(["int8_full".to_string()]);
        let types = types.map(|name| name.parse::<QuantDtype>().unwrap());
        let ranges = types.map(|dtype| (dtype.qmin(), dtype.qmax()));
        let ranges = ranges.chain([(int32::MIN, int32::MAX)]);
        let mut roundings = vec![
            None,
            Some(Rounding::Sign {
                scale: scale.clone(),
            }),
        ];
        for (qmin, qmax) in ranges {
            // Whole and fractional zero points.
            for step in [0.0, 3.0, 0.3] {
                let zero_point = parameters(scales, &device, |i| step * (i as f32 - 1.0));
                roundings.push(Some(Rounding::Affine {
                    scale: scale.clone(),
                    zero_point,
                    qmin,
                    qmax,
                }));
            }
        }
        for rounding in roundings {
            for mask in [None, Some(mask.clone())] {
                let rounding = rounding.clone();
                let rounding = rounding.map(|rounding| (rounding, RoundGradient::Clipped));
                compare(&x, &Operation { rounding, mask });
            }
        }
    }
}

#[test]
fn one_grid_for_a_tensor_of_any_rank() {
    compare_all([37], [1], [37]);
    compare_all([5, 7], [1, 1], [5, 1]);
    compare_all([3, 5, 7], [1, 1, 1], [1, 5, 1]);
    compare_all([2, 3, 5, 7], [1, 1, 1, 1], [2, 1, 1, 1]);
    compare_all([2, 3, 2, 5, 7], [1; 5], [2, 3, 2, 5, 7]);
    // Longer than a chunk.
    compare_all([3, 5000], [1, 1], [3, 1]);
}

#[test]
fn one_grid_for_each_channel() {
    compare_all([37], [37], [37]);
    compare_all([5, 7], [1, 7], [5, 1]);
    compare_all([5, 7], [5, 1], [1, 7]);
    compare_all([3, 5, 7], [1, 5, 1], [3, 5, 7]);
    compare_all([2, 3, 5, 7], [1, 3, 1, 1], [2, 1, 1, 1]);
    compare_all([2, 3, 5, 7], [2, 1, 1, 1], [2, 3, 1, 1]);
    compare_all([2, 3, 2, 5, 7], [1, 3, 1, 1, 1], [1, 1, 2, 1, 1]);
    compare_all([2, 5000], [2, 1], [1, 1]);
    // Short runs, which are written out, with masks that change elsewhere.
    for mask in [[40, 1, 1], [1, 3, 1], [1, 1, 7], [40, 3, 7]] {
        compare_all([40, 3, 7], [1, 3, 1], mask);
        compare_all([40, 3, 7], [1, 1, 7], mask);
    }
    compare_all([300, 17], [1, 17], [1, 17]);
}

#[test]
fn one_grid_for_each_block() {
    // Blocks of rows and of single elements, and an order that is none of runs.
    compare_all([4, 6], [4, 6], [4, 6]);
    compare_all([2, 3, 5, 7], [2, 3, 1, 1], [1, 3, 5, 7]);
    compare_all([3, 4, 5], [3, 1, 5], [1, 4, 1]);
    compare_all([3, 4, 5], [1, 4, 1], [3, 1, 5]);
}

#[test]
fn empty_tensors_and_single_values() {
    compare_all([0], [1], [1]);
    compare_all([0, 7], [1, 7], [1, 1]);
    compare_all([3, 0, 2], [1, 1, 1], [3, 1, 1]);
    compare_all([1, 1, 1], [1, 1, 1], [1, 1, 1]);
}

#[test]
fn transposed_and_sliced_tensors() {
    for device in devices() {
        let x = tensor(&values(60), [5, 12], &device);
        let scale = parameters([1, 5], &device, |i| 0.05 + 0.01 * i as f32);
        let zero_point = parameters([1, 5], &device, |i| i as f32);
        let (qmin, qmax) = (-127.0, 127.0);
        let rounding = Rounding::Affine {
            scale,
            zero_point,
            qmin,
            qmax,
        };
        let operation = Operation {
            rounding: Some((rounding, RoundGradient::Clipped)),
            mask: Some(parameters([12, 1], &device, |i| (i % 2) as f32)),
        };
        compare(&x.clone().transpose(), &operation);
        let rows = tensor(&values(80), [16, 5], &device).slice([2..14, 0..5]);
        compare(&rows, &operation);
    }
}

#[test]
fn gradients_that_lie_in_another_order() {
    for device in devices() {
        let flat = tensor(&values(2 * 3 * 4 * 5), [3, 2, 5, 4], &device);
        // The last is a part with gaps.
        let gradients = [
            flat.clone().swap_dims(0, 1),
            flat.clone().permute([1, 0, 3, 2]),
            flat.clone().swap_dims(2, 3).slice([0..2, 0..2, 1..3, 0..5]),
        ];
        for gradient in gradients {
            let dims = gradient.dims();
            let factors = parameters([dims[0], 1, 1, 1], &device, |i| i as f32 - 0.5);
            let is_outside = tensor(&values(dims.iter().product()), dims, &device);
            let is_outside = is_outside.greater_elem(0.0);
            for outside in [None, Some(is_outside)] {
                let found = backward(gradient.clone(), Some(factors.clone()), outside.clone());
                let by_formula =
                    composed::backward(gradient.clone(), Some(factors.clone()), outside);
                assert_eq!(bits(found), bits(by_formula), "{dims:?} on {device:?}");
            }
        }
    }
}

#[test]
fn other_types_than_f32() {
    use burn::tensor::FloatDType;
    let mut devices = devices();
    devices.retain(|device| device.supports_dtype(FloatDType::F64));
    for device in devices {
        let x = tensor(&values(30), [5, 6], &device).cast(FloatDType::F64);
        let one = |value: f32| tensor(&[value], [1, 1], &device).cast(FloatDType::F64);
        let operation = Operation {
            rounding: Some((
                Rounding::Affine {
                    scale: one(0.05),
                    zero_point: one(3.0),
                    qmin: -127.0,
                    qmax: 127.0,
                },
                RoundGradient::Clipped,
            )),
            mask: None,
        };
        let expected = composed::forward(x.clone(), &operation, false).value;
        let found = operation.forward(x, false).value;
        let expected: Vec<f64> = expected.into_data().try_to_vec().unwrap();
        let found: Vec<f64> = found.into_data().try_to_vec().unwrap();
        let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<_>>();
        let finite = |mut values: Vec<f64>| {
            values.retain(|value| !value.is_nan());
            bits(values)
        };
        assert_eq!(finite(found), finite(expected));
    }
}

/// Below the range, at its lower end, inside on both sides of a half, at its upper end and above.
const REGIONS: [f32; 6] = [-2.6, -2.0, -0.3, 0.3, 1.0, 1.3];

fn gradients(gradient: RoundGradient, mask: Option<f32>, device: &Device) -> (Vec<f32>, Vec<f32>) {
    let x = tensor(&REGIONS, [6], &device.clone().autodiff()).require_grad();
    let plain = |value: f32| tensor(&[value], [1], device);
    let operation = Operation {
        rounding: Some((
            Rounding::Affine {
                scale: plain(0.5),
                zero_point: plain(1.0),
                qmin: -3.0,
                qmax: 3.0,
            },
            gradient,
        )),
        mask: mask.map(plain),
    };
    let weights = tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [6], &x.device());
    let y = operation.apply(x.clone());
    let gradients = (y.clone() * weights).sum().backward();
    let gradient = x.grad(&gradients).unwrap().into_data();
    let y = y.into_data().try_to_vec().unwrap();
    (y, gradient.try_to_vec().unwrap())
}

#[test]
fn gradients_of_the_six_regions() {
    for device in devices() {
        // 1 + x / s = -4.2, -3, 0.4, 1.6, 3, 3.6 against -3..=3; q = -3, -3, 0, 2, 3, 3.
        let value = vec![-2.0, -2.0, -0.5, 0.5, 1.0, 1.0];
        let all = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let inside = vec![0.0, 2.0, 3.0, 4.0, 5.0, 0.0];
        let straight = gradients(RoundGradient::StraightThrough, None, &device);
        assert_eq!(straight, (value.clone(), all));
        let clipped = gradients(RoundGradient::Clipped, None, &device);
        assert_eq!(clipped, (value, inside));
        let (masked, none) = gradients(RoundGradient::Clipped, Some(0.0), &device);
        assert!(masked.iter().chain(&none).all(|&x| x == 0.0));
    }
}

#[test]
fn gradients_agree_with_those_of_burns_own_operations() {
    for device in devices() {
        let dims = [3, 4, 5];
        let values: Vec<f32> = values(60)
            .into_iter()
            .map(|x| x.clamp(-20.0, 20.0))
            .collect();
        let values: Vec<f32> = values
            .into_iter()
            .map(|x| if x.is_nan() { 0.5 } else { x })
            .collect();
        for gradient in [RoundGradient::StraightThrough, RoundGradient::Clipped] {
            let operation = Operation {
                rounding: Some((
                    Rounding::Affine {
                        scale: parameters([1, 4, 1], &device, |i| 0.05 + 0.02 * i as f32),
                        zero_point: parameters([1, 4, 1], &device, |i| i as f32),
                        qmin: -127.0,
                        qmax: 127.0,
                    },
                    gradient,
                )),
                mask: Some(parameters([3, 1, 1], &device, |i| (i % 2) as f32)),
            };
            let run = |simulate: &dyn Fn(Tensor<3>) -> Tensor<3>| {
                let x = tensor(&values, dims, &device.clone().autodiff()).require_grad();
                let y = simulate(x.clone());
                let gradients = (y.clone() * y.clone() + x.clone()).sum().backward();
                let gradient = x.grad(&gradients).unwrap();
                let gradient: Vec<f32> = gradient.into_data().try_to_vec().unwrap();
                (bits(y), gradient)
            };
            let (value, own) = run(&|x| operation.clone().apply(x));
            let (expected, burns) = run(&|x| composed::tracked(x, &operation));
            assert_eq!(value, expected);
            for (own, burns) in own.iter().zip(&burns) {
                assert!(
                    (own - burns).abs() <= 1e-6 * burns.abs().max(1.0),
                    "{own} {burns}"
                );
            }
        }
    }
}

#[test]
fn infinities_stay_on_the_grid_under_differentiation() {
    for device in devices() {
        let x = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let x = tensor(&x, [3], &device.clone().autodiff()).require_grad();
        let one = |value: f32| tensor(&[value], [1], &device);
        let operation = Operation {
            rounding: Some((
                Rounding::Affine {
                    scale: one(0.5),
                    zero_point: one(0.0),
                    qmin: -7.0,
                    qmax: 7.0,
                },
                RoundGradient::StraightThrough,
            )),
            mask: None,
        };
        let y: Vec<f32> = operation.apply(x).into_data().try_to_vec().unwrap();
        assert_eq!(y[..2], [3.5, -3.5]);
        assert!(y[2].is_nan());
    }
}

/// Values, then scale and zero point by block.
type Found = (Vec<u32>, [Vec<f32>; 3]);

fn learned(
    x: &[f32],
    shape: &[usize],
    grid: &Grid,
    device: &Device,
    run: impl Fn(FlatTensor, [Tensor<1>; 2]) -> Tensor<1>,
) -> Found {
    let device = device.clone().autodiff();
    let count = grid.len();
    let leaf = |values: Vec<f32>| {
        let count = values.len();
        tensor(&values, [count], &device).require_grad()
    };
    let scale = (0..count).map(|i| 0.3 - 0.17 * (i % 4) as f32).collect();
    let zero_point = (0..count).map(|i| 0.4 * i as f32 - 1.0).collect();
    let [x, scale, zero_point] = [x.to_vec(), scale, zero_point].map(leaf);
    let value = FlatTensor {
        values: x.clone(),
        shape: shape.to_vec(),
    };
    let y = run(value, [scale.clone(), zero_point.clone()]);
    let gradients = (y.clone() * (x.clone().detach() + 0.5)).sum().backward();
    let gradient = |leaf: &Tensor<1>| leaf.grad(&gradients).unwrap().into_data();
    let gradients = [x, scale, zero_point].map(|leaf| gradient(&leaf).try_to_vec().unwrap());
    (bits(y), gradients)
}

#[test]
fn learned_grids_agree_with_burns_own_operations() {
    let range = LearnedRange {
        qmin: -7.0,
        qmax: 7.0,
        factor: 0.1,
    };
    let cases: [(&[usize], &[usize]); 6] = [
        (&[37], &[1]),
        (&[5, 7], &[1, 7]),
        (&[6, 35], &[6, 1]),
        (&[8, 3], &[4, 1]),
        (&[2, 3, 4, 5], &[1, 3, 1, 1]),
        (&[4, 6], &[2, 3]),
    ];
    for device in devices() {
        for (shape, blocks) in cases {
            let grid = Grid::new(blocks);
            let count = shape.iter().product();
            let x: Vec<f32> = (0..count)
                .map(|i: usize| ((i * 37) % 101) as f32 * 0.09 - 4.4)
                .collect();
            let own = learned(&x, shape, &grid, &device, |x, [scale, zero_point]| {
                fake_quantize_learned(x, &grid, scale, zero_point, range).values
            });
            let burns = learned(&x, shape, &grid, &device, |x, parameters| {
                LearnedGrid::new(grid.clone(), x.shape, range).tracked(x.values, parameters)
            });
            assert_eq!(own.0, burns.0, "{shape:?} {blocks:?}");
            for (own, burns) in own.1.iter().flatten().zip(burns.1.iter().flatten()) {
                let largest = burns.abs().max(1.0);
                assert!(
                    (own - burns).abs() <= 1e-5 * largest,
                    "{own} {burns} {shape:?}"
                );
            }
        }
    }
}

#[test]
fn numbers_of_blocks_are_computed_in_memory() {
    for device in devices() {
        let all = tensor::<1>(&[1.0, 2.0, f32::NAN, 4.0], [4], &device);
        let halves = by_block([&all, &all], |[a, b]| [a / 2.0, a + b]);
        let Some([halves, sums]) = halves else {
            assert_ne!(device, Device::flex());
            continue;
        };
        let expected = [0.5, 1.0, f32::NAN, 2.0].map(f32::to_bits);
        assert_eq!(bits(halves), expected, "{device:?}");
        assert_eq!(bits(sums.slice(0..2)), [2.0, 4.0].map(f32::to_bits));
        // A slice has its own numbers, an empty one none.
        let behind = all.clone().slice(3..4);
        let [doubled] = by_block([&behind], |[x]| [x * 2.0]).unwrap();
        assert_eq!(bits(doubled), [8.0].map(f32::to_bits));
        let none = tensor::<1>(&[], [0], &device);
        let [nothing] = by_block([&none], |[x]| [x]).unwrap();
        assert_eq!(nothing.dims(), [0]);
        // Formulas of tensors broadcast or refuse these.
        assert!(by_block([&all, &behind], |[a, b]| [a + b]).is_none());
        let tracked = all.autodiff();
        assert!(by_block([&tracked], |[x]| [x]).is_none(), "{device:?}");
    }
}
