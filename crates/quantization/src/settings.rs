//! Settings of one quantization rule of a configuration.

use burn_compress_core::config::Settings;
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{Grid, Mode, QuantDtype, QuantScheme, RoundGradient, Target, settings};
use serde::{Deserialize, Serialize};

use crate::ranges::FEWEST;
use crate::{Granularity, ObserverKind, QuantizationError, granularity};

settings! {
    /// The settings of a quantized target. Whatever is absent has a default.
    ///
    /// | key            | values                                                       | default     |
    /// |----------------|--------------------------------------------------------------|-------------|
    /// | `quant_dtype`  | `int1` .. `int8`, `uint1` .. `uint8`, `int2_full` .. `int8_full` | `int8`  |
    /// | `quant_scheme` | `symmetric`, `affine`                                        | `symmetric` |
    /// | `granularity`  | `default`, `out_channel`, `in_channel`, `per_channel`, sizes | `default`   |
    /// | `observer`     | one of [`ObserverKind`](crate::ObserverKind)                 | algorithm's |
    /// | `apply_method` | `clamp_round`, `qat_clamp_round`, `bypass`                   | algorithm's |
    /// | `fuse_names`   | lists of layers, `[["conv", "bn", "relu"]]`                  | none        |
    /// | `fuse`         | `true`, `false`                                              | `false`     |
    /// | `int32_bias`   | `true`, `false`                                              | `false`     |
    ///
    /// A [`Granularity`] is the partition of a target into blocks with a scale and a zero point
    /// each:
    ///
    /// | name          | targets         | blocks                                                   |
    /// |---------------|-----------------|----------------------------------------------------------|
    /// | `default`     | all             | one for the whole tensor                                 |
    /// | `out_channel` | parameters      | one per output channel of the layer                      |
    /// | `in_channel`  | parameters      | one per input channel of the layer                       |
    /// | `per_channel` | inputs, outputs | one per channel: along the last dimension of `Linear` and others that put features last, along dimension 1 of all others |
    /// | `[4, -1]`     | all             | of this size; -1 is the whole dimension                  |
    ///
    /// Channels are those of the layer, whatever the layout: the output channels of a linear layer
    /// are dimension 1 of Burn's `[in, out]` weight. Block sizes are in Burn's layout; a list that
    /// is shorter than the target's rank is filled with 1 at the front. Sizes must divide the
    /// target, and blocks of inputs and outputs span the batch (-1 first), since a scale belongs to
    /// no sample.
    ///
    /// Layers that are fused are quantized as the one operation that they are in a deployed
    /// network: a convolution or linear layer, then a batch norm, a rectifier or both. The norm is
    /// folded into the weight before that is rounded (see [`fold`](crate::fold)), and the output is rounded at the end
    /// of the sequence: its target is `_output_0` of the last layer. `fuse_names` lists sequences,
    /// also a batch norm with the rectifier behind it; `fuse` finds those that begin with a
    /// convolution or linear layer of the rule. All layers of a sequence stand in a
    /// `Wrapper`, and the evaluator needs a dummy input, which shows what follows what.
    ///
    /// Integer hardware adds the bias to an accumulator of 32 bits, in steps of the scale of the input
    /// times that of the weight. `int32_bias` rounds it to these steps: that of the convolution or
    /// linear layer itself, and the one that a batch norm behind it leaves when it is folded for
    /// deployment (`beta - mean f`, in steps that `f = gamma / sqrt(variance + eps)` multiplies). The
    /// state of the latter is that of the norm's `beta`. The input is quantized with one scale and
    /// the weight symmetrically, with one scale or one for each output channel; the evaluator needs
    /// a dummy input.
    ///
    /// Without `target_names` a wrapped layer has its first input, its weight and its first output
    /// quantized (an `Add` both inputs, a `Concat` the output alone), any other layer its weight. The
    /// bias is left out: integer arithmetic keeps it in
    /// 32 bits at the scale of the accumulator, so 8 bits of its own would cost accuracy and save
    /// nothing. It is quantized where `target_names` lists it.
    ///
    /// ```
    /// use burn_compress_quantization::{QuantDtype, QuantizationSettings};
    ///
    /// let settings: QuantizationSettings =
    ///     serde_json::from_str(r#"{"quant_dtype": "uint4", "granularity": [4, -1]}"#)?;
    /// assert_eq!(settings.dtype(), QuantDtype::uint(4)?);
    /// # Ok::<(), burn_compress_core::Error>(())
    /// ```
    pub struct QuantizationSettings;

    /// The settings of [`QuantizationSettings`] under the names that they have in a file.
    ///
    /// ```
    /// use burn_compress_core::config::{ConfigList, on};
    /// use burn_compress_quantization::{Granularity, QuantDtype, QuantizationRule};
    ///
    /// let rule = on(["Conv2d", "Linear"])
    ///     .with_target_names(["weight"])
    ///     .quant_dtype(QuantDtype::INT8)
    ///     .granularity(Granularity::OutChannel);
    /// let json = r#"[{
    ///     "op_types": ["Conv2d", "Linear"], "target_names": ["weight"],
    ///     "quant_dtype": "int8", "granularity": "out_channel"
    /// }]"#;
    /// assert_eq!(ConfigList::from(rule), ConfigList::from_json(json)?);
    /// # Ok::<(), burn_compress_core::config::ConfigError>(())
    /// ```
    pub trait QuantizationRule {
        /// The integer type.
        quant_dtype: QuantDtype,
        /// Scheme that lays the range over the integers.
        quant_scheme: QuantScheme,
        /// Blocks that share a scale.
        granularity: Granularity,
        /// Estimator of the range.
        observer: ObserverKind,
        /// Simulation and its gradient.
        apply_method: ApplyMethod,
        /// Sequences of layers, by path, that are quantized as one.
        fuse_names: Vec<Vec<String>>,
        /// Whether such sequences are searched for.
        fuse: bool,
        /// Whether the bias is rounded to 32 bits, in steps of the input times the weight.
        int32_bias: bool,
    }
}

