//! How descriptions of networks are drawn.

use burn_compress_tests::random_net::{ActSpec, BlockSpec, Style};
use burn_compress_tests::random_ops::{
    Cell, GateSpec, Heads, ImageNorm, ImageSpec, OpsSpec, TokenNorm, TokenSpec,
};
use proptest::prelude::*;

/// Networks of at most twelve blocks.
pub fn nets() -> impl Strategy<Value = OpsSpec> {
    let images = prop::collection::vec(image(), 0..=5);
    let tokens = prop::collection::vec(token(), 0..=6);
    let (inputs, classes) = (2..=3usize, 5..=10usize);
    let stem = (width(), style()).prop_map(|(width, style)| BlockSpec::Conv {
        width,
        kernel: 3,
        stride: 2,
        style,
    });
    // The channels of the images themselves cannot go, so that a convolution reads them.
    let images = (stem, images).prop_map(|(stem, rest)| {
        let blocks = [ImageSpec::Block(stem)].into_iter().chain(rest);
        blocks.collect()
    });
    (any::<u64>(), inputs, images, 2..=12usize, tokens, classes).prop_map(
        |(seed, inputs, images, width, tokens, classes)| OpsSpec {
            seed,
            inputs,
            images,
            width,
            tokens,
            classes,
        },
    )
}

fn width() -> impl Strategy<Value = usize> {
    2..=12usize
}

fn act() -> impl Strategy<Value = ActSpec> {
    use ActSpec::{Gelu, LeakyRelu, None, Relu, Silu, Tanh};
    prop::sample::select(vec![Relu, Gelu, Silu, LeakyRelu, Tanh, None])
}

fn style() -> impl Strategy<Value = Style> {
    (any::<bool>(), any::<bool>(), act()).prop_map(|(bias, norm, act)| Style { bias, norm, act })
}

fn block() -> impl Strategy<Value = BlockSpec> {
    let conv = (width(), prop::sample::select(vec![1, 3usize]), style());
    prop_oneof![
        conv.prop_map(|(width, kernel, style)| BlockSpec::Conv {
            width,
            kernel,
            stride: 1,
            style,
        }),
        (width(), style()).prop_map(|(hidden, style)| BlockSpec::Residual { hidden, style }),
        (width(), width(), style()).prop_map(|(hidden, width, style)| BlockSpec::Projected {
            hidden,
            width,
            stride: 2,
            style,
        }),
        (width(), width(), style()).prop_map(|(left, right, style)| BlockSpec::Concat {
            left,
            right,
            style
        }),
        (width(), style()).prop_map(|(width, style)| BlockSpec::Separable { width, style }),
        // The only output of a group stays, as the number of groups does.
        (2..=4usize, 2..=4usize, style()).prop_map(|(groups, per_group, style)| {
            BlockSpec::Grouped {
                groups,
                per_group,
                style,
            }
        }),
    ]
}

fn image() -> impl Strategy<Value = ImageSpec> {
    let norms = vec![ImageNorm::Group, ImageNorm::Instance, ImageNorm::Layer];
    let parts = || (2..=3usize, 2..=4usize);
    prop_oneof![
        4 => block().prop_map(ImageSpec::Block),
        1 => (parts(), style()).prop_map(|((groups, per_group), style)| ImageSpec::Shuffle {
            groups,
            per_group,
            style,
        }),
        1 => (2..=4usize, style()).prop_map(|(width, style)| ImageSpec::Enlarge { width, style }),
        1 => (width(), style()).prop_map(|(width, style)| ImageSpec::Shrink { width, style }),
        2 => (prop::sample::select(norms), parts(), act()).prop_map(
            |(norm, (groups, per_group), act)| ImageSpec::Normalized {
                norm,
                groups,
                per_group,
                act,
            }
        ),
        1 => width().prop_map(|hidden| ImageSpec::Excite { hidden }),
        1 => (width(), width(), style())
            .prop_map(|(first, second, style)| ImageSpec::Parts { widths: [first, second], style }),
    ]
}

fn norm() -> impl Strategy<Value = TokenNorm> {
    prop::sample::select(vec![TokenNorm::None, TokenNorm::Layer, TokenNorm::Rms])
}

fn token() -> impl Strategy<Value = TokenSpec> {
    // Where the size of a head is a constant, only whole heads can go, and the only head never does.
    let heads = prop_oneof![
        (Just(Heads::BySize), 2..=3usize),
        (Just(Heads::ByCount), 1..=3usize),
    ];
    let attention = (
        (heads, 1..=2usize, 2..=4usize),
        (any::<bool>(), any::<bool>(), norm(), any::<bool>()),
    );
    let attention = attention.prop_map(
        |(((heads, key_heads), queries, size), (fused, rotary, norm, residual))| {
            TokenSpec::Attention {
                heads,
                key_heads,
                queries,
                size,
                fused,
                rotary,
                norm,
                residual,
            }
        },
    );
    let gates = vec![GateSpec::None, GateSpec::Halves, GateSpec::Layer];
    let gate = prop::sample::select(gates);
    let mlp = (width(), act(), gate, norm(), any::<bool>());
    let mlp = mlp.prop_map(|(hidden, act, gate, norm, residual)| TokenSpec::Mlp {
        hidden,
        act,
        gate,
        norm,
        residual,
    });
    let cells = vec![Cell::Lstm, Cell::Gru, Cell::BiLstm, Cell::BiGru];
    prop_oneof![
        3 => attention,
        3 => mlp,
        1 => (prop::sample::select(cells), 2..=8usize)
            .prop_map(|(cell, hidden)| TokenSpec::Recurrent { cell, hidden }),
        1 => act().prop_map(|act| TokenSpec::Shared { act }),
        1 => (2..=3usize, width()).prop_map(|(times, width)| TokenSpec::Repeat { times, width }),
    ]
}
