//! Every distiller by name, for programs that let their users choose and for tests of all of them.

use std::fmt;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use burn_compress_core::config::ConfigList;
use burn_compress_core::{Compressor, Error};

use crate::settings::DistillationSettings;
use crate::teacher::Teacher;

/// A teacher with its logits of a batch, and the labels of a batch.
///
/// A distiller takes what it [`Needs`]; give `T = M` where the teacher is a model like the student.
pub struct Supervision<T, I> {
    teacher: T,
    predict: Predict<T, I>,
    labels: Labels<I>,
}

type Predict<T, I> = Arc<dyn Fn(&T, &I) -> Tensor<2> + Send + Sync>;
type Labels<I> = Arc<dyn Fn(&I) -> Tensor<1, Int> + Send + Sync>;

impl<T: Module, I> Supervision<T, I> {
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

impl<T, I> fmt::Debug for Supervision<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervision").finish_non_exhaustive()
    }
}

impl<T: Module + 'static, I: 'static> Supervision<T, I> {
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
    &Supervision<T, I>,
) -> Result<Compressor<M, I>, Error>;

/// The targets that rules may select for a distiller.
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
    /// Its task, in one sentence.
    pub summary: &'static str,
    /// Its paper.
    pub reference: &'static str,
    /// The targets that it compares.
    pub needs: Needs,
    /// Adds it to a chain.
    pub fuse: Fuse<M, T, I>,
}

/// The list of the built-in distillers: exports their types and makes their entries.
macro_rules! registry {
    ($(
        $folder:ident::$module:ident { $distiller:ident, $config:ident = $default:expr $(; $labels:ident)? },
        $needs:ident, $summary:literal, $reference:literal;
    )*) => {
        /// The built-in distillers and their configurations.
        pub mod built_in {
            $(pub use crate::$folder::$module::{$distiller, $config};)*
        }
        use built_in::*;

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
        pub fn distillers<M: Module + 'static, T: Module + 'static, I: 'static>()
        -> Vec<Entry<M, T, I>> {
            vec![$(Entry {
                name: stringify!($distiller),
                summary: $summary,
                reference: $reference,
                needs: Needs::$needs,
                fuse: |chain, config, supervision| {
                    let teacher = supervision.teacher();
                    $distiller::from_teachers(
                        chain, config, teacher $(, supervision.$labels())?, $default,
                    )
                },
            }),*]
        }
    };
}

// One line a distiller.
registry! {
    feature::dynamic { DynamicLayerwiseDistiller, DistillConfig = DistillConfig::new(1.0) }, EqualShapes, "Imitates the nearest of several hidden states.", "arXiv 2012.03236";
    feature::adaptive { Adaptive1dLayerwiseDistiller, AdaptiveConfig = AdaptiveConfig::new() }, EqualFront, "Imitates a hidden state of another width through a trained linear layer.", "arXiv 1909.10351";
    feature::fitnets { FitNetsDistiller, FitNetsConfig = FitNetsConfig::new() }, Channels, "Imitates a hidden state through a trained 1x1 convolution.", "arXiv 1412.6550";
    feature::attention { AttentionDistiller, AttentionConfig = AttentionConfig::new() }, Positions, "Imitates where a hidden state is active.", "arXiv 1612.03928";
    feature::relational { RelationalDistiller, RelationalConfig = RelationalConfig::new() }, Samples, "Imitates distances and angles between samples.", "arXiv 1904.05068";
    logit::logits { LogitsDistiller, LogitsConfig = LogitsConfig::new() }, Logits, "Imitates softened class probabilities.", "arXiv 1503.02531";
    logit::dkd { DkdDistiller, DkdConfig = DkdConfig::new(); labels }, Logits, "Imitates target and other classes, each with a weight of its own.", "arXiv 2203.08679";
}
