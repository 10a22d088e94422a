//! Sequences of layers that run as one operation.

use burn_compress_core::config::Selected;
use burn_compress_core::layer::LayerInfo;

use crate::{QuantizationError, QuantizationSettings};

pub(super) type Chosen = Selected<QuantizationSettings>;

/// A host and the layers that follow it.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    pub(super) host: LayerInfo,
    pub(super) norm: Option<String>,
    pub(super) activation: Option<String>,
}

impl Sequence {
    /// The layer whose output is that of the sequence.
    pub(super) fn last(&self) -> &str {
        let last = self.activation.as_ref().or(self.norm.as_ref());
        last.unwrap_or(&self.host.path)
    }

    pub(super) fn followers(&self) -> impl Iterator<Item = &String> {
        self.norm.iter().chain(&self.activation)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.host.path).chain(self.followers())
    }
}

/// Whether settings request a fusion.
pub(crate) fn is_wanted(settings: &QuantizationSettings) -> bool {
    settings.fuse == Some(true) || settings.fuse_names.is_some()
}

/// An error of the fusion of these layers.
pub(super) fn error(names: &[String], reason: impl Into<String>) -> QuantizationError {
    QuantizationError::Fusion {
        names: names.to_vec(),
        reason: reason.into(),
    }
}
