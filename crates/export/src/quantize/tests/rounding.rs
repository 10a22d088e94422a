//! Values and biases at the edges of their integers.

use rstest::rstest;

use super::net::{INT8, Net, SYMMETRIC, UINT8, entry};
use crate::graph::Values;
use crate::quantize::OnnxTarget;

const X86: OnnxTarget = OnnxTarget::OnnxRuntimeX86;

/// One channel in, one out, `y = w x + b`; the output's steps are a quarter.
fn one(weight: f32, weight_scale: f32, bias: f32) -> Net {
    let mut net = Net::new(&[1, 1, 1, 6]);
    net.conv("conv", "x", &[&[weight]], Some(&[bias]))
        .quant_weight("conv.weight", 0, &[weight_scale])
        .quant("conv._output_0", INT8, 0.25, 0.0)
        .output("conv_out", &[1, 1, 1, 6]);
    net
}

/// `round(x / s) + 1` with s = 1: the integers of 0.5, 1.5, 2.5 are 1, 3, 3, their values 0, 2, 2.
/// `round(x / s + 1)` would give 2, 2, 4 and the values 1, 1, 3.
#[test]
fn halves_with_an_odd_zero_point() {
    let mut net = one(1.0, 0.25, 0.0);
    net.quant("conv._input_0", UINT8, 1.0, 1.0);
    let quantized = net.quantize(X86).unwrap();
    let y = quantized.run(&[1, 1, 1, 6], &[0.5, 1.5, 2.5, 3.5, -0.5, -1.5]);
    // -0.5 is rounded to 0, -1.5 to -2, whose integer -1 is saturated to 0, the value -1.
    assert_eq!(y, [0.0, 2.0, 2.0, 4.0, 0.0, -1.0]);
}

/// Below -127.5 the type goes on to -128, whatever the range of the simulation.
#[rstest]
#[case(INT8, 0)]
#[case(SYMMETRIC, 1)]
fn values_below_the_symmetric_range(#[case] range: (&str, f32, f32), #[case] differences: usize) {
    let mut net = one(0.125, 0.125, 0.0);
    net.quant("conv._input_0", range, 1.0, 0.0);
    let quantized = net.quantize(X86).unwrap();
    let y = quantized.run(
        &[1, 1, 1, 6],
        &[-127.4, -127.5, -127.6, -900.0, 126.6, 900.0],
    );
    // -127 / 8 is -15.875 and -63.5 steps of a quarter, rounded to the even -64; -128 / 8 is -16.
    assert_eq!(y, [-16.0, -16.0, -16.0, -16.0, 16.0, 16.0]);
    let found = quantized.report.not_simulated.iter();
    let below = found.filter(|d| d.path == "conv._input_0" && d.what.contains("-127.5"));
    assert_eq!(below.count(), differences);
}

/// The lowest integer really is there: with steps of an eighth -127 and -128 are two values.
#[test]
fn the_lowest_integer_is_a_value_of_its_own() {
    let mut net = one(0.125, 0.125, 0.0);
    net.quant("conv._input_0", SYMMETRIC, 1.0, 0.0);
    net.quant("conv._output_0", INT8, 0.125, 0.0);
    let quantized = net.quantize(X86).unwrap();
    let y = quantized.run(
        &[1, 1, 1, 6],
        &[-127.0, -127.4, -128.0, -900.0, 127.0, 900.0],
    );
    assert_eq!(y, [-15.875, -15.875, -16.0, -16.0, 15.875, 15.875]);
}

