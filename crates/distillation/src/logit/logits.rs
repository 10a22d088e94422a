//! Logits distillation: the student learns the teacher's softened class probabilities.
//!
//! The classical distillation of classifiers. The probabilities that a teacher gives to the wrong
//! classes hold more information about a sample than its label; the temperature makes these small
//! probabilities count.
//!
//! ```text
//! p = softmax(logits / T)
//! soft = T^2 * mean over rows of sum over classes of p_teacher (log p_teacher - log p_student)
//! total = origin_loss_lambda * task loss + alpha * lambda * soft
//! ```
//!
//! `T^2` keeps the size of the gradients independent of the temperature. The paper's weighted
//! average of both losses is `alpha` and `origin_loss_lambda = 1 - alpha`.
//!
//! The teacher's logits are what `predict` returns; the student's are the one output that the
//! configuration selects, that of the last layer in a `Wrapper`. Student and teacher then get the
//! same forward pass as the task's loss, and quantization of that output is distilled through.
//!
//! # References
//!
//! Hinton, Vinyals, Dean, *Distilling the Knowledge in a Neural Network*, arXiv 1503.02531.

use burn::config::Config;
use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use burn_compress_core::BoxError;

use crate::distiller::Distillers;
use crate::error::DistillationError;
use crate::fused::Options;
use crate::logit::distiller::{LogitDistiller, Logits};
use crate::logit::loss::{LogitLoss, LogitPair};
use crate::settings::{check_lambda, check_positive};

/// Configuration of a [`LogitsDistiller`].
#[derive(Config, Debug, Copy)]
pub struct LogitsConfig {
    /// The weight of the user's own loss.
    #[config(default = 1.0)]
    pub origin_loss_lambda: f64,
    /// The weight of the soft targets, times the `lambda` of the rule.
    #[config(default = 1.0)]
    pub alpha: f64,
    /// The divisor of the logits.
    #[config(default = 4.0)]
    pub temperature: f64,
}

/// Adds the divergence from a teacher's softened class probabilities to the loss.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_distillation::{LogitsConfig, LogitsDistiller};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     fc: Wrapper<Linear>,
/// }
///
/// let device = Device::flex().autodiff();
/// let net = || Net { fc: LinearConfig::new(6, 3).init(&device).into() };
/// let batch = Tensor::<2>::ones([5, 6], &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|net: &Net, batch: &Tensor<2>| net.fc.forward(batch.clone()).mean());
/// let compressed = LogitsDistiller::new(
///     net(),
///     &ConfigList::from_json(r#"[{"op_names": ["fc"]}]"#)?,
///     evaluator,
///     &net(),
///     |teacher: &Net, batch: &Tensor<2>| teacher.fc.forward(batch.clone()),
///     LogitsConfig::new().with_temperature(2.0).with_alpha(0.9).with_origin_loss_lambda(0.1),
/// )?
/// .compress(Budget::steps(2))?;
/// assert_eq!(compressed.history().steps.len(), 2);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type LogitsDistiller<I> = Distillers<Logits<SoftTargets, I>, LogitsConfig>;

impl<I: 'static> From<LogitsConfig> for LogitDistiller<SoftTargets, I> {
    fn from(config: LogitsConfig) -> Self {
        let options = Options::built_in("LogitsDistiller", &config, config.origin_loss_lambda);
        let kind = Logits::of(SoftTargets(config));
        Self { kind, options }
    }
}

/// The divergence from softened class probabilities.
#[derive(Clone, Debug)]
pub struct SoftTargets(LogitsConfig);

impl LogitLoss for SoftTargets {
    fn loss(&self, pair: &LogitPair) -> Result<Tensor<1>, BoxError> {
        let (student, teacher) = (pair.student.clone(), pair.teacher.clone());
        Ok(soft_targets(student, teacher, self.0.temperature) * self.0.alpha)
    }

    fn validate(&self) -> Result<(), DistillationError> {
        check_lambda("alpha", self.0.alpha)?;
        check_positive("temperature", self.0.temperature)
    }
}

/// Divergence of the student's softened class probabilities from the teacher's, times the squared
/// temperature.
///
/// # Shapes
///
/// - student, teacher: `[rows, classes]`
/// - result: `[1]`
///
/// # Panics
///
/// When the shapes differ.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_distillation::logits::soft_targets;
///
/// let logits = Tensor::<2>::from_floats([[1.0, -2.0, 0.5]], &Device::flex());
/// assert_eq!(soft_targets(logits.clone(), logits, 4.0).into_scalar::<f32>(), 0.0);
/// ```
pub fn soft_targets(student: Tensor<2>, teacher: Tensor<2>, temperature: f64) -> Tensor<1> {
    let rows = student.dims()[0];
    let student = log_softmax(student / temperature, 1);
    let teacher = log_softmax(teacher.detach() / temperature, 1);
    let divergence = (teacher.clone().exp() * (teacher - student)).sum();
    divergence * (temperature * temperature / rows as f64)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::check::assert_gradient;

    /// Logits that a temperature of 4 turns into these probabilities.
    fn logits(rows: [[f32; 2]; 2]) -> Tensor<2> {
        let rows = rows.map(|row| row.map(|p| 4.0 * p.ln()));
        Tensor::from_floats(rows, &Device::flex())
    }

    #[test]
    fn value() {
        let student = logits([[0.5, 0.5], [0.8, 0.2]]);
        let teacher = logits([[0.25, 0.75], [0.8, 0.2]]);
        // Row 0: 0.25 ln(0.25 / 0.5) + 0.75 ln(0.75 / 0.5) = 0.130812; row 1: 0. Times 16 / 2.
        let loss: f32 = soft_targets(student, teacher, 4.0).into_scalar();
        assert!((loss - 1.046_497).abs() < 1e-5, "{loss}");
    }

    #[test]
    fn at_temperature_two_it_is_the_configured_kl() {
        let student = logits([[0.5, 0.5], [0.7, 0.3]]);
        let teacher = logits([[0.25, 0.75], [0.8, 0.2]]);
        let kl = crate::losses::kl(student.clone(), teacher.clone(), 2).into_scalar::<f32>();
        let soft = soft_targets(student, teacher, 2.0).into_scalar::<f32>();
        assert!((soft - kl).abs() < 1e-6);
    }

    #[test]
    fn the_gradient_is_that_of_the_value() {
        let teacher = logits([[0.25, 0.75], [0.8, 0.2]]);
        assert_gradient(&[0.3, -1.2, 0.8, 0.1], move |student| {
            soft_targets(student.reshape([2, 2]), teacher.clone(), 3.0)
        });
    }
}
