//! The gradients of scale and zero point by hand and by finite differences.

use burn::tensor::Device;
use burn_compress_core::{RoundGradient, fake_quantize};

use super::*;
use crate::testing::{close, floats};

struct Found {
    value: Vec<f32>,
    x: Vec<f32>,
    scale: Vec<f32>,
    zero_point: Vec<f32>,
}

fn run(x: &[f32], shape: &[usize], grid: &Grid, scale: &[f32], zero_point: &[f32]) -> Found {
    let device = Device::flex().autodiff();
    let leaf = |values: &[f32]| Tensor::<1>::from_floats(values, &device).require_grad();
    let (x, scale, zero_point) = (leaf(x), leaf(scale), leaf(zero_point));
    let value = FlatTensor {
        values: x.clone(),
        shape: shape.to_vec(),
    };
    let (s, z) = (scale.clone(), zero_point.clone());
    let dtype = "int3".parse().unwrap();
    let y = checked_quantize(value, grid, s, z, dtype).unwrap().values;
    let weights: Vec<f32> = (1..=y.dims()[0]).map(|i| i as f32).collect();
    let weights = Tensor::<1>::from_floats(weights.as_slice(), &device);
    let gradients = (y.clone() * weights).sum().backward();
    let gradient = |leaf: &Tensor<1>| floats(leaf.grad(&gradients).unwrap());
    Found {
        value: floats(y),
        x: gradient(&x),
        scale: gradient(&scale),
        zero_point: gradient(&zero_point),
    }
}

#[test]
fn worked_by_hand() {
    // x / s = -18, -2, 0.6, 1.6, 18 in -3..=3.
    let x = [-9.0, -1.0, 0.3, 0.8, 9.0];
    let found = run(&x, &[5], &Grid::per_tensor(1), &[0.5], &[0.0]);
    assert_eq!(found.value, [-1.5, -1.0, 0.5, 1.0, 1.5]);
    assert_eq!(found.x, [0.0, 2.0, 3.0, 4.0, 0.0]);
    // (1 (-3) + 2 (0) + 3 (0.4) + 4 (0.4) + 5 (3)) / sqrt(3 * 5)
    close(&found.scale, &[14.8 / 15f32.sqrt()]);
    // -0.5 (1 + 5)
    assert_eq!(found.zero_point, [-3.0]);
}

#[test]
fn each_block_has_its_sums() {
    // Columns are blocks: x / s + z is 1.2, 9 and 0.5 + 1 = 1.5, -1.2 + 1.
    let x = [0.6, 1.0, 4.5, -2.4];
    let grid = Grid::new([1, 2]);
    let found = run(&x, &[2, 2], &grid, &[0.5, 2.0], &[0.0, 1.0]);
    // The half is rounded to the even 0, so q = 1: (1 - 1) 2; the last is round(-1.2) + 1 = 0:
    // (0 - 1) 2.
    assert_eq!(found.value, [0.5, 0.0, 1.5, -2.0]);
    assert_eq!(found.x, [1.0, 2.0, 0.0, 4.0]);
    let g = 1.0 / 12f32.sqrt();
    close(
        &found.scale,
        &[(-0.2 + 3.0 * 3.0) * g, (2.0 * -0.5 + 4.0 * 0.2) * g],
    );
    close(&found.zero_point, &[-1.5, 0.0]);
}

#[test]
fn a_step_beyond_zero_comes_out_on_the_other_side() {
    let x = [-9.0, -1.0, 0.3, 0.8, 9.0];
    let right = run(&x, &[5], &Grid::per_tensor(1), &[0.5], &[0.0]);
    let left = run(&x, &[5], &Grid::per_tensor(1), &[-0.5], &[0.0]);
    assert_eq!((left.value, left.x), (right.value, right.x));
    assert_eq!(left.scale[0], -right.scale[0]);
    let zero = run(&x, &[5], &Grid::per_tensor(1), &[0.0], &[0.0]);
    assert_eq!(zero.value[4], 3.0 * f32::EPSILON);
    assert!(zero.scale[0] > 0.0);
}

