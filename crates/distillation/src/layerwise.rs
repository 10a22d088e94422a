//! What all distillers of hidden states share: students, links, teachers and the sum of losses.

use std::any::Any;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_compress_core::config::{ConfigList, Selected};
use burn_compress_core::{
    Algorithm, AlgorithmState, BoxError, Compressor, Configuration, Error, FlatTensor, Learnable,
    Mode, Run, TargetId, TargetSpace,
};
use indexmap::IndexSet;

use crate::channels::{Channels, KeptChannels, channel_dim};
use crate::combine::{minimum, total};
use crate::fusion::{TeacherFusion, mean_loss, mean_output};
use crate::link::{Hidden, LinkLoss, check_lambda, incomparable};
use crate::teacher::{brought, hidden, widened};
use crate::teachers::{Staff, Teachers};
use crate::{DistillationError, DistillationSettings};

/// A distiller of hidden states in a chain.
pub(crate) struct Layerwise<I> {
    name: &'static str,
    origin_loss_lambda: f64,
    students: Vec<Student>,
    staff: Staff<I>,
    link_loss: Box<dyn LinkLoss>,
    configuration: Configuration,
}

/// A target of the student and the teacher states that it may learn from, by position.
struct Student {
    space: Arc<TargetSpace>,
    kind: String,
    settings: DistillationSettings,
    kept: Option<KeptChannels>,
    links: Vec<usize>,
}

/// Adds a distiller of hidden states to a chain.
pub(crate) fn fuse<M: Module + 'static, I: 'static>(
    mut compressor: Compressor<M, I>,
    config: &ConfigList<DistillationSettings>,
    teachers: Teachers<I>,
    name: &'static str,
    origin_loss_lambda: f64,
    mut link_loss: Box<dyn LinkLoss>,
    configuration: Configuration,
) -> Result<Compressor<M, I>, Error> {
    compressor.evaluator().require_training(name)?;
    check_lambda("origin_loss_lambda", origin_loss_lambda).map_err(|error| error.of(name))?;
    let selected = config.select(compressor.layers())?;
    let mut linked: IndexSet<TargetId> = IndexSet::new();
    let mut links = Vec::new();
    for item in &selected {
        link_loss.check(item).map_err(|error| error.of(name))?;
        let layers = item.settings.links(&item.layer.path);
        let positions = layers.into_iter().map(|layer| {
            linked
                .insert_full(TargetId::new(layer, item.target.clone()))
                .0
        });
        links.push(positions.collect::<Vec<_>>());
    }
    let linked: Vec<TargetId> = linked.into_iter().collect();
    let staff = teachers.tap(name, &linked)?;
    let ids: Vec<TargetId> = selected.iter().map(Selected::id).collect();
    let configuration = of_targets(configuration, &selected);
    let spaces = compressor.claim(Mode::Distillation, &ids)?;
    let mut students = Vec::new();
    for ((item, space), links) in selected.into_iter().zip(spaces).zip(links) {
        space.set_recording(true);
        let kept = match item.settings.channels() {
            Channels::All => None,
            Channels::Kept => Some(KeptChannels::new(&mut compressor, &item, space.clone())?),
        };
        students.push(Student {
            space,
            kind: item.layer.kind,
            settings: item.settings,
            kept,
            links,
        });
    }
    let device = compressor.model().devices().first().cloned();
    link_loss.attach(&device.unwrap_or_default());
    compressor.push(Layerwise {
        name,
        origin_loss_lambda,
        students,
        staff,
        link_loss,
        configuration,
    });
    Ok(compressor)
}

/// The configuration of a distiller with the settings of what it selects.
pub(crate) fn of_targets(
    configuration: Configuration,
    selected: &[Selected<DistillationSettings>],
) -> Configuration {
    selected.iter().fold(configuration, |configuration, item| {
        configuration.with_target(&item.id(), &item.settings.with_defaults(&item.layer.path))
    })
}

/// The states that each teacher gives, in the order of the teachers.
type Taught = Vec<Vec<Hidden>>;

impl<I> Layerwise<I> {
    fn taught(&self, batch: &I) -> Result<Taught, DistillationError> {
        let lessons = self.staff.teach(batch)?;
        let teachers = self.staff.teachers.iter().zip(lessons).enumerate();
        let all: Taught = teachers
            .map(|(at, (teacher, lesson))| {
                let states = teacher.states.iter().zip(lesson.hidden);
                states
                    .map(|(state, hidden)| Hidden {
                        id: state.space.id().clone(),
                        teacher: at,
                        channel_dim: channel_dim(&state.kind, hidden.shape.len()),
                        state: hidden,
                    })
                    .collect()
            })
            .collect();
        match self.staff.fusion {
            TeacherFusion::Losses => Ok(all),
            TeacherFusion::Outputs => Ok(vec![self.averaged(all)?]),
        }
    }

