//! Memory of activations, worked out by hand.

use std::collections::BTreeSet;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use crate::{ChannelGraph, DummyInput, capture};

#[derive(Module, Debug)]
struct Mlp {
    first: Linear,
    second: Linear,
    third: Linear,
}

impl Mlp {
    fn new(device: &Device) -> Self {
        let linear = |i, o| LinearConfig::new(i, o).with_bias(false).init(device);
        Self {
            first: linear(4, 8),
            second: linear(8, 6),
            third: linear(6, 2),
        }
    }
}

fn graph(forward: fn(&Mlp, Tensor<2>) -> Tensor<2>) -> ChannelGraph {
    let device = Device::flex();
    let dummy = DummyInput::new(Tensor::<2>::ones([2, 4], &device), forward);
    ChannelGraph::analyze(&capture(&Mlp::new(&device), &dummy).unwrap()).unwrap()
}

/// In bytes, for a batch of 2 and 4 bytes a value:
///
/// ```text
/// operation   live                  whole       half of `first` gone
/// first       x [4], y [8]          32 + 64     32 + 32
/// relu        y [8], z [8]          64 + 64     32 + 32
/// second      z [8], u [6]          64 + 48     32 + 48
/// relu        u [6], v [6]          48 + 48     48 + 48
/// third       v [6], out [2]        48 + 16     48 + 16
/// ```
#[test]
fn the_peak_of_three_layers() {
    let graph = graph(|net, x| {
        let x = relu(net.first.forward(x));
        net.third.forward(relu(net.second.forward(x)))
    });
    assert_eq!(graph.batch(), 2);
    assert_eq!(graph.peak_activation_bytes(&BTreeSet::new()), 128);
    let channels = &graph.groups()[0].channels;
    assert_eq!(channels.len(), 8);
    let half: BTreeSet<_> = channels[..4].iter().copied().collect();
    assert_eq!(graph.peak_activation_bytes(&half), 96);
}

/// A skip keeps `y [8]` in memory until the addition: 64 (y) + 64 (z) + 64 (sum), with x gone.
#[test]
fn what_is_read_later_stays_in_memory() {
    let graph = graph(|net, x| {
        let y = net.first.forward(x);
        let sum = relu(y.clone()) + y;
        net.third.forward(relu(net.second.forward(sum)))
    });
    assert_eq!(graph.peak_activation_bytes(&BTreeSet::new()), 3 * 64);
}

/// Views take no memory: x and y alone at the first layer, as above.
#[test]
fn views_are_not_counted() {
    let graph = graph(|net, x| {
        let y = relu(net.first.forward(x)).reshape([4, 4]).swap_dims(0, 1);
        let y = y.swap_dims(0, 1).reshape([2, 8]);
        net.third.forward(relu(net.second.forward(y)))
    });
    assert_eq!(graph.peak_activation_bytes(&BTreeSet::new()), 128);
}
