//! Gradients of a learned grid.

use burn::tensor::Tensor;

use super::memory::{floats, memory};
use super::repeated::{Pairs, Repeated};
use super::rules::Affine;
use super::values::Values;
use super::vector::{Loop, vectorized};
use crate::simulate::operation::learned_range::LearnedRange;
use crate::simulate::operation::runs::Runs;

/// Sums that are added up side by side.
const LANES: usize = 8;

/// The gradients of value, scale and zero point of a learned grid.
///
/// # Errors
///
/// As of [`forward`](super::forward).
pub(in crate::simulate::operation) fn learned(
    gradient: Tensor<1>,
    [x, scale, zero_point]: [&Tensor<1>; 3],
    runs: Runs,
    range: LearnedRange,
) -> Result<(Tensor<1>, [Tensor<1>; 2]), Tensor<1>> {
    let kept = [floats(scale), floats(zero_point)];
    let ([Some(scales), Some(zero_points)], Ok(kept)) = (kept, memory(x.clone())) else {
        return Err(gradient);
    };
    let x = kept.values();
    let LearnedRange { qmin, qmax, factor } = range;
    let repeated = |values| Repeated { values, runs };
    let (scales, zero_points) = (repeated(scales), repeated(zero_points));
    let mut sums = vec![[0.0; 2]; runs.blocks];
    let gradient = memory(gradient)?.changed(|gradients| {
        vectorized(PassBack {
            rule: Affine { qmin, qmax },
            gradients,
            x,
            scales: &scales,
            zero_points: &zero_points,
            sums: &mut sums,
        });
    });
    let of_scale = sums.iter().map(|[slopes, _]| (slopes * factor) as f32);
    let of_zero_point = sums.iter().zip(&scales.values);
    let of_zero_point =
        of_zero_point.map(|([_, outside], &scale)| (-f64::from(scale) * outside) as f32);
    let of_parameters = [of_scale.collect(), of_zero_point.collect()];
    let of_parameters = of_parameters.map(|sums| kept.beside(sums));
    Ok((gradient, of_parameters))
}

/// Makes the gradients outside of the range zero, and adds up what scale and zero point of each block
/// get of them, see [`Affine::slopes`].
struct PassBack<'a> {
    rule: Affine,
    gradients: Values<'a>,
    x: &'a [f32],
    scales: &'a Repeated,
    /// As many as scales.
    zero_points: &'a Repeated,
    sums: &'a mut [[f64; 2]],
}

impl Loop for PassBack<'_> {
    #[inline(always)]
    fn run(mut self) {
        let mut start = 0;
        let runs = self.scales.runs;
        while let Some(gradients) = self.gradients.next(start, runs.rest(start)) {
            let length = gradients.len();
            let x = &self.x[start..start + length];
            let first = runs.at(start);
            match self.scales.pairs(self.zero_points, start, length) {
                Pairs::Each(scales, zero_points) => {
                    let sums = &mut self.sums[first..first + length];
                    let parameters = scales.iter().zip(zero_points);
                    for (((gradient, &x), (&scale, &zero_point)), sums) in
                        gradients.iter_mut().zip(x).zip(parameters).zip(sums)
                    {
                        let [slope, outside] =
                            pass_one_back(self.rule, gradient, x, [scale, zero_point]);
                        sums[0] += slope;
                        sums[1] += outside;
                    }
                }
                Pairs::All(scale, zero_point) => {
                    let [slopes, outsides] = sums_of(self.rule, gradients, x, [scale, zero_point]);
                    self.sums[first][0] += slopes;
                    self.sums[first][1] += outsides;
                }
            }
            start += length;
        }
    }
}

/// The sums of one block, added up side by side.
#[inline(always)]
fn sums_of(rule: Affine, gradients: &mut [f32], x: &[f32], parameters: [f32; 2]) -> [f64; 2] {
    let mut slopes = [0.0; LANES];
    let mut outsides = [0.0; LANES];
    let (gradients, rest) = gradients.as_chunks_mut::<LANES>();
    let (x, rest_of_x) = x.as_chunks::<LANES>();
    for (gradients, x) in gradients.iter_mut().zip(x) {
        for lane in 0..LANES {
            let [slope, outside] = pass_one_back(rule, &mut gradients[lane], x[lane], parameters);
            slopes[lane] += slope;
            outsides[lane] += outside;
        }
    }
    for (lane, (gradient, &x)) in rest.iter_mut().zip(rest_of_x).enumerate() {
        let [slope, outside] = pass_one_back(rule, gradient, x, parameters);
        slopes[lane] += slope;
        outsides[lane] += outside;
    }
    [slopes.iter().sum(), outsides.iter().sum()]
}

#[inline(always)]
fn pass_one_back(
    rule: Affine,
    gradient: &mut f32,
    x: f32,
    [scale, zero_point]: [f32; 2],
) -> [f64; 2] {
    let (slope, outside) = rule.slopes(x, scale, zero_point);
    let sums = [*gradient * slope, *gradient * outside].map(f64::from);
    *gradient = if outside == 0.0 { *gradient } else { 0.0 };
    sums
}
