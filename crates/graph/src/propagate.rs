//! Which channels can be removed, given the masks.
//!
//! A channel is removed when nothing that the model computes depends on it. Two reasons are known:
//!
//! ```text
//! it is zero:      every entry that makes it is masked: the rows of every convolution or linear
//!                  layer that feeds it, their biases, gamma and beta of every normalization
//! nobody reads it: every entry of every weight that reads it is masked
//! ```
//!
//! A channel that is fed by several layers joined by an addition goes only when all of them agree:
//! what any of them keeps is kept (the union of the kept). Entries of a removed channel count as
//! masked from then on, so a channel that was read by removed channels alone goes as well, and so
//! on until nothing changes (a fixpoint).
//!
//! All masks are masks of parameters here. Pruners ask with the masks that they are about to write,
//! speedup with those that a run has left.
//!
//! Reference: the mask conflicts and the mask inference of NNI's `ModelSpeedup`. There, masks are
//! found numerically, by running random inputs and testing for constant outputs; here they follow
//! from the graph, so that a channel is never removed by chance.

use std::collections::BTreeSet;
use std::fmt::Debug;

use indexmap::IndexMap;

use super::GraphError;

/// The entries of a parameter that belong to one channel: everything at `index` along `dim`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Path of the parameter, `conv1.weight`.
    pub param: String,
    /// The dimension that the channel runs along.
    pub dim: usize,
    /// The index along that dimension.
    pub index: usize,
}

impl Position {
    /// Everything at `index` along `dim` of the parameter at `param`.
    pub fn new(param: impl Into<String>, dim: usize, index: usize) -> Self {
        Self {
            param: param.into(),
            dim,
            index,
        }
    }
}

/// The mask of a parameter.
pub trait Entries {
    /// The shape, that of the parameter.
    fn shape(&self) -> &[usize];

    /// Whether each element is kept, in row-major order.
    fn kept(&self) -> impl Iterator<Item = bool>;
}

/// Channels that live side by side in the same tensors, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewedGroup<C> {
    /// How errors name the group, usually the layer that makes the channels.
    pub name: String,
    /// The channels in the order of their tensor dimension.
    pub channels: Vec<C>,
    /// Into how many contiguous blocks a grouped convolution splits them, 1 for no split. Every
    /// block keeps the same number of channels.
    pub blocks: usize,
}

/// What the propagation needs to know of a model's graph.
pub trait GraphView {
    /// Identity of a channel.
    type Channel: Copy + Ord + Debug;

    /// The shape of the parameter at `path`.
    fn shape(&self, path: &str) -> Option<Vec<usize>>;

    /// The groups; each channel is in exactly one.
    fn groups(&self) -> Vec<ViewedGroup<Self::Channel>>;

    /// The entries that make the channel: when all are masked it is zero wherever it is read.
    fn producers(&self, channel: Self::Channel) -> Vec<Position>;

    /// The entries that read the channel.
    fn consumers(&self, channel: Self::Channel) -> Vec<Position>;

    /// Whether the channel must stay whatever is masked, because it reaches the output for example.
    fn is_fixed(&self, channel: Self::Channel) -> bool;
}

/// The channels that can be removed without changing what the masked model computes.
///
/// A parameter without a mask keeps everything. At least one channel of each group stays.
///
/// # Errors
///
/// [`GraphError::NothingLeft`] when all channels of a group would go,
/// [`GraphError::MaskShape`] when a mask does not have the shape of its parameter and
/// [`GraphError::UnknownParameter`] when there is no such parameter.
pub fn removable<G: GraphView>(
    graph: &G,
    masks: &IndexMap<String, impl Entries>,
) -> Result<BTreeSet<G::Channel>, GraphError> {
    Ok(removal_order(graph, masks)?.into_iter().collect())
}

/// The channels of [`removable`] in the order in which they were found.
///
/// Every channel depends only on those before it, so removing the first few alone does not change
/// the function either, apart from the balance of blocks.
///
/// # Errors
///
/// As [`removable`].
pub fn removal_order<G: GraphView>(
    graph: &G,
    masks: &IndexMap<String, impl Entries>,
) -> Result<Vec<G::Channel>, GraphError> {
    let groups = graph.groups();
    let mut kept = Kept::new(graph, masks)?;
    let mut removed = BTreeSet::new();
    let mut order = Vec::new();
    loop {
        let before = removed.len();
        for group in &groups {
            for &channel in &group.channels {
                if removed.contains(&channel) || graph.is_fixed(channel) {
                    continue;
                }
                let (makes, reads) = (graph.producers(channel), graph.consumers(channel));
                let is_zero = !makes.is_empty() && kept.all_masked(graph, &makes)?;
                let is_unread = !reads.is_empty() && kept.all_masked(graph, &reads)?;
                if is_zero || is_unread {
                    kept.mask(graph, makes.iter().chain(&reads))?;
                    removed.insert(channel);
                    order.push(channel);
                }
            }
        }
        if removed.len() == before {
            break;
        }
    }
    for group in &groups {
        if group
            .channels
            .iter()
            .all(|channel| removed.contains(channel))
        {
            if group.channels.is_empty() {
                continue;
            }
            return Err(GraphError::NothingLeft {
                layer: group.name.clone(),
            });
        }
        balance(group, &mut removed);
    }
    order.retain(|channel| removed.contains(channel));
    Ok(order)
}

