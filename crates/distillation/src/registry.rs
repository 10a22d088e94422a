//! Every distiller by name, for programs that let their users choose and for tests of all of them.

use std::fmt;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Compressor, Error};

use crate::{
    Adaptive1dLayerwiseDistiller, AdaptiveConfig, AttentionConfig, AttentionDistiller,
    DistillConfig, DistillationSettings, DkdConfig, DkdDistiller, DynamicLayerwiseDistiller,
    FitNetsConfig, FitNetsDistiller, LogitsConfig, LogitsDistiller, RelationalConfig,
    RelationalDistiller, Teacher,
};

/// What a distiller may learn from: a teacher and how batches are put to it.
///
/// A distiller takes what it [`Needs`]; give `T = M` where the teacher is a model like the student.
pub struct Lesson<T, I> {
    teacher: T,
    predict: Predict<T, I>,
    labels: Labels<I>,
}

type Predict<T, I> = Arc<dyn Fn(&T, &I) -> Tensor<2> + Send + Sync>;
type Labels<I> = Arc<dyn Fn(&I) -> Tensor<1, Int> + Send + Sync>;

impl<T: Module, I> Lesson<T, I> {
    /// A teacher, its logits of a batch, `[rows, classes]`, and the target classes of a batch,
    /// `[rows]`.
    pub fn new(
        teacher: &T,
        predict: impl Fn(&T, &I) -> Tensor<2> + Send + Sync + 'static,
        labels: impl Fn(&I) -> Tensor<1, Int> + Send + Sync + 'static,
    ) -> Self {
        Self {
            teacher: teacher.valid(),
            predict: Arc::new(predict),
            labels: Arc::new(labels),
        }
    }
}

impl<T, I> fmt::Debug for Lesson<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lesson").finish_non_exhaustive()
    }
}

impl<T: Module + 'static, I: 'static> Lesson<T, I> {
    fn teacher(&self) -> Teacher<I> {
        let predict = self.predict.clone();
        Teacher::of_logits(&self.teacher, move |teacher, batch| predict(teacher, batch))
    }

    fn labels(&self) -> impl Fn(&I) -> Tensor<1, Int> + Send + 'static {
        let labels = self.labels.clone();
        move |batch| labels(batch)
    }
}

/// Adds a distiller with its default settings to a chain.
pub type Fuse<M, T, I> = fn(
    Compressor<M, I>,
    &ConfigList<DistillationSettings>,
    &Lesson<T, I>,
) -> Result<Compressor<M, I>, Error>;

/// What a configuration selects for a distiller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Needs {
    /// Hidden states of any layers, with equal shapes at both ends of a link.
    EqualShapes,
    /// Hidden states of any layers, with equal shapes but for the last dimension.
    EqualFront,
    /// Hidden states with channels, as many dimensions at both ends of a link.
    Channels,
    /// Hidden states with positions, as many at both ends of a link.
    Positions,
    /// Hidden states of any layers; batches of three samples or more.
    Samples,
    /// The one output that is the student's logits.
    Logits,
}

/// One distiller.
#[derive(Debug)]
pub struct Entry<M, T, I> {
    /// The name of its type, which is also its name in a chain.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// The paper that it follows.
    pub reference: &'static str,
    /// What it learns from.
    pub needs: Needs,
    /// Adds it to a chain.
    pub fuse: Fuse<M, T, I>,
}

/// All distillers.
///
/// ```
/// use burn::nn::Linear;
/// use burn::tensor::Tensor;
/// use burn_compress_distillation::distillers;
///
/// let all = distillers::<Linear, Linear, Tensor<2>>();
/// let names: Vec<_> = all.iter().map(|entry| entry.name).collect();
/// assert!(names.contains(&"LogitsDistiller"));
/// ```
#[rustfmt::skip] // One line a distiller.
pub fn distillers<M: Module + 'static, T: Module + 'static, I: 'static>() -> Vec<Entry<M, T, I>> {
    vec![
        Entry { name: "DynamicLayerwiseDistiller", summary: "Imitates the nearest of several hidden states.", reference: "arXiv 2012.03236", needs: Needs::EqualShapes, fuse: |chain, config, lesson| DynamicLayerwiseDistiller::from_teachers(chain, config, lesson.teacher(), DistillConfig::new(1.0)) },
        Entry { name: "Adaptive1dLayerwiseDistiller", summary: "Imitates a hidden state of another width through a trained linear layer.", reference: "arXiv 1909.10351", needs: Needs::EqualFront, fuse: |chain, config, lesson| Adaptive1dLayerwiseDistiller::from_teachers(chain, config, lesson.teacher(), AdaptiveConfig::new()) },
        Entry { name: "FitNetsDistiller", summary: "Imitates a hidden state through a trained 1x1 convolution.", reference: "arXiv 1412.6550", needs: Needs::Channels, fuse: |chain, config, lesson| FitNetsDistiller::from_teachers(chain, config, lesson.teacher(), FitNetsConfig::new()) },
        Entry { name: "AttentionDistiller", summary: "Imitates where a hidden state is active.", reference: "arXiv 1612.03928", needs: Needs::Positions, fuse: |chain, config, lesson| AttentionDistiller::from_teachers(chain, config, lesson.teacher(), AttentionConfig::new()) },
        Entry { name: "RelationalDistiller", summary: "Imitates distances and angles between samples.", reference: "arXiv 1904.05068", needs: Needs::Samples, fuse: |chain, config, lesson| RelationalDistiller::from_teachers(chain, config, lesson.teacher(), RelationalConfig::new()) },
        Entry { name: "LogitsDistiller", summary: "Imitates softened class probabilities.", reference: "arXiv 1503.02531", needs: Needs::Logits, fuse: |chain, config, lesson| LogitsDistiller::from_teachers(chain, config, lesson.teacher(), LogitsConfig::new()) },
        Entry { name: "DkdDistiller", summary: "Imitates target and other classes, each with a weight of its own.", reference: "arXiv 2203.08679", needs: Needs::Logits, fuse: |chain, config, lesson| DkdDistiller::from_teachers(chain, config, lesson.teacher(), lesson.labels(), DkdConfig::new()) },
    ]
}
