//! Which channels masks remove, on graphs by hand.

use super::*;

impl ChannelEntries {
    fn param(mut self, path: &str, shape: &[usize]) -> Self {
        self.shapes.insert(path.to_string(), shape.to_vec());
        self
    }

    /// `size` channels, numbered on, that run along the given dimensions of the given
    /// parameters.
    fn group(mut self, size: usize, made: &[(&str, usize)], read: &[(&str, usize)]) -> Self {
        let first = self.made.ranges.len();
        for index in 0..size {
            let channel = ChannelId(first + index);
            for (places, list) in [(&mut self.made, made), (&mut self.read, read)] {
                let at = list.iter().map(|&(path, dim)| Place {
                    param: self.shapes.get_index_of(path).unwrap(),
                    dim,
                    index,
                });
                places.insert(channel, at);
            }
        }
        self.groups.push(Group {
            name: made[0].0.to_string(),
            channels: (first..first + size).map(ChannelId).collect(),
            blocks: 1,
        });
        self
    }
}

fn channels<const N: usize>(numbers: [usize; N]) -> BTreeSet<ChannelId> {
    numbers.map(ChannelId).into()
}

struct Mask(Vec<f32>, Vec<usize>);

impl ParamMask for Mask {
    fn shape(&self) -> &[usize] {
        &self.1
    }

    fn kept(&self) -> impl Iterator<Item = bool> {
        self.0.iter().map(|&value| value != 0.0)
    }
}

fn masks(list: &[(&str, &[usize], &[f32])]) -> IndexMap<String, Mask> {
    list.iter()
        .map(|(path, shape, values)| (path.to_string(), Mask(values.to_vec(), shape.to_vec())))
        .collect()
}

/// conv [3, 2] with bias and norm, read by fc [3, 2] (Burn's `[in, out]`).
fn chain() -> ChannelEntries {
    ChannelEntries::default()
        .param("conv.weight", &[3, 2])
        .param("conv.bias", &[3])
        .param("norm.gamma", &[3])
        .param("norm.beta", &[3])
        .param("fc.weight", &[3, 2])
        .group(
            3,
            &[
                ("conv.weight", 0),
                ("conv.bias", 0),
                ("norm.gamma", 0),
                ("norm.beta", 0),
            ],
            &[("fc.weight", 0)],
        )
}

#[test]
fn a_channel_goes_when_everything_that_makes_it_is_masked() {
    let graph = chain();
    let row_1: &[f32] = &[1.0, 1.0, 0.0, 0.0, 1.0, 1.0];
    let entry_1: &[f32] = &[1.0, 0.0, 1.0];
    let mut given = masks(&[
        ("conv.weight", &[3, 2], row_1),
        ("conv.bias", &[3], entry_1),
        ("norm.gamma", &[3], entry_1),
    ]);
    // beta is not masked: the channel is the constant beta, not zero.
    assert_eq!(graph.removable(&given).unwrap(), channels([]));
    given.extend(masks(&[("norm.beta", &[3], entry_1)]));
    assert_eq!(graph.removable(&given).unwrap(), channels([1]));
}

#[test]
fn one_kept_entry_keeps_the_channel() {
    let graph = ChannelEntries::default()
        .param("a", &[2, 2])
        .group(2, &[("a", 0)], &[]);
    let given = masks(&[("a", &[2, 2], &[1.0, 1.0, 0.0, 1.0])]);
    assert_eq!(graph.removable(&given).unwrap(), channels([]));
}

#[test]
fn joined_layers_keep_the_union() {
    // Kept by a: 0 1, kept by b: 1 2. Channel 3 is masked in both.
    let graph = ChannelEntries::default()
        .param("a", &[4])
        .param("b", &[4])
        .group(4, &[("a", 0), ("b", 0)], &[]);
    let given = masks(&[
        ("a", &[4], &[1.0, 1.0, 0.0, 0.0]),
        ("b", &[4], &[0.0, 1.0, 1.0, 0.0]),
    ]);
    assert_eq!(graph.removable(&given).unwrap(), channels([3]));
}

#[test]
fn what_only_removed_channels_read_goes_too() {
    // in --a[2, 3]--> 0 1 --b[2, 2]--> 2 3 --c[2, 1]--> out, weights as [in, out].
    let graph = ChannelEntries::default()
        .param("a", &[3, 2])
        .param("b", &[2, 2])
        .param("c", &[2, 1])
        .group(2, &[("a", 1)], &[("b", 0)])
        .group(2, &[("b", 1)], &[("c", 0)]);
    // c ignores channel 3, and channel 1 is read by channel 3 alone.
    let given = masks(&[
        ("b", &[2, 2], &[1.0, 1.0, 0.0, 1.0]),
        ("c", &[2, 1], &[1.0, 0.0]),
    ]);
    assert_eq!(graph.removable(&given).unwrap(), channels([1, 3]));
}