/// Puts the surplus back, so that every block keeps as many channels as the fullest one.
///
/// A channel that is put back is still zero or still unread, so the function does not change.
fn balance<C: Copy + Ord>(group: &ViewedGroup<C>, removed: &mut BTreeSet<C>) {
    if group.blocks <= 1 || !group.channels.len().is_multiple_of(group.blocks) {
        return;
    }
    let blocks: Vec<&[C]> = group
        .channels
        .chunks(group.channels.len() / group.blocks)
        .collect();
    let count = |block: &[C], removed: &BTreeSet<C>| {
        block
            .iter()
            .filter(|channel| !removed.contains(channel))
            .count()
    };
    let most = blocks
        .iter()
        .map(|block| count(block, removed))
        .max()
        .unwrap_or(0);
    for block in blocks {
        let missing = most - count(block, removed);
        let back: Vec<C> = block
            .iter()
            .copied()
            .filter(|channel| removed.contains(channel))
            .take(missing)
            .collect();
        for channel in back {
            removed.remove(&channel);
        }
    }
}

/// Which entries of each parameter are still kept; parameters without any masked entry are absent.
struct Kept {
    params: IndexMap<String, (Vec<usize>, Vec<bool>)>,
}

impl Kept {
    fn new<G: GraphView>(
        graph: &G,
        masks: &IndexMap<String, impl Entries>,
    ) -> Result<Self, GraphError> {
        let mut params = IndexMap::new();
        for (path, mask) in masks {
            let shape = shape_of(graph, path)?;
            if mask.shape() != shape {
                return Err(GraphError::MaskShape {
                    param: path.clone(),
                    expected: shape,
                    found: mask.shape().to_vec(),
                });
            }
            let entries = mask.kept().collect();
            params.insert(path.clone(), (shape, entries));
        }
        Ok(Self { params })
    }

