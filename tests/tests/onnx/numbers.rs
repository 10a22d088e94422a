//! Arithmetic, comparisons, activation functions, reductions, products.

use burn::prelude::*;
use burn::tensor::activation::{
    gelu, hard_sigmoid, leaky_relu, log_sigmoid, log_softmax, mish, prelu, quiet_softmax, relu,
    sigmoid, silu, softmax, softmin, softplus, tanh,
};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;

use crate::fixtures::{Operations, compare, flat, flat_bool, flat_int, weights};

/// Of `[batch, 3, 4]`.
const ARITHMETIC: Operations<3> = &[
    ("add", |x| flat(x.clone() + weights([1, 3, 4], &x.device()))),
    ("sub", |x| flat(x.clone() - weights([1, 3, 1], &x.device()))),
    ("mul", |x| flat(x.clone() * x)),
    ("div", |x| flat(x.clone() / (x.abs() + 0.5))),
    ("add_scalar", |x| flat(x + 0.25)),
    ("sub_scalar", |x| flat(x - 0.25)),
    ("mul_scalar", |x| flat(x * 3.0)),
    ("div_scalar", |x| flat(x / 3.0)),
    ("remainder", |x| {
        flat(
            x.clone()
                .remainder(weights([1, 3, 4], &x.device()).abs() + 0.3),
        )
    }),
    ("remainder_scalar", |x| flat(x.remainder_scalar(0.7))),
    ("square", |x| flat(x.square())),
    ("cube", |x| flat(x.powi_scalar(3))),
    ("powf_scalar", |x| flat(x.abs().powf_scalar(1.5))),
    ("powf", |x| flat((x.clone().abs() + 0.1).powf(x))),
    ("recip", |x| flat((x.abs() + 0.5).recip())),
    ("sqrt", |x| flat(x.abs().sqrt())),
    ("exp", |x| flat(x.exp())),
    ("log", |x| flat((x.abs() + 0.1).log())),
    ("log1p", |x| flat(x.abs().log1p())),
    ("erf", |x| flat(x.erf())),
    ("abs", |x| flat(x.abs())),
    ("neg", |x| flat(x.neg())),
    ("sign", |x| flat(x.sign())),
    ("sin", |x| flat(x.sin())),
    ("cos", |x| flat(x.cos())),
    ("tan", |x| flat((x * 0.3).tan())),
    ("sinh", |x| flat(x.sinh())),
    ("cosh", |x| flat(x.cosh())),
    ("asin", |x| flat((x * 0.1).asin())),
    ("acos", |x| flat((x * 0.1).acos())),
    ("atan", |x| flat(x.atan())),
    ("asinh", |x| flat(x.asinh())),
    ("acosh", |x| flat((x.abs() + 1.5).acosh())),
    ("atanh", |x| flat((x * 0.1).atanh())),
    ("round", |x| flat((x * 2.0).round())),
    ("floor", |x| flat((x * 2.0).floor())),
    ("ceil", |x| flat((x * 2.0).ceil())),
    ("trunc", |x| flat((x * 2.0).trunc())),
    ("hypot", |x| flat(x.clone().hypot(x + 1.0))),
    ("clamp", |x| flat(x.clamp(-0.5, 0.5))),
    ("clamp_min", |x| flat(x.clamp_min(-0.5))),
    ("clamp_max", |x| flat(x.clamp_max(0.5))),
    ("int", |x| flat_int((x * 3.0).int())),
    ("int_arithmetic", |x| {
        let n = (x * 3.0).int();
        flat_int((n.clone() * 5 - n.clone() / 2 + 1).remainder_scalar(4) + n.abs().clamp(1, 2))
    }),
    ("detached", |x| flat(x.detach())),
];

#[test]
fn arithmetic() {
    compare(ARITHMETIC, [1, 3, 4]);
}

