//! Masks: which elements of a target are kept.

use std::sync::{Arc, OnceLock};

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
/// the dimensions that they do not distinguish, for example `[1, C, 1, 1]`. A mask of whole channels
/// takes a value for each channel and not for each element, see [`expand`](Self::expand); clones
/// share the values, so that a mask of a large parameter is cheap to pass on.
///
/// ```
/// use burn_compress_core::Mask;
///
/// let mask = Mask::new(vec![1.0, 0.0, 1.0, 1.0], [2, 2])?;
/// assert_eq!(mask.sparsity(), 0.25);
/// assert!(Mask::new(vec![0.5, 1.0], [2]).is_err());
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct Mask {
    entries: Arc<Entries>,
    method: MaskMethod,
}

/// The zeros and ones of a mask, written once along dimensions that they do not distinguish.
#[derive(Debug)]
struct Entries {
    values: Vec<f32>,
    /// The shape of `values`: the size of the mask or 1 along each dimension.
    extent: Vec<usize>,
    shape: Vec<usize>,
    /// All values, once they are asked for.
    all: OnceLock<Vec<f32>>,
}

impl Entries {
    fn new(values: Vec<f32>, extent: Vec<usize>, shape: Vec<usize>) -> Arc<Self> {
        let all = OnceLock::new();
        Arc::new(Self {
            values,
            extent,
            shape,
            all,
        })
    }

    fn all(&self) -> &[f32] {
        match self.extent == self.shape {
            true => &self.values,
            false => self.all.get_or_init(|| self.written_out()),
        }
    }

    fn written_out(&self) -> Vec<f32> {
        let mut values = self.values.clone();
        // The last dimension first: an entry stands for all that is behind it.
        let mut inner = 1;
        for (&size, &own) in self.shape.iter().zip(&self.extent).rev() {
            if own != size {
                let runs = values.chunks(inner);
                values = runs.flat_map(|run| run.repeat(size)).collect();
            }
            inner *= size;
        }
        values
    }
}

/// A mask as it is written and read; one that is read may be none.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Mask", deny_unknown_fields)]
struct Written<V = Vec<f32>, S = Vec<usize>> {
    values: V,
    shape: S,
    #[serde(default)]
    method: MaskMethod,
}

impl TryFrom<Written> for Mask {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self, Error> {
        Ok(Self::new(written.values, written.shape)?.with_method(written.method))
    }
}

impl Serialize for Mask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = Written {
            values: self.values(),
            shape: self.shape(),
            method: self.method,
        };
        written.serialize(serializer)
    }
}

