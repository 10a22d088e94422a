//! Subject of a test.

use std::error::Error;
use std::fmt;

use burn_compress::Compressor;

use crate::nets::{Batch, Net};

/// Compressors of the network of the kit.
pub type Chain = Compressor<Net, Batch>;

/// A chain, or why there is none.
pub type Built = Result<Chain, Box<dyn Error + Send + Sync>>;

/// An algorithm with the rules and settings with which it is tested.
pub struct Subject<'a> {
    pub(crate) name: String,
    pub(crate) promise: Promise,
    pub(crate) add: Box<dyn Fn(Chain) -> Built + 'a>,
}

/// Result of a chain with the algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Half of each convolution is masked.
    Masks {
        /// By whole output channels.
        channels: bool,
    },
    /// So many targets have scales that can be used.
    Scales { targets: usize, folded_norms: usize },
    /// The loss is not the task's alone.
    Loss,
}

impl Promise {
    /// The place of the algorithm in a chain: pruners first, distillers last.
    pub(crate) const fn rank(self) -> usize {
        match self {
            Self::Masks { .. } => 0,
            Self::Scales { .. } => 1,
            Self::Loss => 2,
        }
    }
}

impl<'a> Subject<'a> {
    fn new(name: impl Into<String>, promise: Promise, add: impl Fn(Chain) -> Built + 'a) -> Self {
        Self {
            name: name.into(),
            promise,
            add: Box::new(add),
        }
    }

    /// A pruner of whole channels, with the rules of
    /// [`half_of_the_channels`](crate::half_of_the_channels).
    pub fn pruner(name: impl Into<String>, add: impl Fn(Chain) -> Built + 'a) -> Self {
        Self::new(name, Promise::Masks { channels: true }, add)
    }

    /// A pruner of single elements, with the same rules.
    pub fn element_pruner(name: impl Into<String>, add: impl Fn(Chain) -> Built + 'a) -> Self {
        Self::new(name, Promise::Masks { channels: false }, add)
    }

    /// A quantizer of `targets` targets, eight with the rules of [`int8`](crate::int8).
    pub fn quantizer(
        name: impl Into<String>,
        targets: usize,
        add: impl Fn(Chain) -> Built + 'a,
    ) -> Self {
        let promise = Promise::Scales {
            targets,
            folded_norms: 0,
        };
        Self::new(name, promise, add)
    }

    /// A quantizer that folds the batch norms of three convolutions.
    pub(crate) fn folding_quantizer(
        name: impl Into<String>,
        targets: usize,
        add: impl Fn(Chain) -> Built + 'a,
    ) -> Self {
        let promise = Promise::Scales {
            targets,
            folded_norms: 3,
        };
        Self::new(name, promise, add)
    }

    /// A distiller, with the rules of [`hidden_states`](crate::hidden_states) or
    /// [`logits`](crate::logits) and the teacher of [`nets::teacher`](crate::nets::teacher).
    pub fn distiller(name: impl Into<String>, add: impl Fn(Chain) -> Built + 'a) -> Self {
        Self::new(name, Promise::Loss, add)
    }

    /// The name under which failures are reported.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("name", &self.name)
            .field("promise", &self.promise)
            .finish_non_exhaustive()
    }
}
