//! Integer types of quantized targets, and schemes that lay a range of real numbers over them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const BITS: std::ops::RangeInclusive<u8> = 1..=8;
const FULL: &str = "_full";

/// Error of a name that is not `int1`..`int8`, `int2_full`..`int8_full` or `uint1`..`uint8`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown quantized type `{found}`: use `int` or `uint` and 1 to 8 bits, as in `int8`; `int2_full` \
     to `int8_full` have the smallest integer too"
)]
pub struct UnknownDtype {
    /// The name that was found.
    pub found: String,
}

/// A signed or unsigned integer type of 1 to 8 bits, written `int8`, `uint4`, `int8_full`.
///
/// | type        | integers                          | 8 bits       | 4 bits   | 1 bit   |
/// |-------------|-----------------------------------|--------------|----------|---------|
/// | `intN`      | `-(2^(N-1) - 1) ..= 2^(N-1) - 1`  | -127 ..= 127 | -7 ..= 7 | -1 or 1 |
/// | `intN_full` | `-2^(N-1) ..= 2^(N-1) - 1`        | -128 ..= 127 | -8 ..= 7 |         |
/// | `uintN`     | `0 ..= 2^N - 1`                   | 0 ..= 255    | 0 ..= 15 | 0 or 1  |
///
/// The smallest signed integer is left out, so that the range is symmetric and `-x` is
/// representable whenever `x` is. A full type has it, as hardware does: with the symmetric scheme
/// its scale is that of the other one, and only values below the tracked range become the smallest
/// integer; the affine scheme uses all of its integers. A calibration names it `intN`, with its
/// range.
///
/// One signed bit is the binary type of networks with signs for weights: it has no zero, so no
/// range can be laid over it, and quantizers that do so refuse it ([`is_binary`](Self::is_binary)).
/// One unsigned bit is an ordinary type with the values 0 and one scale; it needs the affine
/// scheme, as the symmetric one would spend its other value on negative numbers.
///
/// ```
/// use burn_compress_core::QuantDtype;
///
/// let dtype: QuantDtype = "uint4".parse()?;
/// assert_eq!((dtype.qmin(), dtype.qmax(), dtype.bits()), (0.0, 15.0, 4));
/// assert_eq!(QuantDtype::INT8.qmin(), -127.0);
/// # Ok::<(), burn_compress_core::UnknownDtype>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuantDtype {
    signed: bool,
    full: bool,
    bits: u8,
}

impl QuantDtype {
    /// -127 ..= 127, the type that is used when none is configured.
    pub const INT8: Self = Self {
        signed: true,
        full: false,
        bits: 8,
    };

    /// -128 ..= 127.
    pub const INT8_FULL: Self = Self {
        full: true,
        ..Self::INT8
    };

    /// -1 or 1.
    pub const INT1: Self = Self {
        signed: true,
        full: false,
        bits: 1,
    };

    /// 0 ..= 255.
    pub const UINT8: Self = Self {
        signed: false,
        full: false,
        bits: 8,
    };

    /// 0 or 1.
    pub const UINT1: Self = Self {
        signed: false,
        full: false,
        bits: 1,
    };

    /// The signed type of this many bits.
    ///
    /// # Errors
    ///
    /// No bits or more than 8.
    pub fn int(bits: u8) -> Result<Self, UnknownDtype> {
        format!("int{bits}").parse()
    }

    /// The unsigned type of this many bits.
    ///
    /// # Errors
    ///
    /// No bits or more than 8.
    pub fn uint(bits: u8) -> Result<Self, UnknownDtype> {
        format!("uint{bits}").parse()
    }

    /// The number of bits.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Whether negative integers belong to the type.
    pub fn is_signed(self) -> bool {
        self.signed
    }

    /// Whether this is a signed type with its smallest integer.
    pub fn is_full(self) -> bool {
        self.full
    }

    /// Whether this is `int1`, whose only values are -1 and 1.
    pub fn is_binary(self) -> bool {
        self.signed && self.bits == 1
    }