impl PartialEq for Mask {
    fn eq(&self, other: &Self) -> bool {
        let (own, others) = (&self.entries, &other.entries);
        self.method == other.method
            && own.shape == others.shape
            && match own.extent == others.extent {
                true => own.values == others.values,
                false => own.all() == others.all(),
            }
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
            entries: Entries::new(values, shape.clone(), shape),
            method: MaskMethod::Mul,
        })
    }

    /// The mask of a target of this shape whose elements along dimensions of size 1 all have the
    /// value there. They are not written out.
    ///
    /// ```
    /// use burn_compress_core::Mask;
    ///
    /// let rows = Mask::new(vec![1.0, 0.0], [2, 1])?.expand([2, 3])?;
    /// assert_eq!(rows.values(), [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    /// # Ok::<(), burn_compress_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A shape of another rank, or of another size along a dimension that is not of size 1.
    pub fn expand(self, shape: impl Into<Vec<usize>>) -> Result<Self, Error> {
        let shape = shape.into();
        let mut sizes = self.shape().iter().zip(&shape);
        let fits = self.shape().len() == shape.len()
            && sizes.all(|(&own, &size)| own == 1 || own == size)
            && num_elements(&shape).is_some();
        match fits {
            true => Ok(self.expanded(&shape)),
            false => Err(Error::InvalidMask {
                reason: format!("the shape {:?} does not expand to {shape:?}", self.shape()),
            }),
        }
    }

    /// As [`expand`](Self::expand), to a shape that it fits.
    pub(crate) fn expanded(self, shape: &[usize]) -> Self {
        if self.shape() == shape {
            return self;
        }
        let (values, extent) = match Arc::try_unwrap(self.entries) {
            Ok(entries) => (entries.values, entries.extent),
            Err(shared) => (shared.values.clone(), shared.extent.clone()),
        };
        Self {
            entries: Entries::new(values, extent, shape.to_vec()),
            method: self.method,
        }
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

    /// The zeros and ones of all elements in row-major order.
    ///
    /// Those of a mask that was [expanded](Self::expand) are written out the first time.
    pub fn values(&self) -> &[f32] {
        self.entries.all()
    }

    /// The values before they are [expanded](Self::expand), and their shape.
    pub fn compact(&self) -> (&[f32], &[usize]) {
        (&self.entries.values, &self.entries.extent)
    }

    /// The shape, of the target's rank; dimensions of size 1 broadcast.
    pub fn shape(&self) -> &[usize] {
        &self.entries.shape
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape().iter().product()
    }

    /// Refuses a mask that is not one of a target of shape `expected`. The batch dimension of an
    /// input or output is not compared.
    pub(crate) fn check_shape(&self, id: &TargetId, expected: &[usize]) -> Result<(), Error> {
        let free = usize::from(!id.target.is_param());
        let mut sizes = self.shape().iter().zip(expected).enumerate();
        let fits = self.shape().len() == expected.len()
            && sizes.all(|(dim, (size, wanted))| *size == 1 || (dim >= free && size == wanted));
        match fits {
            true => Ok(()),
            false => Err(Error::ShapeMismatch {
                target: id.clone(),
                what: "the mask",
                expected: expected.to_vec(),
                found: self.shape().to_vec(),
            }),
        }
    }

    /// Refuses a mask of an input or output whose layer takes another number of dimensions, as far
    /// as the type of the layer tells it.
    pub(crate) fn check_rank(&self, id: &TargetId, layers: &[LayerInfo]) -> Result<(), Error> {
        let layer = layers.iter().find(|layer| layer.path == id.layer);
        let rank = layer
            .filter(|_| !id.target.is_param())
            .and_then(LayerInfo::port_rank);
        match rank.filter(|rank| *rank != self.shape().len()) {
            None => Ok(()),
            Some(expected) => Err(Error::MaskRank {
                target: id.clone(),
                expected,
                found: self.shape().to_vec(),
            }),
        }
    }

    /// The fraction of elements that the mask removes, 0 for an empty mask.
    pub fn sparsity(&self) -> f64 {
        match self.elements() {
            0 => 0.0,
            elements => self.removed() as f64 / elements as f64,
        }
    }

    /// The number of elements that the mask removes.
    pub fn removed(&self) -> usize {
        let (values, _) = self.compact();
        let removed = values.iter().filter(|&&value| value == 0.0).count();
        removed * (self.elements() / values.len().max(1))
    }

    /// For each index along `dim`, whether the mask removes everything there.
    ///
    /// A dimension of size 1 answers with one entry, one that the mask does not have with none.
    pub fn removed_along(&self, dim: usize) -> Vec<bool> {
        let (values, extent) = self.compact();
        let (Some(&own), Some(&size)) = (extent.get(dim), self.shape().get(dim)) else {
            return Vec::new();
        };
        let inner: usize = extent[dim + 1..].iter().product();
        let mut removed = vec![true; own];
        for (at, run) in values.chunks(inner.max(1)).enumerate() {
            let removed = &mut removed[at % own];
            *removed = *removed && run.iter().all(|&value| value == 0.0);
        }
        match own == size {
            true => removed,
            false => vec![removed[0]; size],
        }
    }
}

impl ParamMask for Mask {
    fn shape(&self) -> &[usize] {
        &self.entries.shape
    }

    fn extent(&self) -> &[usize] {
        &self.entries.extent
    }

    fn kept(&self) -> impl Iterator<Item = bool> {
        self.entries.values.iter().map(|&value| value != 0.0)
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
            rows.expanded(&[2, 3]).values(),
            [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
        );
        let columns = Mask::new(vec![1.0, 0.0, 1.0], [1, 3]).unwrap();
        let columns = columns.with_method(MaskMethod::Add).expanded(&[2, 3]);
        assert_eq!(columns.values(), [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]);
        assert_eq!(
            (columns.shape(), columns.method()),
            (&[2, 3][..], MaskMethod::Add)
        );
        let both = Mask::new(vec![0.0, 1.0], [1, 2, 1]).unwrap();
        let expected = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0];
        assert_eq!(both.expanded(&[2, 2, 2]).values(), expected);
    }

    #[test]
    fn a_mask_of_channels_answers_as_one_of_elements() {
        let own = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        for (extent, shape) in [
            ([1, 6, 1], [2, 6, 3]),
            ([3, 1, 2], [3, 4, 2]),
            ([6, 1, 1], [6, 1, 2]),
            ([1, 1, 6], [3, 2, 6]),
        ] {
            let compact = Mask::new(own.to_vec(), extent).unwrap();
            let compact = compact.expand(shape).unwrap();
            assert_eq!(compact.compact(), (&own[..], &extent[..]));
            let whole = Mask::new(compact.values().to_vec(), shape).unwrap();
            assert_eq!(compact, whole);
            assert_eq!(compact.removed(), whole.removed());
            assert_eq!(compact.sparsity(), whole.sparsity());
            for dim in 0..4 {
                assert_eq!(compact.removed_along(dim), whole.removed_along(dim));
            }
            let written = serde_json::to_string(&compact).unwrap();
            assert_eq!(written, serde_json::to_string(&whole).unwrap());
            assert_eq!(serde_json::from_str::<Mask>(&written).unwrap(), compact);
        }
        let rows = Mask::new(vec![1.0, 0.0], [2, 1]).unwrap();
        assert!(rows.clone().expand([3, 3]).is_err());
        assert!(rows.clone().expand([2, 1, 1]).is_err());
        assert_ne!(rows.clone().expand([2, 2]).unwrap(), rows);
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
