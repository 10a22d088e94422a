//! Rounding and masking, and the way back.

use burn::tensor::{Bool, Tensor};
use macerator::AutoArch;

use super::memory::{Memory, Part, Repeated, Values, flag_memory, floats, memory, new_flags};
use super::rules::{Affine, Keep, Rule, Sign};
use crate::simulate::operation::runs::Runs;
use crate::simulate::operation::{Operation, Outcome, Rounding};

/// [`composed::forward`](crate::simulate::operation::composed::forward), bit for bit.
///
/// # Errors
///
/// `x` itself, on another backend, in another type than `f32`, and where scales or masks repeat in
/// an order of their own.
pub(in crate::simulate::operation) fn forward<const D: usize>(
    x: Tensor<D>,
    operation: &Operation<D>,
    with_outside: bool,
) -> Result<Outcome<D>, Tensor<D>> {
    let dims = x.dims();
    let Some(mask) = Repeated::of_mask(operation.mask.as_ref(), &dims) else {
        return Err(x);
    };
    match &operation.rounding {
        None => {
            let rules = Repeated::single(Keep, &dims);
            rounded(x, &rules, &mask, with_outside)
        }
        Some((Rounding::Sign { scale }, _)) => {
            let Some(rules) = Repeated::of(scale, &dims, Sign) else {
                return Err(x);
            };
            rounded(x, &rules, &mask, with_outside)
        }
        Some((rounding, _)) => {
            let Some(rules) = affine(rounding, &dims) else {
                return Err(x);
            };
            rounded(x, &rules, &mask, with_outside)
        }
    }
}

/// [`composed::backward`](crate::simulate::operation::composed::backward), bit for bit.
///
/// # Errors
///
/// As of [`forward`].
pub(in crate::simulate::operation) fn backward<const D: usize>(
    gradient: Tensor<D>,
    mask: Option<&Tensor<D>>,
    outside: Option<&Tensor<D, Bool>>,
) -> Result<Tensor<D>, Tensor<D>> {
    let dims = gradient.dims();
    let Some(mask) = Repeated::of_mask(mask, &dims) else {
        return Err(gradient);
    };
    let outside = match outside {
        None => None,
        Some(outside) => match flag_memory(outside) {
            None => return Err(gradient),
            found => found,
        },
    };
    let outside = outside.as_ref().map(Memory::flags);
    Ok(memory(gradient)?.changed(|values| {
        AutoArch::new().dispatch(|| pass_back(values, &mask, outside));
    }))
}

fn affine<const D: usize>(rounding: &Rounding<D>, dims: &[usize; D]) -> Option<Repeated<Affine>> {
    let Rounding::Affine {
        scale,
        zero_point,
        qmin,
        qmax,
    } = rounding
    else {
        return None;
    };
    if scale.dims() != zero_point.dims() {
        return None;
    }
    let mut zero_points = floats(zero_point)?.into_iter();
    Repeated::of(scale, dims, |scale| {
        let zero_point = zero_points.next().unwrap_or(0.0);
        Affine::new(scale, zero_point, *qmin, *qmax)
    })
}

fn rounded<const D: usize, R: Rule>(
    x: Tensor<D>,
    rules: &Repeated<R>,
    mask: &Repeated<f32>,
    with_outside: bool,
) -> Result<Outcome<D>, Tensor<D>> {
    let Some(stride) = common_stride(rules.runs, mask.runs) else {
        return Err(x);
    };
    let (dims, device) = (x.dims(), x.device());
    let elements = match with_outside {
        true => dims.iter().product(),
        false => 0,
    };
    let mut outside = vec![0; elements];
    let value = memory(x)?.changed(|values| {
        AutoArch::new().dispatch(|| pass(values, stride, rules, mask, &mut outside));
    });
    let outside = with_outside.then(|| new_flags(outside, dims, &device));
    Ok(Outcome { value, outside })
}

/// Number of elements after which something changes in one of the two, if it is a whole part of
/// the other.
fn common_stride(a: Runs, b: Runs) -> Option<usize> {
    let (short, long) = (a.stride().min(b.stride()), a.stride().max(b.stride()));
    (short == 0 || long % short == 0).then_some(short)
}

/// Rounds and masks all values; `outside` is empty or has a place for each.
#[inline(always)]
fn pass<R: Rule>(
    mut values: Values<'_>,
    stride: usize,
    rules: &Repeated<R>,
    mask: &Repeated<f32>,
    outside: &mut [u8],
) {
    let mut start = 0;
    while let Some(values) = values.next(start, stride) {
        let end = start + values.len();
        let length = values.len();
        let outside = match outside.is_empty() {
            true => &mut [],
            false => &mut outside[start..start + length],
        };
        match (rules.from(start, length), mask.from(start, length)) {
            (Part::All(rule), Part::All(mask)) => {
                each(values, outside, |x, _| masked(rule.round(x), mask));
            }
            (Part::All(rule), Part::Each(mask)) => {
                each(values, outside, |x, i| masked(rule.round(x), mask[i]));
            }
            (Part::Each(rules), Part::All(mask)) => {
                each(values, outside, |x, i| masked(rules[i].round(x), mask));
            }
            (Part::Each(rules), Part::Each(mask)) => {
                each(values, outside, |x, i| masked(rules[i].round(x), mask[i]));
            }
        }
        start = end;
    }
}

#[inline(always)]
fn masked((value, is_outside): (f32, bool), mask: f32) -> (f32, bool) {
    (value * mask, is_outside)
}

#[inline(always)]
fn each(values: &mut [f32], outside: &mut [u8], rule: impl Fn(f32, usize) -> (f32, bool)) {
    if outside.is_empty() {
        for (i, value) in values.iter_mut().enumerate() {
            *value = rule(*value, i).0;
        }
        return;
    }
    for (i, (value, outside)) in values.iter_mut().zip(outside).enumerate() {
        let (rounded, is_outside) = rule(*value, i);
        *value = rounded;
        *outside = u8::from(is_outside);
    }
}

/// Masks all gradients and makes those `outside` zero.
#[inline(always)]
fn pass_back(mut gradients: Values<'_>, mask: &Repeated<f32>, outside: Option<&[u8]>) {
    let mut start = 0;
    while let Some(gradients) = gradients.next(start, mask.runs.stride()) {
        let end = start + gradients.len();
        let length = gradients.len();
        let mask = mask.from(start, length);
        match (mask, outside) {
            (Part::All(1.0), None) => {}
            (Part::All(mask), None) => gradients.iter_mut().for_each(|g| *g *= mask),
            (Part::Each(mask), None) => {
                gradients
                    .iter_mut()
                    .zip(mask)
                    .for_each(|(g, mask)| *g *= mask);
            }
            (Part::All(mask), Some(outside)) => {
                let outside = &outside[start..start + length];
                for (g, &outside) in gradients.iter_mut().zip(outside) {
                    *g = if outside == 0 { *g * mask } else { 0.0 };
                }
            }
            (Part::Each(mask), Some(outside)) => {
                let outside = &outside[start..start + length];
                for ((g, &outside), mask) in gradients.iter_mut().zip(outside).zip(mask) {
                    *g = if outside == 0 { *g * mask } else { 0.0 };
                }
            }
        }
        start = end;
    }
}
