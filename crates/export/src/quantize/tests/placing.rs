//! Where quantizers stand, and the ReLUs around them.

use burn_compress_core::TargetId;
use rstest::rstest;

use super::net::{INT8, Net, SYMMETRIC, UINT8};
use crate::graph::Attribute;
use crate::quantize::OnnxTarget;

const X86: OnnxTarget = OnnxTarget::OnnxRuntimeX86;
const DIMS: [usize; 4] = [1, 1, 1, 4];

/// `relu(a x)` read by two convolutions, whose outputs are added.
fn branches(first: f32, second: f32) -> Net {
    let mut net = Net::new(&DIMS);
    net.conv("stem", "x", &[&[1.0]], None)
        .node("Relu", &["stem_out"], "h")
        .conv("left", "h", &[&[1.0]], None)
        .conv("right", "h", &[&[2.0]], None)
        .node("Add", &["left_out", "right_out"], "y")
        .quant("stem._input_0", INT8, 0.5, 0.0)
        .quant("left._input_0", UINT8, first, 0.0)
        .quant("right._input_0", UINT8, second, 0.0)
        .quant("left._output_0", UINT8, 1.0, 0.0)
        .quant("right._output_0", UINT8, 1.0, 0.0)
        .port("add._output_0", "y")
        .quant("add._output_0", UINT8, 1.0, 0.0)
        .output("y", &DIMS);
    for layer in ["stem", "left", "right"] {
        net.quant_weight(&format!("{layer}.weight"), 0, &[0.25]);
    }
    net
}

#[test]
fn equal_quantizers_of_one_tensor_are_one() {
    let quantized = branches(0.5, 0.5).quantize(X86).unwrap();
    assert_eq!(quantized.in_integers(), ["stem", "left", "right", "add"]);
    assert!(
        quantized.report.float_nodes.is_empty(),
        "{}",
        quantized.report
    );
    let merged = quantized
        .report
        .quantizers
        .iter()
        .find(|q| q.tensor == "h")
        .unwrap();
    assert_eq!(merged.targets, ["left._input_0", "right._input_0"]);
    assert!(merged.also_read_by.is_empty());
    assert_eq!(quantized.report.absorbed_activations, ["h"]);
    // 1.5 / 0.5 = 3: 1.5 and 3 are rounded to the even 2 and to 3.
    assert_eq!(
        quantized.run(&DIMS, &[1.5, -1.0, 0.0, 2.0]),
        [5.0, 0.0, 0.0, 6.0]
    );
    let found =
        ["QLinearConv", "QLinearAdd", "Conv", "Add"].map(|op| quantized.executed(&DIMS, op));
    assert!(
        found[0].is_none_or(|_| found == [3, 1, 0, 0].map(Some)),
        "{found:?}"
    );
    let text = quantized.report.to_string();
    assert!(
        text.contains("merged on h: left._input_0, right._input_0"),
        "{text}"
    );
}

#[test]
fn different_quantizers_of_one_tensor_stay_apart() {
    let quantized = branches(0.5, 1.0).quantize(X86).unwrap();
    assert_eq!(quantized.in_integers(), ["left", "right", "add"]);
    let stays = "the Relu behind it makes a tensor that is not quantized";
    assert_eq!(quantized.reason("stem"), stays);
    // 1.5 is 1.5 for the left and rounded to 2 for the right: 2 + 4.
    assert_eq!(
        quantized.run(&DIMS, &[1.5, -1.0, 0.0, 2.0]),
        [6.0, 0.0, 0.0, 6.0]
    );
    // Without a ReLU, both quantizers read the convolution.
    let mut net = branches(0.5, 1.0);
    net.graph.bypass("h", "stem_out");
    for target in ["left._input_0", "right._input_0"] {
        net.ports[&target.parse::<TargetId>().unwrap()] = vec!["stem_out".to_string()];
    }
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(
        quantized.reason("stem"),
        "2 different quantizers read its output"
    );
}

/// The identity of a residual addition is read quantized, since the convolution's input is.
fn residual() -> Net {
    let mut net = Net::new(&DIMS);
    net.conv("stem", "x", &[&[1.0]], None)
        .node("Relu", &["stem_out"], "h")
        .conv("conv", "h", &[&[1.0]], None)
        .node("Add", &["conv_out", "h"], "sum")
        .node("Relu", &["sum"], "r")
        .conv("next", "r", &[&[1.0]], None)
        .quant("stem._input_0", INT8, 0.5, 0.0)
        .quant("conv._input_0", UINT8, 1.0, 0.0)
        .quant("conv._output_0", INT8, 1.0, 0.0)
        .quant("next._input_0", UINT8, 1.0, 0.0)
        .output("next_out", &DIMS);
    for layer in ["stem", "conv", "next"] {
        net.quant_weight(&format!("{layer}.weight"), 0, &[0.25]);
    }
    net
}