impl QuantizationSettings {
    /// The configured type, or `int8`.
    pub fn dtype(&self) -> QuantDtype {
        self.quant_dtype.unwrap_or(QuantDtype::INT8)
    }

    /// The configured scheme, or symmetric.
    pub fn scheme(&self) -> QuantScheme {
        self.quant_scheme.unwrap_or_default()
    }

    /// The configured granularity, or one scale per tensor.
    pub fn granularity(&self) -> Granularity {
        self.granularity.clone().unwrap_or_default()
    }

    /// Checks that the settings fit each other, whatever the target.
    pub(crate) fn check(&self) -> Result<(), QuantizationError> {
        if self.dtype() == QuantDtype::UINT1 && self.scheme() == QuantScheme::Symmetric {
            return Err(QuantizationError::setting(
                "quant_scheme",
                self.scheme(),
                "`uint1` would hold no positive value, use `affine`",
            ));
        }
        let mut fusions = self.fuse_names.iter().flatten();
        if fusions.any(|names| !(2..=3).contains(&names.len())) {
            return Err(QuantizationError::setting(
                "fuse_names",
                format!("{:?}", self.fuse_names.as_deref().unwrap_or_default()),
                "a fusion lists two or three layers, as in [[\"conv\", \"bn\", \"relu\"]]",
            ));
        }
        self.observer.map_or(Ok(()), ObserverKind::check)
    }

    /// Checks that the blocks of a parameter hold as many values as its observer needs.
    fn check_blocks(
        &self,
        target: &Target,
        shape: &[usize],
        grid: &Grid,
    ) -> Result<(), QuantizationError> {
        let found = shape.iter().product::<usize>() / grid.len().max(1);
        match self.observer {
            Some(ObserverKind::Histogram) if (found as u64) < FEWEST => {
                Err(QuantizationError::FewValues {
                    target: target.to_string(),
                    found,
                    needed: FEWEST,
                })
            }
            _ => Ok(()),
        }
    }
}

impl Settings for QuantizationSettings {
    const MODE: Mode = Mode::Quantization;

    fn default_targets(layer: &LayerInfo) -> Vec<Target> {
        let weight = Target::param("weight");
        match (layer.wrapped, layer.kind.as_str()) {
            (false, _) => vec![weight],
            // What goes into an embedding are integers, which nothing rounds.
            (true, "Embedding") => vec![weight, Target::Output(0)],
            (true, "Add") => vec![Target::Input(0), Target::Input(1), Target::Output(0)],
            // It has as many inputs as it is called with.
            (true, "Concat") => vec![Target::Output(0)],
            (true, _) => vec![Target::Input(0), weight, Target::Output(0)],
        }
    }

