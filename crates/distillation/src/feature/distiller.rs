//! A distiller of hidden states, with a loss of the user's or a built-in one.

use std::sync::Arc;

use burn::module::Module;
use burn_compress_core::config::ConfigList;
use burn_compress_core::erased::{AnyBatch, AnyModel};
use burn_compress_core::layer::port_channel_dim;
use burn_compress_core::{
    AlgorithmState, BoxError, Chain, Error, FlatTensor, Learnable, Method, Mode, TargetId,
    TargetSpace,
};
use indexmap::IndexSet;

use crate::combine::minimum;
use crate::distiller::{Distiller, Reads, Taught};
use crate::error::DistillationError;
use crate::feature::channels::KeptChannels;
use crate::feature::hidden::HiddenState;
use crate::feature::learnables::Learnables;
use crate::feature::loss::{FeatureLoss, FeaturePair};
use crate::fused::{FusedDistiller, Options, TargetLoss, TargetLosses};
use crate::laws::{check_laws, check_shape};
use crate::settings::{Channels, DistillationSettings};
use crate::teacher::{Teacher, TeacherSet, mean_loss};
use crate::tensors::{at_least_f32, cast_like, take_hidden};

/// A distiller of hidden states with the loss `L`.
///
/// The student's layers are linked with layers of the teacher; each link adds the loss between their
/// hidden states to the loss that the student has anyway:
///
/// ```text
/// total = origin_loss_lambda * task loss + sum over targets of lambda * min over links of loss
/// ```
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::SgdConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_compress_core::config::ConfigList;
/// use burn_compress_core::{BoxError, Budget, Evaluator, Wrapper};
/// use burn_compress_distillation::feature::{FeatureLoss, FeaturePair, Learnables};
/// use burn_compress_distillation::FeatureDistiller;
///
/// /// The mean absolute difference.
/// struct Absolute;
///
/// impl FeatureLoss for Absolute {
///     fn loss(&self, pair: &FeaturePair, _: &mut Learnables) -> Result<Tensor<1>, BoxError> {
///         Ok((pair.student.values() - pair.teacher.values()).abs().mean())
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
/// let batch = Tensor::<2>::ones([5, 6], &device);
/// let evaluator = Evaluator::new()
///     .with_data(move |_epoch| vec![batch.clone()])
///     .with_optimizer(SgdConfig::new().init())
///     .with_learning_rate(0.1)
///     .with_loss(|net: &Net, batch: &Tensor<2>| net.fc.forward(batch.clone()).mean());
/// let compressed = FeatureDistiller::with(Absolute)
///     .with_origin_loss_lambda(0.5)
///     .new(
///         student,
///         &ConfigList::from_json(r#"[{"op_names": ["fc"]}]"#)?,
///         evaluator,
///         &teacher,
///         |teacher: &Net, batch: &Tensor<2>| teacher.fc.forward(batch.clone()),
///     )?
///     .compress(Budget::steps(2))?;
/// assert_eq!(compressed.history().steps.len(), 2);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub type FeatureDistiller<L> = Distiller<Features<L>>;

/// The hidden states that a loss compares.
#[derive(Clone, Debug)]
pub struct Features<L>(pub(crate) L);

impl<L: FeatureLoss> FeatureDistiller<L> {
    /// A distiller with this loss beside the whole loss of the task.
    pub fn with(loss: L) -> Self {
        let options = Options::new(loss.name(), loss.configuration());
        let kind = Features(loss);
        Self { kind, options }
    }
}

impl<L, I: 'static, O> Reads<I, O> for Features<L> {
    fn teacher<T: Module + 'static>(
        teacher: &T,
        predict: impl Fn(&T, &I) -> O + Send + 'static,
    ) -> Teacher<I> {
        Teacher::new(teacher, predict)
    }
}

impl<M: Module + 'static, I: 'static, L: FeatureLoss> Method<M, I> for Taught<Features<L>, I> {
    type Settings = DistillationSettings;