/// The bias is `b / (s_x s_w)`: 0.75 / (0.5 * 0.25) = 6, and 0.8125 / 0.125 = 6.5 is rounded to 6.
#[rstest]
#[case(0.75, 6)]
#[case(0.8125, 6)]
#[case(0.9375, 8)]
#[case(-0.8125, -6)]
fn biases_are_integers_of_the_products(#[case] bias: f32, #[case] expected: i64) {
    let mut net = one(1.0, 0.25, bias);
    net.quant("conv._input_0", UINT8, 0.5, 0.0);
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(quantized.integers("conv.bias_quantized"), [expected]);
    assert_eq!(quantized.floats("conv.bias_scale"), [0.125]);
    assert_eq!(quantized.integers("conv.weight_quantized"), [4]);
    let y = quantized.run(&[1, 1, 1, 6], &[0.0, 0.5, 1.0, 1.5, 2.0, 9.0]);
    let steps = [0.0, 4.0, 8.0, 12.0, 16.0, 72.0].map(|p: f64| (p + expected as f64) * 0.125);
    let expected = steps.map(|y| (y / 0.25).round_ties_even() * 0.25);
    assert_eq!(y, expected);
    assert_eq!(quantized.report.integer_biases, 1);
    assert_eq!(quantized.report.not_simulated[0].path, "conv.bias");
    let grid = entry(("int32", -2147483648.0, 2147483520.0), &[1], &[0.125], 0.0);
    net.calibration.insert("conv.bias".parse().unwrap(), grid);
    assert!(net.quantize(X86).unwrap().report.not_simulated.is_empty());
}

/// The integer of a bias and 255 times the weight 1 have to stay within 2^31 - 1: 2147483392 is the
/// largest. As floats of 24 bits biases are multiples of 128 there: 2147483264 fits, 2147483520 does not.
#[test]
fn biases_near_the_end_of_int32() {
    let net = |bias: f32| {
        let mut net = one(1.0, 1.0, bias);
        net.quant("conv._input_0", UINT8, 1.0, 0.0);
        net.quant("conv._output_0", UINT8, 16_777_216.0, 0.0);
        net
    };
    let quantized = net(2_147_483_264.0).quantize(X86).unwrap();
    assert_eq!(quantized.integers("conv.bias_quantized"), [2_147_483_264]);
    assert_eq!(
        quantized.report.largest_bias.as_ref().unwrap().value,
        2_147_483_264
    );
    assert_eq!(
        quantized.run(&[1, 1, 1, 6], &[255.0; 6]),
        [2_147_483_648.0; 6]
    );
    for bias in [2_147_483_520.0, -2_147_483_520.0_f64] {
        let found = net(bias as f32).refusals(X86);
        let expected = format!(
            "`conv.bias`: with its norm the bias of channel 0 is {bias}, the integer {bias} of scale 1e0; with \
             its products it may reach 2147483392; prune the channel"
        );
        assert!(
            found.len() == 1 && found[0].starts_with(&expected),
            "{found:?}"
        );
    }
    // TensorRT adds the bias in floating point.
    let mut float = one(1.0, 1.0, 2_147_483_520.0);
    float.quant("conv._input_0", INT8, 1.0, 0.0);
    let quantized = float.quantize(OnnxTarget::TensorRt).unwrap();
    assert_eq!(quantized.floats("conv.bias"), [2_147_483_520.0]);
    assert_eq!(quantized.integers("conv.weight_quantized"), [1]);
}

/// Four bits, 0..15 about 8 with steps of 0.5: the clip ends at (15 - 8) 0.5 and (0 - 8) 0.5.
#[test]
fn narrow_ranges_are_clipped() {
    let mut net = one(1.0, 0.25, 0.0);
    net.quant("conv._input_0", ("uint4", 0.0, 15.0), 0.5, 8.0);
    let quantized = net.quantize(X86).unwrap();
    let y = quantized.run(&[1, 1, 1, 6], &[3.4, 3.5, 3.8, 9.0, -4.2, -9.0]);
    assert_eq!(y, [3.5, 3.5, 3.5, 3.5, -4.0, -4.0]);
    assert_eq!(quantized.count("Clip"), 1);
}