    fn averaged(&self, all: Taught) -> Result<Vec<Hidden>, DistillationError> {
        let weights = self.staff.weights();
        let Some(first) = all.first() else {
            return Err(DistillationError::NoTeacher);
        };
        first
            .iter()
            .enumerate()
            .map(|(link, hidden)| {
                let outputs = all.iter().map(|states| states[link].state.clone());
                let state = mean_output(outputs.collect(), &weights)?;
                Ok(Hidden {
                    state: state.ok_or(DistillationError::NoTeacher)?,
                    ..hidden.clone()
                })
            })
            .collect()
    }

    fn distance(&mut self, at: usize, taught: &Taught) -> Result<Tensor<1>, BoxError> {
        let student = &self.students[at];
        let state = widened(hidden("student", &student.space)?);
        let shown = Hidden {
            id: student.space.id().clone(),
            teacher: 0,
            channel_dim: student.channel_dim(&state),
            state,
        };
        if let Some(dim) = student.settings.channel_dim {
            check_channel_dim(dim, "student", &shown)?;
        }
        let kept = match &student.kept {
            Some(kept) => kept.of(&shown.state, shown.channel_dim)?,
            None => None,
        };
        if kept.as_ref().is_some_and(Vec::is_empty) {
            return Err(shown.empty().into());
        }
        let configured = student.settings.loss();
        let mut losses = Vec::new();
        for states in taught {
            let mut links = Vec::new();
            for &link in &student.links {
                let mut teacher = states[link].clone();
                teacher.state = brought(teacher.state, &shown.state.values);
                if let Some(dim) = student.settings.channel_dim {
                    check_channel_dim(dim, "teacher", &teacher)?;
                    teacher.channel_dim = dim;
                }
                if student.kept.is_some() {
                    as_many_channels(&shown, &teacher)?;
                }
                let loss = match &kept {
                    None => self.link_loss.loss(&shown, &teacher, configured)?,
                    Some(kept) => {
                        let (shown, teacher) = (shown.only(kept), teacher.only(kept));
                        self.link_loss.loss(&shown, &teacher, configured)?
                    }
                };
                links.push(loss);
            }
            losses.push(minimum(links).ok_or_else(|| DistillationError::NoLink {
                student: shown.id.layer.clone(),
            })?);
        }
        let mean = mean_loss(losses, &self.staff.weights());
        Ok(mean.ok_or(DistillationError::NoTeacher)?)
    }
}

impl Student {
    fn channel_dim(&self, state: &FlatTensor) -> usize {
        let by_type = || channel_dim(&self.kind, state.shape.len());
        self.settings.channel_dim.unwrap_or_else(by_type)
    }
}

/// Refuses a configured dimension that an end of a link does not have.
fn check_channel_dim(dim: usize, whose: &str, end: &Hidden) -> Result<(), DistillationError> {
    match dim < end.shape().len() {
        true => Ok(()),
        false => Err(DistillationError::Setting {
            key: "channel_dim",
            value: dim.to_string(),
            expected: format!(
                "a dimension of the hidden state of {whose} layer `{}`, of shape {:?}",
                end.id.layer,
                end.shape()
            ),
        }),
    }
}

/// Refuses ends of a link whose channels are not each other's.
fn as_many_channels(student: &Hidden, teacher: &Hidden) -> Result<(), DistillationError> {
    let channels = |end: &Hidden| end.shape().get(end.channel_dim).copied();
    match channels(student) == channels(teacher) {
        true => Ok(()),
        false => {
            let expected = "as many channels are needed to leave out the student's masked ones";
            Err(incomparable(student, teacher, expected))
        }
    }
}

