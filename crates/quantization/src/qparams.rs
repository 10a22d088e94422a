//! Scale and zero point of a range.
//!
//! With `mn = min(minimum, 0)` and `mx = max(maximum, 0)`, so that zero is always representable:
//!
//! ```text
//! symmetric  scale = max(|mn|, |mx|) / half                   zero point = (qmax + qmin + 1) / 2
//! affine     scale = (mx - mn) / (qmax - qmin)                zero point = qmin - round(mn / scale)
//! ```
//!
//! `half` is `qmax` of a signed type and `(qmax - qmin) / 2` of an unsigned one. The division in the
//! symmetric zero point drops the remainder (`int8` 0, `uint8` 128), `round`
//! takes halves to even. A scale is at least [`f32::EPSILON`] (a range of zeros would give none)
//! and a zero point lies in `qmin..=qmax`.
//!
//! # References
//!
//! Jacob et al., *Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference*, arXiv 1712.05877, section 2.1 and 3.1.

use burn::tensor::Tensor;
use burn_compress_core::{QuantDtype, QuantScheme, by_block, reads};

use crate::QuantizationError;

/// Scale and zero point of each block.
///
/// # Shapes
///
/// - scale, zero_point: `[blocks]`
#[derive(Clone, Debug)]
pub struct QParams {
    /// Scales.
    pub scale: Tensor<1>,
    /// Zero points.
    pub zero_point: Tensor<1>,
}

/// Scales and zero points of ranges, on their device.
///
/// A range that is not finite gives parameters that are not: [`check_finite`] finds it.
///
/// # Shapes
///
/// - minimum, maximum: `[blocks]`
pub fn compute(
    minimum: Tensor<1>,
    maximum: Tensor<1>,
    dtype: QuantDtype,
    scheme: QuantScheme,
) -> QParams {
    let of_block = |[minimum, maximum]: [f32; 2]| of_range(minimum, maximum, dtype, scheme);
    match by_block([&minimum, &maximum], of_block) {
        Some([scale, zero_point]) => QParams { scale, zero_point },
        None => of_tensors(minimum, maximum, dtype, scheme),
    }
}

/// [`compute`] as a formula of tensors.
fn of_tensors(
    minimum: Tensor<1>,
    maximum: Tensor<1>,
    dtype: QuantDtype,
    scheme: QuantScheme,
) -> QParams {
    let (qmin, qmax) = (dtype.qmin(), dtype.qmax());
    let minimum = minimum.clamp_max(0.0);
    let maximum = maximum.clamp_min(0.0);
    match scheme {
        QuantScheme::Symmetric => {
            let largest = minimum.abs().max_pair(maximum);
            let scale = (largest / half(dtype)).clamp_min(f32::EPSILON);
            let zero_point = scale.full_like(middle(dtype));
            QParams { scale, zero_point }
        }
        QuantScheme::Affine => {
            // In halves, since the width of a finite range may be infinite.
            let width = maximum * 0.5 - minimum.clone() * 0.5;
            let scale = (width / ((qmax - qmin) / 2.0)).clamp_min(f32::EPSILON);
            let zero_point = (minimum / scale.clone()).round().neg() + qmin;
            let zero_point = zero_point.clamp(qmin, qmax);
            QParams { scale, zero_point }
        }
    }
}

/// Scale and zero point of one range, computed on the host.
///
/// # Errors
///
/// [`QuantizationError::NonFiniteRange`] for a NaN or an infinity.
///
/// ```
/// use burn_compress_quantization::{QuantDtype, QuantScheme, qparams};
///
/// // -1..=3 over 0..=255: a step of 4 / 255, and zero is the 64th integer.
/// let (scale, zero_point) =
///     qparams::compute_one(-1.0, 3.0, QuantDtype::UINT8, QuantScheme::Affine)?;
/// assert_eq!((scale, zero_point), (4.0 / 255.0, 64.0));
/// # Ok::<(), burn_compress_quantization::QuantizationError>(())
/// ```
pub fn compute_one(
    minimum: f32,
    maximum: f32,
    dtype: QuantDtype,
    scheme: QuantScheme,
) -> Result<(f32, f32), QuantizationError> {
    check_block(0, minimum, maximum)?;
    Ok(of_range(minimum, maximum, dtype, scheme).into())
}

/// Scale and zero point; not finite where the range is not.
fn of_range(minimum: f32, maximum: f32, dtype: QuantDtype, scheme: QuantScheme) -> [f32; 2] {
    let (qmin, qmax) = (dtype.qmin(), dtype.qmax());
    let (minimum, maximum) = (smaller(minimum, 0.0), larger(maximum, 0.0));
    match scheme {
        QuantScheme::Symmetric => {
            let largest = larger(minimum.abs(), maximum);
            let scale = larger(largest / half(dtype), f32::EPSILON);
            [scale, middle(dtype)]
        }
        QuantScheme::Affine => {
            // In halves, since the width of a finite range may be infinite.
            let width = maximum * 0.5 - minimum * 0.5;
            let scale = larger(width / ((qmax - qmin) / 2.0), f32::EPSILON);
            let zero_point = qmin - (minimum / scale).round_ties_even();
            [scale, zero_point.clamp(qmin, qmax)]
        }
    }
}

