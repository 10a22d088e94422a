//! One claimed target of a quantizer.

use std::sync::Arc;

use burn_compress_core::config::Selected;
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{QuantDtype, QuantScheme, Quantization, Target, TargetId, TargetSpace};

use super::observer::TargetObserver;
use crate::{ApplyMethod, QuantizationSettings};

/// Claimed target of a quantizer: its settings, its state in the model and its observer.
#[derive(Debug)]
pub struct QuantTarget {
    space: Arc<TargetSpace>,
    layer: LayerInfo,
    settings: QuantizationSettings,
    dtype: QuantDtype,
    scheme: QuantScheme,
    method: ApplyMethod,
    observer: Option<Arc<TargetObserver>>,
}

impl QuantTarget {
    pub(super) fn new(
        selected: Selected<QuantizationSettings>,
        space: Arc<TargetSpace>,
        (dtype, scheme): (QuantDtype, QuantScheme),
        method: ApplyMethod,
    ) -> Self {
        let Selected {
            layer, settings, ..
        } = selected;
        let method = settings.apply_method.unwrap_or(method);
        let state = Quantization::of(dtype, scheme);
        let gradient = method.gradient().unwrap_or_default();
        space.set_quantization(Some(state.with_gradient(gradient)));
        Self {
            space,
            layer,
            settings,
            dtype,
            scheme,
            method,
            observer: None,
        }
    }

    pub(super) fn set_observer(&mut self, observer: TargetObserver) {
        self.observer = Some(Arc::new(observer));
    }

    /// Path of the layer and the target.
    pub fn id(&self) -> &TargetId {
        self.space.id()
    }

    /// Parameter, input or output of the layer.
    pub fn target(&self) -> &Target {
        &self.space.id().target
    }

    /// The layer that the configuration selects. Of a fused sequence, the target may be the output
    /// of a later layer, see [`id`](Self::id).
    pub fn layer(&self) -> &LayerInfo {
        &self.layer
    }

    /// Settings as configured.
    pub fn settings(&self) -> &QuantizationSettings {
        &self.settings
    }

    /// Integer type.
    pub fn dtype(&self) -> QuantDtype {
        self.dtype
    }

    /// Scheme.
    pub fn scheme(&self) -> QuantScheme {
        self.scheme
    }

    /// Apply method, configured or that of the quantizer.
    pub fn apply_method(&self) -> ApplyMethod {
        self.method
    }

    /// Cell of the target, which holds range, scale and zero point and which the model computes
    /// with.
    pub fn space(&self) -> &Arc<TargetSpace> {
        &self.space
    }

    /// Observer of the target, if the quantizer follows ranges.
    pub fn observer(&self) -> Option<&Arc<TargetObserver>> {
        self.observer.as_ref()
    }

    /// Enables the quantization, unless the target is to be bypassed.
    pub fn enable(&self) {
        self.set_enabled(self.method != ApplyMethod::Bypass);
    }

    /// Disables the quantization.
    pub fn disable(&self) {
        self.set_enabled(false);
    }

    fn set_enabled(&self, enabled: bool) {
        if let Some(mut state) = self.space.quantization() {
            state.enabled = enabled;
            self.space.set_quantization(Some(state));
        }
    }
}
