//! Layers, inputs and graphs of the small nets.

use super::*;

pub fn device() -> Device {
    Device::flex()
}

/// A 3x3 convolution that keeps the size of the feature map.
pub fn conv(inputs: usize, outputs: usize, groups: usize) -> Conv2d {
    Conv2dConfig::new([inputs, outputs], [3, 3])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .with_groups(groups)
        .init(&device())
}

pub fn norm(channels: usize) -> BatchNorm {
    BatchNormConfig::new(channels).init(&device())
}

/// A batch of two images.
pub fn images(channels: usize) -> Tensor<4> {
    let data: Vec<f32> = (0..2 * channels * 36)
        .map(|i| ((i * 7 + 3) % 11) as f32 - 5.0)
        .collect();
    Tensor::from_data(TensorData::new(data, [2, channels, 6, 6]), &device())
}

pub fn analyze<M: Module>(model: &M, dummy: &DummyInput<M>) -> ChannelGraph {
    ChannelGraph::analyze(&capture(model, dummy).unwrap()).unwrap()
}

/// Every channel of group `group` whose position is in `positions`.
pub fn pick(graph: &ChannelGraph, group: usize, positions: &[usize]) -> BTreeSet<ChannelId> {
    let channels = &graph.groups()[group].channels;
    positions
        .iter()
        .map(|&position| channels[position])
        .collect()
}