/// Of `[batch, 3, 4]`.
const DECISIONS: Operations<3> = &[
    ("equal", |x| {
        flat_bool(x.clone().round().equal(x.clone().round().neg()))
    }),
    ("not_equal", |x| {
        flat_bool(x.clone().round().not_equal(x.clone().round().neg()))
    }),
    ("equal_elem", |x| flat_bool(x.round().equal_elem(1.0))),
    ("not_equal_elem", |x| {
        flat_bool(x.round().not_equal_elem(1.0))
    }),
    ("greater", |x| {
        flat_bool(x.clone().greater(weights([1, 3, 4], &x.device())))
    }),
    ("greater_equal", |x| {
        flat_bool(x.clone().greater_equal(weights([1, 3, 4], &x.device())))
    }),
    ("lower", |x| {
        flat_bool(x.clone().lower(weights([1, 3, 4], &x.device())))
    }),
    ("lower_equal", |x| {
        flat_bool(x.clone().lower_equal(weights([1, 3, 4], &x.device())))
    }),
    ("greater_elem", |x| flat_bool(x.greater_elem(0.1))),
    ("greater_equal_elem", |x| {
        flat_bool(x.greater_equal_elem(0.1))
    }),
    ("lower_elem", |x| flat_bool(x.lower_elem(0.1))),
    ("lower_equal_elem", |x| flat_bool(x.lower_equal_elem(0.1))),
    ("mask_fill", |x| {
        flat(x.clone().mask_fill(x.greater_elem(0.0), -7.0))
    }),
    ("mask_where", |x| {
        flat(x.clone().mask_where(x.clone().lower_elem(0.0), x * 2.0))
    }),
    ("bool_not", |x| flat_bool(x.greater_elem(0.0).bool_not())),
    ("bool_and", |x| {
        flat_bool(x.clone().greater_elem(0.0).bool_and(x.lower_elem(0.5)))
    }),
    ("bool_or", |x| {
        flat_bool(x.clone().greater_elem(0.5).bool_or(x.lower_elem(0.0)))
    }),
    ("bool_xor", |x| {
        flat_bool(x.clone().greater_elem(0.5).bool_xor(x.lower_elem(0.7)))
    }),
    ("bool_where", |x| {
        let mask = x.clone().greater_elem(0.0);
        flat_bool(mask.clone().mask_where(x.lower_elem(0.5), mask.bool_not()))
    }),
    ("bool_int", |x| flat_int(x.greater_elem(0.0).int())),
    ("all", |x| flat_bool(x.greater_elem(-9.0).all())),
    ("any", |x| flat_bool(x.greater_elem(9.0).any())),
    ("all_dim", |x| flat_bool(x.greater_elem(-0.5).all_dim(2))),
    ("any_dim", |x| flat_bool(x.greater_elem(0.9).any_dim(1))),
    ("is_nan", |x| flat_bool(x.sqrt().is_nan())),
    ("is_inf", |x| flat_bool((x.relu_like().recip()).is_inf())),
];

/// Negative numbers as zero, without an activation.
trait Positive {
    fn relu_like(self) -> Self;
}

impl Positive for Tensor<3> {
    fn relu_like(self) -> Self {
        self.clamp_min(0.0)
    }
}

#[test]
fn decisions() {
    compare(DECISIONS, [1, 3, 4]);
}

/// Of `[batch, 3, 4]`.
const ACTIVATIONS: Operations<3> = &[
    ("relu", |x| flat(relu(x))),
    ("leaky_relu", |x| flat(leaky_relu(x, 0.1))),
    ("prelu", |x| {
        flat(prelu(x.clone(), weights([3], &x.device())))
    }),
    ("gelu", |x| flat(gelu(x))),
    ("sigmoid", |x| flat(sigmoid(x))),
    ("hard_sigmoid", |x| flat(hard_sigmoid(x, 0.2, 0.4))),
    ("log_sigmoid", |x| flat(log_sigmoid(x))),
    ("tanh", |x| flat(tanh(x))),
    ("silu", |x| flat(silu(x))),
    ("mish", |x| flat(mish(x))),
    ("softplus", |x| flat(softplus(x, 1.0))),
    ("softmax", |x| flat(softmax(x, 2))),
    ("softmax_of_channels", |x| flat(softmax(x, 1))),
    ("log_softmax", |x| flat(log_softmax(x, 2))),
    ("softmin", |x| flat(softmin(x, 2))),
    ("quiet_softmax", |x| flat(quiet_softmax(x, 2))),
];

