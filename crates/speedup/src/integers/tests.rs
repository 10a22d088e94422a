//! Packing worked out by hand, and grids of every kind.

use super::*;
use burn_compress_core::{Grid, QuantScheme};
use proptest::prelude::*;
use rstest::rstest;

fn entry(dtype: &str, range: (f32, f32), grid: Grid) -> CalibrationEntry {
    let blocks = grid.len();
    CalibrationEntry {
        enabled: true,
        scale: Some(vec![0.5; blocks]),
        zero_point: Some(vec![0.0; blocks]),
        ..Quantization::new(dtype, QuantScheme::Affine, range.0, range.1)
            .with_grid(grid)
            .to_calibration()
            .unwrap()
    }
}

fn integer_type(dtype: &str, qmin: f32, qmax: f32) -> IntegerType {
    IntegerType::new(&entry(dtype, (qmin, qmax), Grid::new([]))).unwrap()
}

fn integers(values: &[f32], shape: &[usize], entry: &CalibrationEntry) -> Option<Integers> {
    let values = on_device(values.to_vec(), &Device::flex());
    Integers::of(values, shape, entry).unwrap()
}

#[rstest]
#[case::int8("int8", -127.0, 127.0, 8)]
#[case::full_int8("int8", -128.0, 127.0, 8)]
#[case::uint8("uint8", 0.0, 255.0, 8)]
#[case::int4("int4", -7.0, 7.0, 4)]
#[case::uint4("uint4", 0.0, 15.0, 4)]
#[case::int3("int3", -3.0, 3.0, 3)]
#[case::int2("int2", -1.0, 1.0, 2)]
#[case::uint2("uint2", 0.0, 3.0, 2)]
#[case::uint1("uint1", 0.0, 1.0, 1)]
#[case::int1("int1", -1.0, 1.0, 1)]
fn types_have_as_many_bits_as_they_need(
    #[case] dtype: &str,
    #[case] qmin: f32,
    #[case] qmax: f32,
    #[case] bits: u32,
) {
    assert_eq!(integer_type(dtype, qmin, qmax).bits(), bits);
}

#[rstest]
#[case::sixteen_bits(-32767.0, 32767.0)]
#[case::one_integer_too_many(-128.0, 128.0)]
#[case::fraction(-0.5, 7.0)]
#[case::infinite(f32::NEG_INFINITY, 7.0)]
fn other_ranges_are_no_types(#[case] qmin: f32, #[case] qmax: f32) {
    let entry = entry("int", (qmin, qmax), Grid::new([]));
    assert_eq!(IntegerType::new(&entry), None);
    assert!(Integers::integer_type(&entry).is_err());
}

#[rstest]
// Codes 0 1 2 and 1: 01 10 01 00.
#[case::two_bits("int2", (-1.0, 1.0), &[-1.0, 0.0, 1.0, 0.0], &[0b01_10_01_00])]
// A fifth begins the second byte.
#[case::two_bits_and_a_byte("uint2", (0.0, 3.0), &[3.0, 0.0, 0.0, 1.0, 2.0], &[0b01_00_00_11, 0b10])]
// Codes 1 to 6: 6|5|4|3|2|1 is 110 101 100 011 010 001, cut into bytes from the right.
#[case::three_bits(
    "int3", (-3.0, 3.0), &[-2.0, -1.0, 0.0, 1.0, 2.0, 3.0],
    &[0b1101_0001, 0b0101_1000, 0b11],
)]
// Codes 0, 14, 7: the second in the upper half.
#[case::four_bits("int4", (-7.0, 7.0), &[-7.0, 7.0, 0.0], &[0xe0, 0x07])]
#[case::eight_bits("int8", (-128.0, 127.0), &[-128.0, 0.0, 127.0], &[0, 128, 255])]
// Signs: - + + - + and nothing behind them.
#[case::binary("int1", (-1.0, 1.0), &[-1.0, 1.0, 1.0, -1.0, 1.0], &[0b10110])]
fn integers_are_packed_from_the_lowest_bit_on(
    #[case] dtype: &str,
    #[case] range: (f32, f32),
    #[case] values: &[f32],
    #[case] bytes: &[u8],
) {
    let integer = integer_type(dtype, range.0, range.1);
    assert_eq!(integer.pack(values), bytes);
    assert_eq!(integer.unpack(bytes, values.len()).unwrap(), values);
}

