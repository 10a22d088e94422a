//! A distiller of logits, with a loss of the user's or a built-in one.

use std::fmt;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use burn_compress_core::config::{ConfigList, Selected};
use burn_compress_core::erased::{AnyBatch, AnyModel};
use burn_compress_core::{BoxError, Chain, Error, FlatTensor, Method, Mode, TargetSpace};

use crate::distiller::{Distiller, Reads, Taught};
use crate::error::DistillationError;
use crate::fused::{FusedDistiller, Options, TargetLoss, TargetLosses};
use crate::laws::{check_laws, check_shape};
use crate::logit::loss::{LogitLoss, LogitPair};
use crate::settings::{DistillationSettings, reject_apply_method, unused_setting};
use crate::teacher::{Teacher, TeacherSet, mean_loss};
use crate::tensors::{at_least_f32, cast_like, take_hidden};

/// Gives the target classes of a batch.
type Labels<I> = Box<dyn Fn(&I) -> Tensor<1, Int> + Send>;

/// A distiller of logits with the loss `L`.
///
/// ```text
/// total = origin_loss_lambda * task loss + lambda * loss(student, teacher)
/// ```
///
/// The teacher's logits are what `predict` returns; the student's are the one output that the rules
/// select, that of the last layer in a `Wrapper`.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{BoxError, Budget, Evaluator, Wrapper};
/// use burn_compress_distillation::LogitDistiller;
/// use burn_compress_distillation::logit::{LogitLoss, LogitPair};
///
/// /// Squared errors of the logits of the target class alone.
/// struct OfTarget;
///
/// impl LogitLoss for OfTarget {
///     fn loss(&self, pair: &LogitPair) -> Result<Tensor<1>, BoxError> {
///         let labels = pair.labels()?.unsqueeze_dim::<2>(1);
///         let error = (pair.student.clone() - pair.teacher.clone()).gather(1, labels);
///         Ok(error.square().mean())
///     }
///
///     fn needs_labels(&self) -> bool {
///         true
///     }
/// }
///
/// #[derive(Module, Debug)]
/// struct Net {
///     fc: Wrapper<Linear>,
/// }
///
/// let device = Device::flex().autodiff();
/// let net = || Net { fc: LinearConfig::new(6, 3).init(&device).into() };
/// let (student, teacher) = (net(), net());
/// let batch = (Tensor::<2>::ones([2, 6], &device), Tensor::from_ints([0, 2], &device));
/// type Batch = (Tensor<2>, Tensor<1, Int>);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|net: &Net, batch: &Batch| net.fc.forward(batch.0.clone()).mean());
/// let compressed = LogitDistiller::with(OfTarget)
///     .with_labels(|batch: &Batch| batch.1.clone())
///     .new(
///         student,
///         &ConfigList::from_json(r#"[{"op_names": ["fc"]}]"#)?,
///         evaluator,
///         &teacher,
///         |teacher: &Net, batch: &Batch| teacher.fc.forward(batch.0.clone()),
///     )?
///     .compress(Budget::steps(2))?;
/// assert_eq!(compressed.history().steps.len(), 2);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type LogitDistiller<L, I> = Distiller<Logits<L, I>>;

/// The logits that a loss compares, with what gives the target classes of a batch.
pub struct Logits<L, I> {
    loss: L,
    labels: Option<Labels<I>>,
}

impl<L, I> Logits<L, I> {
    /// The logits that `loss` compares, without labels.
    pub(crate) fn of(loss: L) -> Self {
        let labels = None;
        Self { loss, labels }
    }
}

impl<L: fmt::Debug, I> fmt::Debug for Logits<L, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut logits = f.debug_struct("Logits");
        logits.field("loss", &self.loss).finish_non_exhaustive()
    }
}

impl<L: LogitLoss, I: 'static> LogitDistiller<L, I> {
    /// A distiller with this loss beside the whole loss of the task.
    pub fn with(loss: L) -> Self {
        let options = Options::new(loss.name(), loss.configuration());
        let kind = Logits::of(loss);
        Self { kind, options }
    }

    /// Sets what gives the target classes of a batch, `[rows]`, for losses that need them.
    pub fn with_labels(mut self, labels: impl Fn(&I) -> Tensor<1, Int> + Send + 'static) -> Self {
        self.kind.labels = Some(Box::new(labels));
        self
    }
}

impl<L, I: 'static> Reads<I, Tensor<2>> for Logits<L, I> {
    fn teacher<T: Module + 'static>(
        teacher: &T,
        predict: impl Fn(&T, &I) -> Tensor<2> + Send + 'static,
    ) -> Teacher<I> {
        Teacher::of_logits(teacher, predict)
    }
}

impl<M: Module + 'static, I: 'static, L: LogitLoss> Method<M, I> for Taught<Logits<L, I>, I> {
    type Settings = DistillationSettings;

    fn name(&self) -> &'static str {
        self.distiller.options.name
    }

    fn add_to(
        self,
        chain: &mut Chain<'_, M, I>,
        rules: &ConfigList<DistillationSettings>,
    ) -> Result<(), Error> {
        self.erased().add(&mut chain.erased(), rules)
    }
}