    /// The type of this name in a calibration, which has a range of its own.
    pub(crate) fn without_range(self) -> Self {
        Self {
            full: false,
            ..self
        }
    }

    /// The smallest integer.
    pub fn qmin(self) -> f32 {
        match (self.signed, self.full) {
            (false, _) => 0.0,
            (true, false) => -self.qmax(),
            (true, true) => -self.qmax() - 1.0,
        }
    }

    /// The largest integer.
    pub fn qmax(self) -> f32 {
        let magnitude_bits = match self.signed {
            // The bit of `int1` is the sign of a one.
            true => (self.bits - 1).max(1),
            false => self.bits,
        };
        f32::from((1u16 << magnitude_bits) - 1)
    }
}

impl fmt::Display for QuantDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.signed { "int" } else { "uint" };
        let suffix = if self.full { FULL } else { "" };
        write!(f, "{prefix}{}{suffix}", self.bits)
    }
}

impl FromStr for QuantDtype {
    type Err = UnknownDtype;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownDtype {
            found: text.to_string(),
        };
        let (name, full) = match text.strip_suffix(FULL) {
            Some(name) => (name, true),
            None => (text, false),
        };
        let (signed, digits) = match name.strip_prefix('u') {
            Some(rest) => (false, rest.strip_prefix("int")),
            None => (true, name.strip_prefix("int")),
        };
        // One digit and nothing else: `int08` and `int+8` are not names of types.
        let digits = digits.filter(|digits| digits.len() == 1);
        let bits: u8 = digits.and_then(|d| d.parse().ok()).ok_or_else(unknown)?;
        let has_smallest = signed && bits > 1;
        if BITS.contains(&bits) && (has_smallest || !full) {
            Ok(Self { signed, full, bits })
        } else {
            Err(unknown())
        }
    }
}

impl Serialize for QuantDtype {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for QuantDtype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The integers of 32 bits, as far as `f32` has them.
pub(crate) mod int32 {
    pub(crate) const NAME: &str = "int32";
    pub(crate) const MIN: f32 = i32::MIN as f32;
    /// The largest `f32` below 2^31.
    pub(crate) const MAX: f32 = 2_147_483_520.0;
}

/// Type of the integers of a target: one of a quantizer, or another one of a calibration from
/// elsewhere, by name.
///
/// It is written as its name.
///
/// ```
/// use burn_compress_core::{IntegerType, QuantDtype};
///
/// assert_eq!(IntegerType::from("int8"), IntegerType::Quant(QuantDtype::INT8));
/// assert_eq!(IntegerType::from("int16").to_string(), "int16");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IntegerType {
    /// A type of 1 to 8 bits.
    Quant(QuantDtype),
    /// 32 bits, the type in which integer hardware adds products and bias. The scale of such a bias
    /// is that of the input times that of the weight.
    Int32,
    /// A type with another name.
    Other(String),
}

impl IntegerType {
    /// Whether this is `int1`, whose only values are -1 and 1.
    pub fn is_binary(&self) -> bool {
        matches!(self, Self::Quant(dtype) if dtype.is_binary())
    }

    /// The number of bits; of a type with another name the number at its end, if there is one.
    pub fn bits(&self) -> Option<u32> {
        match self {
            Self::Quant(dtype) => Some(dtype.bits().into()),
            Self::Int32 => Some(32),
            Self::Other(name) => {
                let letters = name.trim_end_matches(|c: char| c.is_ascii_digit());
                name[letters.len()..].parse().ok()
            }
        }
    }
}

impl From<QuantDtype> for IntegerType {
    fn from(dtype: QuantDtype) -> Self {
        Self::Quant(dtype)
    }
}

impl From<&str> for IntegerType {
    fn from(name: &str) -> Self {
        match name {
            int32::NAME => Self::Int32,
            _ => name
                .parse()
                .map_or_else(|_| Self::Other(name.to_string()), Self::Quant),
        }
    }
}

