//! Convolutions, pooling and resizing of feature maps.

use burn::prelude::*;
use burn::tensor::module::{
    adaptive_avg_pool1d, adaptive_avg_pool2d, avg_pool1d, avg_pool2d, conv_transpose1d,
    conv_transpose2d, conv_transpose3d, conv1d, conv2d, conv3d, interpolate, max_pool1d,
    max_pool2d, max_pool2d_with_indices,
};
use burn::tensor::ops::{
    AvgPoolOptions, ConvOptions, ConvTransposeOptions, GridSampleOptions, GridSamplePaddingMode,
    InterpolateMode, InterpolateOptions, MaxPoolOptions, PadMode,
};

use burn_compress::DummyInput;
use burn_compress_export::{OnnxConfig, export_onnx};
use burn_compress_testkit::onnx::{OnnxRuntime, RunOptions};

use crate::fixtures::{Operations, compare, device, flat, flat_int, no_model, weights};

/// Of `[batch, 4, 6, 7]`.
const CONVOLUTIONS: Operations<4> = &[
    ("conv2d", |x| {
        let (w, b) = (
            weights([3, 4, 3, 3], &x.device()),
            weights([3], &x.device()),
        );
        flat(conv2d(
            x,
            w,
            Some(b),
            ConvOptions::new([2, 1], [1, 1], [1, 1], 1),
        ))
    }),
    ("conv2d_in_groups", |x| {
        let w = weights([4, 2, 3, 3], &x.device());
        flat(conv2d(
            x,
            w,
            None,
            ConvOptions::new([1, 1], [2, 1], [2, 1], 2),
        ))
    }),
    ("conv2d_depthwise", |x| {
        let w = weights([4, 1, 3, 3], &x.device());
        flat(conv2d(
            x,
            w,
            None,
            ConvOptions::new([1, 1], [1, 1], [1, 1], 4),
        ))
    }),
    ("conv2d_padded_at_the_end", |x| {
        let w = weights([2, 4, 2, 2], &x.device());
        let options = ConvOptions::new_with_padding([1, 1], [(0, 1), (1, 0)], [1, 1], 1);
        flat(conv2d(x, w, None, options))
    }),
    ("conv_transpose2d", |x| {
        let (w, b) = (
            weights([4, 2, 3, 3], &x.device()),
            weights([2], &x.device()),
        );
        let options = ConvTransposeOptions::new([2, 2], [1, 1], [1, 0], [1, 1], 1);
        flat(conv_transpose2d(x, w, Some(b), options))
    }),
    ("conv_transpose2d_in_groups", |x| {
        let w = weights([4, 1, 2, 2], &x.device());
        let options = ConvTransposeOptions::new([1, 1], [0, 0], [0, 0], [2, 2], 2);
        flat(conv_transpose2d(x, w, None, options))
    }),
    ("conv1d", |x| {
        let [batch, channels, height, width] = x.dims();
        let w = weights([3, 4, 3], &x.device());
        let x = x.reshape([batch, channels, height * width]);
        flat(conv1d(x, w, None, ConvOptions::new([1], [1], [2], 1)))
    }),
    ("conv_transpose1d", |x| {
        let [batch, channels, height, width] = x.dims();
        let w = weights([4, 3, 3], &x.device());
        let x = x.reshape([batch, channels, height * width]);
        let options = ConvTransposeOptions::new([2], [1], [1], [1], 1);
        flat(conv_transpose1d(x, w, None, options))
    }),
    ("conv3d", |x| {
        let w = weights([2, 2, 2, 3, 3], &x.device());
        let [batch, _, height, width] = x.dims();
        let x = x.reshape([batch, 2, 2, height, width]);
        flat(conv3d(
            x,
            w,
            None,
            ConvOptions::new([1, 1, 2], [1, 1, 1], [1, 1, 1], 1),
        ))
    }),
    ("conv_transpose3d", |x| {
        let w = weights([2, 1, 2, 2, 2], &x.device());
        let [batch, _, height, width] = x.dims();
        let x = x.reshape([batch, 2, 2, height, width]);
        let options = ConvTransposeOptions::new([1, 2, 1], [0, 1, 0], [0, 1, 0], [1, 1, 1], 1);
        flat(conv_transpose3d(x, w, None, options))
    }),
];