    fn merge(self, over: &Self) -> Self {
        self.overlaid(over)
    }

    fn validate(&self, layer: &LayerInfo, target: &Target) -> Result<(), String> {
        self.check().map_err(|error| error.to_string())?;
        let granularity = self.granularity();
        let checked = match target.param_name().and_then(|name| layer.param(name)) {
            Some(param) => granularity::grid(&granularity, &layer.kind, target, &param.shape)
                .and_then(|grid| self.check_blocks(target, &param.shape, &grid)),
            // The shapes of inputs and outputs are known only once they are seen.
            None => granularity::check_kind(&granularity, target),
        };
        checked.map_err(|error| error.to_string())
    }
}

/// Simulation of a quantized target and its gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyMethod {
    /// Rounds to the grid; the gradient passes everywhere.
    ClampRound,
    /// Rounds to the grid; the gradient passes inside the range only.
    QatClampRound,
    /// Follows the range and leaves the values as they are.
    Bypass,
}

impl ApplyMethod {
    /// The gradient of the rounding, `None` when nothing is rounded.
    pub fn gradient(self) -> Option<RoundGradient> {
        match self {
            Self::ClampRound => Some(RoundGradient::StraightThrough),
            Self::QatClampRound => Some(RoundGradient::Clipped),
            Self::Bypass => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ParamId;
    use burn_compress_core::layer::ParamInfo;
    use rstest::rstest;

    use super::*;

    fn read(json: &str) -> Result<QuantizationSettings, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn linear(wrapped: bool) -> LayerInfo {
        let weight = ParamInfo {
            name: "weight".into(),
            shape: vec![6, 8],
            id: ParamId::new(),
        };
        LayerInfo {
            path: "fc".into(),
            kind: "Linear".into(),
            wrapped,
            params: vec![weight],
        }
    }

    #[test]
    fn json_round_trip() {
        let json = r#"{"quant_dtype":"int4","quant_scheme":"affine","granularity":[4,-1],"observer":{"percentile":99.9},"apply_method":"qat_clamp_round"}"#;
        let settings = read(json).unwrap();
        assert_eq!(settings.granularity(), Granularity::Block(vec![4, -1]));
        assert_eq!(settings.observer, Some(ObserverKind::Percentile(99.9)));
        assert_eq!(serde_json::to_string(&settings).unwrap(), json);
        let empty = read("{}").unwrap();
        assert_eq!(empty, QuantizationSettings::default());
        assert_eq!(serde_json::to_string(&empty).unwrap(), "{}");
        assert_eq!(empty.dtype(), QuantDtype::INT8);
        assert_eq!(empty.scheme(), QuantScheme::Symmetric);
        assert_eq!(empty.granularity(), Granularity::Default);
    }

    #[rstest]
    #[case(r#"{"quant_bits": 8}"#, "unknown field `quant_bits`")]
    #[case(r#"{"quant_dtype": "int16"}"#, "unknown quantized type `int16`")]
    #[case(
        r#"{"granularity": "channel"}"#,
        "unknown granularity `channel`: use \"default\""
    )]
    #[case(r#"{"granularity": 4}"#, "unknown granularity 4: use \"default\"")]
    #[case(r#"{"quant_scheme": "Affine"}"#, "unknown variant `Affine`")]
    #[case(
        r#"{"granularity": "out_chanel"}"#,
        "unknown granularity `out_chanel`: use"
    )]
    #[case(
        r#"{"granularity": "out_chanel"}"#,
        "padding], did you mean `out_channel`?"
    )]
    #[case(r#"{"granularity": [1.5]}"#, "unknown granularity [1.5]")]
    #[case(
        r#"{"observer": "entropy"}"#,
        "unknown observer `entropy`: use `min_max`"
    )]
    #[case(r#"{"observer": "minmax"}"#, "99.9}, did you mean `min_max`?")]
    #[case(r#"{"observer": "percentile"}"#, "write {\"percentile\": 99.9}")]
    #[case(r#"{"observer": {"percentile": 99.0, "bins": 8}}"#, "\"bins\":8")]
    #[case(
        r#"{"observer": {"percentile": "99"}}"#,
        "{\"percentile\":\"99\"} is no observer"
    )]
    #[case(r#"{"observer": 99.9}"#, "99.9 is no observer")]
    fn mistakes_are_named(#[case] json: &str, #[case] expected: &str) {
        let error = read(json).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[rstest]
    #[case(Granularity::OutChannel, Target::Output(0), "use `per_channel`")]
    #[case(Granularity::PerChannel, Target::param("weight"), "use `out_channel`")]
    #[case(Granularity::Block(vec![]), Target::param("weight"), "empty")]
    #[case(Granularity::Block(vec![0, 2]), Target::Input(0), "positive, or -1")]
    #[case(Granularity::Block(vec![1, 1, 1]), Target::param("weight"), "block [1, 1, 1] has more dims")]
    #[case(
        Granularity::Block(vec![4, 1]),
        Target::param("weight"),
        "`weight`: block size 4 does not divide dim 0 of size 6 in the shape [6, 8]"
    )]
    fn settings_that_do_not_fit(
        #[case] granularity: Granularity,
        #[case] target: Target,
        #[case] expected: &str,
    ) {
        let settings = QuantizationSettings {
            granularity: Some(granularity),
            ..Default::default()
        };
        let error = settings.validate(&linear(true), &target).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[rstest]
    #[case(
        r#"{"observer": {"percentile": 50.0}}"#,
        "`observer` is {\"percentile\":50.0}: "
    )]
    #[case(
        r#"{"observer": {"percentile": 100.5}}"#,
        "more than 50 and at most 100"
    )]
    #[case(r#"{"quant_dtype": "uint1"}"#, "use `affine`")]
    #[case(r#"{"fuse_names": [[]]}"#, "`fuse_names` is [[]]: ")]
    #[case(
        r#"{"fuse_names": [["a", "b"], ["c"]]}"#,
        "[\"c\"]]: a fusion lists two or three layers"
    )]
    fn settings_that_do_not_fit_each_other(#[case] json: &str, #[case] expected: &str) {
        let settings = read(json).unwrap();
        let error = settings
            .validate(&linear(true), &Target::Input(0))
            .unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[rstest]
    #[case(Granularity::Default, 48)]
    #[case(Granularity::OutChannel, 6)]
    fn parameters_too_small_for_a_histogram(
        #[case] granularity: Granularity,
        #[case] found: usize,
    ) {
        let of = |observer, target: &Target| {
            let settings = QuantizationSettings {
                granularity: Some(granularity.clone()),
                observer: Some(observer),
                ..Default::default()
            };
            settings.validate(&linear(true), target)
        };
        let weight = Target::param("weight");
        let error = of(ObserverKind::Histogram, &weight).unwrap_err();
        let holds = format!("`weight` holds {found} values");
        for part in [holds.as_str(), "needs 150", "`mse` or `min_max`"] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(of(ObserverKind::Mse, &weight), Ok(()));
        let mut large = linear(true);
        large.params[0].shape = vec![150, 8];
        let settings = QuantizationSettings {
            granularity: Some(granularity),
            observer: Some(ObserverKind::Histogram),
            ..Default::default()
        };
        assert_eq!(settings.validate(&large, &weight), Ok(()));
    }

    #[test]
    fn defaults_leave_the_bias_alone() {
        let weight = Target::param("weight");
        let all = [Target::Input(0), weight.clone(), Target::Output(0)];
        assert_eq!(QuantizationSettings::default_targets(&linear(true)), all);
        assert_eq!(
            QuantizationSettings::default_targets(&linear(false)),
            [weight]
        );
    }

    #[test]
    fn what_is_set_later_wins() {
        let base = read(r#"{"quant_dtype": "int4", "granularity": "out_channel"}"#).unwrap();
        let over = read(r#"{"quant_dtype": "int8", "quant_scheme": "affine"}"#).unwrap();
        let merged = base.merge(&over);
        assert_eq!(merged.dtype(), QuantDtype::INT8);
        assert_eq!(merged.scheme(), QuantScheme::Affine);
        assert_eq!(merged.granularity(), Granularity::OutChannel);
    }

    #[test]
    fn methods_choose_the_gradient() {
        assert_eq!(ApplyMethod::Bypass.gradient(), None);
        assert_eq!(
            ApplyMethod::QatClampRound.gradient(),
            Some(RoundGradient::Clipped)
        );
        assert_eq!(
            ApplyMethod::ClampRound.gradient(),
            Some(RoundGradient::StraightThrough)
        );
    }
}