#[rstest]
#[case::too_short("int4", (-7.0, 7.0), &[0], 3, "1 bytes for 3 integers of 4 bits")]
#[case::too_long("int4", (-7.0, 7.0), &[0, 0, 0], 3, "3 bytes for 3 integers")]
#[case::beyond_the_type("int4", (-7.0, 7.0), &[0xf0], 2, "integer 1 is 8, the type ends at 7")]
#[case::behind_the_last("int4", (-7.0, 7.0), &[0x10], 1, "bits behind the last")]
#[case::no_such_number("int4", (-7.0, 7.0), &[0], usize::MAX, "1 bytes for")]
fn bytes_that_do_not_fit_are_refused(
    #[case] dtype: &str,
    #[case] range: (f32, f32),
    #[case] bytes: &[u8],
    #[case] count: usize,
    #[case] message: &str,
) {
    let error = integer_type(dtype, range.0, range.1).unpack(bytes, count);
    let error = error.unwrap_err();
    assert!(error.contains(message), "{error}");
}

#[test]
fn each_block_has_its_own_grid() {
    // Row 0 in steps of 0.5 around 2, row 1 in steps of 0.25 around 7.
    let entry = CalibrationEntry {
        scale: Some(vec![0.5, 0.25]),
        zero_point: Some(vec![2.0, 7.0]),
        ..entry("uint3", (0.0, 7.0), Grid::per_channel(2, 0, 2))
    };
    let found = integers(&[0.6, -9.0, 9.0, 0.0, -0.4, -1.0], &[2, 3], &entry).unwrap();
    // 2 + 1.2, below, above; 7, 7 - 1.6, 7 - 4.
    assert_eq!(found.values, [3.0, 0.0, 7.0, 7.0, 5.0, 3.0]);
    let values = found.dequantize(&entry, &[2, 3]);
    assert_eq!(values, [0.5, -1.0, 2.5, 0.0, -0.5, -1.0]);
    let read = Integers::unpack(&found.pack(), &[2, 3], &entry).unwrap();
    assert_eq!(read.values, found.values);
    assert!(Integers::unpack(&found.pack(), &[3, 2], &entry).is_err());
}

#[test]
fn a_zero_point_may_have_a_fraction() {
    let entry = CalibrationEntry {
        scale: Some(vec![1.0]),
        zero_point: Some(vec![0.25]),
        ..entry("int4", (-7.0, 7.0), Grid::per_tensor(1))
    };
    // round(0.25 + 1) = 1 stands for 0.75.
    let found = integers(&[1.0, 0.0], &[2], &entry).unwrap();
    assert_eq!(found.values, [1.0, 0.0]);
    assert_eq!(found.dequantize(&entry, &[2]), [0.75, -0.25]);
}

#[test]
fn what_does_not_come_back_is_not_packed() {
    let wide = entry("int16", (-32767.0, 32767.0), Grid::per_tensor(1));
    assert!(integers(&[1.0], &[1], &wide).is_none());
    let idle = CalibrationEntry {
        enabled: false,
        ..entry("int8", (-127.0, 127.0), Grid::per_tensor(1))
    };
    assert!(integers(&[1.0], &[1], &idle).is_none());
    // The smallest integer is -127, and (-127 + 200) * 3e38 is infinite.
    let large = CalibrationEntry {
        scale: Some(vec![3e38]),
        zero_point: Some(vec![-200.0]),
        ..entry("int8", (-127.0, 127.0), Grid::per_tensor(1))
    };
    assert!(integers(&[1.0], &[1], &large).is_none());
}

