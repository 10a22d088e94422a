//! The operation as a loop over the memory of `flex`.
//!
//! Values are changed in place where nothing else holds them, and otherwise in the copy, chunk by
//! chunk while it is in the cache. The loops are compiled for the vector instructions of the
//! processor at hand; none of them changes a result.

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{DispatchTensorKind, Flex};
use burn::tensor::{Bool, BoolStore, Bytes, DType, Tensor, TensorData};
use macerator::AutoArch;

use super::learned::LearnedRange;
use super::runs::Runs;
use super::{Operation, Outcome, Rounding};

/// Elements that are copied and then changed at a time.
const CHUNK: usize = 4096;

/// [`composed::forward`](super::composed::forward), bit for bit.
///
/// # Errors
///
/// `x` itself, on another backend, in another type than `f32`, and where scales or masks repeat in
/// an order of their own.
pub(super) fn forward<const D: usize>(
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

/// [`composed::backward`](super::composed::backward), bit for bit.
///
/// # Errors
///
/// As of [`forward`].
pub(super) fn backward<const D: usize>(
    gradient: Tensor<D>,
    mask: Option<&Tensor<D>>,
    outside: Option<&Tensor<D, Bool>>,
) -> Result<Tensor<D>, Tensor<D>> {
    let dims = gradient.dims();
    let Some(mask) = Repeated::of_mask(mask, &dims) else {
        return Err(gradient);
    };
    let outside = outside.map(|outside| outside.clone().try_into_primitive::<Flex>());
    let outside = match outside.transpose() {
        Ok(outside) => outside.map(|outside| outside.to_contiguous()),
        Err(_) => return Err(gradient),
    };
    let elements = dims.iter().product();
    let outside = outside.as_ref().map(|outside| &outside.bytes()[..elements]);
    let gradient = memory(gradient)?;
    Ok(changed(gradient, |values| {
        AutoArch::new().dispatch(|| pass_back(values, &mask, outside));
    }))
}

/// The gradients of value, scale and zero point of a learned grid.
///
/// # Errors
///
/// As of [`forward`].
pub(super) fn learned(
    gradient: Tensor<1>,
    [x, scale, zero_point]: [&Tensor<1>; 3],
    runs: Runs,
    range: LearnedRange,
) -> Result<(Tensor<1>, [Tensor<1>; 2]), Tensor<1>> {
    let kept = [floats(scale), floats(zero_point)];
    let ([Some(scales), Some(zero_points)], Ok(x)) = (kept, memory(x.clone())) else {
        return Err(gradient);
    };
    let x = x.to_contiguous();
    let x = x.as_slice::<f32>().unwrap_or_default();
    let LearnedRange { qmin, qmax, factor } = range;
    let rules = scales.iter().zip(zero_points);
    let rules = rules.map(|(&scale, zero_point)| Affine::new(scale, zero_point, qmin, qmax));
    let rules = Repeated {
        values: rules.collect::<Vec<_>>(),
        runs,
    };
    let mut sums = vec![[0.0; 2]; runs.blocks];
    let gradient = changed(memory(gradient)?, |gradients| {
        AutoArch::new().dispatch(|| pass_back_learned(gradients, x, &rules, &mut sums));
    });
    let device = gradient.device();
    let per_block = |values: Vec<f32>| Tensor::from_data(TensorData::from(&values[..]), &device);
    let of_scale = sums.iter().map(|[slopes, _]| (slopes * factor) as f32);
    let of_zero_point = sums.iter().zip(&scales);
    let of_zero_point =
        of_zero_point.map(|([_, outside], &scale)| (-f64::from(scale) * outside) as f32);
    let of_parameters = [of_scale.collect(), of_zero_point.collect()].map(per_block);
    Ok((gradient, of_parameters))
}

/// One value for each run of elements.
struct Repeated<T> {
    values: Vec<T>,
    runs: Runs,
}

impl<T: Copy> Repeated<T> {
    /// The same value for all elements.
    fn single(value: T, dims: &[usize]) -> Self {
        let runs = Runs {
            blocks: 1,
            inner: dims.iter().product(),
        };
        Self {
            values: vec![value],
            runs,
        }
    }

    fn of<const D: usize>(
        tensor: &Tensor<D>,
        dims: &[usize; D],
        value: impl FnMut(f32) -> T,
    ) -> Option<Self> {
        let runs = Runs::new(&tensor.dims(), dims)?;
        let values = floats(tensor)?.into_iter().map(value).collect();
        Some(Self { values, runs })
    }

    /// The values of the elements from `start` on.
    fn from(&self, start: usize, length: usize) -> Part<'_, T> {
        let first = self.runs.at(start);
        match self.runs.inner {
            1 if self.runs.blocks > 1 => Part::Each(&self.values[first..first + length]),
            _ => Part::All(self.values[first]),
        }
    }
}

