//! Refusals of whole graphs, all at once. Those of single quantizers and weights are tested beside them.

use burn_compress_core::{Grid, MaskMethod, TargetId};

use super::net::{INT8, Net, UINT8, entry};
use crate::quantize::{OnnxTarget, lines};

const X86: OnnxTarget = OnnxTarget::OnnxRuntimeX86;

fn net() -> Net {
    let mut net = Net::new(&[1, 2, 1, 1]);
    net.conv("conv", "x", &[&[1.0, 1.0]], Some(&[0.0]))
        .node("Relu", &["conv_out"], "h")
        .conv("next", "h", &[&[1.0]], None)
        .quant("conv._input_0", UINT8, 1.0, 0.0)
        .quant_weight("conv.weight", 0, &[1.0])
        .output("next_out", &[1, 1, 1, 1]);
    net
}

#[test]
fn everything_at_once() {
    let mut net = net();
    let per_channel = entry(UINT8, &[1, 2, 1, 1], &[1.0, 2.0], 0.0);
    net.calibration
        .insert("conv._input_0".parse().unwrap(), per_channel);
    let blocked = entry(INT8, &[1, 2, 1, 1], &[1.0, 2.0], 0.0);
    net.calibration
        .insert("conv.weight".parse().unwrap(), blocked);
    net.quant("next._input_0", UINT8, 1.0, 0.5);
    let binary = entry(("int1", -1.0, 1.0), &[1], &[1.0], 0.0);
    net.calibration
        .insert("next.weight".parse().unwrap(), binary);
    let found = net.quantize(X86).unwrap_err();
    let text = lines(&found);
    let expected = [
        "`conv.weight`: it has 2 scales in blocks [1, 2, 1, 1]; use the granularity `out_channel`",
        "`next.weight`: its type is int1",
        "`conv._input_0`: it has 2 scales, one a channel; use the granularity `default`",
        "`next._input_0`: its zero point 0.5 is not an integer",
    ];
    assert_eq!(text.lines().count(), 1 + expected.len(), "{text}");
    for part in expected {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn what_does_not_act_is_not_refused() {
    let mut net = net();
    let mut off = entry(UINT8, &[1, 2, 1, 1], &[1.0, 2.0], 0.5);
    off.enabled = false;
    net.calibration
        .insert("conv._input_0".parse().unwrap(), off);
    let quantized = net.quantize(X86).unwrap();
    assert_eq!(
        quantized.report.left_out[0].what,
        "its quantization, which did not act"
    );
    // Nor is anything by the target that does not quantize.
    net.quant("conv._input_0", UINT8, 1.0, 0.5);
    net.quantize(OnnxTarget::Float).unwrap();
}

#[test]
fn outputs_and_inputs_that_differ() {
    let mut net = net();
    net.port("relu._input_0", "conv_out")
        .port("relu._output_0", "h");
    net.quant("relu._output_0", UINT8, 0.5, 0.0)
        .quant("next._input_0", UINT8, 1.0, 0.0);
    let found = net.refusals(X86);
    let expected = "`relu._output_0`: it is quantized with uint8 5e-1, 0, and `next._input_0`, the same tensor, \
                    with uint8 1e0, 0; quantize only one of the two";
    assert_eq!(found, [expected]);
}

/// Two wrapped layers without parameters and without an output of their own: nobody knows which
/// operator is whose.
#[test]
fn inputs_that_differ_and_cannot_be_told_apart() {
    let mut net = net();
    net.port("identity._input_0", "h");
    net.quant("identity._input_0", UINT8, 0.5, 0.0)
        .quant("next._input_0", UINT8, 1.0, 0.0);
    let found = net.refusals(X86);
    assert!(
        found[0].starts_with("`identity._input_0`: it is quantized with uint8 5e-1, 0"),
        "{found:?}"
    );
    assert!(found[0].ends_with("quantize the output of the layer that makes the tensor instead"));
}

#[test]
fn masks_that_no_operator_can_be_given() {
    let mut net = net();
    net.node("Add", &["x", "x"], "z").output("z", &[1, 2, 1, 1]);
    net.mask("conv._input_0", &[1, 2, 1, 1], &[1.0, 0.0]);
    let found = net.refusals(X86);
    assert!(
        found[0].starts_with("`conv._input_0`: its mask is that of one layer"),
        "{found:?}"
    );

    let mut net = self::net();
    net.mask("next._output_0", &[1, 1, 1, 1], &[0.0])
        .quant("next._output_0", UINT8, 1.0, 0.0);
    let target: TargetId = "next._output_0".parse().unwrap();
    net.masks[&target] = net.masks[&target].clone().with_method(MaskMethod::Add);
    let found = net.refusals(X86);
    assert!(
        found[0].starts_with("`next._output_0`: its mask is added"),
        "{found:?}"
    );
}

/// A norm with both signs behind an affine weight.
#[test]
fn affine_weights_under_norms() {
    let mut net = Net::new(&[1, 1, 1, 1]);
    net.conv("conv", "x", &[&[-200.0], &[-200.0]], None)
        .norm("bn", "conv_out", &[1.0, -1.0], &[0.0, 0.0], &[0.0, 0.0])
        .quant("conv._input_0", UINT8, 1.0, 0.0)
        .quant("bn._output_0", INT8, 1.0, 0.0)
        .output("bn_out", &[1, 2, 1, 1]);
    let mut affine = entry(UINT8, &[1, 1, 1, 1], &[1.0], 200.0);
    affine.grid = Grid::new([1]);
    net.calibration
        .insert("conv.weight".parse().unwrap(), affine);
    let found = net.refusals(X86);
    let expected = "`conv.weight`: its integers less the zero point are -200..200, which onnxruntime on x86 cannot \
                    hold; use the scheme `symmetric` for the weight";
    assert_eq!(found, [expected]);
}

/// A norm that takes the scale of a channel below the normal numbers.
#[test]
fn scales_that_a_norm_makes_too_small() {
    let mut net = Net::new(&[1, 1, 1, 1]);
    net.conv("conv", "x", &[&[1.0]], None)
        .norm("bn", "conv_out", &[1e-38], &[0.0], &[0.0])
        .quant("conv._input_0", UINT8, 1.0, 0.0)
        .quant_weight("conv.weight", 0, &[0.125])
        .quant("bn._output_0", INT8, 1.0, 0.0)
        .output("bn_out", &[1, 1, 1, 1]);
    let found = net.refusals(X86);
    assert!(
        found[0].starts_with("`conv.weight`: the scale of channel 0 is 1.2"),
        "{found:?}"
    );
    assert!(found[0].ends_with("prune the channel, or do not quantize the weight"));
}
