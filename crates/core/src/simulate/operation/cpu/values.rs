//! Values that a loop changes, in place or in a copy.

#[cfg(feature = "tch")]
use std::mem::MaybeUninit;

/// Elements that are copied and then changed at a time.
const CHUNK: usize = 4096;

/// Values that are changed.
pub(super) enum Values<'a> {
    InPlace(&'a mut [f32]),
    Copied {
        from: &'a [f32],
        /// As many of them as were changed.
        to: &'a mut Vec<f32>,
    },
    #[cfg(feature = "tch")]
    Into {
        from: &'a [f32],
        /// As long as `from`; all of it is written.
        to: &'a mut [MaybeUninit<f32>],
    },
}

impl Values<'_> {
    /// Changes the next values, from `start` on: so many that they are in the cache, and `most` at most.
    /// None where there are no more.
    ///
    /// A loop calls it, and no closure is called in the loop: one that the compiler does not inline
    /// would lose the vector instructions of the processor.
    #[inline(always)]
    pub(super) fn next(&mut self, start: usize, most: usize) -> Option<&mut [f32]> {
        let elements = match self {
            Self::InPlace(values) => values.len(),
            Self::Copied { from, .. } => from.len(),
            #[cfg(feature = "tch")]
            Self::Into { from, .. } => from.len(),
        };
        if start >= elements {
            return None;
        }
        let length = most.min(elements - start).min(CHUNK);
        Some(self.chunk(start, length))
    }

    #[inline(always)]
    fn chunk(&mut self, start: usize, length: usize) -> &mut [f32] {
        let chunk = start..start + length;
        match self {
            Self::InPlace(values) => &mut values[chunk],
            Self::Copied { from, to } => {
                to.extend_from_slice(&from[chunk]);
                &mut to[start..]
            }
            #[cfg(feature = "tch")]
            Self::Into { from, to } => to[chunk.clone()].write_copy_of_slice(&from[chunk]),
        }
    }
}
