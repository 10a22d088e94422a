//! All pruners by name, for programs that choose one at run time and for tests of all of them.

pub(crate) mod entry;

pub use crate::scores::pruners;
pub use entry::{Entry, Fuse, Needs};

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::Linear;

    #[test]
    fn names_are_unique_and_every_entry_has_a_summary() {
        let pruners = pruners::<Linear, ()>();
        for (at, pruner) in pruners.iter().enumerate() {
            assert!(pruners[..at].iter().all(|other| other.name != pruner.name));
            assert!(pruner.summary.ends_with('.') && !pruner.reference.is_empty());
        }
    }
}
