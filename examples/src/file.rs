//! Files that a program writes, found out to be writable before it runs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use burn_compress::file;

/// Writes `content` whole or not at all. Makes the folder if there is none.
///
/// # Errors
///
/// If the folder cannot be made or written; what `path` held before is then still there.
pub fn write_whole(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    file::write_whole(path, &[content]).with_context(|| format!("cannot write {}", path.display()))
}

/// The path, if [`write_whole`] can write to it. Changes nothing: neither a file that is there nor a
/// folder that is not.
///
/// # Errors
///
/// If it cannot, with the reason.
pub fn writable(path: PathBuf) -> Result<PathBuf, String> {
    // Where folders are missing, the nearest one that is there has to take the first of them.
    let mut first = path.as_path();
    while let Some(folder) = first.parent()
        && !folder.as_os_str().is_empty()
        && matches!(folder.try_exists(), Ok(false))
    {
        first = folder;
    }
    match file::check_writable(first) {
        Ok(()) => Ok(path),
        Err(error) => Err(format!("it cannot be written: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own, removed in the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn replaces_the_file_and_leaves_nothing_beside_it() {
        let folder = Folder::new("write-whole");
        let path = folder.0.join("deep").join("report.json");
        write_whole(&path, b"first").unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(folder.0.join("deep")).unwrap().count(), 1);

        // A folder stands where the file should go.
        assert!(write_whole(&folder.0.join("deep"), b"third").is_err());
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    }

    #[test]
    fn what_can_be_written_stays_as_it_is() {
        let folder = Folder::new("writable");
        let there = folder.0.join("there");
        fs::write(&there, "before").unwrap();
        for name in ["there", "new", "deep/deeper/new"] {
            writable(folder.0.join(name)).unwrap();
        }
        assert_eq!(fs::read(&there).unwrap(), b"before");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
        writable(PathBuf::from("bare")).unwrap();
        // A file stands where a folder should be, a folder where a file should be.
        for path in [
            there.join("file"),
            there.join("deep/file"),
            folder.0.clone(),
        ] {
            let error = writable(path.clone()).unwrap_err();
            assert!(error.contains("cannot be written"), "{error}");
            assert!(write_whole(&path, b"").is_err());
        }
    }

    #[test]
    fn a_path_without_a_file_is_an_error() {
        assert!(writable(PathBuf::from("/")).is_err());
        assert!(write_whole(Path::new("/"), b"").is_err());
    }
}
