//! What distillers of class probabilities share: the student's output and the teachers' logits.

use std::any::Any;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress_core::config::{ConfigList, Selected};
use burn_compress_core::{
    Algorithm, AlgorithmState, BoxError, Compressor, Configuration, Error, FlatTensor, Mode, Run,
    TargetSpace,
};

use crate::combine::total;
use crate::fusion::{TeacherFusion, mean_loss, mean_output};
use crate::layerwise::of_targets;
use crate::link::{check_lambda, own_loss};
use crate::teacher::{Tapped, brought, hidden, widened};
use crate::teachers::{Staff, Teachers};
use crate::{DistillationError, DistillationSettings};

/// What the student's classes cost: the part that makes one distiller another.
pub(crate) trait ClassLoss<I>: Send {
    /// The loss after `step` optimizer steps; both logits are `[rows, classes]`.
    fn loss(
        &self,
        student: Tensor<2>,
        teacher: Tensor<2>,
        batch: &I,
        step: usize,
    ) -> Result<Tensor<1>, DistillationError>;
}

/// Refuses a temperature that is not positive.
pub(crate) fn check_temperature(temperature: f64) -> Result<(), DistillationError> {
    match temperature.is_finite() && temperature > 0.0 {
        true => Ok(()),
        false => Err(DistillationError::Setting {
            key: "temperature",
            value: temperature.to_string(),
            expected: "a finite number above 0".to_string(),
        }),
    }
}

/// A distiller of class probabilities in a chain.
struct Classes<I> {
    name: &'static str,
    origin_loss_lambda: f64,
    lambda: f64,
    student: Arc<TargetSpace>,
    staff: Staff<I>,
    class_loss: Box<dyn ClassLoss<I>>,
    configuration: Configuration,
}

/// Adds a distiller of class probabilities to a chain.
pub(crate) fn fuse<M: Module + 'static, I: 'static>(
    mut compressor: Compressor<M, I>,
    config: &ConfigList<DistillationSettings>,
    teachers: Teachers<I>,
    name: &'static str,
    origin_loss_lambda: f64,
    class_loss: Box<dyn ClassLoss<I>>,
    configuration: Configuration,
) -> Result<Compressor<M, I>, Error> {
    compressor.evaluator().require_training(name)?;
    check_lambda("origin_loss_lambda", origin_loss_lambda).map_err(|error| error.of(name))?;
    let selected = config.select(compressor.layers())?;
    let [item] = &selected[..] else {
        let found = selected.iter().map(|item| item.id().to_string());
        let found = found.collect();
        return Err(DistillationError::OneOutput { found }.of(name));
    };
    check(item).map_err(|error| error.of(name))?;
    let staff = teachers.tap(name, &[])?;
    let silent = staff.teachers.iter().position(|t| !Tapped::gives_logits(t));
    if let Some(teacher) = silent {
        return Err(DistillationError::NoLogits { teacher }.of(name));
    }
    let student = compressor
        .claim(Mode::Distillation, &[item.id()])?
        .remove(0);
    student.set_recording(true);
    compressor.push(Classes {
        name,
        origin_loss_lambda,
        lambda: item.settings.lambda(),
        student,
        staff,
        class_loss,
        configuration: of_targets(configuration, &selected),
    });
    Ok(compressor)
}

fn check(item: &Selected<DistillationSettings>) -> Result<(), DistillationError> {
    let unused = |key, reason| DistillationError::UnusedSetting {
        key,
        layer: item.layer.path.clone(),
        reason,
    };
    own_loss(item, "class probabilities are compared")?;
    let settings = &item.settings;
    if settings.link.is_some() {
        return Err(unused("link", "the logits are what `predict` returns"));
    }
    if settings.channels.is_some() {
        return Err(unused("channels", "all classes are compared"));
    }
    if settings.channel_dim.is_some() {
        return Err(unused("channel_dim", "the classes are the last dimension"));
    }
    Ok(())
}

impl<I> Classes<I> {
    fn distance(&self, batch: &I, step: usize) -> Result<Tensor<1>, DistillationError> {
        let student = widened(hidden("student", &self.student)?);
        let lessons = self.staff.teach(batch)?;
        let mut logits = Vec::new();
        for (teacher, lesson) in lessons.into_iter().enumerate() {
            let said = lesson
                .logits
                .ok_or(DistillationError::NoLogits { teacher })?;
            logits.push(FlatTensor::new(said));
        }
        let weights = self.staff.weights();
        let taught = match self.staff.fusion {
            TeacherFusion::Losses => logits,
            TeacherFusion::Outputs => mean_output(logits, &weights)?.into_iter().collect(),
        };
        let losses = taught.into_iter().map(|teacher| {
            let teacher = brought(teacher, &student.values);
            let (student, teacher) = self.matched(&student, teacher)?;
            self.class_loss.loss(student, teacher, batch, step)
        });
        let losses = losses.collect::<Result<_, _>>()?;
        mean_loss(losses, &weights).ok_or(DistillationError::NoTeacher)
    }

    /// Both logits as rows of classes.
    fn matched(
        &self,
        student: &FlatTensor,
        teacher: FlatTensor,
    ) -> Result<(Tensor<2>, Tensor<2>), DistillationError> {
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
        Ok((student, teacher.values.reshape([rows, classes])))
    }
}

impl<M: Module + 'static, I: 'static> Algorithm<M, I> for Classes<I> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        Mode::Distillation
    }

    fn loss(&mut self, loss: Tensor<1>, batch: &I, run: Run<'_, M>) -> Result<Tensor<1>, BoxError> {
        let distance = self.distance(batch, run.step)?;
        Ok(total(
            loss,
            self.origin_loss_lambda,
            [(self.lambda, distance)],
        ))
    }

    fn finish(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        Ok(self.staff.save()?)
    }

    fn state(&self) -> Result<AlgorithmState, BoxError> {
        self.staff.save()?;
        Ok(AlgorithmState::default())
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        Ok(self.staff.configuration(self.configuration.clone())?)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
