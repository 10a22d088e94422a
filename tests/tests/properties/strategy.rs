//! How descriptions of networks are drawn.

use burn_compress_tests::random_net::{ActSpec, BlockSpec, HeadSpec, NetSpec, Style};
use proptest::prelude::*;

/// Networks of one to four blocks, most of them behind a stem.
pub fn nets() -> impl Strategy<Value = NetSpec> {
    let blocks = prop::collection::vec(block(), 1..=4);
    (
        any::<u64>(),
        1..=3usize,
        prop::option::weighted(0.7, stem()),
        blocks,
        head(),
    )
        .prop_map(|(seed, inputs, stem, blocks, head)| {
            let blocks = stem.into_iter().chain(blocks).take(4).collect();
            NetSpec {
                seed,
                inputs,
                blocks,
                head,
            }
        })
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

fn stem() -> impl Strategy<Value = BlockSpec> {
    (width(), 1..=2usize, style()).prop_map(|(width, stride, style)| BlockSpec::Conv {
        width,
        kernel: 3,
        stride,
        style,
    })
}

fn block() -> impl Strategy<Value = BlockSpec> {
    let kernel = prop::sample::select(vec![1, 3usize]);
    let right = prop_oneof![1 => Just(0usize), 2 => width()];
    prop_oneof![
        (width(), kernel, 1..=2usize, style()).prop_map(|(width, kernel, stride, style)| {
            BlockSpec::Conv {
                width,
                kernel,
                stride,
                style,
            }
        }),
        (width(), style()).prop_map(|(hidden, style)| BlockSpec::Residual { hidden, style }),
        (width(), width(), 1..=2usize, style()).prop_map(|(hidden, width, stride, style)| {
            BlockSpec::Projected {
                hidden,
                width,
                stride,
                style,
            }
        }),
        (width(), right, style()).prop_map(|(left, right, style)| BlockSpec::Concat {
            left,
            right,
            style
        }),
        (width(), style()).prop_map(|(width, style)| BlockSpec::Separable { width, style }),
        (2..=4usize, 1..=4usize, style()).prop_map(|(groups, per_group, style)| {
            BlockSpec::Grouped {
                groups,
                per_group,
                style,
            }
        }),
        (any::<bool>(), any::<bool>()).prop_map(|(max, overlap)| BlockSpec::Pool { max, overlap }),
        (width(), style()).prop_map(|(hidden, style)| BlockSpec::Gate { hidden, style }),
    ]
}

fn head() -> impl Strategy<Value = HeadSpec> {
    // Enough features and logits that the largest logit is no small difference of large terms: the
    // tolerance is relative to it.
    let hidden = prop_oneof![Just(0usize), 6..=12usize];
    (any::<bool>(), hidden, act(), any::<bool>(), 5..=10usize).prop_map(
        |(flatten, hidden, act, bias, classes)| HeadSpec {
            flatten,
            hidden,
            act,
            bias,
            classes,
        },
    )
}