#[test]
fn activations() {
    compare(ACTIVATIONS, [1, 3, 4]);
}

/// Of `[batch, 3, 4]`.
const REDUCTIONS: Operations<3> = &[
    ("sum", |x| x.sum()),
    ("mean", |x| x.mean()),
    ("prod", |x| x.prod()),
    ("max", |x| x.max()),
    ("min", |x| x.min()),
    ("max_abs", |x| x.max_abs()),
    ("sum_dim", |x| flat(x.sum_dim(1))),
    ("mean_dim", |x| flat(x.mean_dim(2))),
    ("prod_dim", |x| flat(x.prod_dim(1))),
    ("max_dim", |x| flat(x.max_dim(2))),
    ("min_dim", |x| flat(x.min_dim(2))),
    ("max_abs_dim", |x| flat(x.max_abs_dim(2))),
    ("mean_of_batch", |x| flat(x.mean_dim(0))),
    ("argmax", |x| flat_int(x.argmax(2))),
    ("argmin", |x| flat_int(x.argmin(1))),
    ("max_dim_with_indices", |x| {
        let (values, indices) = x.max_dim_with_indices(2);
        flat(values + indices.float())
    }),
    ("min_dim_with_indices", |x| {
        let (values, indices) = x.min_dim_with_indices(1);
        flat(values + indices.float())
    }),
    ("topk", |x| flat(x.topk(2, 2))),
    ("topk_with_indices", |x| {
        let (values, indices) = x.topk_with_indices(2, 2);
        flat(values + indices.float())
    }),
    ("sort", |x| flat(x.sort(2))),
    ("sort_descending", |x| flat(x.sort_descending(1))),
    ("argsort", |x| flat_int(x.argsort(2))),
    ("cumsum", |x| flat(x.cumsum(2))),
    ("var", |x| flat(x.var(2))),
];

#[test]
fn reductions() {
    compare(REDUCTIONS, [1, 3, 4]);
}

/// Of `[batch, 2, 3, 4]`: batch, heads, places, features.
const PRODUCTS: Operations<4> = &[
    ("matmul", |x| flat(x.clone().matmul(x.transpose()))),
    ("matmul_of_constant", |x| {
        flat(x.clone().matmul(weights([1, 1, 4, 2], &x.device())))
    }),
    ("attention", |x| {
        let options = AttentionModuleOptions::default();
        flat(attention(
            x.clone(),
            x.clone() * 0.5,
            x,
            None,
            None,
            options,
        ))
    }),
    ("attention_of_everything", |x| {
        let [batch, heads, places, _] = x.dims();
        let device = x.device();
        let bias = weights([1, 1, 3, 3], &device).expand([batch, heads, places, places]);
        let mask = bias.clone().greater_elem(0.6);
        let options = AttentionModuleOptions {
            scale: Some(0.3),
            softcap: Some(2.0),
            is_causal: true,
        };
        flat(attention(
            x.clone(),
            x.clone() * 0.5,
            x,
            Some(mask),
            Some(bias),
            options,
        ))
    }),
    ("attention_of_nothing", |x| {
        let [batch, heads, places, _] = x.dims();
        let bias = weights([1, 1, 3, 1], &x.device()).expand([batch, heads, places, places]);
        let mask = bias.greater_elem(0.0);
        let options = AttentionModuleOptions::default();
        flat(attention(
            x.clone(),
            x.clone(),
            x,
            Some(mask),
            None,
            options,
        ))
    }),
];

#[test]
fn products() {
    compare(PRODUCTS, [1, 2, 3, 4]);
}
