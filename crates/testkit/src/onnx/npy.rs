//! NumPy's file of one array, version 1.0: a header in ASCII and the elements.

use burn::tensor::{DType, TensorData};

const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";

/// Floats as `f4`, integers as `i8`, booleans as `b1`.
pub(super) fn encode(data: &TensorData) -> Vec<u8> {
    let dtype = data.dtype();
    let (code, bytes): (&str, Vec<u8>) = if dtype.is_float() {
        (
            "<f4",
            data.iter::<f32>().flat_map(f32::to_le_bytes).collect(),
        )
    } else if dtype.is_bool() {
        ("|b1", data.iter::<bool>().map(u8::from).collect())
    } else {
        (
            "<i8",
            data.iter::<i64>().flat_map(i64::to_le_bytes).collect(),
        )
    };
    let sizes: String = data
        .shape()
        .to_vec()
        .iter()
        .map(|size| format!("{size}, "))
        .collect();
    let mut header = format!("{{'descr': '{code}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // Magic, length and header are a multiple of 64 bytes, and a line.
    let length = (MAGIC.len() + 2 + header.len() + 1).next_multiple_of(64) - MAGIC.len() - 2;
    header = format!("{header:width$}\n", width = length - 1);
    let mut file = MAGIC.to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(bytes);
    file
}

/// The array of a file, as written by NumPy.
pub(super) fn decode(file: &[u8]) -> Result<TensorData, String> {
    let wrong = || "not an array of floats, integers or booleans".to_string();
    let rest = file.strip_prefix(MAGIC).ok_or_else(wrong)?;
    let (length, rest) = rest.split_at_checked(2).ok_or_else(wrong)?;
    let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
    let (header, bytes) = rest.split_at_checked(length).ok_or_else(wrong)?;
    let header = std::str::from_utf8(header).map_err(|_| wrong())?;
    let (_, sizes) = header.split_once("'shape': (").ok_or_else(wrong)?;
    let (sizes, _) = sizes.split_once(')').ok_or_else(wrong)?;
    let sizes = sizes
        .split(',')
        .map(str::trim)
        .filter(|size| !size.is_empty());
    let shape: Vec<usize> = sizes
        .map(|size| size.parse().map_err(|_| wrong()))
        .collect::<Result<_, _>>()?;
    let floats = |width: usize| bytes.chunks_exact(width);
    let data = if header.contains("'<f4'") {
        let values = floats(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]));
        TensorData::new(values.collect::<Vec<_>>(), shape)
    } else if header.contains("'<i8'") {
        let values = floats(8).map(|x| x.try_into().map(i64::from_le_bytes).unwrap_or_default());
        TensorData::new(values.collect::<Vec<_>>(), shape)
    } else if header.contains("'|b1'") {
        TensorData::new(bytes.iter().map(|&x| x != 0).collect::<Vec<_>>(), shape)
    } else if header.contains("'|u1'") {
        TensorData::new(
            bytes.iter().map(|&x| i64::from(x)).collect::<Vec<_>>(),
            shape,
        )
    } else if header.contains("'|i1'") {
        TensorData::new(
            bytes
                .iter()
                .map(|&x| i64::from(x as i8))
                .collect::<Vec<_>>(),
            shape,
        )
    } else {
        return Err(wrong());
    };
    debug_assert!(data.dtype() != DType::F64);
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_come_back() {
        let floats = TensorData::new(vec![1.5f32, -2.0, 0.0, 3.0, 4.0, 5.0], [2, 3]);
        let integers = TensorData::new(vec![-7i64, 8], [2]);
        let booleans = TensorData::new(vec![true, false], [1, 2]);
        for data in [floats, integers] {
            decode(&encode(&data)).unwrap().assert_eq(&data, true);
        }
        let found = decode(&encode(&booleans)).unwrap();
        assert_eq!(found.iter::<bool>().collect::<Vec<_>>(), [true, false]);
        assert_eq!(encode(&booleans).len(), 64 * 2 + 2);
        assert!(decode(b"RIFF").is_err());
    }
}