#[test]
fn entries_that_cannot_be_used_are_errors() {
    let of = |entry: &CalibrationEntry| {
        Integers::of(on_device(vec![1.0; 4], &Device::flex()), &[2, 2], entry).map(|_| ())
    };
    let grid = entry("int8", (-127.0, 127.0), Grid::per_channel(2, 0, 3));
    let error = of(&grid).unwrap_err();
    assert!(
        error.contains("does not divide the shape [2, 2]"),
        "{error}"
    );
    let mut scale = entry("int8", (-127.0, 127.0), Grid::per_tensor(2));
    scale.scale = Some(vec![0.0]);
    let error = of(&scale).unwrap_err();
    assert!(error.contains("a scale is 0"), "{error}");
}

fn settings() -> impl Strategy<Value = (String, f32, f32)> {
    let signed = (1u32..=8).prop_map(|bits| {
        let most = ((1u32 << (bits - 1)) - 1).max(1) as f32;
        (format!("int{bits}"), -most, most)
    });
    let unsigned = (1u32..=8).prop_map(|bits| {
        let most = ((1u32 << bits) - 1) as f32;
        (format!("uint{bits}"), 0.0, most)
    });
    prop_oneof![signed, unsigned]
}

proptest! {
    #[test]
    fn integers_come_back(
        (dtype, qmin, qmax) in settings(),
        seeds in prop::collection::vec(any::<u16>(), 0..70),
    ) {
        let integer = integer_type(&dtype, qmin, qmax);
        let values: Vec<f32> = seeds
            .iter()
            .map(|seed| match dtype == "int1" {
                true => if seed % 2 == 0 { -1.0 } else { 1.0 },
                false => qmin + f32::from(seed % ((qmax - qmin) as u16 + 1)),
            })
            .collect();
        let bytes = integer.pack(&values);
        prop_assert_eq!(Some(bytes.len()), integer.bytes(values.len()));
        prop_assert_eq!(integer.unpack(&bytes, values.len()).unwrap(), values);
    }

    /// What is packed stands for what the simulation computes, and stays so when it is quantized
    /// again.
    #[test]
    fn values_stay_on_the_grid(
        (dtype, qmin, qmax) in settings(),
        blocks in prop::sample::select(vec![[1, 1], [4, 1], [2, 1], [1, 6], [2, 3], [4, 6]]),
        scales in prop::collection::vec(1e-6f32..30.0, 24),
        zeros in prop::collection::vec(-300.0f32..300.0, 24),
        whole in any::<bool>(),
        values in prop::collection::vec(-50.0f32..50.0, 24),
    ) {
        let grid = Grid::new(blocks);
        let count = grid.len();
        let zero = |zero: &f32| if whole { zero.round() } else { *zero };
        let entry = CalibrationEntry {
            scale: Some(scales[..count].to_vec()),
            zero_point: Some(zeros[..count].iter().map(zero).collect()),
            ..entry(&dtype, (qmin, qmax), grid)
        };
        let shape = [4, 6];
        let device = Device::flex();
        let quantization = entry.to_quantization(&device).unwrap();
        let simulated = simulate(&quantization, on_device(values.clone(), &device), &shape);
        let simulated = read(simulated).unwrap();
        let found = integers(&values, &shape, &entry).expect("values that come back");
        let dequantized = found.dequantize(&entry, &shape);
        for (found, expected) in dequantized.iter().zip(&simulated) {
            // Zeros have no sign.
            prop_assert_eq!((found + 0.0).to_bits(), (expected + 0.0).to_bits());
        }
        let again = integers(&dequantized, &shape, &entry).expect("values on the grid");
        prop_assert_eq!(&again.values, &found.values);
        let read = Integers::unpack(&found.pack(), &shape, &entry).unwrap();
        prop_assert_eq!(read.dequantize(&entry, &shape), dequantized);
    }
}
