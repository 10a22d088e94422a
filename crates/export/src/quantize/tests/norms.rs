//! Norms and masks folded into integers.

use super::net::{INT8, Net, UINT8};
use crate::graph::Values;
use crate::quantize::OnnxTarget;

const X86: OnnxTarget = OnnxTarget::OnnxRuntimeX86;

/// Three channels with norm factors 2, -0.5 and 0.
///
/// ```text
/// w = 0.25 [4, -8; 127, 2; 3, 3],  b = 1, 2, 3,  mean = 1, 0, 5,  beta = 0.5, 1, -0.75
/// s' = 0.5, 0.125, 0       k' = [4, -8; -127, -2; 0, 0]
/// b' = 0.5 + (1 - 1) 2 = 0.5,   1 + (2 - 0) -0.5 = 0,   -0.75
/// ```
fn normed() -> Net {
    let mut net = Net::new(&[1, 2, 1, 2]);
    let weight: [&[f32]; 3] = [&[1.0, -2.0], &[31.75, 0.5], &[0.75, 0.75]];
    net.conv("conv", "x", &weight, Some(&[1.0, 2.0, 3.0]))
        .norm(
            "bn",
            "conv_out",
            &[2.0, -0.5, 0.0],
            &[0.5, 1.0, -0.75],
            &[1.0, 0.0, 5.0],
        )
        .quant_weight("conv.weight", 0, &[0.25; 3])
        .quant("conv._input_0", UINT8, 0.5, 0.0)
        .quant("bn._output_0", INT8, 0.25, 0.0)
        .output("bn_out", &[1, 3, 1, 2]);
    net
}

#[test]
fn negative_factors_and_channels_without_scale() {
    let net = normed();
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(quantized.count("BatchNormalization"), 0);
    let shifted = [4, -8, -127, -2, 0, 0].map(|k| k + 128);
    assert_eq!(quantized.integers("conv.weight_quantized"), shifted);
    assert_eq!(quantized.integers("conv.weight_zero_point"), [128; 3]);
    let scales = quantized.floats("conv.weight_scale");
    assert_eq!(scales[..2], [0.5, 0.125]);
    // 0.5 / (0.5 0.5) = 2, 0 / .. = 0; the third channel has a scale of its own, 0.75 / (0.5 2^23).
    assert_eq!(
        quantized.integers("conv.bias_quantized"),
        [2, 0, -8_388_608]
    );
    assert_eq!(scales[2], 0.75 / (0.5 * 8_388_608.0));

    let y = quantized.run(&[1, 2, 1, 2], &[1.0, 2.0, 0.5, 0.0]);
    // 2 (1 - 1 + 1 - 1) + 0.5 = 0.5;  2 (2 + 1 - 1) + 0.5 = 4.5
    // -0.5 (31.75 + 0.25 + 2) + 1 = -16;  -0.5 (63.5 + 2) + 1 = -31.75;  -0.75 twice
    assert_eq!(y, [0.5, 4.5, -16.0, -31.75, -0.75, -0.75]);
    assert_eq!(quantized.report.folded_norms.len(), 1);
    assert_eq!(quantized.in_integers(), ["conv"]);
}

#[test]
fn channels_without_scale_for_other_targets() {
    let mut net = normed();
    net.quant("conv._input_0", INT8, 0.5, 0.0);
    let quantized = net.quantize(OnnxTarget::TensorRt).unwrap();
    assert_eq!(quantized.floats("conv.weight_scale")[..2], [0.5, 0.125]);
    assert_eq!(quantized.floats("conv.bias"), [0.5, 0.0, -0.75]);
    assert_eq!(
        quantized.run(&[1, 2, 1, 2], &[1.0, 2.0, 0.5, 0.0])[4],
        -0.75
    );
    let quantized = net.quantize(OnnxTarget::Float).unwrap();
    assert_eq!(quantized.count("QuantizeLinear"), 0);
    assert_eq!(quantized.count("BatchNormalization"), 1);
    assert_eq!(quantized.report.left_out.len(), 2);
    assert_eq!(
        quantized.reason("conv"),
        "the target computes in floating point"
    );
}

/// What is quantized between convolution and norm cannot be folded away.
#[test]
fn a_quantizer_before_the_norm() {
    let mut net = normed();
    net.quant("conv._output_0", INT8, 0.5, 0.0);
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(quantized.count("BatchNormalization"), 1);
    assert_eq!(
        quantized.reason("bn"),
        "onnxruntime on x86 has no BatchNormalization in integers"
    );
    assert_eq!(quantized.in_integers(), ["conv"]);
}

