//! What every quantizer begins with: the targets that a configuration selects.

use std::sync::Arc;

use burn::module::Module;
use burn_compress_core::config::{ConfigList, Selected};
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{Compressor, Error, Mode, Quantization, Target, TargetId, TargetSpace};

use crate::fuse;
use crate::{ApplyMethod, QuantizationError, QuantizationSettings};

/// A target of a quantizer.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) space: Arc<TargetSpace>,
    pub(crate) layer: LayerInfo,
    pub(crate) settings: QuantizationSettings,
    pub(crate) method: ApplyMethod,
}

impl Claimed {
    pub(crate) fn id(&self) -> &TargetId {
        self.space.id()
    }

    pub(crate) fn target(&self) -> &Target {
        &self.space.id().target
    }

    /// Lets the quantization act from now on, unless it is to be bypassed.
    pub(crate) fn enable(&self) {
        self.set_enabled(self.method != ApplyMethod::Bypass);
    }

    /// Leaves the values as they are from now on.
    pub(crate) fn disable(&self) {
        self.set_enabled(false);
    }

    fn set_enabled(&self, enabled: bool) {
        if let Some(mut state) = self.space.quantization() {
            state.enabled = enabled;
            self.space.set_quantization(Some(state));
        }
    }
}

/// Claims what `config` selects; nothing is quantized yet.
///
/// `method` is how the quantization acts where the configuration does not say it.
///
/// # Errors
///
/// A configuration that does not fit the model, and a target that another quantizer has.
pub(crate) fn claim<M: Module + 'static, I: 'static>(
    compressor: &mut Compressor<M, I>,
    config: &ConfigList<QuantizationSettings>,
    method: ApplyMethod,
) -> Result<Vec<Claimed>, Error> {
    let selected = config.select(compressor.layers())?;
    fuse::refuse(&selected).map_err(error_of("quantization"))?;
    claim_selected(compressor, selected, method)
}

/// Claims these targets; nothing is quantized yet.
///
/// # Errors
///
/// A target that another quantizer has.
pub(crate) fn claim_selected<M: Module + 'static, I: 'static>(
    compressor: &mut Compressor<M, I>,
    selected: Vec<Selected<QuantizationSettings>>,
    method: ApplyMethod,
) -> Result<Vec<Claimed>, Error> {
    let ids: Vec<TargetId> = selected.iter().map(Selected::id).collect();
    let spaces = compressor.claim(Mode::Quantization, &ids)?;
    let claimed = selected.into_iter().zip(spaces).map(|(selected, space)| {
        let Selected {
            layer, settings, ..
        } = selected;
        let (dtype, scheme) = (settings.dtype(), settings.scheme());
        let method = settings.apply_method.unwrap_or(method);
        let gradient = method.gradient().unwrap_or_default();
        let state = Quantization::new(
            dtype.to_string(),
            scheme.to_string(),
            dtype.qmin(),
            dtype.qmax(),
        );
        space.set_quantization(Some(state.with_gradient(gradient)));
        Claimed {
            space,
            layer,
            settings,
            method,
        }
    });
    Ok(claimed.collect())
}

/// An error of this crate as the error of the quantizer called `name`.
pub(crate) fn error_of(name: &'static str) -> impl Fn(QuantizationError) -> Error {
    move |error| Error::Algorithm {
        algorithm: name,
        source: error.into(),
    }
}
