//! Shapes, parts and positions.

use burn::prelude::*;
use burn::tensor::IndexingUpdateOp;

use crate::fixtures::{Operations, compare, flat, flat_bool, weights};

fn positions<const D: usize>(values: [i64; 2], shape: [usize; D], x: &Tensor<3>) -> Tensor<D, Int> {
    let count: usize = shape.iter().product();
    let values: Vec<i64> = values.into_iter().cycle().take(count).collect();
    Tensor::from_data(TensorData::new(values, shape), &x.device())
}

/// Of `[batch, 3, 4]`.
const SHAPES: Operations<3> = &[
    ("reshape", |x| {
        let [batch, _, _] = x.dims();
        flat(x.reshape([batch, 2, 6]).sum_dim(2))
    }),
    ("reshape_to_front", |x| {
        let [batch, channels, width] = x.dims();
        flat(x.reshape([batch * channels, width]).cumsum(1))
    }),
    ("reshape_of_batch", |x| {
        let [batch, channels, width] = x.dims();
        let x = x
            .reshape([batch * channels, width])
            .reshape([channels, batch * width]);
        flat(x.cumsum(1))
    }),
    ("flatten", |x| flat(x.flatten::<2>(1, 2).cumsum(1))),
    ("unsqueeze", |x| flat(x.unsqueeze_dim::<4>(1) + 1.0)),
    ("squeeze", |x| {
        flat(x.narrow(1, 1, 1).squeeze_dim::<2>(1) + 1.0)
    }),
    ("swap_dims", |x| flat(x.swap_dims(0, 2))),
    ("permute", |x| flat(x.permute([2, 0, 1]))),
    ("flip", |x| flat(x.flip([1, 2]))),
    ("expand", |x| {
        let [batch, channels, width] = x.dims();
        flat(x.narrow(1, 0, 1).expand([batch, channels, width]))
    }),
    ("expand_batch", |x| {
        let [batch, channels, width] = x.dims();
        let row = weights([1, 3, 4], &x.device()).expand([batch, channels, width]);
        flat(row)
    }),
    ("expand_new", |x| {
        let [batch, channels, width] = x.dims();
        flat(x.expand([2, batch, channels, width]))
    }),
    ("repeat", |x| flat(x.repeat_dim(1, 2))),
    ("repeat_batch_times", |x| {
        let batch = x.dims()[0];
        flat(weights([1, 3, 4], &x.device()).repeat_dim(0, batch) + x)
    }),
    ("cat", |x| flat(Tensor::cat(vec![x.clone(), x * 2.0], 1))),
    ("stack", |x| {
        flat(Tensor::stack::<4>(vec![x.clone(), x * 2.0], 1))
    }),
    ("unfold", |x| flat::<4>(x.unfold(2, 2, 1))),
    ("unfold_with_gaps", |x| flat::<4>(x.unfold(1, 2, 1))),
    ("zeros", |x| {
        flat(Tensor::<3>::zeros(x.dims(), &x.device()) + x)
    }),
    ("full", |x| {
        flat(Tensor::<3>::full(x.dims(), 2.5, &x.device()) + x)
    }),
    ("ones_like", |x| flat(x.ones_like() + x)),
    ("arange", |x| {
        let width = x.dims()[2] as i64;
        flat(Tensor::<1, Int>::arange(0..width, &x.device()).float())
    }),
    ("arange_of_batch", |x| {
        let batch = x.dims()[0] as i64;
        flat(Tensor::<1, Int>::arange(0..batch, &x.device()).float())
    }),
    ("tril", |x| flat(x.tril(0))),
    ("tril_mask", |x| {
        flat_bool(Tensor::<2, Bool>::tril_mask([3, 4], 0, &x.device()))
    }),
];

#[test]
fn shapes() {
    compare(SHAPES, [1, 3, 4]);
}

/// Of `[batch, 3, 4]`.
const PARTS: Operations<3> = &[
    ("slice", |x| flat(x.slice(s![.., 1..3, ..-1]))),
    ("slice_with_steps", |x| flat(x.slice(s![.., .., 0..4;2]))),
    ("slice_from_behind", |x| flat(x.slice(s![.., .., ..;-1]))),
    ("slice_in_steps_from_behind", |x| {
        flat(x.slice(s![.., .., 1..4;-2]))
    }),
    ("slice_of_batch", |x| flat(x.slice(s![0..1, .., ..]))),
    ("last_of_batch", |x| {
        let batch = x.dims()[0];
        flat(x.narrow(0, batch - 1, 1))
    }),
    ("chunk", |x| flat(x.chunk(2, 2).swap_remove(1))),
    ("slice_assign", |x| {
        let batch = x.dims()[0];
        let value = weights([1, 2, 4], &x.device()).repeat_dim(0, batch);
        flat(x.slice_assign(s![.., 1..3, ..], value))
    }),
    ("slice_assign_inside", |x| {
        let batch = x.dims()[0];
        let value = weights([1, 1, 2], &x.device()).repeat_dim(0, batch);
        flat(x.slice_assign(s![.., 1..2, 1..3], value))
    }),
    ("slice_assign_all", |x| {
        flat(x.clone().slice_assign(s![.., .., ..], x * 2.0))
    }),
    ("slice_fill", |x| flat(x.slice_fill(s![.., 0..2, ..], 3.0))),
    ("select", |x| {
        flat(x.clone().select(1, positions([2, 0], [3], &x)))
    }),
    ("gather", |x| {
        let batch = x.dims()[0];
        let at = positions([3, 1], [1, 3, 2], &x).repeat_dim(0, batch);
        flat(x.gather(2, at))
    }),
    ("scatter", |x| {
        let batch = x.dims()[0];
        let at = positions([2, 0], [1, 3, 2], &x).repeat_dim(0, batch);
        let value = x.clone().narrow(2, 0, 2);
        flat(x.scatter(2, at, value, IndexingUpdateOp::Add))
    }),
    ("select_assign", |x| {
        let at = positions([2, 0], [2], &x);
        let value = x.clone().narrow(1, 0, 2);
        flat(x.select_assign(1, at, value, IndexingUpdateOp::Add))
    }),
    ("split", |x| flat(x.split(2, 1).swap_remove(0))),
    ("iter", |x| flat(x.iter_dim(1).last().unwrap() * 2.0)),
];

#[test]
fn parts() {
    compare(PARTS, [1, 3, 4]);
}
