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

use std::any::Any;
use std::sync::Arc;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress_core::config::ConfigList;
use burn_compress_core::{
    Algorithm, BoxError, Compressor, Error, Evaluator, FlatTensor, Mode, Run, TargetId,
    TargetSpace, tap,
};
use indexmap::IndexSet;

use crate::combine::{minimum, total};
use crate::{DistillationError, DistillationLoss, DistillationSettings};

/// How the losses of a [`DynamicLayerwiseDistiller`] weigh against the task's.
#[derive(Config, Debug, Copy)]
pub struct DistillConfig {
    /// The weight of the user's own loss.
    pub origin_loss_lambda: f64,
}

/// Runs the teacher on a batch.
type Predict<T, I> = Box<dyn Fn(&T, &I) + Send>;

/// Adds the distance to a teacher's hidden states to the loss.
pub struct DynamicLayerwiseDistiller<T, I> {
    teacher: T,
    predict: Predict<T, I>,
    origin_loss_lambda: f64,
    students: Vec<Student>,
    states: Vec<Arc<TargetSpace>>,
}

/// A target of the student and the teacher states that it may learn from, by position.
struct Student {
    space: Arc<TargetSpace>,
    lambda: f64,
    loss: DistillationLoss,
    links: Vec<usize>,
}

impl<T: Module + 'static, I: 'static> DynamicLayerwiseDistiller<T, I> {
    /// Distills `teacher` into `model`.
    ///
    /// `predict` runs the teacher on a batch; what it returns is dropped, the hidden states are
    /// read from the teacher's wrappers. The teacher is a `valid()` snapshot: it never trains and
    /// follows no change of the model that it was taken from.
    ///
    /// # Errors
    ///
    /// A configuration that does not fit the model, a link that is no wrapped layer of the teacher,
    /// or an evaluator that cannot train.
    #[allow(clippy::new_ret_no_self)] // A chain has one type whatever is fused into it.
    pub fn new<M: Module + 'static, O>(
        model: M,
        config: &ConfigList<DistillationSettings>,
        evaluator: Evaluator<M, I>,
        teacher: &T,
        predict: impl Fn(&T, &I) -> O + Send + 'static,
        distiller: DistillConfig,
    ) -> Result<Compressor<M, I>, Error> {
        let chain = Compressor::from_model(model, evaluator);
        Self::from_compressor(chain, config, teacher, predict, distiller)
    }

    /// Distills `teacher` into the model of `compressor`, in the same run.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and a target that another distiller of the chain has.
    pub fn from_compressor<M: Module + 'static, O>(
        mut compressor: Compressor<M, I>,
        config: &ConfigList<DistillationSettings>,
        teacher: &T,
        predict: impl Fn(&T, &I) -> O + Send + 'static,
        distiller: DistillConfig,
    ) -> Result<Compressor<M, I>, Error> {
        compressor
            .evaluator()
            .require_training("DynamicLayerwiseDistiller")?;
        let selected = config.select(compressor.layers())?;
        let mut linked: IndexSet<TargetId> = IndexSet::new();
        let mut links = Vec::new();
        for item in &selected {
            let layers = item.settings.links(&item.layer.path);
            let positions = layers.into_iter().map(|layer| {
                linked
                    .insert_full(TargetId::new(layer, item.target.clone()))
                    .0
            });
            links.push(positions.collect::<Vec<_>>());
        }
        let linked: Vec<TargetId> = linked.into_iter().collect();
        let (teacher, states) = tap(teacher, &linked).map_err(|source| Error::Algorithm {
            algorithm: "DynamicLayerwiseDistiller",
            source: format!("the teacher cannot be linked: {source}").into(),
        })?;
        let ids: Vec<TargetId> = selected.iter().map(|item| item.id()).collect();
        let spaces = compressor.claim(Mode::Distillation, &ids)?;
        let students = selected
            .iter()
            .zip(spaces)
            .zip(links)
            .map(|((item, space), links)| {
                space.set_recording(true);
                let (lambda, loss) = (item.settings.lambda(), item.settings.loss());
                Student {
                    space,
                    lambda,
                    loss,
                    links,
                }
            });
        compressor.push(Self {
            teacher,
            predict: Box::new(move |teacher, batch| {
                predict(teacher, batch);
            }),
            origin_loss_lambda: distiller.origin_loss_lambda,
            students: students.collect(),
            states,
        });
        Ok(compressor)
    }

    fn distance(&self, student: &Student, taught: &[FlatTensor]) -> Result<Tensor<1>, BoxError> {
        let layer = &student.space.id().layer;
        let hidden = hidden("student", &student.space)?;
        let losses = student
            .links
            .iter()
            .map(|&link| {
                let teacher = &self.states[link].id().layer;
                student
                    .loss
                    .between((layer, &hidden), (teacher, &taught[link]))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let nearest = minimum(losses).ok_or_else(|| DistillationError::NoLink {
            student: layer.clone(),
        })?;
        Ok(nearest)
    }
}

fn hidden(whose: &'static str, space: &TargetSpace) -> Result<FlatTensor, DistillationError> {
    space
        .take_hidden()
        .ok_or_else(|| DistillationError::NoHiddenState {
            whose,
            layer: space.id().layer.clone(),
        })
}

impl<M, T, I> Algorithm<M, I> for DynamicLayerwiseDistiller<T, I>
where
    M: Module + 'static,
    T: Module + 'static,
    I: 'static,
{
    fn name(&self) -> &'static str {
        "DynamicLayerwiseDistiller"
    }

    fn mode(&self) -> Mode {
        Mode::Distillation
    }

    fn loss(
        &mut self,
        loss: Tensor<1>,
        batch: &I,
        _run: Run<'_, M>,
    ) -> Result<Tensor<1>, BoxError> {
        (self.predict)(&self.teacher, batch);
        let taught = self
            .states
            .iter()
            .map(|space| hidden("teacher", space))
            .collect::<Result<Vec<_>, _>>()?;
        let layers = self
            .students
            .iter()
            .map(|student| Ok((student.lambda, self.distance(student, &taught)?)))
            .collect::<Result<Vec<_>, BoxError>>()?;
        Ok(total(loss, self.origin_loss_lambda, layers))
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
