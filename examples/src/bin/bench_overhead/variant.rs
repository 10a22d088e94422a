//! What is measured.

use clap::ValueEnum;

/// A way to make a training step; names are those of the tables.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The loop of a user, without a compressor
    #[value(name = "plain")]
    Plain,
    /// A forward pass of the teacher, in validation mode
    #[value(name = "teacher")]
    Teacher,
    /// A chain without a compressor
    #[value(name = "empty")]
    Empty,
    /// Taylor pruning in an AGP schedule that has ended
    #[value(name = "P")]
    Pruner,
    /// Taylor pruning that collects its scores
    #[value(name = "P-scoring")]
    Scoring,
    /// Int8 inputs and weights of convolutions and linear layers, trained
    #[value(name = "Q")]
    Quantizer,
    /// Distance of all convolutions' outputs to those of a teacher
    #[value(name = "D")]
    Distiller,
    /// Pruner and quantizer
    #[value(name = "P+Q")]
    PruneQuantize,
    /// Pruner, quantizer and distiller
    #[value(name = "P+Q+D")]
    Fused,
    /// The same in Burn's `Learner`
    #[value(name = "P+Q+D-learner")]
    Learner,
    /// Quantizer of all that ONNX Runtime computes in integers, as in the main job
    #[value(name = "Q-onnxruntime")]
    QuantizerForRuntime,
    /// The three with this quantizer: the main job
    #[value(name = "P+Q+D-onnxruntime")]
    FusedForRuntime,
    /// Quantizer with a scale for each channel of inputs and of the outputs of batch norms
    #[value(name = "Q-per-channel")]
    QuantizerPerChannel,
    /// The three with this quantizer
    #[value(name = "P+Q+D-per-channel")]
    FusedPerChannel,
    /// Learned step sizes
    #[value(name = "LSQ")]
    Lsq,
    /// Learned step sizes and zero points
    #[value(name = "LSQ+")]
    LsqPlus,
    /// Bounded inputs and weights
    #[value(name = "DoReFa")]
    DoReFa,
    /// Signs of inputs and weights
    #[value(name = "BNN")]
    Bnn,
}

impl Variant {
    /// Whether its memory is measured.
    pub fn is_weighed(self) -> bool {
        matches!(self, Self::Plain | Self::Teacher | Self::Fused)
    }
}

/// The most that the step of a variant may cost, in plain steps, where there is a bound.
///
/// `teacher` is the teacher's forward pass in plain steps. In small batches of the digits the work
/// that does not grow with the batch weighs more: a tenth is added.
pub fn bound(variant: &str, model: &str, batch: usize, teacher: Option<f64>) -> Option<f64> {
    let bound = match variant {
        "P" => 1.05,
        "Q" | "Q-onnxruntime" | "Q-per-channel" => 1.20,
        "P+Q" => 1.25,
        _ if variant.starts_with("P+Q+D") => 1.25 * (1.0 + teacher?),
        _ => return None,
    };
    let is_small = model == "digits" && batch < 64;
    Some(if is_small { 1.1 * bound } else { bound })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_follow_batch_and_teacher() {
        assert_eq!(bound("P", "digits", 64, None), Some(1.05));
        assert_eq!(bound("Q", "resnet18", 16, None), Some(1.20));
        assert_eq!(bound("P+Q", "digits", 16, None), Some(1.1 * 1.25));
        assert_eq!(bound("P+Q+D", "digits", 256, Some(0.2)), Some(1.5));
        assert_eq!(bound("P+Q+D", "digits", 256, None), None);
        assert_eq!(
            bound("P+Q+D-onnxruntime", "digits", 256, Some(0.2)),
            Some(1.5)
        );
        assert_eq!(bound("LSQ", "digits", 64, Some(0.2)), None);
    }
}
