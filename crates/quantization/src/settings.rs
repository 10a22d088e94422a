//! One quantization rule of a configuration.

use std::fmt;

use burn_compress_core::config::Settings;
use burn_compress_core::layer::{LayerInfo, channel_dims};
use burn_compress_core::{Grid, Mode, RoundGradient, Target};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{QuantDtype, QuantScheme, QuantizationError};

/// The settings of a quantized target. Whatever is absent has a default.
///
/// | key            | values                                                       | default     |
/// |----------------|--------------------------------------------------------------|-------------|
/// | `quant_dtype`  | `int2` .. `int8`, `uint2` .. `uint8`                         | `int8`      |
/// | `quant_scheme` | `symmetric`, `affine`                                        | `symmetric` |
/// | `granularity`  | `default`, `out_channel`, `in_channel`, `per_channel`, sizes | `default`   |
/// | `apply_method` | `clamp_round`, `qat_clamp_round`, `bypass`                   | algorithm's |
///
/// Without `target_names` a wrapped layer has its first input, its weight and its first output
/// quantized, any other layer its weight. The bias is left out: integer arithmetic keeps it in 32
/// bits at the scale of the accumulator, so 8 bits of its own would cost accuracy and save nothing.
/// It is quantized where `target_names` lists it.
///
/// ```
/// use burn_compress_quantization::{QuantDtype, QuantizationSettings};
///
/// let settings: QuantizationSettings =
///     serde_json::from_str(r#"{"quant_dtype": "uint4", "granularity": [4, -1]}"#)?;
/// assert_eq!(settings.dtype(), QuantDtype::uint(4)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizationSettings {
    /// The integer type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quant_dtype: Option<QuantDtype>,
    /// How the range is laid over the integers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quant_scheme: Option<QuantScheme>,
    /// Which values share a scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granularity: Option<Granularity>,
    /// How the quantization acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apply_method: Option<ApplyMethod>,
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
}

impl Settings for QuantizationSettings {
    const MODE: Mode = Mode::Quantization;

    fn default_targets(layer: &LayerInfo) -> Vec<Target> {
        let weight = Target::param("weight");
        if layer.wrapped {
            vec![Target::Input(0), weight, Target::Output(0)]
        } else {
            vec![weight]
        }
    }

    fn merge(self, over: &Self) -> Self {
        Self {
            quant_dtype: over.quant_dtype.or(self.quant_dtype),
            quant_scheme: over.quant_scheme.or(self.quant_scheme),
            granularity: over.granularity.clone().or(self.granularity),
            apply_method: over.apply_method.or(self.apply_method),
        }
    }

    fn validate(&self, layer: &LayerInfo, target: &Target) -> Result<(), String> {
        let granularity = self.granularity();
        let checked = match target.param_name().and_then(|name| layer.param(name)) {
            Some(param) => granularity
                .grid(&layer.kind, target, &param.shape)
                .map(|_| ()),
            // The shapes of inputs and outputs are known only once they are seen.
            None => granularity.check_kind(target),
        };
        checked.map_err(|error| error.to_string())
    }
}

/// How the quantization of a target acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyMethod {
    /// Round to the grid; the gradient passes everywhere.
    ClampRound,
    /// Round to the grid; the gradient passes inside the range only.
    QatClampRound,
    /// Follow the range, leave the values as they are.
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

/// Which values of a target share a scale and a zero point.
///
/// | name          | targets         | blocks                                               |
/// |---------------|-----------------|------------------------------------------------------|
/// | `default`     | all             | one for the whole tensor                             |
/// | `out_channel` | parameters      | one per output channel of the layer                  |
/// | `in_channel`  | parameters      | one per input channel of the layer                   |
/// | `per_channel` | inputs, outputs | one per index of dimension 1; the batch is dimension 0 |
/// | `[4, -1]`     | all             | of this size; -1 is the whole dimension              |
///
/// Channels are those of the layer, whatever the layout: the output channels of a linear layer are
/// dimension 1 of Burn's `[in, out]` weight. Block sizes are in Burn's layout; a list that is
/// shorter than the target's rank is filled with 1 at the front. Sizes must divide the target, and
/// blocks of inputs and outputs span the batch (-1 first), since a scale belongs to no sample.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// One scale for the whole tensor.
    #[default]
    Default,
    /// One scale per output channel of a parameter.
    OutChannel,
    /// One scale per input channel of a parameter.
    InChannel,
    /// One scale per channel of an input or output.
    PerChannel,
    /// One scale per block of this size.
    Blocks(Vec<i64>),
}

