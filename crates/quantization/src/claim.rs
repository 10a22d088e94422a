//! What every quantizer begins with: the targets that a configuration selects.

use std::sync::Arc;

use burn::module::Module;
use burn_compress_core::config::{ConfigList, Selected};
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{
    Compressor, Configuration, Error, Mode, Quantization, Target, TargetId, TargetSpace,
};
use serde::Serialize;

use crate::fuse::{self, Fusions};
use crate::{ApplyMethod, ObserverKind, QuantizationError, QuantizationSettings};

/// A target of a quantizer.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) space: Arc<TargetSpace>,
    pub(crate) layer: LayerInfo,
    pub(crate) settings: QuantizationSettings,
    pub(crate) method: ApplyMethod,
}

impl Claimed {
    fn new(
        selected: Selected<QuantizationSettings>,
        space: Arc<TargetSpace>,
        method: ApplyMethod,
    ) -> Self {
        let Selected {
            layer, settings, ..
        } = selected;
        let (dtype, scheme) = (settings.dtype(), settings.scheme());
        let method = settings.apply_method.unwrap_or(method);
        let state = Quantization::new(
            dtype.to_string(),
            scheme.to_string(),
            dtype.qmin(),
            dtype.qmax(),
        );
        let gradient = method.gradient().unwrap_or_default();
        space.set_quantization(Some(state.with_gradient(gradient)));
        Self {
            space,
            layer,
            settings,
            method,
        }
    }

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

/// Claims what `config` selects and begins to fold where it says so; nothing is quantized yet.
///
/// `method` is how the quantization of the quantizer `name` acts where the configuration does not
/// say it, `inspect` what it derives from the settings of a target, or refuses.
///
/// # Errors
///
/// A configuration that does not fit the model, what `inspect` refuses, layers that cannot be
/// fused, and a target that another quantizer has.
pub(crate) fn claim<M: Module + 'static, I: 'static, T>(
    compressor: &mut Compressor<M, I>,
    config: &ConfigList<QuantizationSettings>,
    name: &'static str,
    method: ApplyMethod,
    inspect: impl Fn(&Selected<QuantizationSettings>) -> Result<T, QuantizationError>,
) -> Result<(Vec<(Claimed, T)>, Fusions), Error> {
    let mut selected = config.select(compressor.layers())?;
    let inspected = selected.iter().map(|one| {
        inspect(one).map_err(|source| QuantizationError::Target {
            target: one.id().to_string(),
            source: Box::new(source),
        })
    });
    let inspected: Result<Vec<T>, _> = inspected.collect();
    let inspected = inspected.map_err(error_of(name))?;
    fuse::refuse_folded(compressor, &selected).map_err(error_of(name))?;
    let mut fusions = Fusions::plan(compressor, &mut selected, name)?;
    let ids: Vec<TargetId> = selected.iter().map(Selected::id).collect();
    let spaces = compressor.claim(Mode::Quantization, &ids)?;
    fusions.start(compressor)?;
    let claimed = selected
        .into_iter()
        .zip(spaces)
        .map(|(selected, space)| Claimed::new(selected, space, method));
    Ok((claimed.zip(inspected).collect(), fusions))
}

/// What a quantizer was made with: its `own` settings, the layers that it fuses, and the settings
/// of its targets, which are observed by `observer` where they do not say it.
pub(crate) fn configuration<'a>(
    own: Configuration,
    fusions: &Fusions,
    targets: impl Iterator<Item = &'a Claimed>,
    observer: Option<ObserverKind>,
) -> Configuration {
    /// What a quantizer makes of settings that are left out.
    #[derive(Serialize)]
    struct Resolved {
        quant_dtype: Option<String>,
        quant_scheme: Option<String>,
        apply_method: ApplyMethod,
    }
    let own = own.with("fused", &fusions.names());
    targets.fold(own, |configuration, claimed| {
        let settings = claimed.settings.clone();
        let granularity = Some(settings.granularity());
        let written = QuantizationSettings {
            granularity,
            observer: settings.observer.or(observer),
            // What they find is known of the whole quantizer.
            fuse_names: None,
            fuse: None,
            ..settings
        };
        let state = claimed.space.quantization();
        let resolved = Resolved {
            quant_dtype: state.as_ref().map(|state| state.dtype.clone()),
            quant_scheme: state.map(|state| state.scheme),
            apply_method: claimed.method,
        };
        configuration
            .with_target(claimed.id(), &written)
            .with_target(claimed.id(), &resolved)
    })
}

/// An error of this crate as the error of the quantizer called `name`.
pub(crate) fn error_of(name: &'static str) -> impl Fn(QuantizationError) -> Error {
    move |error| Error::Algorithm {
        algorithm: name,
        source: error.into(),
    }
}
