//! Adaptive layer-wise distillation: a student of another width, through a trained linear layer.
//!
//! Where student and teacher differ in their last dimension, the student's hidden state first goes
//! through a linear layer to the teacher's width. The layer trains with the student's optimizer and
//! is dropped after the run. Where the last dimensions agree there is no such layer.
//!
//! ```text
//! hidden = student W + b       if the last dimensions differ, else student
//! total  = origin_loss_lambda * task loss + sum over targets of lambda * loss(hidden, teacher)
//! ```
//!
//! # References
//!
//! NNI 3.0's `Adaptive1dLayerwiseDistiller` (<https://github.com/microsoft/nni>); the linear layer
//! is that of Jiao et al., *TinyBERT*, arXiv 1909.10351. Deviations: the width is found at the
//! first batch, without a forward pass beforehand, and every target's layer is trained, where NNI
//! trains one a module.

use burn::config::Config;
use burn::tensor::Tensor;
use burn_compress_core::config::Selected;
use burn_compress_core::{BoxError, FlatTensor};

use crate::distiller::Distillers;
use crate::error::DistillationError;
use crate::feature::distiller::{FeatureDistiller, Features};
use crate::feature::learnables::Learnables;
use crate::feature::loss::{FeatureLoss, FeaturePair};
use crate::fused::Options;
use crate::settings::{DistillationSettings, check_projected, unused_setting};

/// Configuration of an [`Adaptive1dLayerwiseDistiller`].
#[derive(Config, Debug, Copy)]
pub struct AdaptiveConfig {
    /// The weight of the user's own loss.
    #[config(default = 1.0)]
    pub origin_loss_lambda: f64,
    /// The seed of the linear layers' start.
    #[config(default = 0)]
    pub seed: u64,
}

/// Adds the distance between projected hidden states and the teacher's to the loss.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_distillation::{Adaptive1dLayerwiseDistiller, AdaptiveConfig};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     fc: Wrapper<Linear>,
/// }
///
/// let device = Device::flex().autodiff();
/// let net = |width| Net { fc: LinearConfig::new(6, width).init(&device).into() };
/// let (student, teacher) = (net(3), net(12));
/// let batch = Tensor::<2>::ones([5, 6], &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|net: &Net, batch: &Tensor<2>| net.fc.forward(batch.clone()).mean());
/// let compressed = Adaptive1dLayerwiseDistiller::new(
///     student,
///     &ConfigList::from_json(r#"[{"op_names": ["fc"]}]"#)?,
///     evaluator,
///     &teacher,
///     |teacher: &Net, batch: &Tensor<2>| teacher.fc.forward(batch.clone()),
///     AdaptiveConfig::new().with_seed(1),
/// )?
/// .compress(Budget::steps(2))?;
/// assert_eq!(compressed.history().steps.len(), 2);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type Adaptive1dLayerwiseDistiller = Distillers<Features<Adaptive>, AdaptiveConfig>;

impl From<AdaptiveConfig> for FeatureDistiller<Adaptive> {
    fn from(config: AdaptiveConfig) -> Self {
        let options = Options::built_in(
            "Adaptive1dLayerwiseDistiller",
            &config,
            config.origin_loss_lambda,
        );
        let kind = Features(Adaptive(config));
        Self { kind, options }
    }
}

/// The loss of a hidden state of another width.
#[derive(Clone, Debug)]
pub struct Adaptive(AdaptiveConfig);

impl FeatureLoss for Adaptive {
    fn loss(&self, pair: &FeaturePair, learnables: &mut Learnables) -> Result<Tensor<1>, BoxError> {
        let (student, teacher) = (&pair.student, &pair.teacher);
        let widths = (student.shape().last(), teacher.shape().last());
        let adapted = match widths {
            (Some(&from), Some(&to)) if from != to => {
                let rows = student.values().reshape([-1, from as i64]);
                FlatTensor {
                    values: learnables.linear(rows, to, self.0.seed)?.flatten(0, 1),
                    shape: teacher.shape().to_vec(),
                }
            }
            _ => student.state.clone(),
        };
        Ok(pair.apply_method.between(
            (student.layer(), &adapted),
            (teacher.layer(), &teacher.state),
        )?)
    }

    fn check_rule(&self, rule: &Selected<DistillationSettings>) -> Result<(), DistillationError> {
        check_projected(rule)?;
        match rule.settings.channel_dim {
            None => Ok(()),
            Some(_) => {
                let reason = "the last dimension is projected";
                Err(unused_setting(rule, "channel_dim", reason))
            }
        }
    }

    fn check_pair(&self, pair: &FeaturePair) -> Result<(), DistillationError> {
        pair.require_elements()?;
        let front = |shape: &[usize]| shape.split_last().map(|(_, front)| front.to_vec());
        match front(pair.student.shape()) == front(pair.teacher.shape()) {
            true => Ok(()),
            false => Err(pair.incomparable("all dimensions but the last must be equal")),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::feature::hidden::HiddenState;

    fn hidden<const D: usize>(target: &str, shape: [usize; D]) -> HiddenState {
        let ones = Tensor::<D>::ones(shape, &Device::flex());
        HiddenState::new(target.parse().unwrap(), ones, D - 1).unwrap()
    }

    fn loss(pair: &FeaturePair, learnables: &mut Learnables) -> f32 {
        let adaptive = Adaptive(AdaptiveConfig::new());
        adaptive.check_pair(pair).unwrap();
        adaptive.loss(pair, learnables).unwrap().into_scalar()
    }

    #[test]
    fn equal_widths_need_no_projection() {
        let mut learnables = Learnables::new(&Device::flex());
        let pair = FeaturePair::new(hidden("a._output_0", [2, 3]), hidden("b._output_0", [2, 3]));
        assert_eq!(loss(&pair, &mut learnables), 0.0);
        assert!(learnables.all().is_empty());
    }

    #[test]
    fn other_widths_are_projected() {
        let mut learnables = Learnables::new(&Device::flex());
        let student = hidden("a._output_0", [2, 4, 3]);
        let pair = FeaturePair::new(student, hidden("b._output_0", [2, 4, 5]));
        loss(&pair, &mut learnables);
        let [weight, bias] = &learnables.all()[..] else {
            panic!("one linear layer");
        };
        assert_eq!((weight.shape(), bias.shape()), (&[3, 5][..], &[5][..]));
        weight.set_values(vec![0.5; 15]).unwrap();
        bias.set_values(vec![-1.5; 5]).unwrap();
        // 3 * 0.5 - 1.5 = 0 against 1.
        assert_eq!(loss(&pair, &mut learnables), 1.0);
    }

    #[test]
    fn only_the_last_dimension_may_differ() {
        let student = hidden("a._output_0", [2, 4, 3]);
        let pair = FeaturePair::new(student, hidden("b._output_0", [2, 5, 3]));
        let error = Adaptive(AdaptiveConfig::new())
            .check_pair(&pair)
            .unwrap_err();
        assert!(
            error.to_string().contains("all dimensions but the last"),
            "{error}"
        );
    }
}
