//! A few numbers for each block, computed on the host where they are in its memory.
//!
//! A chain of tensor operations costs the same for one number as for a thousand, and the scales of a
//! model are made of some twenty such operations for each target in each step.

use burn::tensor::{Tensor, TensorData};
use burn_compress_core::in_memory;

/// The results of `each` for the numbers of each block; `None` where they are on another device or
/// are not `f32`.
///
/// # Shapes
///
/// - numbers, result: `[blocks]`
pub(crate) fn by_block<const N: usize, const M: usize>(
    numbers: [&Tensor<1>; N],
    each: impl Fn([f32; N]) -> [f32; M],
) -> Option<[Tensor<1>; M]> {
    let device = numbers.first()?.device();
    let mut columns = Vec::with_capacity(N);
    for numbers in numbers {
        columns.push(in_memory(numbers)?);
    }
    let blocks = columns.iter().map(Vec::len).min()?;
    let mut results: [Vec<f32>; M] = std::array::from_fn(|_| Vec::with_capacity(blocks));
    for block in 0..blocks {
        let of_block = each(std::array::from_fn(|column| columns[column][block]));
        for (results, result) in results.iter_mut().zip(of_block) {
            results.push(result);
        }
    }
    Some(results.map(|values| Tensor::from_data(TensorData::new(values, [blocks]), &device)))
}

/// The smaller number, or NaN where one of the two is.
pub(crate) fn smaller(a: f32, b: f32) -> f32 {
    if a < b || a.is_nan() { a } else { b }
}

/// The larger number, or NaN where one of the two is.
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn floats(tensor: &Tensor<1>) -> Vec<f32> {
        tensor.to_data().try_to_vec().unwrap()
    }

    #[test]
    fn each_block_by_itself() {
        let device = Device::flex();
        let a = Tensor::<1>::from_floats([1.0, 2.0, 3.0], &device);
        let b = Tensor::<1>::from_floats([10.0, 20.0, 30.0], &device);
        let [sum, difference] = by_block([&a, &b], |[a, b]| [a + b, b - a]).unwrap();
        assert_eq!(floats(&sum), [11.0, 22.0, 33.0]);
        assert_eq!(floats(&difference), [9.0, 18.0, 27.0]);
    }

    #[test]
    fn a_slice_has_its_own_numbers() {
        let all = Tensor::<1>::from_floats([1.0, 2.0, 3.0, 4.0], &Device::flex());
        let [halves] = by_block([&all.slice(1..3)], |[x]| [x / 2.0]).unwrap();
        assert_eq!(floats(&halves), [1.0, 1.5]);
    }

    #[test]
    fn nan_wins() {
        assert_eq!((smaller(1.0, 2.0), larger(1.0, 2.0)), (1.0, 2.0));
        assert_eq!((smaller(2.0, 1.0), larger(2.0, 1.0)), (1.0, 2.0));
        for [a, b] in [[f32::NAN, 0.0], [0.0, f32::NAN]] {
            assert!(smaller(a, b).is_nan() && larger(a, b).is_nan());
        }
    }

    #[test]
    fn a_tensor_with_automatic_differentiation_is_left_alone() {
        let tracked = Tensor::<1>::ones([2], &Device::flex().autodiff());
        assert!(by_block([&tracked], |[x]| [x]).is_none());
    }
}
