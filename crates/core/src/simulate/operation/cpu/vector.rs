//! Loops that are compiled for the vector instructions of the processor at hand.
//!
//! A function is compiled anew with these instructions only as far as it is inlined into the one that
//! enables them. So every function on the way is `#[inline(always)]`, and none is a closure, which
//! cannot be.

use macerator::{AutoArch, Simd, WithSimd};

/// A loop over values.
pub(super) trait Loop {
    /// Runs the loop; `#[inline(always)]`.
    fn run(self);
}

/// Runs the loop with the best instructions that the processor has.
pub(super) fn vectorized(body: impl Loop) {
    AutoArch::new().dispatch(Vectorized(body));
}

struct Vectorized<L>(L);

impl<L: Loop> WithSimd for Vectorized<L> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self) {
        self.0.run();
    }
}

/// What belongs to each of a number of values.
pub(super) trait Of<T>: Copy {
    /// That of the first `count` values. A loop over so many needs no check of each index, which would
    /// keep it from vector instructions.
    fn first(self, count: usize) -> Self;

    /// That of the value at `i`.
    fn of(self, i: usize) -> T;
}

/// The same for all.
#[derive(Clone, Copy)]
pub(super) struct Same<T>(pub(super) T);

impl<T: Copy> Of<T> for Same<T> {
    #[inline(always)]
    fn first(self, _count: usize) -> Self {
        self
    }

    #[inline(always)]
    fn of(self, _i: usize) -> T {
        self.0
    }
}

impl<T: Copy> Of<T> for &[T] {
    #[inline(always)]
    fn first(self, count: usize) -> Self {
        &self[..count]
    }

    #[inline(always)]
    fn of(self, i: usize) -> T {
        self[i]
    }
}
