//! The contract of a feature loss: what makes one distiller of hidden states another.

use burn::tensor::Tensor;
use burn_compress_core::config::Selected;
use burn_compress_core::{BoxError, Configuration};

use crate::error::DistillationError;
use crate::feature::hidden::HiddenState;
use crate::feature::learnables::Learnables;
use crate::losses::DistillationLoss;
use crate::settings::{DistillationSettings, reject_apply_method};

/// The hidden states of a student layer and of a teacher layer that it is linked with, for one
/// batch.
#[derive(Clone, Debug)]
pub struct FeaturePair {
    /// The student's.
    pub student: HiddenState,
    /// The teacher's, a constant.
    pub teacher: HiddenState,
    /// The loss that the rule names; for losses that
    /// [accept](FeatureLoss::check_rule) `apply_method`.
    pub apply_method: DistillationLoss,
    /// Optimizer steps completed so far.
    pub step: usize,
}

impl FeaturePair {
    /// A pair outside of a run, for the tests of a loss.
    pub fn new(student: HiddenState, teacher: HiddenState) -> Self {
        Self {
            student,
            teacher,
            apply_method: DistillationLoss::default(),
            step: 0,
        }
    }

    /// Rejects hidden states of different shapes and those without elements.
    ///
    /// # Errors
    ///
    /// [`DistillationError::Shape`] and [`DistillationError::Empty`], with both layers.
    pub fn require_equal_shapes(&self) -> Result<(), DistillationError> {
        let (student, teacher) = (&self.student, &self.teacher);
        if student.shape() != teacher.shape() {
            return Err(DistillationError::Shape {
                student: student.layer().to_string(),
                teacher: teacher.layer().to_string(),
                student_shape: student.shape().to_vec(),
                teacher_shape: teacher.shape().to_vec(),
            });
        }
        match student.is_empty() {
            true => Err(student.empty()),
            false => Ok(()),
        }
    }

    /// Rejects hidden states without elements.
    ///
    /// # Errors
    ///
    /// [`DistillationError::Empty`] for the student's, [`DistillationError::Incomparable`] for the
    /// teacher's.
    pub fn require_elements(&self) -> Result<(), DistillationError> {
        if self.student.is_empty() {
            return Err(self.student.empty());
        }
        match self.teacher.is_empty() {
            true => Err(self.incomparable("the teacher's has no elements")),
            false => Ok(()),
        }
    }

    /// The error of a pair that a loss cannot compare; `expected` completes the sentence "student
    /// layer .. gives a hidden state of shape .., teacher layer .. one of ..: ".
    pub fn incomparable(&self, expected: &'static str) -> DistillationError {
        DistillationError::Incomparable {
            student: self.student.layer().to_string(),
            teacher: self.teacher.layer().to_string(),
            student_shape: self.student.shape().to_vec(),
            teacher_shape: self.teacher.shape().to_vec(),
            expected,
        }
    }
}

/// Loss of one student-teacher pair of hidden states.
///
/// A [`FeatureDistiller`](super::FeatureDistiller) makes a distiller of it: links, weights, several
/// teachers, caches, masked channels, checkpoints and fusion are the distiller's.
///
/// # Laws
///
/// Promised to the implementor:
///
/// - [`check_rule`](Self::check_rule) accepted the rule and [`check_pair`](Self::check_pair) the
///   pair before [`loss`](Self::loss) is called.
/// - No gradient reaches the teacher: its hidden state is a constant. Student and teacher are on one
///   device and in one precision, `f32` at least.
///
/// Promised by the implementor:
///
/// - The loss is one finite number, of shape `[1]`, whose gradient is that of the value. Any other
///   shape, NaN and infinities end the run with an error that names the distiller and the layer.
/// - A [distance](Self::is_distance) is at least 0, which is checked likewise, and 0 for equal hidden
///   states.
/// - It is deterministic: it depends on the pair, on the settings of the loss and on the learnables
///   alone. Otherwise a resumed run is another one. What it remembers is in [`Learnables`].
/// - Computations stay on the device: a loss reads no values back.
///
/// [`check_feature_loss`](super::check_feature_loss) tests a loss against them.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::BoxError;
/// use burn_compress_distillation::feature::{
///     FeatureLoss, FeaturePair, HiddenState, Learnables, check_feature_loss,
/// };
///
/// /// One minus the cosine between the features of student and teacher, averaged over samples.
/// struct Cosine;
///
/// impl FeatureLoss for Cosine {
///     fn loss(&self, pair: &FeaturePair, _: &mut Learnables) -> Result<Tensor<1>, BoxError> {
///         let (student, teacher) = (pair.student.samples(), pair.teacher.samples());
///         let length = |rows: &Tensor<2>| rows.clone().square().sum_dim(1).clamp_min(1e-12).sqrt();
///         let lengths = length(&student) * length(&teacher);
///         let cosine = (student * teacher).sum_dim(1) / lengths;
///         Ok((cosine.neg() + 1.0).mean())
///     }
/// }
///
/// let state = |layer: &str, rows| -> Result<_, BoxError> {
///     Ok(HiddenState::new(layer.parse()?, Tensor::<2>::from_floats(rows, &Device::flex()), 1)?)
/// };
/// let student = state("fc._output_0", [[1.0, 0.0], [1.0, 1.0]])?;
/// let teacher = state("fc._output_0", [[0.0, 1.0], [1.0, 1.0]])?;
/// let pair = FeaturePair::new(student, teacher);
/// // A right angle and none.
/// let loss = Cosine.loss(&pair, &mut Learnables::new(&Device::flex()))?;
/// assert!((loss.into_scalar::<f32>() - 0.5).abs() < 1e-6);
/// check_feature_loss(&Cosine, &pair)?;
/// # Ok::<(), BoxError>(())
/// ```
pub trait FeatureLoss: Send + 'static {
    /// The loss of one pair, `[1]`.
    ///
    /// # Errors
    ///
    /// Any error of the loss; ends the run.
    fn loss(&self, pair: &FeaturePair, learnables: &mut Learnables) -> Result<Tensor<1>, BoxError>;

    /// The name of the distiller in messages and checkpoints; that of the type by default.
    fn name(&self) -> &'static str {
        crate::laws::type_name::<Self>()
    }

    /// Rejects settings of the loss that are out of range.
    ///
    /// # Errors
    ///
    /// [`DistillationError::Setting`], for example.
    fn validate(&self) -> Result<(), DistillationError> {
        Ok(())
    }

    /// Rejects settings of a rule that the loss does not follow: `apply_method` by default.
    ///
    /// # Errors
    ///
    /// [`DistillationError::UnusedSetting`], for example.
    fn check_rule(&self, rule: &Selected<DistillationSettings>) -> Result<(), DistillationError> {
        reject_apply_method(rule, "the distiller has a loss of its own")
    }

    /// Rejects pairs that the loss cannot compare: those of different shapes by default.
    ///
    /// # Errors
    ///
    /// [`FeaturePair::incomparable`], for example.
    fn check_pair(&self, pair: &FeaturePair) -> Result<(), DistillationError> {
        pair.require_equal_shapes()
    }

    /// Whether the loss is at least 0, and 0 for equal hidden states.
    fn is_distance(&self) -> bool {
        false
    }

    /// The settings of the loss. A checkpoint holds them, and a run whose loss has others does not
    /// resume from it. A loss with settings gives them, for example by [`Configuration::of`].
    fn configuration(&self) -> Configuration {
        Configuration::default()
    }
}
