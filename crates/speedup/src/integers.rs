//! Quantized values as the integers that they stand for, packed without a bit between them.
//!
//! A quantized parameter takes few different values, one for each integer of its type. With scale
//! `s` and zero point `z` of the block that an element belongs to:
//!
//! ```text
//! q  = clamp(round(x / s) + z, qmin, qmax)
//! x' = (q - z) * s
//! ```
//!
//! Each integer is stored as `q - qmin` in as many bits as the type needs, 1 to 8; `int1` stores 0
//! for -1 and 1 for 1. The integers follow each other from the lowest bit of the first byte on, and
//! may cross bytes:
//!
//! ```text
//! 3 bits, 1 2 3 4 5 6    byte 0: 11 010 001    byte 1: 0 101 100 0    byte 2: 000000 11
//! ```
//!
//! The integers are read off what the simulation computes, `x'`, not off `x`: a value on a rounding
//! boundary then becomes the integer that the model really uses. Whatever does not come back bit for
//! bit is not packed at all. The sign of a zero is the exception: no integer has one.

use burn::tensor::{Device, Tensor, TensorData};
use burn_compress_core::fake_quantize::binarize;
use burn_compress_core::{CalibrationEntry, Quantization, fake_quantize, reads};

const MOST_BITS: u32 = 8;

/// An integer type by its range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct IntegerType {
    pub qmin: f32,
    pub qmax: f32,
    is_binary: bool,
}

impl IntegerType {
    /// The type of `entry`, if it has at most 8 bits.
    pub fn new(entry: &CalibrationEntry) -> Option<Self> {
        let (qmin, qmax) = (entry.qmin, entry.qmax);
        let is_integer = |bound: f32| bound.fract() == 0.0 && bound.abs() <= 65536.0;
        let integer = Self {
            qmin,
            qmax,
            is_binary: entry.dtype.is_binary(),
        };
        let fits = is_integer(qmin) && is_integer(qmax) && qmin < qmax;
        (fits && integer.bits() <= MOST_BITS).then_some(integer)
    }

    /// The number of bits of one integer.
    pub fn bits(self) -> u32 {
        match self.is_binary {
            true => 1,
            false => 32 - ((self.qmax - self.qmin) as u32).leading_zeros(),
        }
    }

    /// The number of bytes of so many integers, `None` if that is no number of bytes.
    pub fn bytes(self, integers: usize) -> Option<usize> {
        let bits = integers.checked_mul(self.bits() as usize)?;
        Some(bits.div_ceil(8))
    }

    fn code(self, q: f32) -> u8 {
        match self.is_binary {
            true => u8::from(q > 0.0),
            false => (q - self.qmin) as u8,
        }
    }

    /// The integer of a code, `None` if the type ends before it.
    fn integer(self, code: u8) -> Option<f32> {
        match self.is_binary {
            true => Some(if code == 0 { -1.0 } else { 1.0 }),
            false => Some(self.qmin + f32::from(code)).filter(|&q| q <= self.qmax),
        }
    }

    /// Packs integers of this type.
    pub fn pack(self, integers: &[f32]) -> Vec<u8> {
        let bits = self.bits() as usize;
        let mut bytes = vec![0u8; (integers.len() * bits).div_ceil(8)];
        for (at, &q) in integers.iter().enumerate() {
            let (byte, shift) = (at * bits / 8, at * bits % 8);
            let code = u16::from(self.code(q)) << shift;
            bytes[byte] |= code as u8;
            if shift + bits > 8 {
                bytes[byte + 1] |= (code >> 8) as u8;
            }
        }
        bytes
    }

    /// The integers in `bytes`, the reverse of [`pack`](Self::pack).
    ///
    /// # Errors
    ///
    /// A number of bytes that does not belong to `count` integers, an integer that the type does
    /// not have, or a bit behind the last one, in words.
    pub fn unpack(self, bytes: &[u8], count: usize) -> Result<Vec<f32>, String> {
        if self.bytes(count) != Some(bytes.len()) {
            let (bits, found) = (self.bits(), bytes.len());
            return Err(format!("{found} bytes for {count} integers of {bits} bits"));
        }
        let bits = self.bits() as usize;
        let integers = (0..count).map(|at| {
            let (byte, shift) = (at * bits / 8, at * bits % 8);
            let next = bytes.get(byte + 1).copied().unwrap_or(0);
            let both = u16::from_le_bytes([bytes[byte], next]) >> shift;
            let code = (both & ((1 << bits) - 1)) as u8;
            self.integer(code).ok_or_else(|| {
                let found = self.qmin + f32::from(code);
                format!("integer {at} is {found}, the type ends at {}", self.qmax)
            })
        });
        let integers = integers.collect::<Result<_, _>>()?;
        let used = count * bits % 8;
        match bytes.last() {
            Some(last) if used > 0 && last >> used != 0 => {
                Err("there are bits behind the last integer".to_string())
            }
            _ => Ok(integers),
        }
    }
}

/// A parameter as its integers.
pub(crate) struct Integers {
    pub integer: IntegerType,
    /// One integer for each element, in row-major order.
    pub values: Vec<f32>,
}

