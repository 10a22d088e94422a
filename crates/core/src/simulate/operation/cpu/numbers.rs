//! A few numbers for each block, computed on the host.

use burn::tensor::Tensor;

use super::memory::{Memory, memory};

/// [`by_block`](crate::simulate::operation::by_block); none on another backend, and
/// of tensors that have different numbers of blocks.
pub(in crate::simulate::operation) fn by_block<const N: usize, const M: usize>(
    numbers: [&Tensor<1>; N],
    each: impl Fn([f32; N]) -> [f32; M],
) -> Option<[Tensor<1>; M]> {
    let mut memories = Vec::with_capacity(N);
    for numbers in numbers {
        memories.push(memory(numbers.clone()).ok()?);
    }
    let columns: Vec<&[f32]> = memories.iter().map(Memory::values).collect();
    let blocks = columns.first()?.len();
    if columns.iter().any(|column| column.len() != blocks) {
        return None;
    }
    let mut results: [Vec<f32>; M] = std::array::from_fn(|_| Vec::with_capacity(blocks));
    let of_block = |block| each(std::array::from_fn(|column| columns[column][block]));
    for of_block in (0..blocks).map(of_block) {
        for (results, result) in results.iter_mut().zip(of_block) {
            results.push(result);
        }
    }
    let first = memories.first()?;
    Some(results.map(|values| first.beside(values)))
}