#[test]
fn a_quantizer_serves_all_readers() {
    let quantized = residual().quantize(X86).unwrap();
    assert_eq!(quantized.in_integers(), ["stem", "conv", "sum"]);
    let shared = quantized
        .report
        .quantizers
        .iter()
        .find(|q| q.tensor == "h")
        .unwrap();
    assert_eq!(shared.also_read_by, ["sum"]);
    let text = quantized.report.to_string();
    assert!(
        text.contains("not simulated: sum reads h quantized"),
        "{text}"
    );
    assert_eq!(
        quantized.reason("next"),
        "it makes an output of the model, which is not quantized"
    );
    // Its weights are floats, so that they are not dequantized in every run.
    assert_eq!(quantized.floats("next.weight"), [1.0]);
    assert_eq!(
        quantized.run(&DIMS, &[1.5, 2.5, -3.0, 7.0]),
        [4.0, 4.0, 0.0, 14.0]
    );
    let found =
        ["QLinearConv", "QLinearAdd", "Conv", "Add"].map(|op| quantized.executed(&DIMS, op));
    assert!(
        found[0].is_none_or(|_| found == [2, 1, 1, 0].map(Some)),
        "{found:?}"
    );
}

#[test]
fn an_unquantized_operand_keeps_an_addition_in_floats() {
    let mut net = residual();
    net.without("conv._output_0");
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(
        quantized.reason("sum"),
        "its operand `conv_out` is not quantized"
    );
    assert_eq!(
        quantized.reason("conv"),
        "its output is not quantized, Add `sum` reads it"
    );
}

/// What is put out stays as it was where only a layer's input is quantized, and is quantized where the
/// output of a layer is.
#[rstest]
#[case("next._input_0", [1.5, 0.0])]
#[case("relu._output_0", [2.0, 0.0])]
fn tensors_that_are_put_out(#[case] target: &str, #[case] expected: [f64; 2]) {
    let mut net = Net::new(&[1, 1, 1, 2]);
    net.conv("conv", "x", &[&[1.0]], None)
        .node("Relu", &["conv_out"], "h")
        .port("relu._input_0", "conv_out")
        .port("relu._output_0", "h")
        .conv("next", "h", &[&[1.0]], None)
        .quant(target, UINT8, 1.0, 0.0)
        .output("h", &[1, 1, 1, 2])
        .output("next_out", &[1, 1, 1, 2]);
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(quantized.run(&[1, 1, 1, 2], &[1.5, -1.0]), expected);
}

/// A ReLU behind a convolution is done by the quantizer where 0 is its lowest integer.
#[rstest]
#[case(UINT8, 0.0, true)]
#[case(INT8, -128.0, true)]
#[case(INT8, 0.0, false)]
#[case(UINT8, 128.0, false)]
#[case(SYMMETRIC, -127.0, false)]
#[case(("uint7", 0.0, 127.0), 0.0, false)]
fn relu_before_a_quantizer(
    #[case] range: (&str, f32, f32),
    #[case] zero: f32,
    #[case] absorbed: bool,
) {
    let mut net = Net::new(&DIMS);
    net.conv("conv", "x", &[&[1.0]], None)
        .node("Relu", &["conv_out"], "h")
        .port("relu._output_0", "h")
        .quant("conv._input_0", INT8, 1.0, 0.0)
        .quant_weight("conv.weight", 0, &[1.0])
        .quant("relu._output_0", range, 1.0, zero)
        .output("h", &DIMS);
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(
        quantized.run(&DIMS, &[2.0, -3.0, 0.0, 5.0]),
        [2.0, 0.0, 0.0, 5.0]
    );
    assert_eq!(quantized.count("Relu"), usize::from(!absorbed));
    assert_eq!(
        quantized.in_integers(),
        if absorbed { vec!["conv"] } else { vec![] }
    );
    if !absorbed {
        assert!(
            quantized.reason("conv").starts_with("the Relu behind it"),
            "{}",
            quantized.report
        );
    }
    let found = quantized.executed(&DIMS, "QLinearConv");
    assert!(
        found.is_none_or(|count| count == usize::from(absorbed)),
        "{found:?}"
    );
}

/// A clip ends where the range ends: 6 / (6 / 255) = 255, but not with steps of 8 / 255 or of 1 / 64.
#[rstest]
#[case(6.0 / 255.0, true)]
#[case(8.0 / 255.0, false)]
#[case(1.0 / 64.0, true)]
fn relu6_before_a_quantizer(#[case] scale: f32, #[case] absorbed: bool) {
    let mut net = Net::new(&DIMS);
    net.conv("conv", "x", &[&[1.0]], None)
        .constant("lowest", &[], &[0.0])
        .constant("highest", &[], &[6.0])
        .node("Clip", &["conv_out", "lowest", "highest"], "h")
        .port("relu6._output_0", "h")
        .quant("conv._input_0", INT8, 1.0, 0.0)
        .quant_weight("conv.weight", 0, &[1.0])
        .quant("relu6._output_0", UINT8, scale, 0.0)
        .output("h", &DIMS);
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(quantized.count("Clip"), usize::from(!absorbed));
    let y = quantized.run(&DIMS, &[-3.0, 0.0, 7.0, 9.0]);
    assert_eq!(y[..2], [0.0, 0.0]);
    let top = (6.0 / scale).round_ties_even().min(255.0) * scale;
    assert_eq!(y[2..], [f64::from(top); 2]);
}

