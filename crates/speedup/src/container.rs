//! The file of a small model: a burnpack container behind a header of its own.

use std::fs;
use std::io::Write;
use std::path::Path;

use burn::tensor::Bytes;
use burn_pack::{AtomicFile, Reader};

use crate::SpeedupError;

const MAGIC: &[u8; 8] = b"BURNCSML";
const VERSION: u32 = 3;
const HEADER: usize = 28;

/// The bytes of a file with this container.
pub(crate) fn size(container: &[u8]) -> u64 {
    (HEADER + container.len()) as u64
}

/// Writes a file beside `path` and gives it its name when it is complete.
pub(crate) fn write(path: &Path, container: &[u8]) -> Result<(), SpeedupError> {
    let io = |reason: String| SpeedupError::Io {
        path: path.to_path_buf(),
        reason,
    };
    let (scratch, mut file) = AtomicFile::create(path).map_err(|source| io(source.to_string()))?;
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((container.len() as u64).to_le_bytes());
    header.extend(checksum(container).to_le_bytes());
    file.write_all(&header)
        .and_then(|()| file.write_all(container))
        .and_then(|()| file.sync_all())
        .map_err(|source| io(source.to_string()))?;
    drop(file);
    scratch.commit().map_err(|source| io(source.to_string()))
}

/// The container of a file whose header is right.
pub(crate) fn read(path: &Path) -> Result<Reader, SpeedupError> {
    let format = |reason: String| SpeedupError::Format {
        path: path.to_path_buf(),
        reason,
    };
    let mut bytes = fs::read(path).map_err(|source| SpeedupError::Io {
        path: path.to_path_buf(),
        reason: source.to_string(),
    })?;
    if !bytes.starts_with(MAGIC) {
        return Err(format(match bytes.len() < MAGIC.len() {
            true => format!("it is cut off after {} bytes", bytes.len()),
            false => "it does not begin with `BURNCSML`".to_string(),
        }));
    }
    if bytes.len() < HEADER {
        return Err(format(format!("it is cut off after {} bytes", bytes.len())));
    }
    let container = bytes.split_off(HEADER);
    let number = |at: usize| {
        let mut value = [0; 8];
        value.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(value)
    };
    let version = number(8) as u32;
    if version != VERSION {
        let action = match version < VERSION {
            true => "save the small model again with this version",
            false => "load it with the version that saved it",
        };
        return Err(format(format!(
            "its format version is {version}, this one reads {VERSION}: {action}"
        )));
    }
    let length = number(12);
    if length != container.len() as u64 {
        return Err(format(format!(
            "it should hold {length} bytes, but has {}",
            container.len()
        )));
    }
    if checksum(&container) != number(20) {
        return Err(format("its checksum is wrong".to_string()));
    }
    Reader::from_bytes(Bytes::from_bytes_vec(container))
        .map_err(|source| format(source.to_string()))
}

/// FNV-1a, 64 bits: against damage, not against forgery.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
