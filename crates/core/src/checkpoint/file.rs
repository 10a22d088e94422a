//! The bytes of a checkpoint on disk: a prefix with length and checksum, and the content.

use std::io::Write;
use std::path::Path;

use burn_pack::AtomicFile;

/// What a checkpoint begins with; its length and its checksum follow, 8 bytes each.
const MAGIC: &[u8; 8] = b"BURNCCKP";
const PREFIX: usize = 24;

/// Writes a file that replaces the one before only when it is complete.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), String> {
    let (scratch, mut file) = AtomicFile::create(path).map_err(|error| error.to_string())?;
    file.write_all(MAGIC)
        .and_then(|()| file.write_all(&(content.len() as u64).to_le_bytes()))
        .and_then(|()| file.write_all(&checksum(content).to_le_bytes()))
        .and_then(|()| file.write_all(content))
        .and_then(|()| file.sync_all())
        .map_err(|error| error.to_string())?;
    drop(file);
    scratch.commit().map_err(|error| error.to_string())
}

/// The content of the file, whole and undamaged.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut file = std::fs::read(path).map_err(|error| error.to_string())?;
    if !file.starts_with(MAGIC) {
        return Err("this is not a checkpoint of a compression run".to_string());
    }
    if file.len() < PREFIX {
        return Err(format!("it is cut off after {} bytes", file.len()));
    }
    let content = file.split_off(PREFIX);
    let number = |at: usize| {
        file[at..at + 8]
            .iter()
            .rev()
            .fold(0, |n, &b| (n << 8) | u64::from(b))
    };
    if number(8) != content.len() as u64 {
        let (expected, found) = (number(8), content.len());
        return Err(format!(
            "it is damaged: {found} bytes in place of {expected}"
        ));
    }
    if number(16) != checksum(&content) {
        return Err("it is damaged: its checksum is wrong".to_string());
    }
    Ok(content)
}

/// FNV-1a, 64 bits: against damage, not against forgery.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_fnv_1a() {
        // Published test vectors of the 64-bit hash.
        assert_eq!(checksum(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(checksum(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(checksum(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn what_was_damaged_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"content").unwrap();
        assert_eq!(read(&path).unwrap(), b"content");
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), PREFIX + 7);
        let reason = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path).unwrap_err()
        };
        assert!(reason(b"something else").contains("not a checkpoint"));
        assert!(reason(&whole[..12]).contains("cut off after 12 bytes"));
        assert!(reason(&whole[..PREFIX + 3]).contains("3 bytes in place of 7"));
        let mut flipped = whole;
        flipped[PREFIX] ^= 1;
        assert!(reason(&flipped).contains("checksum"));
    }
}
