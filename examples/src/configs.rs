//! The configurations of the examples, in the form in which they would stand in a file.

use burn_compress::prelude::*;
use clap::ValueEnum;

use crate::resnet::DigitsResNet;

/// All convolutions lose `sparsity` of their output channels.
///
/// # Errors
///
/// Never for a sparsity between 0 and 1.
pub fn pruning(sparsity: f64) -> anyhow::Result<ConfigList<PruningSettings>> {
    let rules = format!(r#"[{{"op_types": ["Conv2d"], "sparse_ratio": {sparsity}}}]"#);
    Ok(ConfigList::from_json(&rules)?)
}

/// Rules of the quantizers.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuantRules {
    /// What ONNX Runtime computes in integers, from the network
    #[default]
    Onnxruntime,
    /// What TensorRT computes in integers, from the network
    Tensorrt,
    /// Inputs of convolutions and outputs of batch norms with a scale for each channel, which no
    /// runtime computes in integers
    PerChannel,
}

/// Eight bits, by these rules.
///
/// # Errors
///
/// A network that the runtime of the rules does not compute in integers.
pub fn quantization(
    rules: QuantRules,
    model: &DigitsResNet,
    dummy: &DummyInput<DigitsResNet>,
) -> anyhow::Result<ConfigList<QuantizationSettings>> {
    Ok(match rules {
        QuantRules::Onnxruntime => Deployment::onnxruntime().rules(model, dummy)?,
        QuantRules::Tensorrt => Deployment::tensorrt().rules(model, dummy)?,
        QuantRules::PerChannel => per_channel()?,
    })
}

/// Int8: the inputs of convolutions per channel, their weights per output channel, the outputs of
/// batch norms per channel.
///
/// # Errors
///
/// Never.
pub fn per_channel() -> anyhow::Result<ConfigList<QuantizationSettings>> {
    Ok(ConfigList::from_json(
        r#"[
            {
                "op_types": ["Conv2d"], "quant_dtype": "int8",
                "target_names": ["_input_", "weight"],
                "target_settings": {
                    "_input_": {"granularity": "per_channel"},
                    "weight": {"granularity": "out_channel"}
                }
            },
            {
                "op_types": ["BatchNorm"], "quant_dtype": "int8",
                "target_names": ["_output_"], "granularity": "per_channel"
            }
        ]"#,
    )?)
}

/// Every convolution's output follows the teacher's.
///
/// # Errors
///
/// Never.
pub fn distillation() -> anyhow::Result<ConfigList<DistillationSettings>> {
    let rules = r#"[{"op_types": ["Conv2d"], "lambda": 0.1, "apply_method": "mse"}]"#;
    Ok(ConfigList::from_json(rules)?)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};
    use burn_compress::layer::layers;

    use super::*;
    use crate::resnet::DigitsResNetConfig;

    #[test]
    fn everything_between_image_and_logits_is_in_integers() {
        let device = Device::flex();
        let model = DigitsResNetConfig::new().init(&device);
        let images = Tensor::ones([2, 1, 8, 8], &device);
        let dummy = DummyInput::new(images, DigitsResNet::forward);
        let rules = quantization(QuantRules::Onnxruntime, &model, &dummy).unwrap();
        let selected = rules.select(&layers(&model)).unwrap();
        let count = |kind: &str| selected.iter().filter(|one| one.layer.kind == kind).count();
        // Input and weight of 15 convolutions and the head, both operands of six sums.
        let kinds = ["Conv2d", "Linear", "Add", "AdaptiveAvgPool2d"];
        assert_eq!(kinds.map(count), [2 * 15, 2, 2 * 6, 1]);
        assert_eq!(selected.len(), 30 + 2 + 12 + 1);
        assert!(quantization(QuantRules::Tensorrt, &model, &dummy).is_ok());
    }
}