#[test]
fn convolutions() {
    compare(CONVOLUTIONS, [1, 4, 6, 7]);
}

fn pooled(kernel: usize, stride: usize, padding: usize) -> AvgPoolOptions<2> {
    let options = AvgPoolOptions::new([kernel, kernel]).with_stride([stride, stride]);
    options.with_padding([padding, padding])
}

/// Of `[batch, 2, 6, 7]`.
const POOLING: Operations<4> = &[
    ("max_pool2d", |x| {
        let options = MaxPoolOptions::new([3, 2])
            .with_stride([2, 2])
            .with_padding([1, 1]);
        flat(max_pool2d(x, options))
    }),
    ("max_pool2d_rounded_up", |x| {
        let options = MaxPoolOptions::new([3, 3])
            .with_stride([2, 2])
            .with_ceil_mode(true);
        flat(max_pool2d(x, options))
    }),
    ("max_pool2d_dilated", |x| {
        flat(max_pool2d(
            x,
            MaxPoolOptions::new([2, 2])
                .with_stride([1, 1])
                .with_dilation([2, 2]),
        ))
    }),
    ("max_pool2d_with_indices", |x| {
        let options = MaxPoolOptions::new([2, 2]).with_stride([2, 2]);
        let (values, indices) = max_pool2d_with_indices(x, options);
        flat(values + indices.float())
    }),
    ("max_pool_positions", |x| {
        let options = MaxPoolOptions::new([3, 3])
            .with_stride([2, 2])
            .with_padding([1, 1]);
        flat_int(max_pool2d_with_indices(x, options).1)
    }),
    ("max_pool1d", |x| {
        let x = x.narrow(2, 0, 1).squeeze_dim::<3>(2);
        flat(max_pool1d(
            x,
            MaxPoolOptions::new([3]).with_stride([2]).with_padding([1]),
        ))
    }),
    ("avg_pool2d", |x| flat(avg_pool2d(x, pooled(2, 2, 0)))),
    ("avg_pool2d_padded", |x| {
        flat(avg_pool2d(x, pooled(3, 2, 1).with_count_include_pad(true)))
    }),
    ("avg_pool2d_unpadded", |x| {
        flat(avg_pool2d(x, pooled(3, 2, 1).with_count_include_pad(false)))
    }),
    ("avg_pool2d_rounded_up", |x| {
        let options = pooled(3, 2, 1)
            .with_count_include_pad(true)
            .with_ceil_mode(true);
        flat(avg_pool2d(x, options))
    }),
    ("avg_pool2d_rounded_up_unpadded", |x| {
        let options = pooled(2, 2, 0)
            .with_count_include_pad(false)
            .with_ceil_mode(true);
        flat(avg_pool2d(x, options))
    }),
    ("avg_pool1d", |x| {
        let x = x.narrow(2, 0, 1).squeeze_dim::<3>(2);
        flat(avg_pool1d(
            x,
            AvgPoolOptions::new([3]).with_stride([2]).with_padding([1]),
        ))
    }),
    ("adaptive_to_one", |x| flat(adaptive_avg_pool2d(x, [1, 1]))),
    ("adaptive_to_parts", |x| {
        flat(adaptive_avg_pool2d(x, [3, 7]))
    }),
    ("adaptive_to_unequal_parts", |x| {
        flat(adaptive_avg_pool2d(x, [4, 5]))
    }),
    ("adaptive_to_itself", |x| {
        flat(adaptive_avg_pool2d(x, [6, 7]) + 1.0)
    }),
    ("adaptive_avg_pool1d", |x| {
        let x = x.narrow(2, 0, 1).squeeze_dim::<3>(2);
        flat(adaptive_avg_pool1d(x, 3))
    }),
    ("mean_of_image", |x| flat(x.mean_dim(3).mean_dim(2))),
    ("mean_of_rows_and_image", |x| {
        let rows = x.mean_dim(3);
        flat(rows.clone()).sum() + flat(rows.mean_dim(2))
    }),
];

