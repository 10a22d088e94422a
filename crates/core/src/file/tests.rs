use std::fs::{self, File};
use std::path::Path;

use tempfile::TempDir;

use super::*;

const NOTE: Seal = Seal::new(b"EXMPNOTE", 2, "a note");

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_checksum_is_fnv_1a() {
    // Published test vectors of the 64-bit hash.
    assert_eq!(Checksum::of(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(Checksum::of(b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(Checksum::of(b"foobar"), 0x8594_4171_f739_67e8);
}

#[test]
fn what_was_damaged_is_not_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    NOTE.write(&path, b"content").unwrap();
    assert_eq!(NOTE.read(&path).unwrap(), b"content");
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len() as u64, NOTE.file_bytes(b"content"));
    let reason = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        NOTE.read(&path).unwrap_err().to_string()
    };
    assert_eq!(reason(b"something else"), "this is not a note");
    assert_eq!(reason(&whole[..12]), "it is cut off after 12 bytes");
    assert_eq!(reason(b""), "it is cut off after 0 bytes");
    let length = whole.len();
    assert!(reason(&whole[..length - 4]).contains("3 bytes in place of 7"));
    let mut changed = whole.clone();
    changed[length - 1] ^= 1;
    assert!(reason(&changed).contains("checksum"));
    for (version, action) in [(1, "save it again"), (3, "load it with the version")] {
        let mut other = whole.clone();
        other[8] = version;
        let reason = reason(&other);
        assert!(reason.contains(&format!("version is {version}, this one reads 2")));
        assert!(reason.contains(action), "{reason}");
    }
}

#[test]
fn a_large_file_of_another_kind_is_not_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("large");
    // Four terabytes that take no room on the disk, and more than fits into the memory.
    let large = |begin: &[u8]| {
        fs::write(&path, begin).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(1 << 42).unwrap();
        NOTE.read(&path).unwrap_err()
    };
    assert!(matches!(large(b"something else"), SealError::Magic { .. }));
    NOTE.write(&path, b"content").unwrap();
    let whole = fs::read(&path).unwrap();
    assert!(matches!(
        large(&whole),
        SealError::Length { expected: 7, .. }
    ));
}

#[test]
fn a_file_is_replaced_and_nothing_stays_beside_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    check_writable(&path).unwrap();
    assert!(names(folder.path()).is_empty());
    write_whole(&path, &[b"first"]).unwrap();
    check_writable(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"first");
    write_whole(&path, &[b"sec", b"ond"]).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second");
    assert_eq!(names(folder.path()), ["file"]);
}

#[test]
fn what_cannot_be_written_is_found_out_without_writing() {
    let folder = TempDir::new().unwrap();
    let nowhere = folder.path().join("none").join("file");
    for path in [folder.path(), &nowhere, Path::new(""), Path::new("/")] {
        assert!(check_writable(path).is_err(), "{}", path.display());
        assert!(write_whole(path, &[b"x"]).is_err(), "{}", path.display());
    }
    assert!(names(folder.path()).is_empty());
}

#[test]
fn what_a_killed_program_left_goes_with_the_next_save() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in [".file.7-0.partial", ".file.4000000000-12.partial"] {
        fs::write(at(name), "half").unwrap();
    }
    // Another program at work, and files of others.
    let kept = [
        ".file.8-0.partial",
        ".file.x-0.partial",
        ".file2.7-0.partial",
        "file.tmp",
    ];
    for name in kept {
        fs::write(at(name), "kept").unwrap();
    }
    let at_work = File::options().write(true).open(at(kept[0])).unwrap();
    at_work.lock().unwrap();
    write_whole(at("file"), &[b"whole"]).unwrap();
    let mut expected = [&kept[..], &["file"]].concat();
    expected.sort_unstable();
    assert_eq!(names(folder.path()), expected);
    drop(at_work);
    write_whole(at("file"), &[b"whole"]).unwrap();
    assert!(!names(folder.path()).contains(&kept[0].to_string()));
}

#[test]
fn programs_that_save_at_once_leave_one_whole_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    std::thread::scope(|scope| {
        for writer in 0..4_u8 {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..20 {
                    NOTE.write(path, &vec![writer; 5000]).unwrap();
                }
            });
        }
    });
    let content = NOTE.read(&path).unwrap();
    assert!(content.len() == 5000 && content.iter().all(|byte| *byte == content[0]));
    assert_eq!(names(folder.path()), ["file"]);
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
    use std::process::Command;

    use super::*;

    #[test]
    fn a_link_stays_and_its_file_is_replaced() {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("runs")).unwrap();
        fs::write(at("runs/3"), "old").unwrap();
        symlink("runs/3", at("latest")).unwrap();
        symlink("latest", at("newest")).unwrap();
        symlink("runs/4", at("next")).unwrap();
        for (link, file) in [
            ("latest", "runs/3"),
            ("newest", "runs/3"),
            ("next", "runs/4"),
        ] {
            check_writable(at(link)).unwrap();
            NOTE.write(at(link), link.as_bytes()).unwrap();
            assert!(at(link).is_symlink(), "{link}");
            assert!(!at(file).is_symlink(), "{link}");
            assert_eq!(NOTE.read(at(file)).unwrap(), link.as_bytes());
            assert_eq!(NOTE.read(at(link)).unwrap(), link.as_bytes());
        }
        assert_eq!(names(folder.path()), ["latest", "newest", "next", "runs"]);
        assert_eq!(names(&at("runs")), ["3", "4"]);
        symlink("round", at("round")).unwrap();
        assert!(write_whole(at("round"), &[b"x"]).is_err());
        assert!(at("round").is_symlink());
    }

    #[test]
    fn a_pipe_is_written_to_and_read_from() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("pipe");
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        check_writable(&path).unwrap();
        let content = vec![7; 200_000];
        let read = std::thread::scope(|scope| {
            let reader = scope.spawn(|| NOTE.read(&path).unwrap());
            NOTE.write(&path, &content).unwrap();
            reader.join().unwrap()
        });
        assert_eq!(read, content);
        assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
        assert_eq!(names(folder.path()), ["pipe"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_open_file_is_written_to_by_its_descriptor() {
        use std::os::fd::AsRawFd;

        let folder = TempDir::new().unwrap();
        let path = folder.path().join("open");
        let file = File::create(&path).unwrap();
        let descriptor = format!("/dev/fd/{}", file.as_raw_fd());
        write_whole(&descriptor, &[b"through"]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"through");
        assert_eq!(
            file.metadata().unwrap().len(),
            7,
            "it is still the same file"
        );
        write_whole("/dev/null", &[b"x"]).unwrap();
        assert!(write_whole("/dev/full", &[b"x"]).is_err());
    }

    #[test]
    fn permissions_stay() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("private");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        write_whole(&path, &[b"new"]).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
