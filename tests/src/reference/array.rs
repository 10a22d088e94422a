//! Plain numbers with a shape.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::case::{CaseError, Result};

/// A tensor of a case: row-major values with their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Sizes of the dims.
    pub shape: Vec<usize>,
    /// The values; integers of the files are small enough to be exact.
    pub values: Vec<f32>,
    /// Whether the file holds integers, which must agree exactly.
    pub integer: bool,
}

impl Array {
    /// Floating-point values of a shape.
    pub fn float(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        Self {
            shape: shape.into(),
            values,
            integer: false,
        }
    }

    /// The values of a tensor.
    pub fn from_tensor<const D: usize>(tensor: Tensor<D>) -> Self {
        let shape = tensor.dims().to_vec();
        let values = tensor
            .into_data()
            .convert::<f32>()
            .try_into_vec::<f32>()
            .expect("converted to f32 just before");
        Self::float(shape, values)
    }

    /// The values as a tensor of rank `D`.
    ///
    /// # Errors
    ///
    /// When the array has another rank.
    pub fn tensor<const D: usize>(&self, device: &Device) -> Result<Tensor<D>> {
        self.assert_rank(D)?;
        let data = TensorData::new(self.values.clone(), self.shape.clone());
        Ok(Tensor::from_data(data, device))
    }

    /// The values as a tensor of integers of rank `D`.
    ///
    /// # Errors
    ///
    /// When the array has another rank.
    pub fn int_tensor<const D: usize>(&self, device: &Device) -> Result<Tensor<D, Int>> {
        self.assert_rank(D)?;
        let values: Vec<i32> = self.values.iter().map(|value| *value as i32).collect();
        Ok(Tensor::from_data(
            TensorData::new(values, self.shape.clone()),
            device,
        ))
    }

    fn assert_rank(&self, rank: usize) -> Result<()> {
        if self.shape.len() == rank {
            return Ok(());
        }
        Err(CaseError::Failed(format!(
            "expected a tensor of rank {rank}, found the shape {:?}",
            self.shape
        )))
    }

    /// The array with the order of its dims reversed.
    ///
    /// For rank 2 this is the transpose that turns the `[out, in]` of a PyTorch linear layer into
    /// the `[in, out]` of Burn, and back.
    pub fn reversed(&self) -> Self {
        let rank = self.shape.len();
        let shape: Vec<usize> = self.shape.iter().rev().copied().collect();
        let mut strides = vec![1; rank];
        for dim in (0..rank.saturating_sub(1)).rev() {
            strides[dim] = strides[dim + 1] * self.shape[dim + 1];
        }
        let mut values = Vec::with_capacity(self.values.len());
        for flat in 0..self.values.len() {
            let mut rest = flat;
            let mut source = 0;
            for dim in (0..rank).rev() {
                source += (rest % shape[dim]) * strides[rank - 1 - dim];
                rest /= shape[dim];
            }
            values.push(self.values[source]);
        }
        Self {
            shape,
            values,
            integer: self.integer,
        }
    }

    /// The only value of an array of one element.
    ///
    /// # Errors
    ///
    /// When there is another number of elements.
    pub fn scalar(&self) -> Result<f32> {
        match self.values.as_slice() {
            [value] => Ok(*value),
            _ => Err(CaseError::Failed(format!(
                "expected one value, found the shape {:?}",
                self.shape
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reversing_the_dims_transposes_a_matrix() {
        let matrix = Array::float([2, 3], vec![1., 2., 3., 4., 5., 6.]);
        let transposed = Array::float([3, 2], vec![1., 4., 2., 5., 3., 6.]);
        assert_eq!(matrix.reversed(), transposed);
        assert_eq!(transposed.reversed(), matrix);
    }
}