/// `Q D Relu Q D`: the ReLU behind a quantizer stays between the two.
#[test]
fn relu_behind_a_quantizer() {
    let mut net = Net::new(&DIMS);
    net.conv("conv", "x", &[&[1.0]], None)
        .node("Relu", &["conv_out"], "h")
        .port("relu._output_0", "h")
        .quant("conv._input_0", INT8, 1.0, 0.0)
        .quant_weight("conv.weight", 0, &[1.0])
        .quant("conv._output_0", INT8, 1.0, 0.0)
        .quant("relu._output_0", UINT8, 2.0, 0.0)
        .output("h", &DIMS);
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(quantized.count("Relu"), 1);
    assert_eq!(quantized.in_integers(), ["conv"]);
    assert!(
        quantized
            .reason("relu")
            .starts_with("no quantizer behind it"),
        "{}",
        quantized.report
    );
    assert_eq!(
        quantized.run(&DIMS, &[2.4, -3.0, 5.0, 7.4]),
        [2.0, 0.0, 4.0, 8.0]
    );
}

/// A pool takes the largest of integers: the quantizer behind it is copied before it, where the
/// convolution needs it, and `Flatten` gets one on both sides.
#[test]
fn quantizers_are_copied_across_operators_that_move() {
    let mut net = Net::new(&[1, 1, 2, 4]);
    net.conv("conv", "x", &[&[1.0]], None)
        .node("Relu", &["conv_out"], "h")
        .node("MaxPool", &["h"], "p")
        .with("kernel_shape", Attribute::Ints(vec![2, 2]))
        .with("strides", Attribute::Ints(vec![2, 2]))
        .node("Flatten", &["p"], "f")
        .constant("fc.weight", &[2, 1], &[1.0, -1.0])
        .constant("fc.bias", &[1], &[2.0])
        .node("Gemm", &["f", "fc.weight", "fc.bias"], "y")
        .port("fc._input_0", "f")
        .quant("conv._input_0", INT8, 1.0, 0.0)
        .quant_weight("conv.weight", 0, &[1.0])
        .quant("fc._input_0", UINT8, 1.0, 0.0)
        .quant_weight("fc.weight", 1, &[0.5])
        .output("y", &[1, 1]);
    let quantized = net.quantize(X86).unwrap();
    let placed: Vec<&str> = quantized
        .report
        .quantizers
        .iter()
        .map(|q| &*q.tensor)
        .collect();
    assert_eq!(placed, ["x", "f", "p", "h"]);
    assert_eq!(quantized.in_integers(), ["conv", "fc", "p"]);
    let y = quantized.run(&[1, 1, 2, 4], &[1.0, 9.0, -2.0, -1.0, 3.0, 0.0, -5.0, -9.0]);
    assert_eq!(y, [11.0]);
    let found = ["QLinearConv", "QGemm", "Conv"].map(|op| quantized.executed(&[1, 1, 2, 4], op));
    assert!(
        found[0].is_none_or(|_| found == [1, 1, 0].map(Some)),
        "{found:?}"
    );
}

/// The parts of a concatenation get the quantizer of the whole.
#[test]
fn parts_of_a_concatenation() {
    let mut net = Net::new(&DIMS);
    net.conv("left", "x", &[&[1.0]], None)
        .conv("right", "x", &[&[-1.0]], None)
        .node("Concat", &["left_out", "right_out"], "c")
        .with("axis", Attribute::Int(1))
        .conv("next", "c", &[&[1.0, 2.0]], None)
        .quant("left._input_0", INT8, 1.0, 0.0)
        .quant("right._input_0", INT8, 1.0, 0.0)
        .quant("next._input_0", UINT8, 1.0, 0.0)
        .quant("next._output_0", UINT8, 1.0, 0.0)
        .output("next_out", &DIMS);
    for (layer, scale) in [("left", 1.0), ("right", 1.0), ("next", 1.0)] {
        net.quant_weight(&format!("{layer}.weight"), 0, &[scale]);
    }
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(quantized.in_integers(), ["left", "right", "next", "c"]);
    assert_eq!(
        quantized.run(&DIMS, &[1.0, -2.0, 3.0, 0.0]),
        [1.0, 4.0, 3.0, 0.0]
    );
    let found = quantized.executed(&DIMS, "QLinearConcat");
    assert!(found.is_none_or(|count| count == 1), "{found:?}");
}

/// TensorRT needs no quantizer behind a convolution, and adds the identity and takes the ReLU in its
/// kernel.
#[test]
fn tensorrt_fuses_from_the_inputs() {
    let mut net = residual();
    net.quant("conv._input_0", INT8, 1.0, 0.0)
        .quant("next._input_0", INT8, 1.0, 0.0);
    net.without("conv._output_0");
    let quantized = net.quantize(OnnxTarget::TensorRt).unwrap();
    let expected = ["stem", "conv", "next", "h", "sum"];
    assert_eq!(quantized.in_integers(), expected);
    assert!(quantized.reason("r").starts_with("no quantizer behind it"));
    assert_eq!(quantized.integers("conv.weight_quantized"), [4]);
}
