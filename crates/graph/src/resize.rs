//! Values of other sizes, made of given ones.

use burn::tensor::{Bytes, TensorData};

/// The elements of `data` in another shape of the same rank: repeated from the start along a dimension
/// that grows, left out at the end of one that shrinks. None for another rank and for no elements.
pub(super) fn resize(data: &TensorData, shape: &[usize]) -> Option<TensorData> {
    let given = data.shape().to_vec();
    let count: usize = given.iter().product();
    if given.len() != shape.len() || count == 0 {
        return None;
    }
    let bytes = data.as_bytes();
    let width = bytes.len() / count;
    let wanted: usize = shape.iter().product();
    let mut values = Vec::with_capacity(wanted * width);
    for at in 0..wanted {
        let (mut rest, mut from, mut stride) = (at, 0, 1);
        for (&to, &size) in shape.iter().zip(&given).rev() {
            from += rest % to % size * stride;
            rest /= to;
            stride *= size;
        }
        values.extend_from_slice(&bytes[from * width..(from + 1) * width]);
    }
    let bytes = Bytes::from_bytes_vec(values);
    Some(TensorData::from_bytes(bytes, shape.to_vec(), data.dtype()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_repeated_and_left_out() {
        let data = TensorData::new(vec![1, 2, 3, 4, 5, 6], [2, 3]);
        let values = |shape: &[usize]| {
            resize(&data, shape)
                .unwrap()
                .iter::<i32>()
                .collect::<Vec<_>>()
        };
        assert_eq!(values(&[3, 2]), [1, 2, 4, 5, 1, 2]);
        assert_eq!(values(&[1, 4]), [1, 2, 3, 1]);
        assert!(resize(&data, &[6]).is_none());
        assert!(resize(&TensorData::new(Vec::<f32>::new(), [0]), &[1]).is_none());
    }
}
