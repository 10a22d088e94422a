//! Decoupled knowledge distillation: soft targets, taken apart into target and other classes.
//!
//! The classical divergence of [logits distillation](crate::LogitsDistiller) is a sum of two: how
//! sure one is of the target class, and how the rest is spread over the other classes. In that sum
//! the weight of the second part falls with the confidence of the teacher, exactly where that part
//! holds most information. Apart, each has a weight of its own.
//!
//! ```text
//! p = softmax(logits / T), t the target class
//! target     = p_t log(p_t / s_t) + (1 - p_t) log((1 - p_t) / (1 - s_t))
//! others     = sum over c != t of q_c log(q_c / r_c),  q and r the probabilities without t
//! decoupled  = T^2 * mean over rows of (alpha * target + beta * others)
//! total      = origin_loss_lambda * task loss + ramp * lambda * decoupled
//! ```
//!
//! `p`, `q` are the teacher's and `s`, `r` the student's; with `alpha = 1` and `beta = 1 - p_t` in
//! each row it is the classical divergence again. `ramp` grows from 0 to 1 over the first
//! `warmup_steps` steps, since a large `beta` can upset a student at its beginning.
//!
//! # References
//!
//! Zhao et al., *Decoupled Knowledge Distillation*, arXiv 2203.08679, equations 6 and 7. The
//! defaults are those of the paper for CIFAR-100 with similar networks; its warm-up is 20 epochs.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Bool, FloatDType, Int, Tensor};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{BoxError, Compressor, Error, Evaluator};

use crate::distiller::Distiller;
use crate::error::DistillationError;
use crate::fused::Options;
use crate::logit::distiller::Logits;
use crate::logit::loss::{LogitLoss, LogitPair};
use crate::settings::{DistillationSettings, check_lambda, check_positive};
use crate::teacher::{Teacher, Teachers};

/// Configuration of a [`DkdDistiller`].
#[derive(Config, Debug, Copy)]
pub struct DkdConfig {
    /// The weight of the user's own loss.
    #[config(default = 1.0)]
    pub origin_loss_lambda: f64,
    /// The weight of the target class.
    #[config(default = 1.0)]
    pub alpha: f64,
    /// The weight of the other classes.
    #[config(default = 8.0)]
    pub beta: f64,
    /// The divisor of the logits.
    #[config(default = 4.0)]
    pub temperature: f64,
    /// Steps over which the distillation grows to its full weight.
    #[config(default = 0)]
    pub warmup_steps: usize,
}

/// Adds the divergences of target and other classes to the loss.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{Budget, Evaluator, Wrapper};
/// use burn_compress_distillation::{DkdConfig, DkdDistiller};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     fc: Wrapper<Linear>,
/// }
///
/// #[derive(Clone)]
/// struct Batch {
///     features: Tensor<2>,
///     labels: Tensor<1, Int>,
/// }
///
/// let device = Device::flex().autodiff();
/// let net = || Net { fc: LinearConfig::new(6, 3).init(&device).into() };
/// let batch = Batch {
///     features: Tensor::ones([2, 6], &device),
///     labels: Tensor::from_ints([0, 2], &device),
/// };
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|net: &Net, batch: &Batch| net.fc.forward(batch.features.clone()).mean());
/// let compressed = DkdDistiller::new(
///     net(),
///     &ConfigList::from_json(r#"[{"op_names": ["fc"]}]"#)?,
///     evaluator,
///     &net(),
///     |teacher: &Net, batch: &Batch| teacher.fc.forward(batch.features.clone()),
///     |batch: &Batch| batch.labels.clone(),
///     DkdConfig::new().with_beta(2.0),
/// )?
/// .compress(Budget::steps(2))?;
/// assert_eq!(compressed.history().steps.len(), 2);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct DkdDistiller;

