//! The contract of a logit loss: what makes one distiller of logits another.

use burn::tensor::{FloatDType, Int, Tensor};
use burn_compress_core::{BoxError, Configuration, reads};

use crate::error::DistillationError;

/// The logits of student and teacher for one batch.
#[derive(Clone, Debug)]
pub struct LogitPair {
    /// The student's, `[rows, classes]`; there are rows and classes.
    pub student: Tensor<2>,
    /// The teacher's, `[rows, classes]`, a constant.
    pub teacher: Tensor<2>,
    /// Optimizer steps completed so far.
    pub step: usize,
    labels: Option<Tensor<1, Int>>,
}

impl LogitPair {
    /// A pair outside of a run, for the tests of a loss.
    pub fn new(student: Tensor<2>, teacher: Tensor<2>) -> Self {
        Self {
            student,
            teacher,
            step: 0,
            labels: None,
        }
    }

    /// Adds the target class of each row, `[rows]`.
    ///
    /// Inside a step of a run a label that is no class ends the run with the next read.
    ///
    /// # Errors
    ///
    /// [`DistillationError::Labels`] when their number or one of them does not fit the logits.
    pub fn with_labels(mut self, labels: Tensor<1, Int>) -> Result<Self, DistillationError> {
        let device = self.student.device().without_autodiff();
        let [rows, classes] = self.student.dims();
        let labels = labels.to_device(&device);
        check_labels(&labels, [rows, classes])?;
        // Until the next read finds a label that is no class, it must not stop a lookup by label.
        self.labels = Some(labels.clamp(0, classes as i64 - 1));
        Ok(self)
    }

    /// The target class of each row, `[rows]`, a class of the logits each.
    ///
    /// # Errors
    ///
    /// [`DistillationError::NoLabels`] when the distiller was given none.
    pub fn labels(&self) -> Result<Tensor<1, Int>, DistillationError> {
        self.labels.clone().ok_or(DistillationError::NoLabels)
    }
}

/// Rejects labels that are not one class for each row.
fn check_labels(
    labels: &Tensor<1, Int>,
    [rows, classes]: [usize; 2],
) -> Result<(), DistillationError> {
    let wrong = move |reason: String| DistillationError::Labels {
        reason,
        rows,
        classes,
    };
    let [found] = labels.dims();
    if found != rows {
        return Err(wrong(format!("there are {found} labels")));
    }
    let largest = (classes - 1) as f32;
    let labels = labels.clone().cast(FloatDType::F32);
    let checked = reads::check(labels, 0.0..=largest, move |labels| {
        let mut labels = labels.iter().enumerate();
        let found = labels.find(|(_, label)| !(0.0..=largest).contains(*label));
        let (row, label) = found.unwrap_or((0, &largest));
        wrong(format!("the label of row {row} is {label}"))
    });
    match checked {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(error),
        Err(error) => Err(wrong(format!("the labels cannot be read ({error})"))),
    }
}

/// Loss of the student's logits against the teacher's.
///
/// A [`LogitDistiller`](super::LogitDistiller) makes a distiller of it: weights, several teachers,
/// caches, labels, checkpoints and fusion are the distiller's.
///
/// # Laws
///
/// Promised to the implementor:
///
/// - No gradient reaches the teacher: its logits are a constant. Student and teacher have one shape,
///   with rows and classes, and are on one device and in one precision, `f32` at least.
/// - A loss that [needs labels](Self::needs_labels) gets one for each row, each a class.
///
/// Promised by the implementor:
///
/// - The loss is one finite number, of shape `[1]`, whose gradient is that of the value. Any other
///   shape, NaN and infinities end the run with an error that names the distiller and the layer.
/// - A [distance](Self::is_distance) is at least 0, which is checked likewise, and 0 for equal
///   logits.
/// - It is deterministic: it depends on the pair and on the settings of the loss alone. Otherwise a
///   resumed run is another one.
/// - Computations stay on the device: a loss reads no values back.
///
/// [`check_logit_loss`](super::check_logit_loss) tests a loss against them.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::BoxError;
/// use burn_compress_distillation::logit::{LogitLoss, LogitPair, check_logit_loss};
///
/// /// Mean squared error between logits (Kim et al., arXiv 2105.08919).
/// struct Regression;
///
/// impl LogitLoss for Regression {
///     fn loss(&self, pair: &LogitPair) -> Result<Tensor<1>, BoxError> {
///         Ok((pair.student.clone() - pair.teacher.clone()).square().mean())
///     }
///
///     fn is_distance(&self) -> bool {
///         true
///     }
/// }
///
/// let logits = |rows| Tensor::<2>::from_floats(rows, &Device::flex());
/// let pair = LogitPair::new(logits([[1.0, 0.0]]), logits([[1.0, 2.0]]));
/// assert_eq!(Regression.loss(&pair)?.into_scalar::<f32>(), 2.0);
/// check_logit_loss(&Regression, &pair)?;
/// # Ok::<(), BoxError>(())
/// ```
pub trait LogitLoss: Send + 'static {
    /// The loss of one pair, `[1]`.
    ///
    /// # Errors
    ///
    /// Any error of the loss; ends the run.
    fn loss(&self, pair: &LogitPair) -> Result<Tensor<1>, BoxError>;

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

    /// Whether the loss reads [`LogitPair::labels`]; a distiller without them is then an error of
    /// its constructor.
    fn needs_labels(&self) -> bool {
        false
    }

    /// Whether the loss is at least 0, and 0 for equal logits.
    fn is_distance(&self) -> bool {
        false
    }

    /// The settings of the loss. A checkpoint holds them, and a run whose loss has others does not
    /// resume from it. A loss with settings gives them, for example by [`Configuration::of`].
    fn configuration(&self) -> Configuration {
        Configuration::default()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[test]
    fn labels_that_do_not_fit() {
        let device = Device::flex();
        let rejected = |labels: &[i32]| {
            let logits = Tensor::<2>::zeros([2, 3], &device);
            let labels = Tensor::from_data(TensorData::from(labels), &device);
            let pair = LogitPair::new(logits.clone(), logits);
            pair.with_labels(labels).unwrap_err().to_string()
        };
        assert!(rejected(&[0, 3]).contains("the label of row 1 is 3"));
        assert!(rejected(&[-1, 0]).contains("the label of row 0 is -1"));
        assert!(rejected(&[0]).contains("there are 1 labels"));
    }
}