#[test]
fn counts_of_whole_indices_and_of_single_entries_agree() {
    let shape = [3, 4, 2];
    let at = |i: usize| [i / 8, i / 2 % 4, i % 2];
    // Row 1 and column 3, and beside it the single entry (0, 0, 0).
    let whole = |i: usize| at(i)[0] != 1 && at(i)[1] != 3;
    for single in [false, true] {
        let mut entries: Vec<bool> = (0..24).map(|i| whole(i) && !(single && i == 0)).collect();
        let mut kept = KeptEntries::of(&shape, &shape, entries.iter().copied());
        assert_eq!(matches!(kept, KeptEntries::Single { .. }), single);
        for (dim, index) in [(0, 2), (1, 3), (1, 0), (2, 1), (0, 0)] {
            kept.mask(&shape, dim, index);
            (0..24)
                .filter(|&i| at(i)[dim] == index)
                .for_each(|i| entries[i] = false);
            for (dim, &size) in shape.iter().enumerate() {
                for index in 0..size {
                    let here = (0..24).filter(|&i| at(i)[dim] == index && entries[i]);
                    let here = here.count();
                    assert_eq!(kept.is_masked(dim, index), here == 0, "{dim} {index}");
                    if let KeptEntries::Single { counts, .. } = &kept {
                        assert_eq!(counts[dim][index], here);
                    }
                }
            }
        }
    }
}

#[test]
fn counts_of_a_mask_of_channels_are_those_of_its_elements() {
    let shape = [3, 4, 2];
    let at = |i: usize| [i / 8, i / 2 % 4, i % 2];
    // Column 1; rows and columns by pairs that are no product; nothing; everything.
    for (extent, gone) in [
        ([1, 4, 1], vec![1]),
        ([3, 4, 1], vec![0, 5, 9]),
        ([3, 1, 2], vec![]),
        ([1, 1, 2], vec![0, 1]),
    ] {
        let own = |i: usize| {
            let place = |dim: usize| at(i)[dim] % extent[dim];
            (place(0) * extent[1] + place(1)) * extent[2] + place(2)
        };
        let size = extent.iter().product::<usize>();
        let compact: Vec<bool> = (0..size).map(|i| !gone.contains(&i)).collect();
        let all: Vec<bool> = (0..24).map(|i| compact[own(i)]).collect();
        let found = KeptEntries::of(&shape, &extent, compact.into_iter());
        let expected = KeptEntries::of(&shape, &shape, all.into_iter());
        use KeptEntries::{Single, Whole};
        match (found, expected) {
            (
                Whole { kept, counts },
                Whole {
                    kept: all,
                    counts: sizes,
                },
            ) => {
                assert_eq!((kept, counts), (all, sizes), "{extent:?}");
            }
            (
                Single { entries, counts },
                Single {
                    entries: all,
                    counts: sizes,
                },
            ) => {
                assert_eq!((entries, counts), (all, sizes), "{extent:?}");
            }
            _ => panic!("{extent:?}"),
        }
    }
}

#[test]
fn fixed_channels_stay() {
    let mut graph = ChannelEntries::default()
        .param("a", &[2])
        .group(2, &[("a", 0)], &[]);
    graph.fixed.insert(ChannelId(0));
    let given = masks(&[("a", &[2], &[0.0, 1.0])]);
    assert_eq!(graph.removable(&given).unwrap(), channels([]));
}

#[test]
fn a_group_never_disappears() {
    let graph = ChannelEntries::default()
        .param("a", &[2])
        .group(2, &[("a", 0)], &[]);
    let error = graph
        .removable(&masks(&[("a", &[2], &[0.0, 0.0])]))
        .unwrap_err();
    assert!(matches!(error, GraphError::NothingLeft { layer } if layer == "a"));
}

#[test]
fn blocks_of_a_grouped_convolution_lose_the_same_number() {
    let mut graph = ChannelEntries::default()
        .param("a", &[6])
        .group(6, &[("a", 0)], &[]);
    graph.groups[0].blocks = 2;
    // The first block could lose 0 and 2, the second only 4: channel 0 stays.
    let given = masks(&[("a", &[6], &[0.0, 1.0, 0.0, 1.0, 0.0, 1.0])]);
    assert_eq!(graph.removable(&given).unwrap(), channels([2, 4]));
}

#[test]
fn masks_must_fit_the_graph() {
    let graph = ChannelEntries::default()
        .param("a", &[2])
        .group(2, &[("a", 0)], &[]);
    let error = graph
        .removable(&masks(&[("b", &[2], &[0.0, 1.0])]))
        .unwrap_err();
    assert!(matches!(error, GraphError::UnknownParameter { param } if param == "b"));
    let error = graph
        .removable(&masks(&[("a", &[3], &[0.0, 1.0, 1.0])]))
        .unwrap_err();
    assert!(matches!(error, GraphError::MaskShape { param, .. } if param == "a"));
}