impl DkdDistiller {
    /// Distills `teacher` into `model`.
    ///
    /// `predict` gives the teacher's logits of a batch, `[rows, classes]`, `labels` its target
    /// classes, `[rows]`.
    ///
    /// # Errors
    ///
    /// Those of [`Distiller::new`].
    #[allow(clippy::new_ret_no_self)] // A chain has one type whatever is fused into it.
    pub fn new<M: Module + 'static, T: Module + 'static, I: 'static>(
        model: M,
        rules: impl Into<ConfigList<DistillationSettings>>,
        evaluator: Evaluator<M, I>,
        teacher: &T,
        predict: impl Fn(&T, &I) -> Tensor<2> + Send + 'static,
        labels: impl Fn(&I) -> Tensor<1, Int> + Send + 'static,
        config: DkdConfig,
    ) -> Result<Compressor<M, I>, Error> {
        let chain = Compressor::from_model(model, evaluator);
        Self::from_compressor(chain, rules, teacher, predict, labels, config)
    }

    /// Distills `teacher` into the model of `compressor`, in the same run.
    ///
    /// # Errors
    ///
    /// Those of [`Distiller::from_compressor`].
    pub fn from_compressor<M: Module + 'static, T: Module + 'static, I: 'static>(
        compressor: Compressor<M, I>,
        rules: impl Into<ConfigList<DistillationSettings>>,
        teacher: &T,
        predict: impl Fn(&T, &I) -> Tensor<2> + Send + 'static,
        labels: impl Fn(&I) -> Tensor<1, Int> + Send + 'static,
        config: DkdConfig,
    ) -> Result<Compressor<M, I>, Error> {
        let teacher = Teacher::of_logits(teacher, predict);
        Self::from_teachers(compressor, rules, teacher, labels, config)
    }

    /// Distills one teacher or several, with a cache or without, into the model of `compressor`, in
    /// the same run.
    ///
    /// # Errors
    ///
    /// Those of [`Distiller::from_teachers`].
    pub fn from_teachers<M: Module + 'static, I: 'static>(
        compressor: Compressor<M, I>,
        rules: impl Into<ConfigList<DistillationSettings>>,
        teachers: impl Into<Teachers<I>>,
        labels: impl Fn(&I) -> Tensor<1, Int> + Send + 'static,
        config: DkdConfig,
    ) -> Result<Compressor<M, I>, Error> {
        let options = Options::built_in("DkdDistiller", &config, config.origin_loss_lambda);
        let kind = Logits::of(Decoupled(config));
        let distiller = Distiller { kind, options }.with_labels(labels);
        distiller.from_teachers(compressor, rules, teachers)
    }
}

struct Decoupled(DkdConfig);

impl LogitLoss for Decoupled {
    fn loss(&self, pair: &LogitPair) -> Result<Tensor<1>, BoxError> {
        let config = &self.0;
        let targets = one_hot(pair.labels()?, pair.student.dims())?;
        let ramp = match config.warmup_steps {
            0 => 1.0,
            steps => (pair.step as f64 / steps as f64).min(1.0),
        };
        let (student, teacher) = (pair.student.clone(), pair.teacher.clone());
        let [target, others] = decoupled(student, teacher, targets, config.temperature);
        Ok((target * config.alpha + others * config.beta) * ramp)
    }

    fn validate(&self) -> Result<(), DistillationError> {
        check_lambda("alpha", self.0.alpha)?;
        check_lambda("beta", self.0.beta)?;
        check_positive("temperature", self.0.temperature)
    }

    fn needs_labels(&self) -> bool {
        true
    }
}

/// Positions of the target classes, `[rows, classes]`.
fn one_hot(
    labels: Tensor<1, Int>,
    [rows, classes]: [usize; 2],
) -> Result<Tensor<2, Bool>, DistillationError> {
    if classes < 2 {
        return Err(DistillationError::Labels {
            reason: "there are no other classes than the target".to_string(),
            rows,
            classes,
        });
    }
    let every = Tensor::<1, Int>::arange(0..classes as i64, &labels.device());
    let every = every.cast(FloatDType::F32).reshape([1, classes]);
    Ok(labels
        .cast(FloatDType::F32)
        .reshape([rows, 1])
        .expand([rows, classes])
        .equal(every.expand([rows, classes])))
}

/// The divergences of the target class and of the other classes, each times the squared
/// temperature and averaged over the rows.
///
/// # Shapes
///
/// - student, teacher: `[rows, classes]`, with two classes or more
/// - targets: `[rows, classes]`, true at the target class of each row
/// - results: `[1]`
///
/// # Panics
///
/// When the shapes differ.
pub fn decoupled(
    student: Tensor<2>,
    teacher: Tensor<2>,
    targets: Tensor<2, Bool>,
    temperature: f64,
) -> [Tensor<1>; 2] {
    let scale = temperature * temperature / student.dims()[0] as f64;
    let student = Parts::new(student / temperature, &targets);
    let teacher = Parts::new(teacher.detach() / temperature, &targets);
    let divergence = |teacher: &Tensor<2>, student: &Tensor<2>| {
        (teacher.clone().exp() * (teacher.clone() - student.clone())).sum()
    };
    let target =
        divergence(&teacher.target, &student.target) + divergence(&teacher.rest, &student.rest);
    let others = divergence(&teacher.others, &student.others);
    [target * scale, others * scale]
}

/// Logarithms of probabilities.
struct Parts {
    /// Of the target class, `[rows, 1]`.
    target: Tensor<2>,
    /// Of all other classes together, `[rows, 1]`.
    rest: Tensor<2>,
    /// Of each other class when the target is none of the choices, `[rows, classes]`; 0 at the
    /// target, which so adds nothing to a divergence.
    others: Tensor<2>,
}

