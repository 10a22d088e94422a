//! Replacing a file by another one that is complete.
//!
//! The new file is built beside the old one, under the name `.NAME.PID-N.partial`, and takes its name
//! when it is complete and on the disk. A program that is killed in between leaves the unfinished file;
//! the next save of the same file removes it. Whether it is still being written is told by its lock,
//! which ends with the program that holds it. On a file system without locks it stays.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

/// Links that are followed before they are taken for a circle, as many as Linux follows.
const LINKS: usize = 40;
const SUFFIX: &str = ".partial";

/// Writes the parts one after another to `path`, so that no reader finds some of them.
///
/// A file is replaced when the new one is complete, and keeps its permissions; a failure leaves it as
/// it was. A symbolic link stays, and the file that it leads to is replaced. A pipe or a device is
/// written to directly, and so is an open file that the path names by its descriptor, as
/// `/dev/stdout` does.
///
/// # Errors
///
/// A folder at `path`, no folder around it, and whatever else goes wrong while writing.
///
/// ```
/// let path = std::env::temp_dir().join(format!("whole-{}", std::process::id()));
/// burn_compress_core::file::write_whole(&path, &[b"head", b"body"])?;
/// assert_eq!(std::fs::read(&path)?, b"headbody");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn write_whole(path: impl AsRef<Path>, parts: &[&[u8]]) -> Result<()> {
    let path = path.as_ref();
    let write = |file: &mut File| parts.iter().try_for_each(|part| file.write_all(part));
    match Destination::of(path)? {
        Destination::Stream => write(&mut File::options().append(true).open(path)?),
        Destination::File(path) => {
            let mut partial = Partial::beside(&path)?;
            remove_abandoned(&path, &partial.path);
            write(&mut partial.file)?;
            partial.replace(&path)
        }
    }
}

/// Checks that [`write_whole`] can begin to write to `path`; changes nothing there.
///
/// # Errors
///
/// A folder at `path`, no folder around it, or one in which no file can be made.
pub fn check_writable(path: impl AsRef<Path>) -> Result<()> {
    match Destination::of(path.as_ref())? {
        // Opening a pipe would wait for its reader.
        Destination::Stream => Ok(()),
        Destination::File(path) => Partial::beside(&path).map(drop),
    }
}

/// Kind of the file at a path.
enum Destination {
    /// A file, or the place of one.
    File(PathBuf),
    /// A pipe, a device or an open file.
    Stream,
}

impl Destination {
    fn of(path: &Path) -> Result<Self> {
        let mut path = path.to_path_buf();
        for _ in 0..LINKS {
            let found = match fs::symlink_metadata(&path) {
                Ok(found) => found,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::File(path)),
                Err(error) => return Err(error),
            };
            if found.is_dir() {
                return Err(Error::new(ErrorKind::IsADirectory, "it is a folder"));
            }
            if found.is_file() {
                return Ok(Self::File(path));
            }
            // What a link among the descriptors reads as is no path.
            if !found.is_symlink() || is_descriptor(&path) {
                return Ok(Self::Stream);
            }
            path = folder_of(&path).join(fs::read_link(&path)?);
        }
        Err(Error::other("its symbolic links lead in a circle"))
    }
}

fn is_descriptor(link: &Path) -> bool {
    let folder = folder_of(link).canonicalize();
    folder.is_ok_and(|folder| folder.starts_with("/proc"))
}

/// The folder that holds the entry; that of a bare name is the current one.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// An unfinished file, locked as long as it is one; removed when it is dropped.
struct Partial {
    path: PathBuf,
    file: File,
    is_finished: bool,
}

impl Partial {
    fn beside(destination: &Path) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = destination
            .file_name()
            .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "it names no file"))?;
        loop {
            let mut partial = prefix(name);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            partial.push(format!("{}-{number}{SUFFIX}", process::id()));
            let path = destination.with_file_name(partial);
            let file = match File::create_new(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            // Another program may have found it before it was locked, and be about to remove it.
            let is_ours = match file.try_lock() {
                Err(TryLockError::WouldBlock) => false,
                Ok(()) | Err(TryLockError::Error(_)) => path.try_exists()?,
            };
            if is_ours {
                return Ok(Self {
                    path,
                    file,
                    is_finished: false,
                });
            }
        }
    }

    fn replace(mut self, destination: &Path) -> Result<()> {
        self.file.sync_all()?;
        if let Ok(old) = fs::metadata(destination) {
            self.file.set_permissions(old.permissions())?;
        }
        fs::rename(&self.path, destination)?;
        self.is_finished = true;
        // Only now does a loss of power not bring the old file back.
        #[cfg(unix)]
        if let Ok(folder) = File::open(folder_of(destination)) {
            folder.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_finished {
            // The error that led here is the one to report.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    prefix
}

/// Removes what killed programs left of `destination`. A failure is no reason not to save.
fn remove_abandoned(destination: &Path, own: &Path) {
    let Some(name) = destination.file_name() else {
        return;
    };
    let prefix = prefix(name);
    let Ok(entries) = fs::read_dir(folder_of(destination)) else {
        return;
    };
    for entry in entries.flatten() {
        let path = destination.with_file_name(entry.file_name());
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || path == own || !is_partial(&entry.file_name(), &prefix) {
            continue;
        }
        let is_abandoned = |file: File| file.try_lock().is_ok().then_some(file);
        let held = File::options().write(true).open(&path);
        // Removed while it is locked, so that no other program takes it up in between.
        if let Some(_lock) = held.ok().and_then(is_abandoned) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether a name is the prefix, two numbers with a dash between them, and the suffix.
fn is_partial(name: &OsStr, prefix: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let numbers = name
        .strip_prefix(prefix.as_encoded_bytes())
        .and_then(|name| name.strip_suffix(SUFFIX.as_bytes()));
    let are_numbers = |numbers: &[u8]| {
        let mut parts = numbers.split(|&byte| byte == b'-');
        let mut is_number = || {
            parts
                .next()
                .is_some_and(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
        };
        is_number() && is_number() && parts.next().is_none()
    };
    numbers.is_some_and(are_numbers)
}
