//! Channel labels: the unit of the model at every index of a tensor's dimension.
//!
//! Each index of a parameter's dimension starts as a label of its own. Operations carry labels
//! from their inputs to their outputs and join labels that can only be removed together. Labels
//! are atoms of a union-find; a class of joined atoms is one [`ChannelId`].

use std::fmt;

use indexmap::IndexSet;

/// Smallest removable unit of a model: an output channel of a convolution with its bias, the entry
/// of every normalization after it and the channels that are added to it.
///
/// Identifiers are ordered as the parameters are in the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub(super) usize);

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The label of one index, `None` where nothing can be removed.
pub(super) type Label = Option<usize>;

/// Union-find over labels. A class keeps the smallest of its atoms as representative and the first
/// reason that was given for protecting any of them.
#[derive(Debug, Default)]
pub(super) struct Labels {
    parent: Vec<usize>,
    reason: Vec<Option<usize>>,
    hidden: Vec<bool>,
    /// Whether whole parts are to be the channels of what the label is in.
    whole: Vec<Option<Whole>>,
    reasons: IndexSet<String>,
}

/// How far the wish for whole parts of a label's class is fulfilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whole {
    /// The labels are to be joined in each part, once a reshape takes them apart.
    Wanted,
    /// They are.
    Joined,
}

impl Labels {
    /// A new label.
    pub fn fresh(&mut self) -> usize {
        let atom = self.parent.len();
        self.parent.push(atom);
        self.reason.push(None);
        self.hidden.push(false);
        self.whole.push(None);
        atom
    }

    /// The classes alone, for another pass over the same parameters.
    pub fn into_classes(self) -> Vec<usize> {
        self.parent
    }

    /// Joins what was joined in the `classes` of an earlier pass.
    pub fn join_classes(&mut self, classes: &[usize]) {
        for (atom, &parent) in classes.iter().enumerate() {
            self.join(atom, parent);
        }
    }

    /// Wishes for whole parts of the class.
    pub fn want_whole(&mut self, atom: usize) {
        let root = self.find_halving(atom);
        self.whole[root].get_or_insert(Whole::Wanted);
    }

    /// Notes that parts of the class are joined.
    pub fn set_whole(&mut self, atom: usize) {
        let root = self.find_halving(atom);
        self.whole[root] = self.whole[root].max(Some(Whole::Joined));
    }

    /// How far a wish for whole parts is fulfilled, if there is one.
    pub fn whole(&self, atom: usize) -> Option<Whole> {
        self.whole[self.find(atom)]
    }

    /// The representative of a label's class.
    pub fn find(&self, mut atom: usize) -> usize {
        while self.parent[atom] != atom {
            atom = self.parent[atom];
        }
        atom
    }

    /// The class of a label.
    pub fn channel(&self, atom: usize) -> ChannelId {
        ChannelId(self.find(atom))
    }

    /// As [`find`](Self::find), and halves the path on the way, so that long chains stay short.
    fn find_halving(&mut self, mut atom: usize) -> usize {
        while self.parent[atom] != atom {
            self.parent[atom] = self.parent[self.parent[atom]];
            atom = self.parent[atom];
        }
        atom
    }

    /// Makes one class of two.
    pub fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find_halving(a), self.find_halving(b));
        if a == b {
            return;
        }
        let (root, child) = (a.min(b), a.max(b));
        self.parent[child] = root;
        self.reason[root] = match (self.reason[root], self.reason[child]) {
            (Some(x), Some(y)) => Some(x.min(y)),
            (x, y) => x.or(y),
        };
        self.hidden[root] |= self.hidden[child];
        self.whole[root] = self.whole[root].max(self.whole[child]);
    }

    /// Shortens the paths, so that every later [`Labels::find`] is one step.
    pub fn compress(&mut self) {
        for atom in 0..self.parent.len() {
            self.parent[atom] = self.parent[self.parent[atom]];
        }
    }

    /// Notes a reason, to be given to [`Labels::protect`].
    pub fn reason(&mut self, text: String) -> usize {
        self.reasons.insert_full(text).0
    }

    /// Forbids the removal of a channel. The first reason stays.
    pub fn protect(&mut self, atom: usize, reason: usize) {
        let root = self.find_halving(atom);
        self.reason[root].get_or_insert(reason);
    }

    /// Marks a label as no channel at all, a kernel's column for example.
    pub fn hide(&mut self, atom: usize) {
        let root = self.find_halving(atom);
        self.hidden[root] = true;
    }

    /// Whether the label is no channel.
    pub fn is_hidden(&self, atom: usize) -> bool {
        self.hidden[self.find(atom)]
    }

    /// Reason that keeps the channel.
    pub fn protected(&self, atom: usize) -> Option<&str> {
        self.reason[self.find(atom)].map(|reason| self.reasons[reason].as_str())
    }
}

/// A parameter's dimension: position of the parameter in the module, and the dimension.
pub(super) type Origin = (usize, usize);

/// One labelled dimension of a tensor.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Axis {
    /// Unit of each index.
    pub labels: Vec<Label>,
    /// Constant value of the elements at each index once the unit's parameters are masked, where it
    /// is known.
    pub value: Vec<Option<f64>>,
    /// The parameter dimensions whose entries these are, in whatever order, as long as no
    /// activation took part.
    pub origins: Vec<Origin>,
    /// The operation after which the values were no longer zero.
    pub nonzero_since: Option<usize>,
}

impl Axis {
    /// An axis, or `None` without any label.
    pub fn new(labels: Vec<Label>, value: Vec<Option<f64>>) -> Option<Self> {
        labels.iter().any(Option::is_some).then(|| Self {
            labels,
            value,
            origins: Vec::new(),
            nonzero_since: None,
        })
    }

    /// The axis with `f` applied to the values of removed channels.
    pub fn map(&self, f: impl Fn(f64) -> Option<f64>) -> Self {
        Self {
            labels: self.labels.clone(),
            value: self.value.iter().map(|v| v.and_then(&f)).collect(),
            origins: self.origins.clone(),
            nonzero_since: self.nonzero_since,
        }
    }

    /// The entries at `indices`, in that order.
    pub fn take(&self, indices: impl Iterator<Item = usize> + Clone) -> Option<Self> {
        let labels = indices.clone().map(|i| self.labels[i]).collect();
        let value = indices.map(|i| self.value[i]).collect();
        Self::new(labels, value).map(|axis| Self {
            origins: self.origins.clone(),
            nonzero_since: self.nonzero_since,
            ..axis
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_atom_stands_for_its_class_and_the_first_reason_stays() {
        let mut labels = Labels::default();
        let [a, b, c] = std::array::from_fn(|_| labels.fresh());
        let (first, second) = (
            labels.reason("first".into()),
            labels.reason("second".into()),
        );
        labels.protect(c, second);
        labels.join(c, b);
        assert_eq!(labels.channel(c), ChannelId(b));
        labels.protect(a, first);
        labels.join(a, c);
        assert_eq!(labels.channel(c), ChannelId(a));
        assert_eq!(labels.protected(b), Some("first"));
    }

    #[test]
    fn an_axis_without_labels_is_none() {
        assert_eq!(Axis::new(vec![None, None], vec![None, None]), None);
        let axis = Axis::new(vec![Some(3), None], vec![Some(0.0), None]).unwrap();
        assert_eq!(axis.take([1].into_iter()), None);
        assert!(axis.map(|v| Some(v + 1.0)).value[0] == Some(1.0));
    }
}
