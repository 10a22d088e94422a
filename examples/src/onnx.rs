//! The small network as an ONNX file.

use std::path::Path;

use anyhow::Context;
use burn_compress::export::OnnxTarget;
use burn_compress::prelude::*;

use crate::configs::QuantRules;
use crate::file::write_whole;
use crate::resnet::DigitsResNet;

/// The runtime that executes what these rules quantize; scales for each channel are executed by
/// none.
pub fn target(rules: QuantRules) -> OnnxTarget {
    match rules {
        QuantRules::Onnxruntime => OnnxTarget::OnnxRuntimeX86,
        QuantRules::Tensorrt => OnnxTarget::TensorRt,
        QuantRules::PerChannel => OnnxTarget::Float,
    }
}

/// A network as an ONNX file that takes `images` in batches of any size and gives `logits`.
///
/// # Errors
///
/// Those of the export.
pub fn export(
    model: &DigitsResNet,
    dummy_input: &DummyInput<DigitsResNet>,
    target: OnnxTarget,
) -> anyhow::Result<OnnxFile> {
    let config = OnnxConfig::new()
        .with_target(target)
        .with_input_names(["images"])
        .with_output_names(["logits"]);
    export_onnx(model, dummy_input, &config).context("the ONNX file")
}

/// Writes the file of a network and prints what it holds. Makes the folder if there is none.
///
/// # Errors
///
/// Those of the export, and a file that cannot be written.
pub fn write(
    model: &DigitsResNet,
    dummy_input: &DummyInput<DigitsResNet>,
    target: OnnxTarget,
    path: &Path,
) -> anyhow::Result<()> {
    let file = export(model, dummy_input, target)?;
    write_whole(path, file.bytes())?;
    println!("ONNX file: {}\n{}", path.display(), file.report());
    Ok(())
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::resnet::DigitsResNetConfig;

    #[test]
    fn a_plain_network_is_written_with_its_names() {
        let device = Device::flex();
        let model = DigitsResNetConfig::new()
            .with_widths([2, 2, 2])
            .init(&device);
        let images = Tensor::ones([2, 1, 8, 8], &device);
        let dummy = DummyInput::new(images, DigitsResNet::forward);
        let file = export(&model, &dummy, target(QuantRules::default())).unwrap();
        let report = file.report();
        assert_eq!(report.inputs[0].to_string(), "images float[batch, 1, 8, 8]");
        assert_eq!(report.operators["Conv"], 15);
    }
}
