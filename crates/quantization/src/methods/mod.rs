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

pub use adaround::{AdaRoundConfig, AdaRoundQuantizer};
pub use bnn::{BnnConfig, BnnQuantizer};
pub use dorefa::{DoReFaConfig, DoReFaQuantizer, GradientDtype};
#[cfg(test)]
pub(crate) use learned::checked_quantize;
pub use learned::{LearnedQuantizer, LearnedRule, LearnedStart};
pub use lsq::{LsqConfig, LsqInit, LsqQuantizer};
pub use lsq_plus::{LsqPlusConfig, LsqPlusQuantizer};
pub use ptq::{PtqConfig, PtqQuantizer};
pub use qat::{QatConfig, QatQuantizer};

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
#[rustfmt::skip] // One line a quantizer.
pub fn quantizers<M: Module + 'static, I: 'static>() -> Vec<Entry<M, I>> {
    vec![
        Entry { name: "QatQuantizer", summary: "Trains with the rounding that the model will run with.", reference: "arXiv 1712.05877", trains: true, keeps_zero: true, fuse: |chain, config| QatQuantizer::from_compressor(chain, config, QatConfig::new()) },
        Entry { name: "PtqQuantizer", summary: "Calibrates scales on a few batches without training.", reference: "arXiv 1806.08342", trains: false, keeps_zero: true, fuse: |chain, config| PtqQuantizer::from_compressor(chain, config, PtqConfig::new()) },
        Entry { name: "AdaRoundQuantizer", summary: "Calibrates, and learns which weights to round up and which down.", reference: "arXiv 2004.10568", trains: false, keeps_zero: true, fuse: |chain, config| AdaRoundQuantizer::from_compressor(chain, config, AdaRoundConfig::new()) },
        Entry { name: "LsqQuantizer", summary: "Trains the scales with the model.", reference: "arXiv 1902.08153", trains: true, keeps_zero: true, fuse: |chain, config| LsqQuantizer::from_compressor(chain, config, LsqConfig::new()) },
        Entry { name: "LsqPlusQuantizer", summary: "Trains scales and zero points with the model.", reference: "arXiv 2004.09576", trains: true, keeps_zero: true, fuse: |chain, config| LsqPlusQuantizer::from_compressor(chain, config, LsqPlusConfig::new()) },
        Entry { name: "DoReFaQuantizer", summary: "Trains weights that a tangent squeezes into a fixed range.", reference: "arXiv 1606.06160", trains: true, keeps_zero: true, fuse: |chain, config| DoReFaQuantizer::from_compressor(chain, config, DoReFaConfig::new()) },
        Entry { name: "BnnQuantizer", summary: "Trains a network of signs; the type of the configuration is read as `int1`.", reference: "arXiv 1602.02830", trains: true, keeps_zero: false, fuse: |chain, config| BnnQuantizer::from_compressor(chain, config, BnnConfig::new().with_any_dtype(true)) },
    ]
}