/// The function whose gradients these are: rounding adds a constant.
fn smooth(x: f64, s: f64, z: f64, rounding: f64) -> f64 {
    ((x / s + z).clamp(-3.0, 3.0) + rounding - z) * s
}

#[test]
fn gradients_agree_with_finite_differences() {
    let points: Vec<f32> = (0..60).map(|i| (i as f32 - 29.3) * 0.0917).collect();
    let (scale, zero_point) = (0.43, 0.37);
    let weights: Vec<f64> = (1..=points.len()).map(|i| i as f64).collect();
    let (s, z) = (f64::from(scale), f64::from(zero_point));
    let shape = [points.len()];
    let found = run(
        &points,
        &shape,
        &Grid::per_tensor(1),
        &[scale],
        &[zero_point],
    );
    let rounding: Vec<f64> = points
        .iter()
        .map(|&x| {
            let p = (f64::from(x) / s + z).clamp(-3.0, 3.0);
            p.round_ties_even() - p
        })
        .collect();
    let sum = |dx: f64, ds: f64, dz: f64| -> Vec<f64> {
        let each = points.iter().zip(&rounding).zip(&weights);
        each.map(|((&x, c), w)| w * smooth(f64::from(x) + dx, s + ds, z + dz, *c))
            .collect()
    };
    let e = 1e-6;
    let difference = |plus: Vec<f64>, minus: Vec<f64>| -> Vec<f64> {
        plus.iter()
            .zip(&minus)
            .map(|(p, m)| (p - m) / (2.0 * e))
            .collect()
    };
    let near = |found: f64, expected: f64| {
        assert!(
            (found - expected).abs() < 1e-3 * expected.abs().max(1.0),
            "{found} {expected}"
        );
    };
    for (found, expected) in found
        .x
        .iter()
        .zip(difference(sum(e, 0.0, 0.0), sum(-e, 0.0, 0.0)))
    {
        near(f64::from(*found), expected);
    }
    let factor = 1.0 / (3.0 * points.len() as f64).sqrt();
    let ds: f64 = difference(sum(0.0, e, 0.0), sum(0.0, -e, 0.0)).iter().sum();
    near(f64::from(found.scale[0]), ds * factor);
    let dz: f64 = difference(sum(0.0, 0.0, e), sum(0.0, 0.0, -e)).iter().sum();
    near(f64::from(found.zero_point[0]), dz);
}

#[test]
fn the_value_is_that_of_the_standard_simulation_bit_for_bit() {
    let device = Device::flex();
    let points: Vec<f32> = (0..2001).map(|i| (i as f32 - 1000.0) * 0.001_237).collect();
    let (scale, zero_point) = (0.137_f32, -0.61_f32);
    let shape = [points.len()];
    let found = run(
        &points,
        &shape,
        &Grid::per_tensor(1),
        &[scale],
        &[zero_point],
    );
    let one = |value: f32| Tensor::<1>::from_floats([value], &device);
    let x = Tensor::<1>::from_floats(points.as_slice(), &device);
    let rule = RoundGradient::Clipped;
    let standard = fake_quantize(x, one(scale), one(zero_point), -3.0, 3.0, rule);
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(found.value), bits(floats(standard)));
}

#[test]
fn shapes_must_fit() {
    let device = Device::flex();
    let value = || FlatTensor::new(Tensor::<2>::ones([2, 3], &device));
    let ones = |n: usize| Tensor::<1>::ones([n], &device);
    let dtype = QuantDtype::INT8;
    for (grid, n) in [
        (Grid::new([1, 2]), 2),
        (Grid::new([3]), 3),
        (Grid::new([1, 3]), 2),
    ] {
        let error = checked_quantize(value(), &grid, ones(n), ones(n), dtype).unwrap_err();
        assert!(matches!(error, QuantizationError::Grid { .. }), "{error}");
    }
}