impl<M: Module + 'static, I: 'static> Algorithm<M, I> for Layerwise<I> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        Mode::Distillation
    }

    fn prepare(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        // Not in the constructor: the pruner may be fused later.
        let is_idle = |kept: &KeptChannels| !kept.is_followed();
        let mut students = self.students.iter();
        match students.find(|student| student.kept.as_ref().is_some_and(is_idle)) {
            None => Ok(()),
            Some(student) => {
                let layer = student.space.id().layer.clone();
                Err(DistillationError::NoMask { layer }.into())
            }
        }
    }

    fn loss(
        &mut self,
        loss: Tensor<1>,
        batch: &I,
        _run: Run<'_, M>,
    ) -> Result<Tensor<1>, BoxError> {
        let taught = self.taught(batch)?;
        let mut losses = Vec::new();
        for at in 0..self.students.len() {
            let distance = self.distance(at, &taught)?;
            losses.push((self.students[at].settings.lambda(), distance));
        }
        Ok(total(loss, self.origin_loss_lambda, losses))
    }

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        self.link_loss.learnables()
    }

    fn finish(&mut self, _run: Run<'_, M>) -> Result<(), BoxError> {
        Ok(self.staff.save()?)
    }

    fn state(&self) -> Result<AlgorithmState, BoxError> {
        self.staff.save()?;
        Ok(self.link_loss.state())
    }

    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        self.link_loss.load_state(state)
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        Ok(self.staff.configuration(self.configuration.clone())?)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// The constructors of a distiller of hidden states.
///
/// The last argument gives the weight of the task's loss and the loss of a link.
macro_rules! constructors {
    ($distiller:ident, $config:ty, $parts:expr) => {
        impl $distiller {
            /// Distills `teacher` into `model`.
            ///
            /// `predict` runs the teacher on a batch; what it returns is dropped, the hidden states
            /// are read from the teacher's wrappers. The teacher is a `valid()` snapshot: it never
            /// trains and follows no change of the model that it was taken from.
            ///
            /// # Errors
            ///
            /// A configuration that does not fit the model or the distiller, settings out of range,
            /// a link that is no wrapped layer of the teacher, or an evaluator that cannot train.
            #[allow(clippy::new_ret_no_self)] // A chain has one type whatever is fused into it.
            pub fn new<M, T, I, O>(
                model: M,
                config: &burn_compress_core::config::ConfigList<$crate::DistillationSettings>,
                evaluator: burn_compress_core::Evaluator<M, I>,
                teacher: &T,
                predict: impl Fn(&T, &I) -> O + Send + 'static,
                distiller: $config,
            ) -> Result<burn_compress_core::Compressor<M, I>, burn_compress_core::Error>
            where
                M: burn::module::Module + 'static,
                T: burn::module::Module + 'static,
                I: 'static,
            {
                let chain = burn_compress_core::Compressor::from_model(model, evaluator);
                Self::from_compressor(chain, config, teacher, predict, distiller)
            }

            /// Distills `teacher` into the model of `compressor`, in the same run.
            ///
            /// # Errors
            ///
            /// Those of [`new`](Self::new), and a target that another distiller of the chain has.
            pub fn from_compressor<M, T, I, O>(
                compressor: burn_compress_core::Compressor<M, I>,
                config: &burn_compress_core::config::ConfigList<$crate::DistillationSettings>,
                teacher: &T,
                predict: impl Fn(&T, &I) -> O + Send + 'static,
                distiller: $config,
            ) -> Result<burn_compress_core::Compressor<M, I>, burn_compress_core::Error>
            where
                M: burn::module::Module + 'static,
                T: burn::module::Module + 'static,
                I: 'static,
            {
                let teacher = $crate::Teacher::new(teacher, predict);
                Self::from_teachers(compressor, config, teacher, distiller)
            }

            /// Distills one teacher or several, with a cache or without, into the model of
            /// `compressor`, in the same run.
            ///
            /// # Errors
            ///
            /// Those of [`from_compressor`](Self::from_compressor), no teacher or one whose weight
            /// or layers do not fit, and a cache that another teacher filled.
            pub fn from_teachers<M, I>(
                compressor: burn_compress_core::Compressor<M, I>,
                config: &burn_compress_core::config::ConfigList<$crate::DistillationSettings>,
                teachers: impl Into<$crate::Teachers<I>>,
                distiller: $config,
            ) -> Result<burn_compress_core::Compressor<M, I>, burn_compress_core::Error>
            where
                M: burn::module::Module + 'static,
                I: 'static,
            {
                let parts: fn(
                    &$config,
                ) -> Result<
                    (f64, Box<dyn $crate::link::LinkLoss>),
                    $crate::DistillationError,
                > = $parts;
                let name = stringify!($distiller);
                let (origin, link_loss) = parts(&distiller).map_err(|error| error.of(name))?;
                $crate::layerwise::fuse(
                    compressor,
                    config,
                    teachers.into(),
                    name,
                    origin,
                    link_loss,
                    burn_compress_core::Configuration::of(&distiller),
                )
            }
        }
    };
}
pub(crate) use constructors;
