//! Dynamic layer-wise distillation: each layer of the student learns from the nearest of its links.
//!
//! The student's layers imitate hidden states of a teacher while it trains on its own task. A layer
//! with several links learns from the one whose hidden state is closest at the time; with one link
//! this is plain feature distillation.
//!
//! ```text
//! total = origin_loss_lambda * task loss + sum over targets of lambda * min over links of loss
//! ```
//!
//! # References
//!
//! The minimum over links is NNI 3.0's `DynamicLayerwiseDistiller`
//! (<https://github.com/microsoft/nni>); choosing among teacher layers during training is studied in
//! Chen et al., *Cross-Layer Distillation with Semantic Calibration*, arXiv 2012.03236, and Xia et
//! al., *Structured Pruning Learns Compact and Accurate Models*, arXiv 2204.00408, section 3.3.

use burn::config::Config;
use burn::tensor::Tensor;
use burn_compress_core::BoxError;
use burn_compress_core::config::Selected;

use crate::distiller::Distillers;
use crate::error::DistillationError;
use crate::feature::distiller::{FeatureDistiller, Features};
use crate::feature::learnables::Learnables;
use crate::feature::loss::{FeatureLoss, FeaturePair};
use crate::fused::Options;
use crate::settings::DistillationSettings;

/// Configuration of a [`DynamicLayerwiseDistiller`].
#[derive(Config, Debug, Copy)]
pub struct DistillConfig {
    /// The weight of the user's own loss.
    pub origin_loss_lambda: f64,
}

/// Adds the distance to a teacher's hidden states to the loss.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::conv::{Conv2d, Conv2dConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_distillation::{DistillConfig, DynamicLayerwiseDistiller};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     conv: Wrapper<Conv2d>,
/// }
///
/// let device = Device::flex().autodiff();
/// let net = |channels| Net {
///     conv: Conv2dConfig::new([1, channels], [3, 3]).init(&device).into(),
/// };
/// let (student, teacher) = (net(2), net(2));
/// let batch = Tensor::<4>::ones([1, 1, 8, 8], &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|net: &Net, batch: &Tensor<4>| net.conv.forward(batch.clone()).mean());
/// let compressed = DynamicLayerwiseDistiller::new(
///     student,
///     &ConfigList::from_json(r#"[{"op_names": ["conv"]}]"#)?,
///     evaluator,
///     &teacher,
///     |teacher: &Net, batch: &Tensor<4>| teacher.conv.forward(batch.clone()),
///     DistillConfig::new(0.5),
/// )?
/// .compress(Budget::steps(2))?;
/// assert_eq!(compressed.history().steps.len(), 2);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type DynamicLayerwiseDistiller = Distillers<Features<Configured>, DistillConfig>;

impl From<DistillConfig> for FeatureDistiller<Configured> {
    fn from(config: DistillConfig) -> Self {
        let options = Options::built_in(
            "DynamicLayerwiseDistiller",
            &config,
            config.origin_loss_lambda,
        );
        let kind = Features(Configured);
        Self { kind, options }
    }
}

/// The loss that the rule names.
#[derive(Clone, Debug)]
pub struct Configured;

impl FeatureLoss for Configured {
    fn loss(&self, pair: &FeaturePair, _: &mut Learnables) -> Result<Tensor<1>, BoxError> {
        let (student, teacher) = (&pair.student, &pair.teacher);
        Ok(pair.apply_method.between(
            (student.layer(), &student.state),
            (teacher.layer(), &teacher.state),
        )?)
    }

    fn check_rule(&self, _: &Selected<DistillationSettings>) -> Result<(), DistillationError> {
        Ok(())
    }
}