impl Granularity {
    const NAMED: [Self; 4] = [
        Self::Default,
        Self::OutChannel,
        Self::InChannel,
        Self::PerChannel,
    ];

    /// The blocks of `target` in a layer of type `kind`, when it has this shape.
    ///
    /// # Errors
    ///
    /// A granularity that the target does not have and block sizes that do not divide the shape.
    pub fn grid(
        &self,
        kind: &str,
        target: &Target,
        shape: &[usize],
    ) -> Result<Grid, QuantizationError> {
        self.check_kind(target)?;
        let rank = shape.len();
        let channel = match self {
            Self::Default => return Ok(Grid::per_tensor(rank)),
            Self::Blocks(sizes) => return self.blocks(sizes, target, shape),
            Self::PerChannel => (rank > 1).then_some(1),
            Self::OutChannel | Self::InChannel => {
                let dims = channel_dims(kind, target.param_name().unwrap_or_default(), rank);
                if *self == Self::OutChannel {
                    dims.output
                } else {
                    dims.input
                }
            }
        };
        match channel {
            Some(dim) => Ok(Grid::per_channel(rank, dim, shape[dim])),
            None => Err(self.refuse(
                target,
                format!("a target of shape {shape:?} has no such channels, use `default`"),
            )),
        }
    }

    /// Whether the granularity exists for this kind of target, whatever its shape.
    fn check_kind(&self, target: &Target) -> Result<(), QuantizationError> {
        let reason = match (self, target.is_param()) {
            (Self::OutChannel | Self::InChannel, false) => {
                "only parameters have it, use `per_channel` for inputs and outputs"
            }
            (Self::PerChannel, true) => {
                "only inputs and outputs have it, use `out_channel` or `in_channel` for parameters"
            }
            (Self::Blocks(sizes), _) if sizes.is_empty() => "the list of block sizes is empty",
            (Self::Blocks(sizes), _) if sizes.iter().any(|&size| size == 0 || size < -1) => {
                "block sizes are positive, or -1 for a whole dimension"
            }
            _ => return Ok(()),
        };
        Err(self.refuse(target, reason.to_string()))
    }

    fn blocks(
        &self,
        sizes: &[i64],
        target: &Target,
        shape: &[usize],
    ) -> Result<Grid, QuantizationError> {
        let rank = shape.len();
        if sizes.len() > rank {
            let count = sizes.len();
            let reason = format!("{count} block sizes for the {rank} dimensions of {shape:?}");
            return Err(self.refuse(target, reason));
        }
        let padding = rank - sizes.len();
        let sizes = std::iter::repeat_n(&1, padding).chain(sizes);
        let mut blocks = Vec::with_capacity(rank);
        for (dim, (&block, &size)) in sizes.zip(shape).enumerate() {
            let length = if block == -1 { size } else { block as usize };
            if length == 0 || size % length != 0 {
                return Err(QuantizationError::BlockSize {
                    target: target.to_string(),
                    dim,
                    block,
                    shape: shape.to_vec(),
                });
            }
            blocks.push(size / length);
        }
        if !target.is_param() && blocks.first().is_some_and(|&count| count > 1) {
            let reason = "blocks of inputs and outputs span the batch, begin the list with -1";
            return Err(self.refuse(target, reason.to_string()));
        }
        Ok(Grid::new(blocks))
    }

    fn refuse(&self, target: &Target, reason: String) -> QuantizationError {
        QuantizationError::Granularity {
            granularity: self.to_string(),
            target: target.to_string(),
            reason,
        }
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::OutChannel => "out_channel",
            Self::InChannel => "in_channel",
            Self::PerChannel => "per_channel",
            Self::Blocks(sizes) => return write!(f, "{sizes:?}"),
        })
    }
}

impl Serialize for Granularity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Blocks(sizes) => sizes.serialize(serializer),
            named => serializer.collect_str(named),
        }
    }
}