impl Integers {
    /// Reads the integers off a parameter of shape `shape`; `None` where `entry` does not act or
    /// the values cannot be had back from integers of at most 8 bits.
    ///
    /// # Errors
    ///
    /// An entry that cannot be used, in words.
    pub fn of(
        values: Tensor<1>,
        shape: &[usize],
        entry: &CalibrationEntry,
    ) -> Result<Option<Self>, String> {
        let quantization = entry.to_quantization(&values.device())?;
        check_grid(entry, shape)?;
        let (Some(integer), Some((scale, zero))) = (IntegerType::new(entry), values_of(entry))
        else {
            return Ok(None);
        };
        let simulated = simulate(&quantization, values, shape);
        // What is loaded is quantized once more.
        let again = simulate(&quantization, simulated.clone(), shape);
        let (Some(simulated), Some(again)) = (read(simulated), read(again)) else {
            return Ok(None);
        };
        let blocks = Blocks::new(entry, shape);
        let q = simulated.iter().enumerate().map(|(at, &x)| {
            let block = blocks.of(at);
            match integer.is_binary {
                true => x.signum(),
                false => nearest(x, scale[block], zero[block]).clamp(integer.qmin, integer.qmax),
            }
        });
        let integers = Self {
            integer,
            values: q.collect(),
        };
        let exact = simulated.iter().all(|x| x.is_finite())
            && integers.dequantize(entry, shape) == simulated
            && simulated == again;
        Ok(exact.then_some(integers))
    }

    /// The type of the integers that `entry` makes.
    ///
    /// # Errors
    ///
    /// An entry that makes none or whose type has more than 8 bits, in words.
    pub fn integer_type(entry: &CalibrationEntry) -> Result<IntegerType, String> {
        if values_of(entry).is_none() {
            return Err("the quantization does not act or lacks values".to_string());
        }
        IntegerType::new(entry).ok_or_else(|| {
            let CalibrationEntry { qmin, qmax, .. } = entry;
            format!("the range {qmin}..{qmax} is none of 1 to 8 bits")
        })
    }

    /// Reads packed integers.
    ///
    /// # Errors
    ///
    /// The mismatch with `entry` and `shape`, in words.
    pub fn unpack(bytes: &[u8], shape: &[usize], entry: &CalibrationEntry) -> Result<Self, String> {
        check_grid(entry, shape)?;
        let integer = Self::integer_type(entry)?;
        Ok(Self {
            integer,
            values: integer.unpack(bytes, shape.iter().product())?,
        })
    }

    /// The bytes of the packed integers.
    pub fn packed_len(&self) -> usize {
        (self.values.len() * self.integer.bits() as usize).div_ceil(8)
    }

    /// The integers, packed.
    pub fn pack(&self) -> Vec<u8> {
        self.integer.pack(&self.values)
    }

    /// The values that the integers stand for.
    ///
    /// `entry` and `shape` are those that the integers were made with.
    pub fn dequantize(&self, entry: &CalibrationEntry, shape: &[usize]) -> Vec<f32> {
        let Some((scale, zero)) = values_of(entry) else {
            return Vec::new();
        };
        let blocks = Blocks::new(entry, shape);
        let value = |(at, &q): (usize, &f32)| {
            let block = blocks.of(at);
            match self.integer.is_binary {
                true => q * scale[block],
                false => (q - zero[block]) * scale[block],
            }
        };
        self.values.iter().enumerate().map(value).collect()
    }
}

/// The integer of `x` in a type without ends, as [`fake_quantize`] finds it.
fn nearest(x: f32, scale: f32, zero: f32) -> f32 {
    let whole = zero.floor();
    (x / scale + (zero - whole)).round_ties_even() + whole
}

/// Scales and zero points, if the quantization acts and has one of each for each block.
pub(crate) fn values_of(entry: &CalibrationEntry) -> Option<(&[f32], &[f32])> {
    let (scale, zero) = (entry.scale.as_deref()?, entry.zero_point.as_deref()?);
    let blocks = entry.grid.len();
    let complete = scale.len() == blocks && zero.len() == blocks;
    (entry.enabled && complete).then_some((scale, zero))
}

/// Checks that the blocks tile a parameter of this shape.
pub(crate) fn check_grid(entry: &CalibrationEntry, shape: &[usize]) -> Result<(), String> {
    let blocks = entry.grid.blocks();
    let mut pairs = shape.iter().zip(blocks);
    let tiles = blocks.len() == shape.len()
        && pairs.all(|(size, &blocks)| blocks > 0 && size.is_multiple_of(blocks));
    match tiles || blocks.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "the grid {blocks:?} does not divide the shape {shape:?}"
        )),
    }
}

/// The block of each element.
pub(crate) struct Blocks(Option<Vec<i32>>);

impl Blocks {
    pub fn new(entry: &CalibrationEntry, shape: &[usize]) -> Self {
        let one = entry.grid.len() == 1;
        Self((!one).then(|| entry.grid.block_of_each_element(shape)))
    }

    pub fn of(&self, element: usize) -> usize {
        self.0.as_ref().map_or(0, |blocks| blocks[element] as usize)
    }
}

/// The values that the model computes with, one for each element.
fn simulate(quantization: &Quantization, values: Tensor<1>, shape: &[usize]) -> Tensor<1> {
    let (Some(scale), Some(zero)) = (&quantization.scale, &quantization.zero_point) else {
        return values;
    };
    let (grid, gradient) = (&quantization.grid, quantization.gradient);
    let scale = grid.expand(scale.clone(), shape);
    if quantization.is_binary() {
        return binarize(values, scale, gradient);
    }
    let zero = grid.expand(zero.clone(), shape);
    let (qmin, qmax) = (quantization.qmin, quantization.qmax);
    fake_quantize(values, scale, zero, qmin, qmax, gradient)
}

fn read(tensor: Tensor<1>) -> Option<Vec<f32>> {
    reads::data(tensor).ok()?.try_into_vec().ok()
}

/// Values on a device.
pub(crate) fn on_device(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let elements = values.len();
    Tensor::from_data(TensorData::new(values, [elements]), device)
}

#[cfg(test)]
mod tests;
