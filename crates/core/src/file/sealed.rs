//! Sealed files: a header with a checksum, and the content.
//!
//! | bytes    | what                                                   |
//! |----------|--------------------------------------------------------|
//! | 8        | magic number                                           |
//! | 4        | version of the format, little-endian                   |
//! | 8        | length of the content, little-endian                   |
//! | 8        | checksum of the content (FNV-1a, 64 bits), little-endian |
//! | the rest | content                                                |

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::write_whole;

const HEADER: usize = 28;

/// The seal of a kind of file: what its files begin with, and the version that this library writes
/// and reads.
///
/// The header is read and checked before the content, so that a large file of another kind is refused
/// at once.
///
/// ```
/// use burn_compress_core::file::{Seal, SealError};
///
/// const NOTE: Seal = Seal::new(b"EXMPNOTE", 1, "a note");
///
/// let path = std::env::temp_dir().join(format!("note-{}", std::process::id()));
/// NOTE.write(&path, b"content")?;
/// assert_eq!(NOTE.read(&path)?, b"content");
/// std::fs::write(&path, "something else")?;
/// assert_eq!(NOTE.read(&path).unwrap_err().to_string(), "this is not a note");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Seal {
    magic: &'static [u8; 8],
    version: u32,
    name: &'static str,
}

/// Error of reading a sealed file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The file could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),

    /// A file of another kind.
    #[error("this is not {name}")]
    Magic {
        /// Expected value.
        name: &'static str,
    },

    /// A file of another version.
    #[error(
        "its format version is {found}, this one reads {expected}: {action}",
        action = match found < expected {
            true => "save it again with this version",
            false => "load it with the version that saved it",
        }
    )]
    Version {
        /// The version of the file.
        found: u32,
        /// The version that is read.
        expected: u32,
    },

    /// A file that ends inside its header.
    #[error("it is cut off after {bytes} bytes")]
    Header {
        /// The length of the file.
        bytes: usize,
    },

    /// Content of another length than the header gives.
    #[error("it is damaged: {found} bytes in place of {expected}")]
    Length {
        /// The length in the header.
        expected: u64,
        /// The length of the content, or one more than expected where it goes on.
        found: u64,
    },

    /// Content of another checksum than the header gives.
    #[error("it is damaged: its checksum is wrong")]
    Checksum,
}

impl Seal {
    /// The seal of `name`, for example `a small model`, as it follows "this is not".
    pub const fn new(magic: &'static [u8; 8], version: u32, name: &'static str) -> Self {
        Self {
            magic,
            version,
            name,
        }
    }

    /// The bytes of a file with this content.
    pub fn file_bytes(&self, content: &[u8]) -> u64 {
        (HEADER + content.len()) as u64
    }

    /// Writes a file as [`write_whole`] does.
    ///
    /// # Errors
    ///
    /// Those of [`write_whole`].
    pub fn write(&self, path: impl AsRef<Path>, content: &[u8]) -> io::Result<()> {
        let mut header = Vec::with_capacity(HEADER);
        header.extend(self.magic);
        header.extend(self.version.to_le_bytes());
        header.extend((content.len() as u64).to_le_bytes());
        header.extend(Checksum::of(content).to_le_bytes());
        write_whole(path, &[&header, content])
    }

    /// Reads the content of a file, whole and undamaged.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, that is of another kind or version, cut off or damaged.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>, SealError> {
        let mut file = File::open(path)?;
        let mut header = Vec::with_capacity(HEADER);
        (&mut file).take(HEADER as u64).read_to_end(&mut header)?;
        let bytes = header.len();
        let begun = &self.magic[..bytes.min(self.magic.len())];
        if !header.starts_with(begun) {
            return Err(SealError::Magic { name: self.name });
        }
        let Ok(header) = <[u8; HEADER]>::try_from(header) else {
            return Err(SealError::Header { bytes });
        };
        let number = |at: usize, bytes: usize| {
            let bytes = header[at..at + bytes].iter().rev();
            bytes.fold(0_u64, |number, &byte| (number << 8) | u64::from(byte))
        };
        let version = number(8, 4) as u32;
        if version != self.version {
            return Err(SealError::Version {
                found: version,
                expected: self.version,
            });
        }
        let content = read_content(file, number(12, 8))?;
        match Checksum::of(&content) == number(20, 8) {
            true => Ok(content),
            false => Err(SealError::Checksum),
        }
    }
}

fn read_content(file: File, expected: u64) -> Result<Vec<u8>, SealError> {
    let of_length = |found| match found == expected {
        true => Ok(()),
        false => Err(SealError::Length { expected, found }),
    };
    let metadata = file.metadata()?;
    let mut content = Vec::new();
    // A pipe has no length; what comes out of it is read without trust in the header.
    if metadata.is_file() {
        of_length(metadata.len() - HEADER as u64)?;
        let room = usize::try_from(expected).map_err(io::Error::other)?;
        content.try_reserve_exact(room).map_err(io::Error::from)?;
    }
    file.take(expected.saturating_add(1))
        .read_to_end(&mut content)?;
    of_length(content.len() as u64)?;
    Ok(content)
}

/// FNV-1a, 64 bits, over everything that is added: against damage, not against forgery.
#[derive(Clone, Copy, Debug)]
pub struct Checksum(u64);

impl Default for Checksum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Checksum {
    /// The checksum of these bytes alone.
    pub fn of(bytes: &[u8]) -> u64 {
        let mut checksum = Self::default();
        checksum.add(bytes);
        checksum.value()
    }

    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    }

    /// The checksum of what was added.
    pub fn value(self) -> u64 {
        self.0
    }
}