impl<'de> Deserialize<'de> for Granularity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "`granularity` is the name of one or a list of block sizes"
        )]
        enum Written {
            Name(String),
            Sizes(Vec<i64>),
        }
        match Written::deserialize(deserializer)? {
            Written::Sizes(sizes) => Ok(Self::Blocks(sizes)),
            Written::Name(found) => Self::NAMED
                .into_iter()
                .find(|named| named.to_string() == found)
                .ok_or_else(|| de::Error::custom(QuantizationError::UnknownGranularity { found })),
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
        let json = r#"{"quant_dtype":"int4","quant_scheme":"affine","granularity":[4,-1],"apply_method":"qat_clamp_round"}"#;
        let settings = read(json).unwrap();
        assert_eq!(settings.granularity(), Granularity::Blocks(vec![4, -1]));
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
        "unknown granularity `channel`: use `default`"
    )]
    #[case(
        r#"{"granularity": 4}"#,
        "`granularity` is the name of one or a list of block sizes"
    )]
    #[case(r#"{"quant_scheme": "Affine"}"#, "unknown variant `Affine`")]
    fn mistakes_are_named(#[case] json: &str, #[case] expected: &str) {
        let error = read(json).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[rstest]
    #[case(Granularity::Default, "Conv2d", &[8, 4, 3, 3], &[1, 1, 1, 1])]
    #[case(Granularity::OutChannel, "Conv2d", &[8, 4, 3, 3], &[8, 1, 1, 1])]
    #[case(Granularity::InChannel, "Conv2d", &[8, 4, 3, 3], &[1, 4, 1, 1])]
    #[case(Granularity::OutChannel, "ConvTranspose2d", &[4, 8, 3, 3], &[1, 8, 1, 1])]
    #[case(Granularity::OutChannel, "Linear", &[6, 8], &[1, 8])]
    #[case(Granularity::InChannel, "Linear", &[6, 8], &[6, 1])]
    #[case(Granularity::Blocks(vec![3, 4]), "Linear", &[6, 8], &[2, 2])]
    #[case(Granularity::Blocks(vec![4]), "Linear", &[6, 8], &[6, 2])]
    #[case(Granularity::Blocks(vec![-1, 2]), "Linear", &[6, 8], &[1, 4])]
    fn blocks_of_weights(
        #[case] granularity: Granularity,
        #[case] kind: &str,
        #[case] shape: &[usize],
        #[case] expected: &[usize],
    ) {
        let grid = granularity.grid(kind, &Target::param("weight"), shape);
        assert_eq!(grid.unwrap().blocks(), expected);
    }

    #[test]
    fn blocks_of_activations_span_the_batch() {
        let input = Target::Input(0);
        let grid = |granularity: Granularity| granularity.grid("Conv2d", &input, &[2, 6, 5, 5]);
        let channels = grid(Granularity::PerChannel).unwrap();
        assert_eq!(channels.blocks(), [1, 6, 1, 1]);
        let groups = grid(Granularity::Blocks(vec![-1, 3, -1, -1])).unwrap();
        assert_eq!(groups.blocks(), [1, 2, 1, 1]);
        let error = grid(Granularity::Blocks(vec![3, -1, -1])).unwrap_err();
        assert!(
            error.to_string().contains("begin the list with -1"),
            "{error}"
        );
    }

    #[rstest]
    #[case(Granularity::OutChannel, Target::Output(0), "use `per_channel`")]
    #[case(Granularity::PerChannel, Target::param("weight"), "use `out_channel`")]
    #[case(Granularity::Blocks(vec![]), Target::param("weight"), "empty")]
    #[case(Granularity::Blocks(vec![0, 2]), Target::Input(0), "positive, or -1")]
    #[case(Granularity::Blocks(vec![1, 1, 1]), Target::param("weight"), "3 block sizes")]
    #[case(
        Granularity::Blocks(vec![4, 1]),
        Target::param("weight"),
        "block size 4 on `weight` does not divide dimension 0 of its shape [6, 8]"
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

    #[test]
    fn vectors_have_no_input_channels() {
        let error = Granularity::InChannel
            .grid("Conv2d", &Target::param("bias"), &[8])
            .unwrap_err();
        assert!(error.to_string().contains("no such channels"), "{error}");
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
