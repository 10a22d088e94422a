//! Attention transfer: the student looks where the teacher looks.
//!
//! The attention map of a hidden state is its energy at each position, whatever the channels. So
//! student and teacher may differ in width, and the channels that a pruned student lacks cost nothing
//! by themselves. For convolutions and sequences; a flat feature vector has only
//! one position and nothing to look at.
//!
//! ```text
//! Q(position) = sum over channels of activation^2
//! loss = mean over samples of || Q_student / ||Q_student|| - Q_teacher / ||Q_teacher|| ||^2
//! total = origin_loss_lambda * task loss + sum over targets of lambda * min over links of loss
//! ```
//!
//! # References
//!
//! Zagoruyko and Komodakis, *Paying More Attention to Attention*, arXiv 1612.03928, `F_sum^2`.
//! Deviations: the distance between the maps is squared, as in the authors' code, which has no
//! infinite slope where the maps agree. It is summed over the positions where that code averages,
//! so a `lambda` here is its `beta` divided by the number of positions.

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
use crate::settings::{DistillationSettings, reject_apply_method};

/// Configuration of an [`AttentionDistiller`].
#[derive(Config, Debug, Copy)]
pub struct AttentionConfig {
    /// The weight of the user's own loss.
    #[config(default = 1.0)]
    pub origin_loss_lambda: f64,
}

/// Adds the distance between attention maps to the loss.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::conv::{Conv2d, Conv2dConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_distillation::{AttentionConfig, AttentionDistiller};
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
/// let (student, teacher) = (net(2), net(8));
/// let batch = Tensor::<4>::ones([1, 1, 8, 8], &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|net: &Net, batch: &Tensor<4>| net.conv.forward(batch.clone()).mean());
/// let compressed = AttentionDistiller::new(
///     student,
///     &ConfigList::from_json(r#"[{"op_names": ["conv"]}]"#)?,
///     evaluator,
///     &teacher,
///     |teacher: &Net, batch: &Tensor<4>| teacher.conv.forward(batch.clone()),
///     AttentionConfig::new(),
/// )?
/// .compress(Budget::steps(2))?;
/// assert_eq!(compressed.history().steps.len(), 2);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type AttentionDistiller = Distillers<Features<Attention>, AttentionConfig>;

impl From<AttentionConfig> for FeatureDistiller<Attention> {
    fn from(config: AttentionConfig) -> Self {
        let options = Options::built_in("AttentionDistiller", &config, config.origin_loss_lambda);
        let kind = Features(Attention);
        Self { kind, options }
    }
}

/// The distance between attention maps.
#[derive(Clone, Debug)]
pub struct Attention;

impl FeatureLoss for Attention {
    fn loss(&self, pair: &FeaturePair, _: &mut Learnables) -> Result<Tensor<1>, BoxError> {
        Ok(attention(
            pair.student.channels_last(),
            pair.teacher.channels_last(),
        ))
    }

    fn check_rule(&self, rule: &Selected<DistillationSettings>) -> Result<(), DistillationError> {
        reject_apply_method(rule, "attention maps are compared")
    }

    fn check_pair(&self, pair: &FeaturePair) -> Result<(), DistillationError> {
        pair.require_elements()?;
        let ([samples, _, positions], of_teacher) = (pair.student.sizes(), pair.teacher.sizes());
        if positions == 1 {
            return Err(pair.incomparable("attention needs several positions beside the channels"));
        }
        match (samples, positions) == (of_teacher[0], of_teacher[2]) {
            true => Ok(()),
            false => Err(pair.incomparable(
                "attention needs as many samples and positions, only channels may differ",
            )),
        }
    }

    fn is_distance(&self) -> bool {
        true
    }
}

/// Squared distance between the attention maps of student and teacher.
///
/// # Shapes
///
/// - student, teacher: `[samples, positions, channels]`, with channels of their own
/// - result: `[1]`
///
/// # Panics
///
/// When student and teacher differ in samples or positions.
pub fn attention(student: Tensor<3>, teacher: Tensor<3>) -> Tensor<1> {
    let samples = student.dims()[0];
    let difference = attention_map(student) - attention_map(teacher.detach());
    difference.square().sum() / samples as f64
}

/// The energy of each position, of norm 1 over the positions; 0 where nothing is active.
///
/// # Shapes
///
/// - hidden state: `[samples, positions, channels]`
/// - result: `[samples, positions]`
pub fn attention_map(state: Tensor<3>) -> Tensor<2> {
    let energy: Tensor<2> = state.square().sum_dim(2).squeeze_dim(2);
    // Clamped under the root, where the slope is infinite at zero.
    let norm = energy.clone().square().sum_dim(1).clamp_min(1e-30).sqrt();
    energy / norm
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::check::assert_gradient;

    #[test]
    fn value() {
        let device = Device::flex();
        // Energies (3, 4) of norm 5 and (1, 0) of norm 1: (0.6 - 1)^2 + 0.8^2 = 0.8.
        let student = Tensor::from_floats([[[1.0, 1.0, 1.0], [2.0, 0.0, 0.0]]], &device);
        let teacher = Tensor::from_floats([[[-1.0], [0.0]]], &device);
        let loss: f32 = attention(student, teacher).into_scalar();
        assert!((loss - 0.8).abs() < 1e-6, "{loss}");
    }

    #[test]
    fn scale_and_dead_channels_do_not_matter() {
        let device = Device::flex();
        let teacher = Tensor::from_floats([[[1.0, 2.0], [3.0, 0.5]]], &device);
        let zeros = Tensor::<3>::zeros([1, 2, 3], &device);
        let student = Tensor::cat(vec![teacher.clone() * 7.0, zeros], 2);
        let loss: f32 = attention(student, teacher).into_scalar();
        assert!(loss.abs() < 1e-6, "{loss}");
    }

    #[test]
    fn the_gradient_is_that_of_the_value() {
        let state = [0.3, -1.2, 0.8, 0.1, 0.9, -0.4, 1.5, -0.7];
        let teacher = Tensor::<3>::from_floats([[[1.0], [2.0]], [[0.5], [-1.0]]], &Device::flex());
        assert_gradient(&state, move |student| {
            attention(student.reshape([2, 2, 2]), teacher.clone())
        });
    }

    #[test]
    fn a_silent_student_learns_without_nan() {
        let device = Device::flex().autodiff();
        let student = Tensor::<3>::zeros([1, 2, 2], &device).require_grad();
        let teacher = Tensor::<3>::ones([1, 2, 2], &device);
        let gradients = attention(student.clone(), teacher).backward();
        let gradient = student.grad(&gradients).unwrap();
        assert_eq!(gradient.abs().sum().into_scalar::<f32>(), 0.0);
    }
}