impl Parts {
    fn new(logits: Tensor<2>, targets: &Tensor<2, Bool>) -> Self {
        let all = log_softmax(logits.clone(), 1);
        let others = targets.clone().bool_not();
        let target = all.clone().mask_fill(others, 0.0).sum_dim(1);
        // The probabilities of the others are added up as logarithms: a sure student would lose
        // them in `1 - p`.
        let without = all.mask_fill(targets.clone(), f32::NEG_INFINITY);
        let largest = without.clone().detach().max_dim(1);
        let rest = (without - largest.clone()).exp().sum_dim(1).log() + largest;
        let others = log_softmax(logits.mask_fill(targets.clone(), f32::NEG_INFINITY), 1)
            .mask_fill(targets.clone(), 0.0);
        Self {
            target,
            rest,
            others,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::check::assert_gradient;
    use crate::logit::logits::soft_targets;

    fn logits(rows: [[f32; 3]; 2]) -> Tensor<2> {
        Tensor::from_floats(rows, &Device::flex())
    }

    fn targets(labels: [i32; 2]) -> Tensor<2, Bool> {
        let device = Device::flex();
        one_hot(Tensor::from_ints(labels, &device), [2, 3]).unwrap()
    }

    #[test]
    fn values() {
        // Teacher 1/2, 1/4, 1/4 and student 1/4, 1/2, 1/4 in both rows, target 0.
        let teacher = logits([[0.5_f32.ln(), 0.25_f32.ln(), 0.25_f32.ln()]; 2]);
        let student = logits([[0.25_f32.ln(), 0.5_f32.ln(), 0.25_f32.ln()]; 2]);
        let [target, others] = decoupled(student, teacher, targets([0, 0]), 1.0);
        // 1/2 ln(1/2 / 1/4) + 1/2 ln(1/2 / 3/4) = 0.346574 - 0.202733.
        let target: f32 = target.into_scalar();
        assert!((target - 0.143_841).abs() < 1e-5, "{target}");
        // q = 1/2, 1/2 and r = 2/3, 1/3: 1/2 ln(3/4) + 1/2 ln(3/2).
        let others: f32 = others.into_scalar();
        assert!((others - 0.058_892).abs() < 1e-5, "{others}");
    }

    #[test]
    fn together_they_are_the_classical_divergence() {
        let teacher = logits([[1.0, -0.5, 2.0], [0.3, 0.2, -1.0]]);
        let student = logits([[0.1, 0.4, -2.0], [1.3, -0.2, 0.7]]);
        // Equal rows of weights 1 - p_t: one row at a time.
        for (row, label) in [(0, 2), (1, 0)] {
            let row = |all: &Tensor<2>| all.clone().slice([row..row + 1, 0..3]);
            let device = Device::flex();
            let label = one_hot(Tensor::from_ints([label], &device), [1, 3]).unwrap();
            let [target, others] = decoupled(row(&student), row(&teacher), label.clone(), 4.0);
            let p = log_softmax(row(&teacher) / 4.0, 1).exp();
            let rest = p.mask_fill(label, 0.0).sum().into_scalar::<f32>();
            let sum = (target + others * rest).into_scalar::<f32>();
            let classical = soft_targets(row(&student), row(&teacher), 4.0).into_scalar::<f32>();
            assert!((sum - classical).abs() < 1e-5, "{sum} {classical}");
        }
    }

    #[test]
    fn the_gradients_are_those_of_the_values() {
        let teacher = logits([[1.0, -0.5, 2.0], [0.3, 0.2, -1.0]]);
        let at = [0.1, 0.4, -2.0, 1.3, -0.2, 0.7];
        for part in 0..2 {
            let teacher = teacher.clone();
            assert_gradient(&at, move |student| {
                let student = student.reshape([2, 3]);
                decoupled(student, teacher.clone(), targets([2, 0]), 2.0)[part].clone()
            });
        }
    }

    #[test]
    fn sure_students_and_teachers_stay_finite() {
        let device = Device::flex().autodiff();
        let student = Tensor::<2>::from_floats([[900.0, 0.0, -900.0]], &device).require_grad();
        let teacher = Tensor::<2>::from_floats([[-900.0, 0.0, 900.0]], &Device::flex());
        let label = one_hot(Tensor::from_ints([0], &device), [1, 3]).unwrap();
        let [target, others] = decoupled(student.clone(), teacher, label, 1.0);
        // The teacher gives the target nothing and all to the last: (1 - p_t) ln(1 / exp(-900)),
        // and the student expects class 1 of the others.
        assert!((target.clone().into_scalar::<f32>() - 900.0).abs() < 1e-3);
        assert!((others.clone().into_scalar::<f32>() - 900.0).abs() < 1e-3);
        let gradients = (target + others).backward();
        let gradient = student.grad(&gradients).unwrap().abs().sum();
        assert!(gradient.into_scalar::<f32>().is_finite());
    }

    #[test]
    fn one_class_has_no_others() {
        let labels = Tensor::from_ints([0, 0], &Device::flex());
        let error = one_hot(labels, [2, 1]).unwrap_err();
        assert!(error.to_string().contains("no other classes"), "{error}");
    }
}
