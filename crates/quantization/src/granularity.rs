//! Partition of a target into blocks that share a scale.

use std::fmt;

use burn_compress_core::layer::channel_dims;
use burn_compress_core::{Grid, Target};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use crate::QuantizationError;

/// Partition of a target into blocks with a scale and a zero point each.
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

    fn name(&self) -> Option<&'static str> {
        match self {
            Self::Default => Some("default"),
            Self::OutChannel => Some("out_channel"),
            Self::InChannel => Some("in_channel"),
            Self::PerChannel => Some("per_channel"),
            Self::Blocks(_) => None,
        }
    }

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
            None => Err(self.reject(
                target,
                format!("a target of shape {shape:?} has no such channels, use `default`"),
            )),
        }
    }

    /// Checks that the granularity exists for this kind of target, whatever its shape.
    pub(crate) fn check_kind(&self, target: &Target) -> Result<(), QuantizationError> {
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
        Err(self.reject(target, reason.to_string()))
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
            return Err(self.reject(target, reason));
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
            return Err(self.reject(target, reason.to_string()));
        }
        Ok(Grid::new(blocks))
    }

    fn reject(&self, target: &Target, reason: String) -> QuantizationError {
        QuantizationError::Granularity {
            granularity: self.to_string(),
            target: target.to_string(),
            reason,
        }
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocks(sizes) => write!(f, "{sizes:?}"),
            named => f.write_str(named.name().unwrap_or_default()),
        }
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
        let written = Value::deserialize(deserializer)?;
        if let Value::String(found) = written {
            let mut named = Self::NAMED.into_iter();
            return named
                .find(|named| named.name() == Some(&found))
                .ok_or_else(|| de::Error::custom(QuantizationError::UnknownGranularity { found }));
        }
        let text = written.to_string();
        serde_json::from_value(written)
            .map(Self::Blocks)
            .map_err(|_| {
                de::Error::custom(format!(
                    "`granularity` is the name of one or a list of block sizes, found {text}"
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

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

    #[test]
    fn vectors_have_no_input_channels() {
        let error = Granularity::InChannel
            .grid("Conv2d", &Target::param("bias"), &[8])
            .unwrap_err();
        assert!(error.to_string().contains("no such channels"), "{error}");
    }
}