    fn name(&self) -> &'static str {
        self.distiller.options.name
    }

    fn add_to(
        self,
        chain: &mut Chain<'_, M, I>,
        rules: &ConfigList<DistillationSettings>,
    ) -> Result<(), Error> {
        let taught = Taught {
            distiller: self.distiller,
            teachers: self.teachers.erased(),
        };
        taught.add(&mut chain.erased(), rules)
    }
}

impl<L: FeatureLoss> Taught<Features<L>, AnyBatch> {
    /// Adds the algorithm to a chain of any model.
    fn add(
        self,
        chain: &mut Chain<'_, AnyModel, AnyBatch>,
        rules: &ConfigList<DistillationSettings>,
    ) -> Result<(), Error> {
        let (Features(loss), options) = (self.distiller.kind, self.distiller.options);
        loss.validate()?;
        let selected = options.select(chain, rules)?;
        let mut linked: IndexSet<TargetId> = IndexSet::new();
        let mut links = Vec::new();
        for item in &selected {
            loss.check_rule(item)?;
            let layers = item.settings.links(&item.layer.path).into_iter();
            let positions = layers
                .map(|layer| TargetId::new(layer, item.target.clone()))
                .map(|id| linked.insert_full(id).0);
            links.push(positions.collect::<Vec<_>>());
        }
        let linked: Vec<TargetId> = linked.into_iter().collect();
        let teachers = self.teachers.attach(&linked)?;
        let ids: Vec<TargetId> = selected.iter().map(|item| item.id()).collect();
        let options = options.for_targets(&selected);
        let spaces = chain.claim(Mode::Distillation, &ids)?;
        let mut students = Vec::new();
        for ((item, space), links) in selected.into_iter().zip(spaces).zip(links) {
            space.set_recording(true);
            let kept = match item.settings.channels() {
                Channels::All => None,
                Channels::Kept => Some(KeptChannels::new(chain, &item, space.clone())?),
            };
            students.push(Student {
                space,
                kind: item.layer.kind,
                settings: item.settings,
                kept,
                links,
            });
        }
        let device = chain.model().devices().first().cloned();
        let losses = FeatureLosses {
            loss,
            students,
            learnables: Learnables::new(&device.unwrap_or_default()),
        };
        chain.push(FusedDistiller {
            options,
            teachers,
            losses,
        });
        Ok(())
    }
}

/// The losses between hidden states.
struct FeatureLosses<L> {
    loss: L,
    students: Vec<Student>,
    learnables: Learnables,
}

/// A target of the student and the teacher states that it may learn from, by position.
struct Student {
    space: Arc<TargetSpace>,
    kind: String,
    settings: DistillationSettings,
    kept: Option<KeptChannels>,
    links: Vec<usize>,
}

