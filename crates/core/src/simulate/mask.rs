//! Masks: which elements of a target are kept.

use std::sync::Arc;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize, Serializer};

use crate::Error;
use crate::graph::ParamMask;
use crate::layer::LayerInfo;
use crate::simulate::block::num_elements;
use crate::target::TargetId;

/// Application of a mask to the target's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskMethod {
    /// `value * mask`: a masked element is exactly zero.
    #[default]
    Mul,
    /// `value + 0` where kept and `value - 1000` where masked, for what goes into a softmax.
    Add,
}

impl MaskMethod {
    pub(crate) fn apply<const D: usize>(self, value: Tensor<D>, mask: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Mul => value * mask,
            Self::Add => value + (mask - 1.0) * 1000.0,
        }
    }
}

/// A binary mask: 1 keeps an element, 0 removes it.
///
/// Masks of parameters have the parameter's full shape. Masks of inputs and outputs keep size 1 in
/// the dimensions that they do not distinguish, for example `[1, C, 1, 1]`. Clones share the
/// values, so that a mask of a large parameter is cheap to pass on.
///
/// ```
/// use burn_compress_core::Mask;
///
/// let mask = Mask::new(vec![1.0, 0.0, 1.0, 1.0], [2, 2])?;
/// assert_eq!(mask.sparsity(), 0.25);
/// assert!(Mask::new(vec![0.5, 1.0], [2]).is_err());
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Mask {
    #[serde(serialize_with = "as_slice")]
    values: Arc<Vec<f32>>,
    shape: Vec<usize>,
    method: MaskMethod,
}

fn as_slice<S: Serializer>(values: &Arc<Vec<f32>>, serializer: S) -> Result<S::Ok, S::Error> {
    values[..].serialize(serializer)
}

/// A mask as it is read, which may be none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    values: Vec<f32>,
    shape: Vec<usize>,
    #[serde(default)]
    method: MaskMethod,
}

impl TryFrom<Written> for Mask {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self, Error> {
        Ok(Self::new(written.values, written.shape)?.with_method(written.method))
    }
}

impl Mask {
    /// Makes a mask from zeros and ones in row-major order.
    ///
    /// # Errors
    ///
    /// A value other than 0 and 1, or a number of values that does not fill the shape.
    pub fn new(values: Vec<f32>, shape: impl Into<Vec<usize>>) -> Result<Self, Error> {
        let shape = shape.into();
        if num_elements(&shape) != Some(values.len()) {
            return Err(Error::InvalidMask {
                reason: format!("{} values do not fill the shape {shape:?}", values.len()),
            });
        }
        let is_other = |value: &f32| *value != 0.0 && *value != 1.0;
        // Counted before it is searched for: that is done for many values at once.
        let others = values.iter().filter(|value| is_other(value)).count();
        if others > 0
            && let Some(at) = values.iter().position(is_other)
        {
            return Err(Error::InvalidMask {
                reason: format!(
                    "value {at} is {}, but a mask holds only 0 and 1",
                    values[at]
                ),
            });
        }
        Ok(Self {
            values: Arc::new(values),
            shape,
            method: MaskMethod::Mul,
        })
    }

    /// Sets how the mask enters the value.
    pub fn with_method(mut self, method: MaskMethod) -> Self {
        self.method = method;
        self
    }

    /// Application of the mask to the value.
    pub fn method(&self) -> MaskMethod {
        self.method
    }

    /// The zeros and ones in row-major order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The shape, of the target's rank; dimensions of size 1 broadcast.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Refuses a mask that is not one of a target of shape `expected`. The batch dimension of an
    /// input or output is not compared.
    pub(crate) fn check_shape(&self, id: &TargetId, expected: &[usize]) -> Result<(), Error> {
        let free = usize::from(!id.target.is_param());
        let mut sizes = self.shape.iter().zip(expected).enumerate();
        let fits = self.shape.len() == expected.len()
            && sizes.all(|(dim, (size, wanted))| *size == 1 || (dim >= free && size == wanted));
        match fits {
            true => Ok(()),
            false => Err(Error::ShapeMismatch {
                target: id.clone(),
                what: "the mask",
                expected: expected.to_vec(),
                found: self.shape.clone(),
            }),
        }
    }

    /// The mask with every element of a target of this shape written out, which it has to fit.
    pub(crate) fn spread(self, shape: &[usize]) -> Self {
        if self.shape == shape {
            return self;
        }
        let mut values = Vec::with_capacity(shape.iter().product());
        for at in 0..shape.iter().product() {
            let (mut rest, mut stride, mut from) = (at, 1, 0);
            for (&size, &own) in shape.iter().zip(&self.shape).rev() {
                if own > 1 {
                    from += rest % size * stride;
                }
                rest /= size;
                stride *= own;
            }
            values.push(self.values[from]);
        }
        Self {
            values: Arc::new(values),
            shape: shape.to_vec(),
            ..self
        }
    }

