//! One operation after another between two convolutions: what may be cut is cut exactly.

use burn::module::ModuleDisplay;
use burn::nn::attention::{MhaInput, MultiHeadAttentionConfig};
use burn::nn::conv::{Conv1dConfig, ConvTranspose2dConfig};
use burn::nn::gru::GruConfig;
use burn::nn::pool::{AvgPool2dConfig, MaxPool2dConfig};
use burn::nn::{
    GroupNormConfig, LayerNormConfig, LinearConfig, LstmConfig, PReluConfig, PaddingConfig1d,
    RmsNormConfig,
};
use burn::tensor::activation::*;
use burn::tensor::module::*;
use burn::tensor::ops::*;

use super::*;

type Case = (&'static str, usize, fn(Tensor<4>) -> Tensor<4>);

#[derive(Module, Debug)]
struct Pair {
    conv1: Conv2d,
    conv2: Conv2d,
}

/// `conv1`, `between`, `conv2`; whether channels of `conv1` may be removed. If they may, cutting one
/// or two of the four off must not change what the masked model computes.
fn is_free(inputs: usize, between: fn(Tensor<4>) -> Tensor<4>) -> bool {
    let model = Pair {
        conv1: conv(3, 4, 1),
        conv2: conv(inputs, 2, 1),
    };
    let dummy = DummyInput::new(images(3), move |model: &Pair, x: Tensor<4>| {
        model.conv2.forward(between(model.conv1.forward(x)))
    });
    let graph = analyze(&model, &dummy);
    let group = graph.group_of("conv1", "weight", 0).unwrap();
    let channels = &graph.groups()[group].channels;
    let free: Vec<usize> = (0..channels.len())
        .filter(|&i| graph.protected(channels[i]).is_none())
        .collect();
    if free.is_empty() {
        return false;
    }
    let removed = match graph.groups()[group].blocks {
        1 => vec![free[0]],
        blocks => (0..blocks).map(|i| i * channels.len() / blocks).collect(),
    };
    assert_exact(&model, &dummy, &pick(&graph, group, &removed), |_, _| {});
    true
}

/// Runs each case `(name, channels that conv2 reads, operation)`.
fn assert_each(cases: Vec<Case>, free: bool) {
    for (name, inputs, between) in cases {
        assert_eq!(is_free(inputs, between), free, "{name}");
    }
}

#[test]
fn operations_that_let_channels_go() {
    let cases: Vec<Case> = vec![
        ("max_pool", 4, |x| {
            MaxPool2dConfig::new([2, 2])
                .with_strides([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init()
                .forward(x)
        }),
        ("max_pool with uneven padding", 4, |x| {
            let pool = MaxPool2dConfig::new([2, 2]).with_strides([1, 1]);
            pool.with_padding(PaddingConfig2d::Same).init().forward(x)
        }),
        ("avg_pool", 4, |x| {
            AvgPool2dConfig::new([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init()
                .forward(x)
        }),
        ("adaptive", 4, |x| adaptive_avg_pool2d(x, [3, 3])),
        ("silu", 4, silu),
        ("mish", 4, mish),
        ("gelu", 4, gelu),
        ("gelu_approx", 4, gelu_approximate),
        ("hard_swish", 4, hard_swish),
        ("hard_sigmoid", 4, |x| x.clone() * hard_sigmoid(x, 0.2, 0.5)),
        ("elu", 4, |x| elu(x, 1.0)),
        ("celu", 4, |x| celu(x, 1.0)),
        ("selu", 4, selu),
        ("softsign", 4, softsign),
        ("tanh", 4, tanh),
        ("leaky", 4, |x| leaky_relu(x, 0.1)),
        ("thresholded", 4, |x| thresholded_relu(x, 0.3)),
        ("soft_shrink", 4, |x| soft_shrink(x, 0.3)),
        ("hard_shrink", 4, |x| hard_shrink(x, 0.3)),
        ("glu", 2, |x| glu(x, 1)),
        ("softmax spatial gate", 4, |x| x.clone() * softmax(x, 3)),
        ("softplus gate", 4, |x| x.clone() * softplus(x, 1.0)),
        ("spatial norm", 4, |x| {
            let mean = x.clone().mean_dim(3);
            (x - mean).powf_scalar(2.0)
        }),
        ("var", 4, |x| {
            let (var, mean) = x.clone().var_mean(3);
            (x - mean) / (var + 1e-5).sqrt()
        }),
        ("max_dim", 4, |x| x.clone().max_dim(3) * x),
        ("flip", 4, |x| x.flip([1, 3])),
        ("roll", 4, |x| x.roll(&[1], &[3])),
        ("cumsum", 4, |x| x.cumsum(2)),
        ("sort", 4, |x| x.sort(2)),
        ("topk", 4, |x| x.topk(3, 3)),
        ("narrow", 4, |x| x.narrow(2, 1, 3)),
        ("slice step", 4, |x| x.slice([0..2, 0..4, 1..5, 0..6])),
        ("chunk spatial", 4, |x| {
            let parts = x.chunk(2, 3);
            parts[0].clone() * parts[1].clone()
        }),
        ("split channels", 4, |x| Tensor::cat(x.split(2, 1), 1)),
        ("chunk channels swap", 4, |x| {
            let mut parts = x.chunk(2, 1);
            parts.reverse();
            Tensor::cat(parts, 1)
        }),
        ("stack sum", 4, |x| {
            Tensor::stack::<5>(vec![x.clone(), relu(x)], 1)
                .sum_dim(1)
                .squeeze_dim::<4>(1)
        }),
        ("unsqueeze", 4, |x| {
            x.unsqueeze_dim::<5>(2).squeeze_dim::<4>(2)
        }),
        ("permute", 4, |x| {
            x.permute([0, 2, 3, 1]).permute([0, 3, 1, 2])
        }),
        ("movedim", 4, |x| x.movedim(1, 3).movedim(3, 1)),
        ("swap spatial", 4, |x| x.swap_dims(2, 3)),
        ("attention over places", 4, |x| {
            let [b, c, h, w] = x.dims();
            let flat = x.reshape([b, c, h * w]);
            let scores = softmax(flat.clone().swap_dims(1, 2).matmul(flat.clone()), 2);
            flat.matmul(scores).reshape([b, c, h, w])
        }),
        ("attention over channels", 4, |x| {
            let [b, c, h, w] = x.dims();
            let flat = x.reshape([b, c, h * w]);
            let scores = flat.clone().matmul(flat.clone().swap_dims(1, 2));
            scores.matmul(flat).reshape([b, c, h, w])
        }),
        ("l2 over places", 4, |x| {
            let norm = x.clone().powi_scalar(2).sum_dim(2).sum_dim(3).sqrt() + 1e-3;
            x / norm
        }),
        ("masked", 4, |x| {
            let mask = x.clone().lower_elem(0.2);
            x.mask_fill(mask, 0.0)
        }),
        ("mask_where", 4, |x| {
            let mask = x.clone().lower_elem(0.2);
            let other = x.clone() * 0.5;
            x.mask_where(mask, other)
        }),
        ("repeat spatial", 4, |x| x.repeat_dim(2, 2)),
        ("repeat channels", 8, |x| x.repeat_dim(1, 2)),
        ("cat with itself", 8, |x| {
            Tensor::cat(vec![x.clone(), relu(x)], 1)
        }),
        ("cat along height", 4, |x| {
            Tensor::cat(vec![x.clone(), relu(x)], 2)
        }),
        ("pad", 4, |x| x.pad((1, 2, 1, 0), 0.0)),
        ("pad reflect", 4, |x| x.pad((1, 1, 1, 1), PadMode::Reflect)),
        ("pad edge", 4, |x| x.pad((1, 1, 1, 1), PadMode::Edge)),
        ("interpolate", 4, |x| {
            interpolate(
                x,
                InterpolateOptions::new(InterpolateMode::Bilinear).with_output_size([9, 9]),
            )
        }),
        ("nearest", 4, |x| {
            interpolate(
                x,
                InterpolateOptions::new(InterpolateMode::Nearest).with_output_size([12, 12]),
            )
        }),
        ("bicubic", 4, |x| {
            interpolate(
                x,
                InterpolateOptions::new(InterpolateMode::Bicubic).with_output_size([9, 9]),
            )
        }),
        ("unfold4d", 16, |x| {
            let [b, _, _, _] = x.dims();
            let columns = unfold4d(x, [2, 2], UnfoldOptions::new([2, 2], [0, 0], [1, 1]));
            let c = columns.dims()[1];
            columns.reshape([b, c, 3, 3])
        }),
        ("unfold", 4, |x| {
            let windows: Tensor<5> = x.unfold(3, 2, 2);
            windows.mean_dim(4).squeeze_dim::<4>(4)
        }),
        ("select spatial", 4, |x| {
            let device = x.device();
            x.select(2, Tensor::<1, Int>::from_ints([0, 2, 5], &device))
        }),
        ("slice_assign", 4, |x| {
            let part = x.clone().slice([0..2, 0..4, 0..2, 0..6]) * 2.0;
            x.slice_assign([0..2, 0..4, 2..4, 0..6], part)
        }),
        ("pixel unshuffle", 16, |x| {
            let [b, c, h, w] = x.dims();
            x.reshape([b, c, h / 2, 2, w / 2, 2])
                .permute([0, 1, 3, 5, 2, 4])
                .reshape([b, c * 4, h / 2, w / 2])
        }),
        ("channel shuffle", 4, |x| {
            let [b, c, h, w] = x.dims();
            x.reshape([b, 2, c / 2, h, w])
                .swap_dims(1, 2)
                .reshape([b, c, h, w])
        }),
        ("maxout", 2, |x| {
            let [b, c, h, w] = x.dims();
            x.reshape([b, c / 2, 2, h, w])
                .max_dim(2)
                .squeeze_dim::<4>(2)
        }),
        ("abs sqrt", 4, |x| x.abs().sqrt()),
        ("sign", 4, |x| x.clone().sign() * x),
        ("clamp", 4, |x| x.clamp(-1.0, 1.0)),
        ("round", 4, |x| x.round()),
        ("exp minus one", 4, |x| x.exp() - 1.0),
        ("log1p", 4, |x| x.abs().log1p()),
        ("erf", 4, |x| x.erf()),
        ("powf", 4, |x| x.abs().powf_scalar(1.5)),
        ("cast", 4, |x| x.clone() * x.greater_elem(0.1).float()),
        ("int", 4, |x| x.int().float()),
        ("remainder", 4, |x| x.remainder_scalar(1.0)),
        ("expand", 4, |x| {
            let [b, c, h, w] = x.dims();
            x.mean_dim(3).expand([b, c, h, w])
        }),
        ("scalar tensor", 4, |x| {
            let device = x.device();
            x * Tensor::<4>::full([1, 1, 1, 1], 0.5, &device)
        }),
        ("min of two", 4, |x| x.clone().min_pair(relu(x))),
        ("tril", 4, |x| x.tril(0)),
        ("argmax gate", 4, |x| x.clone() * x.argmax(3).float()),
        ("bool not", 4, |x| {
            x.clone() * x.equal_elem(0.0).bool_not().float()
        }),
        ("any", 4, |x| {
            x.clone() * x.greater_elem(0.0).any_dim(3).float()
        }),
        ("einsum like", 4, |x| x.clone().matmul(x.transpose())),
        ("grid sample", 4, |x| {
            let device = x.device();
            let [b, _, h, w] = x.dims();
            x.grid_sample_2d(
                Tensor::<4>::zeros([b, h, w, 2], &device),
                GridSampleOptions::default(),
            )
        }),
        ("linear last", 4, |x| {
            let device = x.device();
            linear(x, Tensor::<2>::ones([6, 6], &device), None)
        }),
        ("where ones", 4, |x| x.clone() + (x.clone() - x)),
        ("nan_to_num", 4, |x| {
            let nan = x.clone().is_nan();
            x.mask_fill(nan, 0.0)
        }),
        ("hypot", 4, |x| {
            (x.clone().powi_scalar(2) + x.powi_scalar(2)).sqrt()
        }),
        ("div of abs", 4, |x| x.clone() / (x.abs() + 1.0)),
    ];
    assert_each(cases, true);
}

#[test]
fn operations_that_hold_channels() {
    let cases: Vec<Case> = vec![
        ("softmax over channels", 4, |x| softmax(x, 1)),
        ("mask_where of ones", 4, |x| {
            let mask = x.clone().lower_elem(0.2);
            let other = x.clone() * 0.5 + 1.0;
            x.mask_where(mask, other)
        }),
        ("cat with zeros", 4, |x| {
            let zeros = x.clone().slice([0..2, 0..4, 0..1, 0..6]).zeros_like();
            Tensor::cat(vec![x, zeros], 2)
        }),
        ("pad ones", 4, |x| x.pad((1, 2, 1, 0), 1.0)),
        ("select channels", 4, |x| {
            let device = x.device();
            x.select(1, Tensor::<1, Int>::from_ints([3, 1, 0, 2], &device))
        }),
        ("gather", 4, |x| {
            let index = x.clone().argsort(3);
            x.gather(3, index)
        }),
        ("slice_assign zeros", 4, |x| {
            let zeros = x.clone().slice([0..2, 0..4, 0..2, 0..6]).zeros_like();
            x.slice_assign([0..2, 0..4, 2..4, 0..6], zeros)
        }),
        ("pixel shuffle", 1, |x| {
            let [b, c, h, w] = x.dims();
            x.reshape([b, c / 4, 2, 2, h, w])
                .permute([0, 1, 4, 2, 5, 3])
                .reshape([b, c / 4, h * 2, w * 2])
        }),
        ("mean gate", 4, |x| x.clone() * x.mean_dim(1)),
        ("max channels", 1, |x| x.max_dim(1)),
        ("spatial attention", 4, |x| {
            let pooled = Tensor::cat(vec![x.clone().mean_dim(1), x.clone().max_dim(1)], 1);
            x * sigmoid(pooled.mean_dim(1))
        }),
        ("linear last biased", 4, |x| {
            let device = x.device();
            linear(
                x,
                Tensor::<2>::ones([6, 6], &device),
                Some(Tensor::<1>::ones([6], &device)),
            )
        }),
        ("conv by hand", 4, |x| {
            let device = x.device();
            conv2d(
                x,
                Tensor::<4>::ones([4, 1, 3, 3], &device),
                None,
                ConvOptions::new([1, 1], [1, 1], [1, 1], 4),
            )
        }),
    ];
    assert_each(cases, false);
}

#[derive(Module, Debug)]
struct Through<L: Module> {
    conv1: Conv2d,
    between: L,
    conv2: Conv2d,
}

/// As [`is_free`], with a layer of the model in between.
fn is_free_through<L: Module + ModuleDisplay + Clone + 'static>(
    between: L,
    forward: impl Fn(&L, Tensor<4>) -> Tensor<4> + Send + Sync + 'static,
) -> bool {
    let model = Through {
        conv1: conv(3, 4, 1),
        between,
        conv2: conv(4, 2, 1),
    };
    let dummy = DummyInput::new(images(3), move |model: &Through<L>, x: Tensor<4>| {
        let x = forward(&model.between, model.conv1.forward(x));
        model.conv2.forward(x)
    });
    let graph = analyze(&model, &dummy);
    let group = graph.group_of("conv1", "weight", 0).unwrap();
    let free = graph.groups()[group].protected.is_none();
    if free {
        assert_exact(&model, &dummy, &pick(&graph, group, &[1]), |_, _| {});
    }
    free
}

#[test]
fn layers_that_let_channels_go_and_layers_that_hold_them() {
    let rows = |x: Tensor<4>| -> Tensor<3> { x.flatten(2, 3) };
    let linear = LinearConfig::new(6, 6).with_bias(false).init(&device());
    assert!(is_free_through(linear, |layer, x| layer.forward(x)));
    let linear = LinearConfig::new(4, 4).init(&device());
    assert!(is_free_through(linear, |layer, x| {
        layer.forward(x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
    }));
    let prelu = PReluConfig::new().with_num_parameters(4).init(&device());
    assert!(is_free_through(prelu, |layer, x| layer.forward(x)));
    let prelu = PReluConfig::new().init(&device());
    assert!(is_free_through(prelu, |layer, x| layer.forward(x)));
    let conv1d = Conv1dConfig::new(4, 4, 3).with_padding(PaddingConfig1d::Same);
    assert!(is_free_through(conv1d.init(&device()), move |layer, x| {
        layer.forward(rows(x)).reshape([2, -1, 6, 6])
    }));
    let up = ConvTranspose2dConfig::new([4, 4], [2, 2]).init(&device());
    assert!(is_free_through(up, |layer, x| layer.forward(x)));
    let dilated = Conv2dConfig::new([4, 4], [3, 3]).with_dilation([2, 2]);
    assert!(is_free_through(dilated.init(&device()), |layer, x| layer.forward(x)));
    let strided = Conv2dConfig::new([4, 4], [1, 1]).with_stride([2, 2]);
    assert!(is_free_through(strided.init(&device()), |layer, x| layer.forward(x)));

    let grouped = GroupNormConfig::new(2, 4).init(&device());
    assert!(!is_free_through(grouped, |layer, x| layer.forward(x)));
    let rms = RmsNormConfig::new(4).init(&device());
    assert!(!is_free_through(rms, |layer, x| {
        layer.forward(x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
    }));
    let rms = RmsNormConfig::new(6).init(&device());
    assert!(is_free_through(rms, |layer, x| layer.forward(x)));
    let norm = LayerNormConfig::new(4).init(&device());
    assert!(!is_free_through(norm, |layer, x| {
        layer.forward(x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
    }));
    // Over places, with a shift of each place that no mask of the channel reaches.
    let norm = LayerNormConfig::new(6).init(&device());
    assert!(!is_free_through(norm, |layer, x| layer.forward(x)));
    let groups = ConvTranspose2dConfig::new([4, 4], [2, 2]).with_groups(2);
    assert!(!is_free_through(groups.init(&device()), |layer, x| layer.forward(x)));
    // Its heads may go, but it refuses an input of another width.
    let attention = MultiHeadAttentionConfig::new(4, 2).init(&device());
    assert!(!is_free_through(attention, move |layer, x| {
        let rows = MhaInput::self_attn(rows(x).swap_dims(1, 2));
        layer
            .forward(rows)
            .context
            .swap_dims(1, 2)
            .reshape([2, 4, 6, 6])
    }));
    let lstm = LstmConfig::new(4, 4, true).init(&device());
    assert!(is_free_through(lstm, move |layer, x| {
        let (states, _) = layer.forward(rows(x).swap_dims(1, 2), None);
        states.swap_dims(1, 2).reshape([2, 4, 6, 6])
    }));
    let gru = GruConfig::new(4, 4, true).init(&device());
    assert!(is_free_through(gru, move |layer, x| {
        let states = layer.forward(rows(x).swap_dims(1, 2), None);
        states.swap_dims(1, 2).reshape([2, 4, 6, 6])
    }));
}