impl<L, I: 'static> Taught<Logits<L, I>, I> {
    /// The same for batches whose type is not known.
    fn erased(self) -> Taught<Logits<L, AnyBatch>, AnyBatch> {
        let Distiller { kind, options } = self.distiller;
        let labels = kind
            .labels
            .map(|labels| -> Labels<AnyBatch> { Box::new(move |batch| labels(batch.get())) });
        let loss = kind.loss;
        Taught {
            distiller: Distiller {
                kind: Logits { loss, labels },
                options,
            },
            teachers: self.teachers.erased(),
        }
    }
}

impl<L: LogitLoss> Taught<Logits<L, AnyBatch>, AnyBatch> {
    /// Adds the algorithm to a chain of any model.
    fn add(
        self,
        chain: &mut Chain<'_, AnyModel, AnyBatch>,
        rules: &ConfigList<DistillationSettings>,
    ) -> Result<(), Error> {
        let Distiller { kind, options } = self.distiller;
        let Logits { loss, labels } = kind;
        loss.validate()?;
        if loss.needs_labels() && labels.is_none() {
            return Err(DistillationError::NoLabels.into());
        }
        let selected = options.select(chain, rules)?;
        let [item] = &selected[..] else {
            let found = selected.iter().map(|item| item.id().to_string()).collect();
            return Err(DistillationError::OneOutput { found }.into());
        };
        check_rule(item)?;
        let teachers = self.teachers.attach(&[])?;
        teachers.require_logits()?;
        let student = chain.claim(Mode::Distillation, &[item.id()])?.remove(0);
        student.set_recording(true);
        let losses = LogitLosses {
            loss,
            labels,
            student,
            lambda: item.settings.lambda(),
        };
        chain.push(FusedDistiller {
            options: options.for_targets(&selected),
            teachers,
            losses,
        });
        Ok(())
    }
}

fn check_rule(rule: &Selected<DistillationSettings>) -> Result<(), DistillationError> {
    reject_apply_method(rule, "class probabilities are compared")?;
    let settings = &rule.settings;
    if settings.link.is_some() {
        let reason = "the logits are what `predict` returns";
        return Err(unused_setting(rule, "link", reason));
    }
    if settings.channels.is_some() {
        return Err(unused_setting(rule, "channels", "all classes are compared"));
    }
    if settings.channel_dim.is_some() {
        let reason = "the classes are the last dimension";
        return Err(unused_setting(rule, "channel_dim", reason));
    }
    Ok(())
}

/// The loss between logits.
struct LogitLosses<L, I> {
    loss: L,
    labels: Option<Labels<I>>,
    student: Arc<TargetSpace>,
    lambda: f64,
}

impl<L, I> LogitLosses<L, I> {
    /// Both logits as rows of classes.
    fn pair(
        &self,
        student: &FlatTensor,
        teacher: FlatTensor,
    ) -> Result<LogitPair, DistillationError> {
        let classes = student.shape.last().copied().unwrap_or(0);
        let elements: usize = student.shape.iter().product();
        if elements == 0 {
            return Err(DistillationError::Empty {
                student: self.student.id().layer.clone(),
                shape: student.shape.clone(),
            });
        }
        let rows = elements / classes;
        if teacher.shape != [rows, classes] {
            return Err(DistillationError::Logits {
                student: self.student.id().to_string(),
                student_shape: student.shape.clone(),
                teacher_shape: teacher.shape,
            });
        }
        let student = student.values.clone().reshape([rows, classes]);
        Ok(LogitPair::new(
            student,
            teacher.values.reshape([rows, classes]),
        ))
    }
}

impl<L: LogitLoss, I: 'static> TargetLosses<I> for LogitLosses<L, I> {
    fn losses(
        &mut self,
        teachers: &TeacherSet<I>,
        batch: &I,
        step: usize,
    ) -> Result<Vec<TargetLoss>, BoxError> {
        let layer = self.student.id().layer.clone();
        let student = at_least_f32(take_hidden("student", &self.student)?);
        let mut losses = Vec::new();
        for teacher in teachers.logits(batch)? {
            let mut pair = self.pair(&student, cast_like(teacher, &student.values))?;
            pair.step = step;
            if let Some(labels) = &self.labels {
                pair = pair.with_labels(labels(batch))?;
            }
            let loss = self.loss.loss(&pair)?;
            check_shape(&layer, &loss)?;
            losses.push(loss);
        }
        let loss = mean_loss(losses, &teachers.weights()).ok_or(DistillationError::NoTeacher)?;
        let lambda = self.lambda;
        Ok(vec![TargetLoss {
            layer,
            lambda,
            loss,
        }])
    }

    fn is_distance(&self) -> bool {
        self.loss.is_distance()
    }
}

/// Tests a loss against the [laws](LogitLoss#laws) on one pair, for the tests of a user's loss.
///
/// The loss is computed twice, and that of the teacher's logits against themselves if it is a
/// distance.
///
/// # Errors
///
/// Any error of the loss, [`DistillationError::LossShape`] and [`DistillationError::LossValue`]
/// with the law that it breaks.
pub fn check_logit_loss<L: LogitLoss>(loss: &L, pair: &LogitPair) -> Result<(), BoxError> {
    let mut equal = pair.clone();
    equal.student = pair.teacher.clone();
    check_laws("of the pair", loss.is_distance(), |is_equal| {
        loss.loss(if is_equal { &equal } else { pair })
    })
}