impl Repeated<f32> {
    fn of_mask<const D: usize>(mask: Option<&Tensor<D>>, dims: &[usize; D]) -> Option<Self> {
        match mask {
            Some(mask) => Self::of(mask, dims, |factor| factor),
            None => Some(Self::single(1.0, dims)),
        }
    }
}

/// What belongs to neighbouring elements.
enum Part<'a, T> {
    /// One value for all of them.
    All(T),
    /// A value for each.
    Each(&'a [T]),
}

/// Rounding of one value.
trait Rule: Copy {
    /// The rounded value, and whether the range cuts it off.
    fn round(self, x: f32) -> (f32, bool);
}

/// No rounding.
#[derive(Clone, Copy)]
struct Keep;

impl Rule for Keep {
    #[inline(always)]
    fn round(self, x: f32) -> (f32, bool) {
        (x, false)
    }
}

/// Rounding to the sign times a scale.
#[derive(Clone, Copy)]
struct Sign(f32);

impl Rule for Sign {
    #[inline(always)]
    fn round(self, x: f32) -> (f32, bool) {
        let Self(scale) = self;
        let signed = if x < 0.0 { -scale } else { scale };
        let value = if x.is_nan() { x } else { signed };
        let is_inside = x.abs() <= scale;
        (value, !is_inside)
    }
}

/// Rounding to the integers of a range.
#[derive(Clone, Copy)]
struct Affine {
    scale: f32,
    zero_point: f32,
    /// The whole part of the zero point, towards minus infinity.
    whole: f32,
    fraction: f32,
    qmin: f32,
    qmax: f32,
}

impl Rule for Affine {
    #[inline(always)]
    fn round(self, x: f32) -> (f32, bool) {
        let (position, q) = self.position(x);
        let value = (q - self.zero_point) * self.scale;
        (value, !self.holds(position))
    }
}

impl Affine {
    fn new(scale: f32, zero_point: f32, qmin: f32, qmax: f32) -> Self {
        let whole = zero_point.floor();
        Self {
            scale,
            zero_point,
            whole,
            fraction: zero_point - whole,
            qmin,
            qmax,
        }
    }

    /// The slopes of the rounded value of `x`: of the scale, and minus that of the zero point in
    /// scales, 1 outside the range and 0 inside.
    #[inline(always)]
    fn slopes(self, x: f32) -> (f32, f32) {
        let (position, q) = self.position(x);
        match self.holds(position) {
            true => (q - position, 0.0),
            false => (q - self.zero_point, 1.0),
        }
    }

    /// Where `x` lies among the integers, and its own integer.
    #[inline(always)]
    fn position(self, x: f32) -> (f32, f32) {
        let steps = x / self.scale + self.fraction;
        let q = steps.round_ties_even() + self.whole;
        // `f32::max` would lose a NaN.
        let q = if q < self.qmin { self.qmin } else { q };
        let q = if q > self.qmax { self.qmax } else { q };
        (steps + self.whole, q)
    }