#[test]
fn pooling() {
    compare(POOLING, [1, 2, 6, 7]);
}

fn resized(x: Tensor<4>, size: [usize; 2], mode: InterpolateMode, corners: bool) -> Tensor<1> {
    let options = InterpolateOptions::new(mode).with_align_corners(corners);
    flat(interpolate(x, options.with_output_size(size)))
}

/// Of `[batch, 2, 6, 7]`.
const SIZES: Operations<4> = &[
    ("nearest", |x| {
        resized(x, [12, 10], InterpolateMode::Nearest, false)
    }),
    ("nearest_smaller", |x| {
        resized(x, [4, 3], InterpolateMode::Nearest, false)
    }),
    ("bilinear", |x| {
        resized(x, [12, 10], InterpolateMode::Bilinear, false)
    }),
    ("bilinear_corners", |x| {
        resized(x, [12, 10], InterpolateMode::Bilinear, true)
    }),
    ("bilinear_smaller", |x| {
        resized(x, [3, 5], InterpolateMode::Bilinear, false)
    }),
    ("bicubic", |x| {
        resized(x, [12, 10], InterpolateMode::Bicubic, false)
    }),
    ("bicubic_corners", |x| {
        resized(x, [12, 10], InterpolateMode::Bicubic, true)
    }),
    ("pad", |x| flat(x.pad((1, 2, 0, 1), PadMode::Constant(0.5)))),
    ("pad_reflected", |x| {
        flat(x.pad((1, 2, 0, 1), PadMode::Reflect))
    }),
    ("pad_with_edges", |x| {
        flat(x.pad((1, 2, 0, 1), PadMode::Edge))
    }),
    ("grid_sample", |x| {
        let batch = x.dims()[0];
        let grid = weights([1, 3, 3, 2], &x.device()).repeat_dim(0, batch) * 1.2;
        let options = GridSampleOptions::new(InterpolateMode::Bilinear);
        flat(x.grid_sample_2d(
            grid,
            options.with_padding_mode(GridSamplePaddingMode::Zeros),
        ))
    }),
    ("pixel_shuffle", |x| {
        let [batch, _, height, width] = x.dims();
        let x = x.repeat_dim(1, 2).reshape([batch, 1, 2, 2, height, width]);
        flat(
            x.permute([0, 1, 4, 2, 5, 3])
                .reshape([batch, 1, height * 2, width * 2]),
        )
    }),
];

#[test]
fn sizes() {
    compare(SIZES, [1, 2, 6, 7]);
}

/// The CPU backend has no such interpolation: place `i` of the output is `floor((i + 1/2) 2 / 3)`.
#[test]
fn nearest_to_the_middle_of_a_place() {
    let forward = |_: &burn::nn::Linear, x: Tensor<4>| {
        let options = InterpolateOptions::new(InterpolateMode::NearestExact);
        interpolate(x, options.with_output_size([1, 3]))
    };
    let x = Tensor::<4>::from_floats([[[[5.0, 7.0]]]], &device());
    let dummy = DummyInput::new(x.clone(), forward);
    let file = export_onnx(&no_model(), &dummy, &OnnxConfig::new()).unwrap();
    let Some(runtime) = OnnxRuntime::find() else {
        return;
    };
    let run = runtime
        .run(file.bytes(), &[vec![x.into_data()]], &RunOptions::default())
        .unwrap();
    assert_eq!(
        run.outputs[0][0].iter::<f32>().collect::<Vec<_>>(),
        [5.0, 7.0, 7.0]
    );
}
