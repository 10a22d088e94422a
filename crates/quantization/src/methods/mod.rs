//! The quantizers, one a file, and all of them by name.

pub(crate) mod adaround;
mod bnn;
pub mod dorefa;
mod learned;
pub mod lsq;
pub mod lsq_plus;
mod ptq;
mod qat;

use burn::module::Module;
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Compressor, Error};

use crate::QuantizationSettings;

#[cfg(test)]
pub(crate) use learned::checked_quantize;
pub use learned::{LearnedMethod, LearnedQuantizer, LearnedRule, LearnedStart};
pub use lsq::LsqInit;

/// Adds a quantizer with its default settings to a chain.
pub type Fuse<M, I> =
    fn(Compressor<M, I>, &ConfigList<QuantizationSettings>) -> Result<Compressor<M, I>, Error>;

/// Entry of one quantizer.
#[derive(Debug)]
pub struct Entry<M, I> {
    /// Name of its type and in a chain.
    pub name: &'static str,
    /// Summary in one sentence.
    pub summary: &'static str,
    /// Paper.
    pub reference: &'static str,
    /// Whether it needs a run with training.
    pub trains: bool,
    /// Whether zeros stay zeros, without which channels before a quantized input cannot be cut out.
    pub keeps_zero: bool,
    /// Adds it to a chain.
    pub fuse: Fuse<M, I>,
}

/// The public names of each quantizer, and its entry.
macro_rules! quantizers {
    ($(#[$meta:meta])*
     $($file:ident { $quantizer:ident, $config:ident $(, $more:ident)* } = $options:expr,
        $trains:literal, $keeps_zero:literal, $summary:literal, $reference:literal;)+) => {
        /// The built-in quantizers and their configurations.
        pub mod built_in {
            $(pub use super::$file::{$quantizer, $config $(, $more)*};)+
        }
        use built_in::*;

        $(#[$meta])*
        pub fn quantizers<M: Module + 'static, I: 'static>() -> Vec<Entry<M, I>> {
            vec![$(Entry {
                name: stringify!($quantizer),
                summary: $summary,
                reference: $reference,
                trains: $trains,
                keeps_zero: $keeps_zero,
                fuse: |chain, rules| $quantizer::from_compressor(chain, rules, $options),
            }),+]
        }
    };
}

#[rustfmt::skip] // One line a quantizer: whether it trains, whether zeros stay zeros.
quantizers! {
    /// All quantizers.
    ///
    /// ```
    /// use burn::nn::Linear;
    /// use burn::tensor::Tensor;
    /// use burn_compress_quantization::quantizers;
    ///
    /// let names: Vec<_> = quantizers::<Linear, Tensor<2>>().iter().map(|entry| entry.name).collect();
    /// assert!(names.contains(&"QatQuantizer"));
    /// ```
    qat { QatQuantizer, QatConfig } = QatConfig::new(), true, true, "Trains with the rounding that the model will run with.", "arXiv 1712.05877";
    ptq { PtqQuantizer, PtqConfig } = PtqConfig::new(), false, true, "Calibrates scales on a few batches without training.", "arXiv 1806.08342";
    adaround { AdaRoundQuantizer, AdaRoundConfig } = AdaRoundConfig::new(), false, true, "Calibrates, and learns which weights to round up and which down.", "arXiv 2004.10568";
    lsq { LsqQuantizer, LsqConfig } = LsqConfig::new(), true, true, "Trains the scales with the model.", "arXiv 1902.08153";
    lsq_plus { LsqPlusQuantizer, LsqPlusConfig } = LsqPlusConfig::new(), true, true, "Trains scales and zero points with the model.", "arXiv 2004.09576";
    dorefa { DoReFaQuantizer, DoReFaConfig, GradientDtype } = DoReFaConfig::new(), true, true, "Trains weights that a tangent squeezes into a fixed range.", "arXiv 1606.06160";
    bnn { BnnQuantizer, BnnConfig } = BnnConfig::new().with_any_dtype(true), true, false, "Trains a network of signs; the type of the configuration is read as `int1`.", "arXiv 1602.02830";
}