    #[inline(always)]
    fn holds(self, position: f32) -> bool {
        position >= self.qmin && position <= self.qmax
    }
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
    let dims = x.dims();
    let elements = if with_outside {
        dims.iter().product()
    } else {
        0
    };
    let mut outside = vec![0; elements];
    let value = changed(memory(x)?, |values| {
        AutoArch::new().dispatch(|| pass(values, stride, rules, mask, &mut outside));
    });
    let outside = with_outside.then(|| {
        let layout = Layout::contiguous(dims.into());
        let dtype = DType::Bool(BoolStore::Native);
        Tensor::from_primitive::<Flex>(FlexTensor::new(Bytes::from_elems(outside), layout, dtype))
    });
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
    values.each_chunk(stride, |start, values| {
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
    });
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
    gradients.each_chunk(mask.runs.stride(), |start, gradients| {
        let length = gradients.len();
        let mask = mask.from(start, length);
        match (mask, outside) {
            (Part::All(mask), None) if mask == 1.0 => {}
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
    });
}

/// Sums that are added up side by side.
const LANES: usize = 8;

/// Makes the gradients outside of the range zero, and adds up what scale and zero point of each block
/// get of them, see [`Affine::slopes`].
#[inline(always)]
fn pass_back_learned(
    mut gradients: Values<'_>,
    x: &[f32],
    rules: &Repeated<Affine>,
    sums: &mut [[f64; 2]],
) {
    gradients.each_chunk(rules.runs.stride(), |start, gradients| {
        let x = &x[start..start + gradients.len()];
        let first = rules.runs.at(start);
        match rules.from(start, x.len()) {
            Part::Each(rules) => {
                let sums = &mut sums[first..first + rules.len()];
                for (((gradient, &x), rule), sums) in
                    gradients.iter_mut().zip(x).zip(rules).zip(sums)
                {
                    let (slope, outside) = rule.slopes(x);
                    sums[0] += f64::from(*gradient * slope);
                    sums[1] += f64::from(*gradient * outside);
                    *gradient = if outside == 0.0 { *gradient } else { 0.0 };
                }
            }
            Part::All(rule) => {
                let mut slopes = [0.0; LANES];
                let mut outsides = [0.0; LANES];
                for (gradients, x) in gradients.chunks_mut(LANES).zip(x.chunks(LANES)) {
                    for (lane, (gradient, &x)) in gradients.iter_mut().zip(x).enumerate() {
                        let (slope, outside) = rule.slopes(x);
                        slopes[lane] += f64::from(*gradient * slope);
                        outsides[lane] += f64::from(*gradient * outside);
                        *gradient = if outside == 0.0 { *gradient } else { 0.0 };
                    }
                }
                sums[first][0] += slopes.iter().sum::<f64>();
                sums[first][1] += outsides.iter().sum::<f64>();
            }
        }
    });
}

/// Values that are changed.
enum Values<'a> {
    InPlace(&'a mut [f32]),
    Copied {
        from: &'a [f32],
        /// As many of them as were changed.
        to: &'a mut Vec<f32>,
    },
}

impl Values<'_> {
    /// Changes all values, some at a time, within `stride` elements.
    #[inline(always)]
    fn each_chunk(&mut self, stride: usize, mut change: impl FnMut(usize, &mut [f32])) {
        let elements = match self {
            Self::InPlace(values) => values.len(),
            Self::Copied { from, .. } => from.len(),
        };
        let mut start = 0;
        while start < elements {
            let behind = stride - start % stride;
            let length = behind.min(CHUNK);
            change(start, self.chunk(start, length));
            start += length;
        }
    }

    #[inline(always)]
    fn chunk(&mut self, start: usize, length: usize) -> &mut [f32] {
        match self {
            Self::InPlace(values) => &mut values[start..start + length],
            Self::Copied { from, to } => {
                to.extend_from_slice(&from[start..start + length]);
                &mut to[start..]
            }
        }
    }
}

/// The memory of a tensor of `f32` on this backend.
///
/// # Errors
///
/// The tensor itself, of another backend or type.
fn memory<const D: usize>(tensor: Tensor<D>) -> Result<FlexTensor, Tensor<D>> {
    let shared = tensor.clone().into_dispatch();
    let is_flex = matches!(&shared.kind, DispatchTensorKind::Flex(_));
    drop(shared);
    if !is_flex || tensor.dtype() != DType::F32 {
        return Err(tensor);
    }
    let shared = tensor.clone();
    shared.try_into_primitive::<Flex>().map_err(|_| tensor)
}

/// All values of a small tensor.
fn floats<const D: usize>(tensor: &Tensor<D>) -> Option<Vec<f32>> {
    let memory = memory(tensor.clone()).ok()?.to_contiguous();
    memory.as_slice().map(<[f32]>::to_vec)
}

/// The tensor after `change`, in its own memory if nothing else holds it.
fn changed<const D: usize>(tensor: FlexTensor, change: impl FnOnce(Values<'_>)) -> Tensor<D> {
    // Dropped at once, so that nothing else holds the memory.
    let mut tensor = {
        let original = tensor;
        original.to_contiguous()
    };
    let elements = tensor.layout().num_elements();
    if let Some(values) = tensor.try_storage_mut::<f32>() {
        change(Values::InPlace(&mut values[..elements]));
        return Tensor::from_primitive::<Flex>(tensor);
    }
    let shape = tensor.layout().shape().clone();
    let mut to = Vec::with_capacity(elements);
    let from: &[f32] = tensor.as_slice().unwrap_or_default();
    change(Values::Copied { from, to: &mut to });
    let changed = FlexTensor::new(Bytes::from_elems(to), Layout::contiguous(shape), DType::F32);
    Tensor::from_primitive::<Flex>(changed)
}
