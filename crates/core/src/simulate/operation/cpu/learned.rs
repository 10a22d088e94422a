//! Gradients of a learned grid.

use burn::tensor::{Tensor, TensorData};
use macerator::AutoArch;

use super::memory::{Part, Repeated, Values, floats, memory};
use super::rules::Affine;
use crate::simulate::operation::learned::LearnedRange;
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
    let ([Some(scales), Some(zero_points)], Ok(x)) = (kept, memory(x.clone())) else {
        return Err(gradient);
    };
    let x = x.values();
    let LearnedRange { qmin, qmax, factor } = range;
    let rules = scales.iter().zip(zero_points);
    let rules = rules.map(|(&scale, zero_point)| Affine::new(scale, zero_point, qmin, qmax));
    let rules = Repeated {
        values: rules.collect::<Vec<_>>(),
        runs,
    };
    let mut sums = vec![[0.0; 2]; runs.blocks];
    let gradient = memory(gradient)?.changed(|gradients| {
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

/// Makes the gradients outside of the range zero, and adds up what scale and zero point of each block
/// get of them, see [`Affine::slopes`].
#[inline(always)]
fn pass_back_learned(
    mut gradients: Values<'_>,
    x: &[f32],
    rules: &Repeated<Affine>,
    sums: &mut [[f64; 2]],
) {
    let mut start = 0;
    while let Some(gradients) = gradients.next(start, rules.runs.stride()) {
        let end = start + gradients.len();
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
        start = end;
    }
}