/// A convolution without a bias gets the norm's; one whose input is not quantized the norm's factors.
#[test]
fn folding_in_floating_point() {
    let mut net = Net::new(&[1, 1, 1, 2]);
    net.conv("conv", "x", &[&[3.0], &[1.0]], None)
        .norm("bn", "conv_out", &[2.0, -1.0], &[0.5, 1.0], &[1.0, 0.0])
        .quant_weight("conv.weight", 0, &[1.0, 1.0])
        .output("bn_out", &[1, 2, 1, 2]);
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(quantized.floats("conv.weight"), [6.0, -1.0]);
    assert_eq!(quantized.floats("conv.bias"), [-1.5, 1.0]);
    assert_eq!(
        quantized.run(&[1, 1, 1, 2], &[0.25, 1.0]),
        [0.0, 4.5, 0.75, 0.0]
    );
    assert_eq!(quantized.reason("conv"), "its input is not quantized");
}

/// Two calls of one layer with a norm each: each call gets weights of its own.
#[test]
fn one_weight_under_two_norms() {
    let mut net = Net::new(&[1, 1, 1, 2]);
    net.conv("conv", "x", &[&[3.0]], None);
    net.node("Conv", &["x", "conv.weight"], "second")
        .port("conv._input_0", "x")
        .norm("bn1", "conv_out", &[2.0], &[0.0], &[0.0])
        .norm("bn2", "second", &[-1.0], &[0.0], &[0.0])
        .node("Add", &["bn1_out", "bn2_out"], "y")
        .quant_weight("conv.weight", 0, &[1.0])
        .quant("conv._input_0", UINT8, 1.0, 0.0)
        .quant("bn1._output_0", INT8, 1.0, 0.0)
        .quant("bn2._output_0", INT8, 1.0, 0.0)
        .output("y", &[1, 1, 1, 2]);
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(quantized.integers("conv.weight_quantized"), [3]);
    assert_eq!(quantized.integers("conv.weight_quantized_2"), [-3]);
    assert_eq!(quantized.floats("conv.weight_scale"), [2.0]);
    assert_eq!(quantized.floats("conv.weight_scale_2"), [1.0]);
    assert_eq!(quantized.run(&[1, 1, 1, 2], &[4.0, 7.0]), [12.0, 21.0]);
    // In floating point the same.
    net.calibration.clear();
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(quantized.run(&[1, 1, 1, 2], &[4.0, 7.0]), [12.0, 21.0]);
}

/// A mask of channels before the norm leaves what the norm makes of 0, one behind it leaves 0.
#[test]
fn masks_of_channels_are_folded() {
    let mut net = normed();
    net.mask("conv._output_0", &[1, 3, 1, 1], &[0.0, 1.0, 1.0]);
    net.mask("bn._output_0", &[1, 3, 1, 1], &[1.0, 1.0, 0.0]);
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(quantized.count("Mul"), 0);
    let y = quantized.run(&[1, 2, 1, 2], &[1.0, 2.0, 0.5, 0.0]);
    // 2 (0 - 1) + 0.5 = -1.5
    assert_eq!(y, [-1.5, -1.5, -16.0, -31.75, 0.0, 0.0]);
}

/// A mask of single values, and that of an input, are multiplied by an operator.
#[test]
fn other_masks_are_operators() {
    let mut net = normed();
    net.mask("bn._output_0", &[1, 1, 1, 2], &[0.0, 1.0]);
    net.mask("conv._input_0", &[1, 2, 1, 1], &[1.0, 0.0]);
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(quantized.count("Mul"), 2);
    let y = quantized.run(&[1, 2, 1, 2], &[1.0, 2.0, 0.5, 0.0]);
    // 2 (2 + 1 - 1) + 0.5 = 4.5,  -0.5 (63.5 + 2) + 1
    assert_eq!(y, [0.0, 4.5, 0.0, -31.75, 0.0, -0.75]);
    assert_eq!(
        quantized.reason("conv"),
        "its output is not quantized, Mul `bn_out_masked` reads it"
    );
    let Values::Float(mask) = &quantized.graph.initializers["x_mask"].values else {
        panic!("a mask is made of floats");
    };
    assert_eq!(mask[..], [1.0, 0.0]);
}
