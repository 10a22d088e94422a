//! Rounding and masking, and the way back.

use burn::tensor::{Bool, Tensor};

use super::memory::{Memory, flag_memory, memory, new_flags, order};
use super::repeated::{Pairs, Part, Repeated};
use super::rules::{Affine, Keep, Rule, Sign};
use super::values::Values;
use super::vector::{Loop, Of, Same, vectorized};
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
    let mask = Repeated::of_mask(operation.mask.as_ref(), &dims);
    let rounding = match &operation.rounding {
        None => Some(Blocks::kept(&dims)),
        Some((rounding, _)) => Blocks::of(rounding, &dims),
    };
    match (rounding, mask) {
        (Some(rounding), Some(mask)) => rounded(x, rounding, mask, with_outside),
        _ => Err(x),
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
    let Some(order) = order(&gradient) else {
        return in_order(gradient, mask, outside);
    };
    // A copy in the order of the shape would cost more than the operation, also in the optimizer, whose
    // moments have the order of the gradients before it.
    let there = order.map(|dim| dim as isize);
    let back = std::array::from_fn(|dim| order.iter().position(|&one| one == dim).unwrap_or(dim));
    let back = back.map(|dim: usize| dim as isize);
    let mask = mask.map(|mask| mask.clone().permute(there));
    let outside = outside.map(|outside| outside.clone().permute(there));
    let gradient = in_order(gradient.permute(there), mask.as_ref(), outside.as_ref());
    match gradient {
        Ok(gradient) => Ok(gradient.permute(back)),
        Err(gradient) => Err(gradient.permute(back)),
    }
}

/// [`backward`] of a gradient that lies in memory in the order of its shape, or is copied to it.
fn in_order<const D: usize>(
    gradient: Tensor<D>,
    mask: Option<&Tensor<D>>,
    outside: Option<&Tensor<D, Bool>>,
) -> Result<Tensor<D>, Tensor<D>> {
    let dims = gradient.dims();
    let Some(mask) = Repeated::of_mask(mask, &dims) else {
        return Err(gradient);
    };
    let mask = mask.written_out(dims.iter().product());
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

fn rounded<const D: usize>(
    x: Tensor<D>,
    blocks: Blocks,
    mask: Repeated,
    with_outside: bool,
) -> Result<Outcome<D>, Tensor<D>> {
    let (dims, device) = (x.dims(), x.device());
    let elements = dims.iter().product();
    let (blocks, mask) = (blocks.written_out(elements), mask.written_out(elements));
    let mut outside = vec![0; if with_outside { elements } else { 0 }];
    let value = memory(x)?.changed(|values| {
        pass(values, &blocks, &mask, &mut outside);
    });
    let outside = with_outside.then(|| new_flags(outside, dims, &device));
    Ok(Outcome { value, outside })
}

/// The rounding of all values: a kind, and scales and zero points of the blocks.
struct Blocks {
    kind: Kind,
    scales: Repeated,
    /// As many as scales.
    zero_points: Repeated,
}

/// A rounding without scale and zero point.
enum Kind {
    Keep,
    Sign,
    Affine(Affine),
}

impl Blocks {
    /// No rounding.
    fn kept(dims: &[usize]) -> Self {
        Self {
            kind: Kind::Keep,
            scales: Repeated::single(1.0, dims),
            zero_points: Repeated::single(0.0, dims),
        }
    }

    fn of<const D: usize>(rounding: &Rounding<D>, dims: &[usize; D]) -> Option<Self> {
        let (scale, zero_point, kind) = match rounding {
            // A sign has no zero point; the loop does not read it.
            Rounding::Sign { scale } => (scale, scale, Kind::Sign),
            Rounding::Affine {
                scale,
                zero_point,
                qmin,
                qmax,
            } => {
                let (qmin, qmax) = (*qmin, *qmax);
                (scale, zero_point, Kind::Affine(Affine { qmin, qmax }))
            }
        };
        let scales = Repeated::of(scale, dims)?;
        let zero_points = Repeated::of(zero_point, dims)?;
        (scales.runs == zero_points.runs).then_some(Self {
            kind,
            scales,
            zero_points,
        })
    }

    fn written_out(self, elements: usize) -> Self {
        Self {
            kind: self.kind,
            scales: self.scales.written_out(elements),
            zero_points: self.zero_points.written_out(elements),
        }
    }
}

/// Rounds and masks all values; `outside` is empty or has a place for each.
///
/// Not generic, so that the loops are compiled with this crate, at the optimization of a dependency,
/// and not with the program that calls them.
fn pass(values: Values<'_>, blocks: &Blocks, mask: &Repeated, outside: &mut [u8]) {
    match blocks.kind {
        Kind::Keep => vectorized(Pass {
            rule: Keep,
            values,
            blocks,
            mask,
            outside,
        }),
        Kind::Sign => vectorized(Pass {
            rule: Sign,
            values,
            blocks,
            mask,
            outside,
        }),
        Kind::Affine(rule) => vectorized(Pass {
            rule,
            values,
            blocks,
            mask,
            outside,
        }),
    }
}

/// Masks all gradients and makes those `outside` zero; not generic, as [`pass`].
fn pass_back(gradients: Values<'_>, mask: &Repeated, outside: Option<&[u8]>) {
    vectorized(PassBack {
        gradients,
        mask,
        outside,
    });
}

/// The loop of [`pass`] with one kind of rule.
struct Pass<'a, R> {
    rule: R,
    values: Values<'a>,
    blocks: &'a Blocks,
    mask: &'a Repeated,
    outside: &'a mut [u8],
}

