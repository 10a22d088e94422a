//! What cannot be fused.

use super::*;

#[test]
fn what_others_have_claimed_is_not_fused() {
    for (target, mode, expected) in [
        ("bn.gamma", Mode::Quantization, "layers out of `fuse`"),
        ("bn._input_0", Mode::Pruning, "layers out of `fuse`"),
        (
            "conv._output_0",
            Mode::Distillation,
            "let it take `relu._output_0`",
        ),
    ] {
        let (layer, name) = target.split_once('.').unwrap();
        let mut chain = Compressor::from_model(net(), evaluator());
        let id = TargetId::new(layer, name.parse().unwrap());
        chain.chain().claim(mode, &[id]).unwrap();
        let error = QatQuantizer::from_compressor(chain, config(FUSE), QatConfig::new());
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains(&format!("has claimed `{target}`")),
            "{error}"
        );
        assert!(error.contains(expected), "{error}");
    }
}

#[rstest]
#[case::unknown(r#""fuse_names": [["conv", "norm"]]"#, "no layer `norm`")]
#[case::not_wrapped(r#""fuse_names": [["conv", "plain"]]"#, "`plain` is not wrapped")]
#[case::one(r#""fuse_names": [["conv"]]"#, "two or three layers")]
#[case::order(
    r#""fuse_names": [["bn", "conv"]]"#,
    "cannot be fused: a fusion is one of"
)]
#[case::not_next(
    r#""fuse_names": [["conv", "fc_bn"]]"#,
    "does not directly follow `conv`"
)]
#[case::pooling(
    r#""fuse_names": [["conv", "bn", "head_relu"]]"#,
    "does not directly follow `bn`"
)]
#[case::twice(
    r#""fuse_names": [["conv", "bn"], ["conv", "bn", "relu"]]"#,
    "`conv` is in two fusions"
)]
#[case::weight(
    r#""fuse_names": [["conv", "bn"]], "target_names": ["_input_0"]"#,
    "weight of `conv`, which is not quantized"
)]
#[case::output(
    r#""fuse_names": [["conv", "bn", "relu"]], "target_names": ["weight"]"#,
    "`conv._output_0` is not selected"
)]
fn what_cannot_be_fused(#[case] keys: &str, #[case] expected: &str) {
    let error = qat(&format!(r#"[{{"op_names": ["conv"], {keys}}}]"#)).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
}