impl fmt::Display for IntegerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quant(dtype) => dtype.fmt(f),
            Self::Int32 => f.write_str(int32::NAME),
            Self::Other(name) => f.write_str(name),
        }
    }
}

impl Serialize for IntegerType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IntegerType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(deserializer)?.as_str()))
    }
}

/// Scheme that lays a range of real numbers over the integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuantScheme {
    /// The zero point is the middle of the integers; one sign of a skewed range wastes integers.
    #[default]
    Symmetric,
    /// The zero point follows the range, so that all integers are used.
    Affine,
}

impl fmt::Display for QuantScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Symmetric => "symmetric",
            Self::Affine => "affine",
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("int8", -127.0, 127.0)]
    #[case("int4", -7.0, 7.0)]
    #[case("int2", -1.0, 1.0)]
    #[case("int1", -1.0, 1.0)]
    #[case("int8_full", -128.0, 127.0)]
    #[case("int2_full", -2.0, 1.0)]
    #[case("uint8", 0.0, 255.0)]
    #[case("uint4", 0.0, 15.0)]
    #[case("uint2", 0.0, 3.0)]
    #[case("uint1", 0.0, 1.0)]
    fn ranges(#[case] name: &str, #[case] qmin: f32, #[case] qmax: f32) {
        let dtype: QuantDtype = name.parse().unwrap();
        assert_eq!((dtype.qmin(), dtype.qmax()), (qmin, qmax));
        assert_eq!(dtype.to_string(), name);
        let json = serde_json::to_string(&dtype).unwrap();
        assert_eq!(json, format!("\"{name}\""));
        assert_eq!(serde_json::from_str::<QuantDtype>(&json).unwrap(), dtype);
    }

    #[rstest]
    #[case("int0")]
    #[case("uint0")]
    #[case("int9")]
    #[case("int1_full")]
    #[case("uint8_full")]
    #[case("int8_")]
    #[case("_full")]
    #[case("int16")]
    #[case("int08")]
    #[case("int+8")]
    #[case("Int8")]
    #[case("u8")]
    #[case("int")]
    #[case("uuint8")]
    #[case("")]
    fn refuses(#[case] name: &str) {
        let expected = UnknownDtype {
            found: name.to_string(),
        };
        assert_eq!(name.parse::<QuantDtype>(), Err(expected));
    }

    #[test]
    fn integer_types_have_bits() {
        let bits = |name: &str| IntegerType::from(name).bits();
        let names = ["int8", "uint4", "int1", "int32", "int16", "boolean"];
        let expected = [Some(8), Some(4), Some(1), Some(32), Some(16), None];
        assert_eq!(names.map(bits), expected);
    }

    #[test]
    fn only_one_signed_bit_is_binary() {
        assert!(QuantDtype::int(1).unwrap().is_binary());
        assert!(!QuantDtype::int(2).unwrap().is_binary());
        assert!(!QuantDtype::uint(1).unwrap().is_binary());
    }

    #[rstest]
    #[case("int8", false)]
    #[case("int1", true)]
    #[case("uint1", false)]
    #[case("int16", false)]
    #[case("int32", false)]
    #[case("ternary", false)]
    fn every_name_is_written_as_it_was(#[case] name: &str, #[case] is_binary: bool) {
        let json = format!("\"{name}\"");
        let read: IntegerType = serde_json::from_str(&json).unwrap();
        assert_eq!(read.is_binary(), is_binary);
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
        let known = name.parse::<QuantDtype>().is_ok();
        assert_eq!(matches!(read, IntegerType::Quant(_)), known);
    }

    #[test]
    fn schemes_are_lowercase() {
        let json = serde_json::to_string(&[QuantScheme::Symmetric, QuantScheme::Affine]).unwrap();
        assert_eq!(json, r#"["symmetric","affine"]"#);
        assert_eq!(QuantScheme::default(), QuantScheme::Symmetric);
    }
}
