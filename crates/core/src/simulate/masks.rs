//! Masks by target.

use std::fmt;
use std::ops::{Deref, DerefMut};

use indexmap::{IndexMap, map};
use serde::{Deserialize, Serialize};

use crate::simulate::mask::Mask;
use crate::target::TargetId;

/// Masks by target, a map in the order of insertion.
///
/// Displays one line a mask:
///
/// ```
/// use burn_compress_core::{Mask, Masks};
///
/// let rows = Mask::new(vec![1.0, 1.0, 0.0, 0.0], [2, 2])?;
/// let elements = Mask::new(vec![1.0, 0.0, 1.0, 1.0], [2, 2])?;
/// let masks = Masks::from_iter([
///     ("conv.weight".parse()?, rows),
///     ("fc.weight".parse()?, elements),
/// ]);
/// assert_eq!(
///     masks.to_string(),
///     "conv.weight  [2, 2]  1 of 2 along dim 0\n\
///      fc.weight    [2, 2]  1 of 4 elements\n"
/// );
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Masks(IndexMap<TargetId, Mask>);

impl Masks {
    /// No masks.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Deref for Masks {
    type Target = IndexMap<TargetId, Mask>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Masks {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl FromIterator<(TargetId, Mask)> for Masks {
    fn from_iter<T: IntoIterator<Item = (TargetId, Mask)>>(masks: T) -> Self {
        Self(masks.into_iter().collect())
    }
}

impl<const N: usize> From<[(TargetId, Mask); N]> for Masks {
    fn from(masks: [(TargetId, Mask); N]) -> Self {
        Self::from_iter(masks)
    }
}

impl IntoIterator for Masks {
    type Item = (TargetId, Mask);
    type IntoIter = map::IntoIter<TargetId, Mask>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Masks {
    type Item = (&'a TargetId, &'a Mask);
    type IntoIter = map::Iter<'a, TargetId, Mask>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.iter().map(|(target, mask)| {
            let shape = format!("{:?}", mask.shape());
            vec![target.to_string(), shape, removed(mask)]
        });
        crate::table::write_table(f, &rows.collect::<Vec<_>>())
    }
}

/// Pattern of a mask: whole indices along one dimension, or elements.
pub(crate) fn removed(mask: &Mask) -> String {
    let (count, removed) = (mask.elements(), mask.removed());
    let along = |dim: usize| {
        let gone = mask.removed_along(dim);
        let whole = gone.iter().filter(|&&gone| gone).count();
        let explains = whole > 0 && removed * gone.len() == whole * count;
        explains.then(|| format!("{whole} of {} along dim {dim}", gone.len()))
    };
    let whole = (0..mask.shape().len()).find_map(along);
    whole.unwrap_or_else(|| format!("{removed} of {count} elements"))
}
