//! Rounding and masking, and the way back.

use burn::tensor::{Bool, Tensor};

use super::memory::{Memory, Part, Repeated, flag_memory, floats, memory, new_flags};
use super::rules::{Affine, Keep, Rule, Sign};
use super::values::Values;
use super::vector::{Loop, Of, Same, vectorized};
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
    let rules = match &operation.rounding {
        None => Some(Rules::Keep(Repeated::single(Keep, &dims))),
        Some((Rounding::Sign { scale }, _)) => Repeated::of(scale, &dims, Sign).map(Rules::Sign),
        Some((rounding, _)) => affine(rounding, &dims).map(Rules::Affine),
    };
    match rules {
        Some(rules) => rounded(x, &rules, &mask, with_outside),
        None => Err(x),
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
        pass_back(values, &mask, outside);
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

fn rounded<const D: usize>(
    x: Tensor<D>,
    rules: &Rules,
    mask: &Repeated<f32>,
    with_outside: bool,
) -> Result<Outcome<D>, Tensor<D>> {
    let Some(stride) = common_stride(rules.runs(), mask.runs) else {
        return Err(x);
    };
    let (dims, device) = (x.dims(), x.device());
    let elements = match with_outside {
        true => dims.iter().product(),
        false => 0,
    };
    let mut outside = vec![0; elements];
    let value = memory(x)?.changed(|values| {
        pass(values, stride, rules, mask, &mut outside);
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

/// The rounding of all values.
enum Rules {
    Keep(Repeated<Keep>),
    Sign(Repeated<Sign>),
    Affine(Repeated<Affine>),
}

impl Rules {
    fn runs(&self) -> Runs {
        match self {
            Self::Keep(rules) => rules.runs,
            Self::Sign(rules) => rules.runs,
            Self::Affine(rules) => rules.runs,
        }
    }
}

/// Rounds and masks all values; `outside` is empty or has a place for each.
///
/// Not generic, so that the loops are compiled with this crate, at the optimization of a dependency,
/// and not with the program that calls them.
fn pass(
    values: Values<'_>,
    stride: usize,
    rules: &Rules,
    mask: &Repeated<f32>,
    outside: &mut [u8],
) {
    match rules {
        Rules::Keep(rules) => vectorized(Pass {
            values,
            stride,
            rules,
            mask,
            outside,
        }),
        Rules::Sign(rules) => vectorized(Pass {
            values,
            stride,
            rules,
            mask,
            outside,
        }),
        Rules::Affine(rules) => vectorized(Pass {
            values,
            stride,
            rules,
            mask,
            outside,
        }),
    }
}

/// Masks all gradients and makes those `outside` zero; not generic, as [`pass`].
fn pass_back(gradients: Values<'_>, mask: &Repeated<f32>, outside: Option<&[u8]>) {
    vectorized(PassBack {
        gradients,
        mask,
        outside,
    });
}

/// The loop of [`pass`] with one kind of rule.
struct Pass<'a, R> {
    values: Values<'a>,
    stride: usize,
    rules: &'a Repeated<R>,
    mask: &'a Repeated<f32>,
    outside: &'a mut [u8],
}

impl<R: Rule> Loop for Pass<'_, R> {
    #[inline(always)]
    fn run(mut self) {
        let mut start = 0;
        while let Some(values) = self.values.next(start, self.stride) {
            let length = values.len();
            let outside = match self.outside.is_empty() {
                true => &mut [],
                false => &mut self.outside[start..start + length],
            };
            let mask = self.mask.from(start, length);
            match (self.rules.from(start, length), mask) {
                (Part::All(rule), Part::All(mask)) => {
                    each(values, outside, Same(rule), Same(mask));
                }
                (Part::All(rule), Part::Each(mask)) => each(values, outside, Same(rule), mask),
                (Part::Each(rules), Part::All(mask)) => each(values, outside, rules, Same(mask)),
                (Part::Each(rules), Part::Each(mask)) => each(values, outside, rules, mask),
            }
            start += length;
        }
    }
}

#[inline(always)]
fn each<R: Rule>(values: &mut [f32], outside: &mut [u8], rules: impl Of<R>, mask: impl Of<f32>) {
    if outside.is_empty() {
        for (i, value) in values.iter_mut().enumerate() {
            let (rounded, _) = rules.of(i).round(*value);
            *value = rounded * mask.of(i);
        }
        return;
    }
    for (i, (value, outside)) in values.iter_mut().zip(outside).enumerate() {
        let (rounded, is_outside) = rules.of(i).round(*value);
        *value = rounded * mask.of(i);
        *outside = u8::from(is_outside);
    }
}

/// The loop of [`pass_back`].
struct PassBack<'a> {
    gradients: Values<'a>,
    mask: &'a Repeated<f32>,
    outside: Option<&'a [u8]>,
}

impl Loop for PassBack<'_> {
    #[inline(always)]
    fn run(mut self) {
        let mut start = 0;
        while let Some(gradients) = self.gradients.next(start, self.mask.runs.stride()) {
            let length = gradients.len();
            let outside = self.outside.map(|outside| &outside[start..start + length]);
            match (self.mask.from(start, length), outside) {
                (Part::All(1.0), None) => {}
                (Part::All(mask), None) => mask_all(gradients, Same(mask)),
                (Part::Each(mask), None) => mask_all(gradients, mask),
                (Part::All(mask), Some(outside)) => mask_inside(gradients, outside, Same(mask)),
                (Part::Each(mask), Some(outside)) => mask_inside(gradients, outside, mask),
            }
            start += length;
        }
    }
}

#[inline(always)]
fn mask_all(gradients: &mut [f32], mask: impl Of<f32>) {
    for (i, gradient) in gradients.iter_mut().enumerate() {
        *gradient *= mask.of(i);
    }
}

#[inline(always)]
fn mask_inside(gradients: &mut [f32], outside: &[u8], mask: impl Of<f32>) {
    for (i, (gradient, &outside)) in gradients.iter_mut().zip(outside).enumerate() {
        let masked = *gradient * mask.of(i);
        *gradient = if outside == 0 { masked } else { 0.0 };
    }
}