impl<R: Rule> Loop for Pass<'_, R> {
    #[inline(always)]
    fn run(mut self) {
        let mut start = 0;
        loop {
            let most = self.blocks.scales.runs.rest(start);
            let most = most.min(self.mask.runs.rest(start));
            let Some(values) = self.values.next(start, most) else {
                return;
            };
            let length = values.len();
            let outside = match self.outside.is_empty() {
                true => &mut [],
                false => &mut self.outside[start..start + length],
            };
            let Blocks {
                scales,
                zero_points,
                ..
            } = self.blocks;
            let mask = self.mask.from(start, length);
            match scales.pairs(zero_points, start, length) {
                Pairs::All(scale, zero_point) => {
                    let parameters = (Same(scale), Same(zero_point));
                    masked(self.rule, values, outside, parameters, mask);
                }
                Pairs::Each(scales, zero_points) => {
                    masked(self.rule, values, outside, (scales, zero_points), mask);
                }
            }
            start += length;
        }
    }
}

#[inline(always)]
fn masked<S: Of<f32>>(
    rule: impl Rule,
    values: &mut [f32],
    outside: &mut [u8],
    parameters: (S, S),
    mask: Part<'_>,
) {
    match mask {
        Part::All(mask) => each(rule, values, outside, parameters, Same(mask)),
        Part::Each(mask) => each(rule, values, outside, parameters, mask),
    }
}

#[inline(always)]
fn each<S: Of<f32>>(
    rule: impl Rule,
    values: &mut [f32],
    outside: &mut [u8],
    (scales, zero_points): (S, S),
    mask: impl Of<f32>,
) {
    let count = values.len();
    let (scales, zero_points) = (scales.first(count), zero_points.first(count));
    let mask = mask.first(count);
    if outside.is_empty() {
        for (i, value) in values.iter_mut().enumerate() {
            let (rounded, _) = rule.round(*value, scales.of(i), zero_points.of(i));
            *value = rounded * mask.of(i);
        }
        return;
    }
    for (i, (value, outside)) in values.iter_mut().zip(outside).enumerate() {
        let (rounded, is_outside) = rule.round(*value, scales.of(i), zero_points.of(i));
        *value = rounded * mask.of(i);
        *outside = u8::from(is_outside);
    }
}

/// The loop of [`pass_back`].
struct PassBack<'a> {
    gradients: Values<'a>,
    mask: &'a Repeated,
    outside: Option<&'a [u8]>,
}

impl Loop for PassBack<'_> {
    #[inline(always)]
    fn run(mut self) {
        let mut start = 0;
        while let Some(gradients) = self.gradients.next(start, self.mask.runs.rest(start)) {
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
    let mask = mask.first(gradients.len());
    for (i, gradient) in gradients.iter_mut().enumerate() {
        *gradient *= mask.of(i);
    }
}

#[inline(always)]
fn mask_inside(gradients: &mut [f32], outside: &[u8], mask: impl Of<f32>) {
    let mask = mask.first(gradients.len());
    for (i, (gradient, &outside)) in gradients.iter_mut().zip(outside).enumerate() {
        let masked = *gradient * mask.of(i);
        *gradient = if outside == 0 { masked } else { 0.0 };
    }
}