    fn all_masked<G: GraphView>(
        &self,
        graph: &G,
        positions: &[Position],
    ) -> Result<bool, GraphError> {
        for position in positions {
            let Some((shape, entries)) = self.params.get(&position.param) else {
                shape_of(graph, &position.param)?;
                return Ok(false);
            };
            if entries_at(shape, position)?.any(|at| entries[at]) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn mask<'a, G: GraphView>(
        &mut self,
        graph: &G,
        positions: impl Iterator<Item = &'a Position>,
    ) -> Result<(), GraphError> {
        for position in positions {
            if !self.params.contains_key(&position.param) {
                let shape = shape_of(graph, &position.param)?;
                let entries = vec![true; shape.iter().product()];
                self.params.insert(position.param.clone(), (shape, entries));
            }
            let (shape, entries) = &mut self.params[&position.param];
            for at in entries_at(shape, position)? {
                entries[at] = false;
            }
        }
        Ok(())
    }
}

fn shape_of<G: GraphView>(graph: &G, path: &str) -> Result<Vec<usize>, GraphError> {
    graph
        .shape(path)
        .ok_or_else(|| GraphError::UnknownParameter {
            param: path.to_string(),
        })
}

/// The row-major offsets of the entries at a position of a parameter of this shape.
///
/// # Errors
///
/// [`GraphError::Index`] when the position is outside of the shape.
pub fn entries_at(
    shape: &[usize],
    position: &Position,
) -> Result<impl Iterator<Item = usize> + use<>, GraphError> {
    let Position { param, dim, index } = position;
    if *dim >= shape.len() || *index >= shape[*dim] {
        return Err(GraphError::Index {
            param: param.clone(),
            dim: *dim,
            index: *index,
            shape: shape.to_vec(),
        });
    }
    let inner: usize = shape[dim + 1..].iter().product();
    let step = shape[*dim] * inner;
    let outer: usize = shape[..*dim].iter().product();
    let start = index * inner;
    Ok((0..outer).flat_map(move |block| {
        let first = block * step + start;
        first..first + inner
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hand-made graph: channels by number.
    #[derive(Default)]
    struct Graph {
        shapes: IndexMap<String, Vec<usize>>,
        groups: Vec<ViewedGroup<usize>>,
        producers: Vec<Vec<Position>>,
        consumers: Vec<Vec<Position>>,
        fixed: BTreeSet<usize>,
    }

    impl Graph {
        fn param(mut self, path: &str, shape: &[usize]) -> Self {
            self.shapes.insert(path.to_string(), shape.to_vec());
            self
        }

        /// `size` channels that run along the given dimensions of the given parameters.
        fn group(mut self, size: usize, made: &[(&str, usize)], read: &[(&str, usize)]) -> Self {
            let first = self.producers.len();
            for index in 0..size {
                let at = |list: &[(&str, usize)]| {
                    list.iter()
                        .map(|(path, dim)| Position::new(*path, *dim, index))
                        .collect()
                };
                self.producers.push(at(made));
                self.consumers.push(at(read));
            }
            self.groups.push(ViewedGroup {
                name: made[0].0.to_string(),
                channels: (first..first + size).collect(),
                blocks: 1,
            });
            self
        }
    }

    impl GraphView for Graph {
        type Channel = usize;

        fn shape(&self, path: &str) -> Option<Vec<usize>> {
            self.shapes.get(path).cloned()
        }

        fn groups(&self) -> Vec<ViewedGroup<usize>> {
            self.groups.clone()
        }

        fn producers(&self, channel: usize) -> Vec<Position> {
            self.producers[channel].clone()
        }

        fn consumers(&self, channel: usize) -> Vec<Position> {
            self.consumers[channel].clone()
        }

        fn is_fixed(&self, channel: usize) -> bool {
            self.fixed.contains(&channel)
        }
    }

    struct Mask(Vec<f32>, Vec<usize>);

    impl Entries for Mask {
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
    fn chain() -> Graph {
        Graph::default()
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
        assert_eq!(removable(&graph, &given).unwrap(), BTreeSet::new());
        given.extend(masks(&[("norm.beta", &[3], entry_1)]));
        assert_eq!(removable(&graph, &given).unwrap(), BTreeSet::from([1]));
    }

    #[test]
    fn one_kept_entry_keeps_the_channel() {
        let graph = Graph::default()
            .param("a", &[2, 2])
            .group(2, &[("a", 0)], &[]);
        let given = masks(&[("a", &[2, 2], &[1.0, 1.0, 0.0, 1.0])]);
        assert_eq!(removable(&graph, &given).unwrap(), BTreeSet::new());
    }

    #[test]
    fn joined_layers_keep_the_union() {
        // Kept by a: 0 1, kept by b: 1 2. Channel 3 is masked in both.
        let graph =
            Graph::default()
                .param("a", &[4])
                .param("b", &[4])
                .group(4, &[("a", 0), ("b", 0)], &[]);
        let given = masks(&[
            ("a", &[4], &[1.0, 1.0, 0.0, 0.0]),
            ("b", &[4], &[0.0, 1.0, 1.0, 0.0]),
        ]);
        assert_eq!(removable(&graph, &given).unwrap(), BTreeSet::from([3]));
    }

    #[test]
    fn what_only_removed_channels_read_goes_too() {
        // in --a[2, 3]--> 0 1 --b[2, 2]--> 2 3 --c[2, 1]--> out, weights as [in, out].
        let graph = Graph::default()
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
        assert_eq!(removable(&graph, &given).unwrap(), BTreeSet::from([1, 3]));
    }

    #[test]
    fn fixed_channels_stay() {
        let mut graph = Graph::default().param("a", &[2]).group(2, &[("a", 0)], &[]);
        graph.fixed.insert(0);
        let given = masks(&[("a", &[2], &[0.0, 1.0])]);
        assert_eq!(removable(&graph, &given).unwrap(), BTreeSet::new());
    }

    #[test]
    fn a_group_never_disappears() {
        let graph = Graph::default().param("a", &[2]).group(2, &[("a", 0)], &[]);
        let error = removable(&graph, &masks(&[("a", &[2], &[0.0, 0.0])])).unwrap_err();
        assert!(matches!(error, GraphError::NothingLeft { layer } if layer == "a"));
    }

    #[test]
    fn blocks_of_a_grouped_convolution_lose_the_same_number() {
        let mut graph = Graph::default().param("a", &[6]).group(6, &[("a", 0)], &[]);
        graph.groups[0].blocks = 2;
        // The first block could lose 0 and 2, the second only 4: channel 0 stays.
        let given = masks(&[("a", &[6], &[0.0, 1.0, 0.0, 1.0, 0.0, 1.0])]);
        assert_eq!(removable(&graph, &given).unwrap(), BTreeSet::from([2, 4]));
    }

    #[test]
    fn masks_must_fit_the_graph() {
        let graph = Graph::default().param("a", &[2]).group(2, &[("a", 0)], &[]);
        let error = removable(&graph, &masks(&[("b", &[2], &[0.0, 1.0])])).unwrap_err();
        assert!(matches!(error, GraphError::UnknownParameter { param } if param == "b"));
        let error = removable(&graph, &masks(&[("a", &[3], &[0.0, 1.0, 1.0])])).unwrap_err();
        assert!(matches!(error, GraphError::MaskShape { param, .. } if param == "a"));
    }
}
