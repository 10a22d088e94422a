//! Several teachers of one student.

use burn_compress_core::{Configuration, Error, TargetId};

use crate::DistillationError;
use crate::fusion::TeacherFusion;
use crate::teacher::{Lesson, Tapped, Teacher};

/// Teachers of one student and how what they say is put together.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_distillation::{Teacher, TeacherFusion, Teachers};
///
/// let teacher = || {
///     let network = LinearConfig::new(4, 3).init(&Device::flex());
///     Teacher::of_logits(&network, |network: &Linear, batch: &Tensor<2>| {
///         network.forward(batch.clone())
///     })
/// };
/// let teachers = Teachers::new([teacher(), teacher().with_weight(0.5)])
///     .with_fusion(TeacherFusion::Outputs);
/// ```
#[derive(Debug)]
pub struct Teachers<I> {
    pub(crate) teachers: Vec<Teacher<I>>,
    pub(crate) fusion: TeacherFusion,
}

impl<I> Teachers<I> {
    /// Teachers whose losses are averaged by their weights.
    pub fn new(teachers: impl IntoIterator<Item = Teacher<I>>) -> Self {
        Self {
            teachers: teachers.into_iter().collect(),
            fusion: TeacherFusion::default(),
        }
    }

    /// Sets how what they say is put together.
    pub fn with_fusion(mut self, fusion: TeacherFusion) -> Self {
        self.fusion = fusion;
        self
    }

    pub(crate) fn tap(
        self,
        distiller: &'static str,
        links: &[TargetId],
    ) -> Result<Staff<I>, Error> {
        if self.teachers.is_empty() {
            return Err(DistillationError::NoTeacher.of(distiller));
        }
        let teachers = self.teachers.into_iter();
        Ok(Staff {
            teachers: teachers
                .map(|teacher| teacher.tap(distiller, links))
                .collect::<Result<_, _>>()?,
            fusion: self.fusion,
        })
    }
}

impl<I> From<Teacher<I>> for Teachers<I> {
    fn from(teacher: Teacher<I>) -> Self {
        Self::new([teacher])
    }
}

/// The teachers of a distiller at work.
pub(crate) struct Staff<I> {
    pub(crate) teachers: Vec<Tapped<I>>,
    pub(crate) fusion: TeacherFusion,
}

impl<I> Staff<I> {
    pub(crate) fn teach(&self, batch: &I) -> Result<Vec<Lesson>, DistillationError> {
        self.teachers
            .iter()
            .map(|teacher| teacher.teach(batch))
            .collect()
    }

    pub(crate) fn weights(&self) -> Vec<f64> {
        self.teachers.iter().map(|teacher| teacher.weight).collect()
    }

    /// What a distiller with these teachers and its `own` settings was made with.
    pub(crate) fn configuration(&self, own: Configuration) -> Result<Configuration, Error> {
        let own = own.with("teachers.fusion", &self.fusion);
        let mut teachers = self.teachers.iter().enumerate();
        teachers.try_fold(own, |configuration, (at, teacher)| {
            let layers = teacher.states.iter().map(|state| state.space.id());
            let name = |what: &str| format!("teachers.{at}.{what}");
            Ok(configuration
                .with(&name("weight"), &teacher.weight)
                .with(&name("layers"), &layers.collect::<Vec<_>>())
                .with(&name("values"), &format!("{:016x}", teacher.fingerprint()?)))
        })
    }

    pub(crate) fn save(&self) -> Result<(), DistillationError> {
        self.teachers.iter().try_for_each(Tapped::save)
    }
}
