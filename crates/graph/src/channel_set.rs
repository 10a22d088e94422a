//! Sets of channels that are asked for many, and where the channels of a group lie in a parameter.

use std::collections::BTreeSet;
use std::ops::Index;

use super::labels::ChannelId;

/// A set of channels that is asked for each channel of many lists.
#[derive(Debug, Clone, Default)]
pub(super) struct ChannelSet {
    contains: Vec<bool>,
}

impl ChannelSet {
    /// Whether the channel is in it.
    pub fn contains(&self, channel: ChannelId) -> bool {
        self.contains.get(channel.0).copied().unwrap_or(false)
    }

    /// Adds a channel.
    pub fn insert(&mut self, channel: ChannelId) {
        if self.contains.len() <= channel.0 {
            self.contains.resize(channel.0 + 1, false);
        }
        self.contains[channel.0] = true;
    }

    /// Takes a channel out.
    pub fn remove(&mut self, channel: ChannelId) {
        if let Some(contains) = self.contains.get_mut(channel.0) {
            *contains = false;
        }
    }

    /// The channels, in their order.
    pub fn iter(&self) -> impl Iterator<Item = ChannelId> {
        let numbered = self.contains.iter().enumerate();
        numbered.filter_map(|(number, &contains)| contains.then_some(ChannelId(number)))
    }

    /// The number of the given channels that are not in it; where nothing can be removed is none.
    pub fn kept(&self, channels: &[Option<ChannelId>]) -> usize {
        let stays =
            |channel: &&Option<ChannelId>| channel.is_none_or(|channel| !self.contains(channel));
        channels.iter().filter(stays).count()
    }
}

/// A number for some of the channels.
#[derive(Debug, Default)]
pub(super) struct ChannelMap {
    numbers: Vec<Option<usize>>,
}

impl ChannelMap {
    /// The number of a channel, if it has one.
    pub fn get(&self, channel: ChannelId) -> Option<usize> {
        self.numbers.get(channel.0).copied().flatten()
    }

    /// The number of a channel, which is this one if it had none.
    pub fn get_or_insert(&mut self, channel: ChannelId, number: usize) -> usize {
        if self.numbers.len() <= channel.0 {
            self.numbers.resize(channel.0 + 1, None);
        }
        *self.numbers[channel.0].get_or_insert(number)
    }
}

impl FromIterator<ChannelId> for ChannelSet {
    fn from_iter<T: IntoIterator<Item = ChannelId>>(channels: T) -> Self {
        let mut set = Self::default();
        channels.into_iter().for_each(|channel| set.insert(channel));
        set
    }
}

impl From<&BTreeSet<ChannelId>> for ChannelSet {
    fn from(channels: &BTreeSet<ChannelId>) -> Self {
        // The last one first: it is the largest.
        channels.iter().rev().copied().collect()
    }
}

/// The indices of each channel of a group along a dimension of a parameter.
///
/// A list of lists in one piece:
///
/// ```text
/// [[0, 3], [], [1]]   ends  2 2 3    indices  0 3 1
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions {
    ends: Vec<usize>,
    indices: Vec<usize>,
}

impl Positions {
    /// Of so many channels those that lie along a dimension, by the place of each index in the list
    /// of channels.
    pub(super) fn new(
        channels: usize,
        places: impl Iterator<Item = Option<usize>> + Clone,
    ) -> Self {
        let mut next = vec![0; channels + 1];
        for place in places.clone().flatten() {
            next[place + 1] += 1;
        }
        for place in 0..channels {
            next[place + 1] += next[place];
        }
        let mut indices = vec![0; next[channels]];
        for (index, place) in places.enumerate() {
            if let Some(place) = place {
                indices[next[place]] = index;
                next[place] += 1;
            }
        }
        // Each list is full now: where the next index would be is its end.
        next.truncate(channels);
        let ends = next;
        Self { ends, indices }
    }

    /// The number of channels.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no channels.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The indices of each channel.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[usize]> {
        (0..self.len()).map(|channel| &self[channel])
    }
}

impl Index<usize> for Positions {
    type Output = [usize];

    fn index(&self, channel: usize) -> &[usize] {
        let start = channel.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.indices[start..self.ends[channel]]
    }
}

impl<T: AsRef<[usize]>> FromIterator<T> for Positions {
    fn from_iter<I: IntoIterator<Item = T>>(lists: I) -> Self {
        let mut positions = Self::default();
        for list in lists {
            positions.indices.extend_from_slice(list.as_ref());
            positions.ends.push(positions.indices.len());
        }
        positions
    }
}

impl<T: AsRef<[usize]>, const N: usize> PartialEq<[T; N]> for Positions {
    fn eq(&self, lists: &[T; N]) -> bool {
        self.iter().eq(lists.iter().map(AsRef::as_ref))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_sorted_by_channel() {
        // Channels 0, 1 and 2; indices 0 and 3 are channel 0, index 1 is channel 2.
        let places = [Some(0), Some(2), None, Some(0)];
        let positions = Positions::new(3, places.into_iter());
        assert_eq!(positions, [vec![0, 3], vec![], vec![1]]);
        assert_eq!(positions.len(), 3);
        assert_eq!((&positions[1], &positions[2]), (&[][..], &[1][..]));
        let lists = [vec![0, 3], vec![], vec![1]];
        assert_eq!(positions, lists.iter().collect::<Positions>());
        assert_eq!(Positions::new(0, [].into_iter()), Positions::default());
    }

    #[test]
    fn the_first_number_stays() {
        let mut map = ChannelMap::default();
        assert_eq!(map.get_or_insert(ChannelId(2), 7), 7);
        assert_eq!(map.get_or_insert(ChannelId(2), 8), 7);
        assert_eq!(
            [0, 2, 9].map(|c| map.get(ChannelId(c))),
            [None, Some(7), None]
        );
    }

    #[test]
    fn what_is_removed_is_not_kept() {
        let mut set: ChannelSet = [4, 1].map(ChannelId).into_iter().collect();
        let channels = [
            Some(ChannelId(1)),
            None,
            Some(ChannelId(2)),
            Some(ChannelId(4)),
        ];
        assert_eq!(set.kept(&channels), 2);
        assert!(set.iter().eq([1, 4].map(ChannelId)));
        set.remove(ChannelId(4));
        set.remove(ChannelId(9));
        assert_eq!(set.kept(&channels), 3);
        assert!(set.contains(ChannelId(1)) && !set.contains(ChannelId(9)));
    }
}