/// Linear layers have their output channels in dimension 1.
#[rstest]
#[case("Gemm")]
#[case("MatMul")]
fn linear_layers(#[case] operator: &str) {
    let mut net = Net::new(&[1, 2]);
    net.constant("fc.weight", &[2, 2], &[1.0, 0.5, -3.0, 2.0]);
    net.constant("fc.bias", &[2], &[0.5, -1.0]);
    match operator {
        "Gemm" => net.node("Gemm", &["x", "fc.weight", "fc.bias"], "y"),
        _ => net.node("MatMul", &["x", "fc.weight"], "products").node(
            "Add",
            &["products", "fc.bias"],
            "y",
        ),
    };
    net.port("fc._input_0", "x")
        .quant("fc._input_0", UINT8, 0.5, 2.0)
        .quant_weight("fc.weight", 1, &[1.0, 0.5])
        .output("y", &[1, 2]);
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(quantized.integers("fc.weight_quantized"), [1, 1, -3, 4]);
    assert_eq!(quantized.integers("fc.bias_quantized"), [1, -4]);
    // 1.25 / 0.5 = 2.5 is rounded to 2, the value 1.0; -9 is saturated to (0 - 2) 0.5 = -1.
    assert_eq!(quantized.run(&[1, 2], &[1.25, -9.0]), [4.5, -2.5]);
    assert_eq!(quantized.in_integers(), ["fc"]);
}

/// A weight of four bits whose layer runs in floating point: two integers in a byte, and exact unless the
/// runtime fuses it.
#[rstest]
#[case("Gemm")]
#[case("MatMul")]
fn weights_of_four_bits(#[case] operator: &str) {
    let mut net = Net::new(&[1, 2]);
    net.constant("fc.weight", &[2, 2], &[1.0, 3.5, -7.0, 0.5]);
    net.constant("fc.bias", &[2], &[0.5, -1.0]);
    match operator {
        "Gemm" => net.node("Gemm", &["x", "fc.weight", "fc.bias"], "y"),
        _ => net.node("MatMul", &["x", "fc.weight"], "products").node(
            "Add",
            &["products", "fc.bias"],
            "y",
        ),
    };
    net.port("fc._input_0", "x")
        .quant_weight("fc.weight", 1, &[1.0, 0.5])
        .output("y", &[1, 2]);
    let floats = net.quantize(X86).unwrap();
    assert_eq!(floats.floats("fc.weight"), [1.0, 3.5, -7.0, 0.5]);
    assert_eq!(floats.run(&[1, 2], &[0.25, -1.0]), [7.75, -0.625]);
    net.packs_weights = true;
    let packed = net.quantize(X86).unwrap();
    let expected = Values::Int4(vec![1, 7, -7, 1]);
    assert_eq!(
        packed.graph.initializers["fc.weight_quantized"].values,
        expected
    );
    assert_eq!(
        packed.run_unoptimized(&[1, 2], &[0.25, -1.0]),
        [7.75, -0.625]
    );
    assert_eq!(
        packed.reason("fc"),
        "its input is not quantized; its weight has 4 bits"
    );
    assert_eq!(packed.report.not_simulated[0].path, "fc.weight");
    let found = packed.executed(&[1, 2], "MatMulNBits");
    assert!(found.is_none_or(|count| count == 1), "{found:?}");
    assert_eq!(
        net.quantize(OnnxTarget::TensorRt)
            .unwrap()
            .count("DequantizeLinear"),
        0
    );
}

/// A table of integers is written as the values that it stands for, and the report tells so.
#[test]
fn quantized_tables_have_their_values() {
    let mut net = one(1.0, 0.25, 0.0);
    net.constant("table.weight", &[2, 1], &[0.5, 1.0]);
    net.quant_weight("table.weight", 0, &[0.5, 0.5]);
    let quantized = net.quantize(X86).unwrap();
    let left_out = &quantized.report.left_out;
    assert_eq!(left_out.len(), 1);
    assert_eq!(left_out[0].path, "table.weight");
    assert!(left_out[0].what.starts_with("its integers"), "{left_out:?}");
}