impl<L: FeatureLoss> FeatureLosses<L> {
    /// The loss of the student at `at` against `states`, those of each teacher.
    fn target_loss<I>(
        &mut self,
        at: usize,
        teachers: &TeacherSet<I>,
        states: &[Vec<FlatTensor>],
        step: usize,
    ) -> Result<TargetLoss, BoxError> {
        let Student {
            space,
            kind,
            settings,
            kept,
            links,
        } = &self.students[at];
        let dim = |kind: &str, rank: usize| {
            let by_type = || port_channel_dim(kind, rank);
            settings.channel_dim.unwrap_or_else(by_type)
        };
        let state = at_least_f32(take_hidden("student", space)?);
        let channels = dim(kind, state.shape.len());
        let student = HiddenState::of("student", space.id().clone(), state, channels)?;
        let removed = match kept {
            Some(kept) => kept.of(&student.state, student.channel_dim())?,
            None => None,
        };
        if removed.as_ref().is_some_and(Vec::is_empty) {
            return Err(student.empty().into());
        }
        let mut losses = Vec::new();
        for (position, states) in states.iter().enumerate() {
            let mut of_links = Vec::new();
            for &link in links {
                let origin = &teachers.attached(position).states[link];
                let state = cast_like(states[link].clone(), &student.state.values);
                let channels = dim(&origin.kind, state.shape.len());
                let id = origin.space.id().clone();
                let mut pair = FeaturePair {
                    student: student.clone(),
                    teacher: HiddenState::of("teacher", id, state, channels)?,
                    apply_method: settings.loss(),
                    step,
                };
                if kept.is_some() {
                    require_as_many_channels(&pair)?;
                }
                if let Some(kept) = &removed {
                    pair.student = pair.student.with_channels(kept);
                    pair.teacher = pair.teacher.with_channels(kept);
                }
                self.loss.check_pair(&pair)?;
                let name = format!("{}/{position}", space.id());
                self.learnables.enter(match links.len() {
                    1 => name,
                    _ => format!("{name}/{}", pair.teacher.target()),
                });
                let loss = self.loss.loss(&pair, &mut self.learnables)?;
                check_shape(pair.student.layer(), &loss)?;
                of_links.push(loss);
            }
            losses.push(minimum(of_links).ok_or_else(|| DistillationError::NoLink {
                student: student.layer().to_string(),
            })?);
        }
        let loss = mean_loss(losses, &teachers.weights());
        Ok(TargetLoss {
            layer: student.layer().to_string(),
            lambda: settings.lambda(),
            loss: loss.ok_or(DistillationError::NoTeacher)?,
        })
    }
}

/// Rejects ends of a link whose channels are not each other's.
fn require_as_many_channels(pair: &FeaturePair) -> Result<(), DistillationError> {
    match pair.student.channels() == pair.teacher.channels() {
        true => Ok(()),
        false => {
            Err(pair
                .incomparable("as many channels are needed to leave out the student's masked ones"))
        }
    }
}

impl<I, L: FeatureLoss> TargetLosses<I> for FeatureLosses<L> {
    fn prepare(&self) -> Result<(), DistillationError> {
        // Not in the constructor: the pruner may be fused later.
        let is_idle = |kept: &KeptChannels| !kept.is_followed();
        let mut students = self.students.iter();
        match students.find(|student| student.kept.as_ref().is_some_and(is_idle)) {
            None => Ok(()),
            Some(student) => Err(DistillationError::NoMask {
                layer: student.space.id().layer.clone(),
            }),
        }
    }

    fn losses(
        &mut self,
        teachers: &TeacherSet<I>,
        batch: &I,
        step: usize,
    ) -> Result<Vec<TargetLoss>, BoxError> {
        let states = teachers.hidden(batch)?;
        (0..self.students.len())
            .map(|at| self.target_loss(at, teachers, &states, step))
            .collect()
    }

    fn is_distance(&self) -> bool {
        self.loss.is_distance()
    }

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        self.learnables.all()
    }

    fn state(&self) -> AlgorithmState {
        self.learnables.state()
    }

    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        self.learnables.load_state(state)
    }
}

/// Tests a loss against the [laws](FeatureLoss#laws) on one pair, for the tests of a user's loss.
///
/// The loss is computed twice, and that of the teacher's hidden state against itself if it is a
/// distance, each time with new learnables.
///
/// # Errors
///
/// A pair that the loss rejects, any error of the loss, [`DistillationError::LossShape`] and
/// [`DistillationError::LossValue`] with the law that it breaks.
pub fn check_feature_loss<L: FeatureLoss>(loss: &L, pair: &FeaturePair) -> Result<(), BoxError> {
    let device = pair.student.values().device();
    let of = |student: &HiddenState| {
        let student = student.clone();
        let pair = FeaturePair {
            student,
            ..pair.clone()
        };
        loss.check_pair(&pair)?;
        loss.loss(&pair, &mut Learnables::new(&device))
    };
    check_laws(pair.student.layer(), loss.is_distance(), |is_equal| {
        of(if is_equal {
            &pair.teacher
        } else {
            &pair.student
        })
    })
}
