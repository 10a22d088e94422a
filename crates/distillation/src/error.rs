//! Errors of distillation.

use std::path::PathBuf;

use burn_compress_core::Detail;
use thiserror::Error;

/// Any error of a distiller.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum DistillationError {
    /// Linked layers give hidden states of different shapes.
    #[error(
        "student layer `{student}` gives a hidden state of shape {student_shape:?}, teacher layer \
         `{teacher}` one of {teacher_shape:?}: link layers of equal shape"
    )]
    Shape {
        /// Path of the student's layer.
        student: String,
        /// Path of the teacher's layer.
        teacher: String,
        /// Shape of the student's hidden state.
        student_shape: Vec<usize>,
        /// Shape of the teacher's hidden state.
        teacher_shape: Vec<usize>,
    },

    /// Linked layers give hidden states that a distiller cannot compare.
    #[error(
        "student layer `{student}` gives a hidden state of shape {student_shape:?}, teacher layer \
         `{teacher}` one of {teacher_shape:?}: {expected}"
    )]
    Incomparable {
        /// Path of the student's layer.
        student: String,
        /// Path of the teacher's layer.
        teacher: String,
        /// Shape of the student's hidden state.
        student_shape: Vec<usize>,
        /// Shape of the teacher's hidden state.
        teacher_shape: Vec<usize>,
        /// The condition of the distiller.
        expected: &'static str,
    },

    /// A hidden state of another rank than a loss reads.
    #[error(
        "the hidden state of layer `{layer}` has the shape {shape:?}, but the loss reads \
         {expected} dimensions: select other layers"
    )]
    Rank {
        /// Path of the layer.
        layer: String,
        /// Shape of its hidden state.
        shape: Vec<usize>,
        /// The rank that the loss reads.
        expected: usize,
    },

    /// A loss that is not one number.
    #[error(
        "the loss of student layer `{student}` has {found} numbers, but must have one: average \
         or add them up"
    )]
    LossShape {
        /// Path of the student's layer.
        student: String,
        /// Its numbers.
        found: usize,
    },

    /// A loss whose value breaks a law.
    #[error("the loss of student layer `{student}` is {value}, but must be {expected}")]
    LossValue {
        /// Path of the student's layer.
        student: String,
        /// The value.
        value: f32,
        /// The law.
        expected: &'static str,
    },

    /// A tensor that a loss trains changes its shape.
    #[error(
        "the trained tensor `{name}` has the shape {expected:?} from an earlier batch, here it \
         would have {found:?}: exclude layers whose widths change"
    )]
    LearnableShape {
        /// Its name, which begins with the student's target.
        name: String,
        /// Its shape.
        expected: Vec<usize>,
        /// The shape for the batch at hand.
        found: Vec<usize>,
    },

    /// A loss that reads labels has none.
    #[error("the loss reads labels, but there are none: set `with_labels`")]
    NoLabels,

    /// A hidden state has no elements, or no dimension that the loss could run over.
    #[error(
        "the hidden state of student layer `{student}` has the shape {shape:?} or no channel that \
         is kept: nothing to learn, exclude the layer"
    )]
    Empty {
        /// Path of the student's layer.
        student: String,
        /// Shape of the hidden state.
        shape: Vec<usize>,
    },

    /// A student layer has no link to take the minimum over.
    #[error("student layer `{student}` has no link, name at least one teacher layer")]
    NoLink {
        /// Path of the student's layer.
        student: String,
    },

    /// A layer gave no hidden state in the forward pass.
    #[error(
        "{whose} layer `{layer}` gave no hidden state: the forward pass does not reach its \
         `Wrapper`"
    )]
    NoHiddenState {
        /// `student` or `teacher`.
        whose: &'static str,
        /// Path of the layer.
        layer: String,
    },

    /// A hidden state at a position that its layer does not have.
    #[error("of the {whose}, {reason}")]
    NoPosition {
        /// `student` or `teacher`.
        whose: &'static str,
        /// The inputs or outputs of the layer.
        reason: String,
    },

    /// Channels that are left out while nothing masks any.
    #[error(
        "`channels` of layer `{layer}` is `kept`, but no pruner of the chain masks its weight or its \
         hidden state: fuse one that does before the run begins, or set `channels` to `all`"
    )]
    NoMask {
        /// Path of the student's layer.
        layer: String,
    },

    /// A setting outside its range.
    #[error("`{key}` is {value}, but must be {expected}")]
    Setting {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// Its range.
        expected: String,
    },

    /// A setting of a rule that the distiller does not use.
    #[error("`{key}` of layer `{layer}` means nothing here, remove it: {reason}")]
    UnusedSetting {
        /// The key.
        key: &'static str,
        /// Path of the student's layer.
        layer: String,
        /// Replacement that the distiller uses.
        reason: &'static str,
    },

    /// A distiller that follows one teacher layer is given several.
    #[error(
        "student layer `{student}` has {found} links, but learns from exactly one here: name one \
         teacher layer in `link`"
    )]
    Links {
        /// Path of the student's layer.
        student: String,
        /// Their number.
        found: usize,
    },

    /// A distiller of logits does not find the student's.
    #[error(
        "the student's logits are one output, but the configuration selects {found:?}: select the \
         `_output_` of the layer that gives them"
    )]
    OneOutput {
        /// The selected targets.
        found: Vec<String>,
    },

    /// Logits of student and teacher differ in shape.
    #[error(
        "the student's logits at `{student}` have the shape {student_shape:?}, the teacher's \
         {teacher_shape:?}: as many rows of as many classes are needed"
    )]
    Logits {
        /// The student's target.
        student: String,
        /// Shape of the student's logits.
        student_shape: Vec<usize>,
        /// Shape of the teacher's logits.
        teacher_shape: Vec<usize>,
    },

    /// A teacher without logits for a distiller of logits.
    #[error("teacher {teacher} gives no logits: make it with `Teacher::of_logits`")]
    NoLogits {
        /// Position of the teacher, from 0.
        teacher: usize,
    },

    /// The labels do not fit the logits.
    #[error("{reason}: labels are one class for each row of the logits, {rows} rows of {classes}")]
    Labels {
        /// Found value.
        reason: String,
        /// Rows of the logits.
        rows: usize,
        /// Classes of the logits.
        classes: usize,
    },

    /// A teacher renames a link that no rule follows.
    #[error(
        "`with_layer` leads links to `{link}` to the teacher's layer `{layer}`, but no rule links \
         to `{link}`: correct the name or remove it"
    )]
    UnusedLayer {
        /// The link.
        link: String,
        /// The teacher's layer.
        layer: String,
    },

    /// A distiller without a teacher.
    #[error("there is no teacher: give at least one")]
    NoTeacher,

    /// Teachers whose outputs cannot be averaged.
    #[error(
        "the outputs of the teachers have the shapes {first:?} and {other:?}, so they have no \
         mean: aggregate their losses instead"
    )]
    TeacherShapes {
        /// Shape of the first teacher's output.
        first: Vec<usize>,
        /// Shape of another's.
        other: Vec<usize>,
    },

    /// Relations need several samples.
    #[error(
        "the batch of student layer `{student}` has {found} samples, but relations need {needed}: \
         use larger batches, or leave out the last one of an epoch"
    )]
    BatchTooSmall {
        /// Path of the student's layer.
        student: String,
        /// Samples in the batch.
        found: usize,
        /// The fewest that will do.
        needed: usize,
    },

    /// Channels of a hidden state that match no mask.
    #[error(
        "nothing of layer `{layer}` tells which of the {channels} channels in dimension {dim} of \
         its hidden state are kept: set `channel_dim`, or compare all of them"
    )]
    NoChannels {
        /// Path of the student's layer.
        layer: String,
        /// The dimension that was taken for that of the channels.
        dim: usize,
        /// Its size.
        channels: usize,
    },

    /// A cache of a teacher's outputs cannot be read, written or used.
    #[error("teacher cache `{path}`: {reason}", path = path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// Reason.
        reason: String,
    },

    /// A cache that another teacher filled.
    #[error(
        "teacher cache `{path}` was filled by another teacher or with other links ({found}, here \
         {expected}): use another file or delete this one", path = path.display()
    )]
    ForeignCache {
        /// The file.
        path: PathBuf,
        /// The teacher and links of the file.
        found: String,
        /// The teacher and links of the distiller.
        expected: String,
    },

    /// An output of a teacher that differs from the one in its cache.
    #[error(
        "teacher cache `{path}` holds another answer for the sample with key {key} than the teacher \
         gives (`{state}`): give every sample a key of its own, each variant of an augmented one as \
         well; if another `predict` filled the file, use another file or delete this one",
        path = path.display()
    )]
    CachedAnswer {
        /// The file.
        path: PathBuf,
        /// The hidden state, or `logits`.
        state: String,
        /// The key of the sample.
        key: u64,
    },

    /// Keys of a batch that do not fit the teacher's output.
    #[error(
        "{keys} samples of the batch have a key, but `{state}` of the teacher has the shape \
         {shape:?}: give one key for each sample, the samples being the first dimension"
    )]
    SampleKeys {
        /// The hidden state, or `logits`.
        state: String,
        /// Its shape for the whole batch.
        shape: Vec<usize>,
        /// The number of keys of the batch.
        keys: usize,
    },
}

impl Detail for DistillationError {}