/// Checks that all ranges are finite; reads them back to the host.
///
/// # Shapes
///
/// - minimum, maximum: `[blocks]`
///
/// # Errors
///
/// [`QuantizationError::NonFiniteRange`] with the first block that is not, and
/// [`QuantizationError::Device`] when the values cannot be read.
pub fn check_finite(minimum: Tensor<1>, maximum: Tensor<1>) -> Result<(), QuantizationError> {
    let blocks = minimum.dims()[0];
    // One transfer for both.
    match first_not_finite(&host(Tensor::cat(vec![minimum, maximum], 0))?, blocks) {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

/// [`check_finite`], inside a step of a training run with the next read of the run.
///
/// # Shapes
///
/// - minimum, maximum: `[blocks]`
///
/// # Errors
///
/// Those of [`check_finite`], outside of a run.
pub(crate) fn watch_finite(
    minimum: Tensor<1>,
    maximum: Tensor<1>,
) -> Result<(), QuantizationError> {
    let blocks = minimum.dims()[0];
    let values = Tensor::cat(vec![minimum, maximum], 0);
    let checked = reads::check(values, f32::MIN..=f32::MAX, move |values| {
        first_not_finite(values, blocks).unwrap_or(QuantizationError::NonFiniteRange {
            block: 0,
            minimum: f32::NAN,
            maximum: f32::NAN,
        })
    });
    match checked.map_err(|error| QuantizationError::Device(error.to_string()))? {
        None => Ok(()),
        Some(error) => Err(error),
    }
}

/// The first of the blocks whose range is not finite; the smallest values stand before the largest.
fn first_not_finite(ranges: &[f32], blocks: usize) -> Option<QuantizationError> {
    let (minimum, maximum) = ranges.split_at(blocks);
    let mut ranges = minimum.iter().zip(maximum).enumerate();
    ranges.find_map(|(block, (&minimum, &maximum))| check_block(block, minimum, maximum).err())
}

/// Reads a tensor back to the host.
pub(crate) fn host(tensor: Tensor<1>) -> Result<Vec<f32>, QuantizationError> {
    reads::floats(tensor).map_err(|error| QuantizationError::Device(error.to_string()))
}

fn check_block(block: usize, minimum: f32, maximum: f32) -> Result<(), QuantizationError> {
    if minimum.is_finite() && maximum.is_finite() {
        return Ok(());
    }
    Err(QuantizationError::NonFiniteRange {
        block,
        minimum,
        maximum,
    })
}

/// The smaller number, or NaN where one of the two is.
fn smaller(a: f32, b: f32) -> f32 {
    if a < b || a.is_nan() { a } else { b }
}

/// The larger number, or NaN where one of the two is.
fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

/// Steps of the symmetric scheme on one side of zero.
fn half(dtype: QuantDtype) -> f32 {
    match dtype.is_signed() {
        true => dtype.qmax(),
        false => dtype.qmax() / 2.0,
    }
}

/// The zero point of the symmetric scheme.
fn middle(dtype: QuantDtype) -> f32 {
    ((dtype.qmax() + dtype.qmin() + 1.0) / 2.0).floor()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const INT4: &str = "int4";

    fn on_device(ranges: &[(f32, f32)], dtype: QuantDtype, scheme: QuantScheme) -> [Vec<f32>; 2] {
        let device = Device::flex();
        let column = |pick: fn(&(f32, f32)) -> f32| {
            let values: Vec<f32> = ranges.iter().map(pick).collect();
            Tensor::<1>::from_data(TensorData::from(values.as_slice()), &device)
        };
        let (minimum, maximum) = (column(|r| r.0), column(|r| r.1));
        let by_blocks = compute(minimum.clone(), maximum.clone(), dtype, scheme);
        let by_tensors = of_tensors(minimum, maximum, dtype, scheme);
        let [by_blocks, by_tensors] = [by_blocks, by_tensors].map(|found| {
            [found.scale, found.zero_point].map(|t| t.into_data().try_to_vec::<f32>().unwrap())
        });
        assert_eq!(by_blocks, by_tensors);
        by_tensors
    }

    #[rstest]
    // max(2, 7) / 7 = 1, zero point 0.
    #[case(INT4, QuantScheme::Symmetric, -2.0, 7.0, 1.0, 0.0)]
    // max(0, 3) / 7.5 = 0.4, zero point (15 + 0 + 1) / 2 = 8.
    #[case("uint4", QuantScheme::Symmetric, 1.0, 3.0, 0.4, 8.0)]
    #[case("uint8", QuantScheme::Symmetric, -1.0, 0.5, 1.0 / 127.5, 128.0)]
    // 7 / 14 = 0.5, -7 - (-2 / 0.5) = -3.
    #[case(INT4, QuantScheme::Affine, -2.0, 5.0, 0.5, -3.0)]
    // A positive range begins at zero: 3 / 15, zero point 0.
    #[case("uint4", QuantScheme::Affine, 1.0, 3.0, 0.2, 0.0)]
    // A negative range ends there: zero point is the largest integer.
    #[case("uint4", QuantScheme::Affine, -3.0, -1.0, 0.2, 15.0)]
    // -1.25 / 0.5 = -2.5 is rounded to the even -2: -7 + 2 = -5.
    #[case(INT4, QuantScheme::Affine, -1.25, 5.75, 0.5, -5.0)]
    // No range at all.
    #[case("int8", QuantScheme::Symmetric, 0.0, 0.0, f32::EPSILON, 0.0)]
    // The smallest integer is for values beyond the range: 254 / 127 and not 254 / 127.5.
    #[case("int8_full", QuantScheme::Symmetric, -254.0, 3.0, 2.0, 0.0)]
    // 255 / 255, -128 + 128.
    #[case("int8_full", QuantScheme::Affine, -128.0, 127.0, 1.0, 0.0)]
    // One bit: 0 and 3, or -3 and 0.
    #[case("uint1", QuantScheme::Affine, 1.0, 3.0, 3.0, 0.0)]
    #[case("uint1", QuantScheme::Affine, -3.0, 1.0, 4.0, 1.0)]
    #[case("int8", QuantScheme::Affine, 0.0, 0.0, f32::EPSILON, -127.0)]
    // 4e38 is infinite, but a 254th of it is not.
    #[case("int8", QuantScheme::Affine, -2e38, 2e38, 2e38 / 127.0, 0.0)]
    #[case("int8", QuantScheme::Symmetric, -3e38, 3e38, 3e38 / 127.0, 0.0)]
    fn worked_by_hand(
        #[case] dtype: &str,
        #[case] scheme: QuantScheme,
        #[case] minimum: f32,
        #[case] maximum: f32,
        #[case] scale: f32,
        #[case] zero_point: f32,
    ) {
        let dtype = dtype.parse().unwrap();
        let found = compute_one(minimum, maximum, dtype, scheme).unwrap();
        assert!((found.0 - scale).abs() <= 1e-7 * scale, "{found:?}");
        assert_eq!(found.1, zero_point);
        let [scales, zero_points] = on_device(&[(minimum, maximum)], dtype, scheme);
        assert_eq!((scales[0], zero_points[0]), found);
    }

    #[test]
    fn nan_wins() {
        assert_eq!((smaller(1.0, 2.0), larger(1.0, 2.0)), (1.0, 2.0));
        assert_eq!((smaller(2.0, 1.0), larger(2.0, 1.0)), (1.0, 2.0));
        for [a, b] in [[f32::NAN, 0.0], [0.0, f32::NAN]] {
            assert!(smaller(a, b).is_nan() && larger(a, b).is_nan());
        }
    }

    #[test]
    fn ranges_that_are_not_finite_are_errors() {
        let dtype = QuantDtype::INT8;
        for bad in [(f32::NAN, 1.0), (0.0, f32::INFINITY)] {
            let error = compute_one(bad.0, bad.1, dtype, QuantScheme::Affine).unwrap_err();
            assert!(error.to_string().contains("not finite"), "{error}");
        }
        let device = Device::flex();
        let minimum = Tensor::<1>::from_floats([0.0, -1.0, f32::NAN], &device);
        let maximum = Tensor::<1>::from_floats([1.0, 1.0, f32::NAN], &device);
        let error = check_finite(minimum, maximum.clone()).unwrap_err();
        assert!(matches!(
            error,
            QuantizationError::NonFiniteRange { block: 2, .. }
        ));
        assert_eq!(
            check_finite(maximum.clone().slice(0..2), maximum.slice(0..2)),
            Ok(())
        );
    }

    proptest! {
        #[test]
        fn device_and_host_agree(
            low in -50.0f32..50.0,
            width in 0.0f32..90.0,
            bits in 1u8..=8,
            signed: bool,
            affine: bool,
        ) {
            let signed = signed && bits > 1;
            let dtype = if signed { QuantDtype::int(bits) } else { QuantDtype::uint(bits) }.unwrap();
            let scheme = if affine { QuantScheme::Affine } else { QuantScheme::Symmetric };
            let host = compute_one(low, low + width, dtype, scheme).unwrap();
            let [scale, zero_point] = on_device(&[(low, low + width)], dtype, scheme);
            prop_assert_eq!((scale[0], zero_point[0]), host);
            prop_assert!((dtype.qmin()..=dtype.qmax()).contains(&host.1));
        }
    }
}
