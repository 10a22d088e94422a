//! Writing a file whole or not at all.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::Context;

/// Writes `content` beside `path` and then renames it, so that no reader finds half of it. Makes the
/// folder if there is none.
///
/// # Errors
///
/// If the folder cannot be made or written; what `path` held before is then still there.
pub fn write_whole(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let name = path
        .file_name()
        .with_context(|| format!("{} names no file", path.display()))?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    // Two programs that write the same file must not share the unfinished one.
    let mut unfinished = OsString::from(".");
    unfinished.push(name);
    unfinished.push(format!(".{}", std::process::id()));
    let unfinished = path.with_file_name(unfinished);

    fs::write(&unfinished, content)
        .and_then(|()| fs::rename(&unfinished, path))
        .inspect_err(|_| drop(fs::remove_file(&unfinished)))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_the_file_and_leaves_nothing_beside_it() {
        let folder = std::env::temp_dir().join(format!("write-whole-{}", std::process::id()));
        let path = folder.join("deep").join("report.json");
        write_whole(&path, b"first").unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(folder.join("deep")).unwrap().count(), 1);

        // A folder stands where the file should go.
        assert!(write_whole(&folder.join("deep"), b"third").is_err());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_path_without_a_file_is_an_error() {
        let error = write_whole(Path::new("/"), b"").unwrap_err();
        assert!(error.to_string().contains("names no file"));
    }
}
