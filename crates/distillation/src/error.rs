//! What can be wrong with a distillation.

use thiserror::Error;

/// Why a student cannot learn from a teacher as asked.
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

    /// A hidden state has no elements, or no dimension that the loss could run over.
    #[error(
        "the hidden state of student layer `{student}` has the shape {shape:?}: nothing to learn"
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
}