    /// Refuses a mask of an input or output whose layer takes another number of dimensions, as far
    /// as the type of the layer tells it.
    pub(crate) fn check_rank(&self, id: &TargetId, layers: &[LayerInfo]) -> Result<(), Error> {
        let layer = layers.iter().find(|layer| layer.path == id.layer);
        let rank = layer
            .filter(|_| !id.target.is_param())
            .and_then(LayerInfo::port_rank);
        match rank.filter(|rank| *rank != self.shape.len()) {
            None => Ok(()),
            Some(expected) => Err(Error::MaskRank {
                target: id.clone(),
                expected,
                found: self.shape.clone(),
            }),
        }
    }

    /// The fraction of elements that the mask removes, 0 for an empty mask.
    pub fn sparsity(&self) -> f64 {
        if self.values.is_empty() {
            return 0.0;
        }
        self.removed() as f64 / self.values.len() as f64
    }

    /// The number of elements that the mask removes.
    pub fn removed(&self) -> usize {
        self.values.iter().filter(|&&value| value == 0.0).count()
    }

    /// For each index along `dim`, whether the mask removes everything there.
    ///
    /// A dimension of size 1 answers with one entry, one that the mask does not have with none.
    pub fn removed_along(&self, dim: usize) -> Vec<bool> {
        let Some(&size) = self.shape.get(dim) else {
            return Vec::new();
        };
        let inner: usize = self.shape[dim + 1..].iter().product();
        let mut removed = vec![true; size];
        for (at, run) in self.values.chunks(inner.max(1)).enumerate() {
            let removed = &mut removed[at % size];
            *removed = *removed && run.iter().all(|&value| value == 0.0);
        }
        removed
    }
}

impl ParamMask for Mask {
    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn kept(&self) -> impl Iterator<Item = bool> {
        self.values.iter().map(|&value| value != 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_are_removed_only_when_all_zero() {
        // [[0, 0, 0], [1, 0, 1]]
        let mask = Mask::new(vec![0.0, 0.0, 0.0, 1.0, 0.0, 1.0], [2, 3]).unwrap();
        assert_eq!(mask.removed_along(0), [true, false]);
        assert_eq!(mask.removed_along(1), [false, true, false]);
        assert!(
            mask.removed_along(2).is_empty(),
            "there is no such dimension"
        );
        assert!((mask.sparsity() - 4.0 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn dimensions_of_size_1_are_written_out() {
        let rows = Mask::new(vec![1.0, 0.0], [2, 1]).unwrap();
        assert_eq!(
            rows.spread(&[2, 3]).values(),
            [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
        );
        let columns = Mask::new(vec![1.0, 0.0, 1.0], [1, 3]).unwrap();
        let columns = columns.with_method(MaskMethod::Add).spread(&[2, 3]);
        assert_eq!(columns.values(), [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]);
        assert_eq!(
            (columns.shape(), columns.method()),
            (&[2, 3][..], MaskMethod::Add)
        );
        let both = Mask::new(vec![0.0, 1.0], [1, 2, 1]).unwrap();
        let expected = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0];
        assert_eq!(both.spread(&[2, 2, 2]).values(), expected);
    }

    #[test]
    fn clones_share_their_values() {
        let mask = Mask::new(vec![1.0, 0.0], [2]).unwrap();
        let clone = mask.clone().with_method(MaskMethod::Add);
        assert_eq!(clone.values().as_ptr(), mask.values().as_ptr());
        let written = r#"{"values":[1.0,0.0],"shape":[2],"method":"add"}"#;
        assert_eq!(serde_json::to_string(&clone).unwrap(), written);
    }

    #[test]
    fn a_mask_must_fill_its_shape_with_zeros_and_ones() {
        assert!(matches!(
            Mask::new(vec![1.0], [2]),
            Err(Error::InvalidMask { .. })
        ));
        assert!(matches!(
            Mask::new(vec![f32::NAN], [1]),
            Err(Error::InvalidMask { .. })
        ));
        let read = |text: &str| serde_json::from_str::<Mask>(text);
        assert!(read(r#"{"values": [0.5], "shape": [1]}"#).is_err());
        assert!(read(r#"{"values": [1.0], "shape": [2]}"#).is_err());
        let mask = Mask::new(vec![1.0, 0.0], [2])
            .unwrap()
            .with_method(MaskMethod::Add);
        assert_eq!(read(&serde_json::to_string(&mask).unwrap()).unwrap(), mask);
    }
}
