//! Chapters, includes and links of a book.
//!
//! Links to other hosts are not followed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Error, Result};
use markdown::mdast::Node;
use markdown::{ParseOptions, to_mdast};

/// What is wrong with the book in `source`, a line each, and which parts of `programs` it does not
/// show.
///
/// - The summary lists each chapter, and each chapter is there.
/// - An include names a file, and an anchor of it that begins and ends.
/// - Each anchor and each output of the programs is included.
/// - A link without a host leads to a file of the book, and its fragment to a heading there.
///
/// # Errors
///
/// A file that cannot be read.
pub fn check(source: &Path, programs: &Path) -> Result<Vec<String>> {
    let source = &normal(source);
    let mut chapters = BTreeMap::new();
    for path in files(source)? {
        if path.extension().is_some_and(|extension| extension == "md") {
            chapters.insert(path.clone(), Chapter::read(&path)?);
        }
    }
    let mut found = Vec::new();
    let mut shown = BTreeSet::new();
    for (path, chapter) in &chapters {
        let name = path.strip_prefix(source).unwrap_or(path).display();
        let directory = path.parent().unwrap_or(source);
        for include in &chapter.includes {
            match resolve(directory, include) {
                Ok(place) => drop(shown.insert(place)),
                Err(reason) => found.push(format!("{name}: include `{include}`: {reason}")),
            }
        }
        for link in &chapter.links {
            if let Some(reason) = broken(path, link, &chapters) {
                found.push(format!("{name}: link `{link}`: {reason}"));
            }
        }
    }
    found.extend(unlisted(source, &chapters));
    for path in files(programs)? {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut parts: Vec<_> = anchors(&text, "ANCHOR:").into_iter().map(Some).collect();
        if path.extension().is_some_and(|extension| extension == "txt") {
            parts.push(None);
        }
        for part in parts {
            if !shown.contains(&(path.clone(), part.clone())) {
                let part = part.map(|name| format!(":{name}")).unwrap_or_default();
                found.push(format!("{}{part}: shown in no chapter", path.display()));
            }
        }
    }
    Ok(found)
}

/// What a chapter refers to and what can be referred to.
struct Chapter {
    links: Vec<String>,
    includes: Vec<String>,
    ids: BTreeSet<String>,
}

impl Chapter {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let (mut links, mut ids) = (Vec::new(), BTreeSet::new());
        let tree = to_mdast(text, &ParseOptions::gfm()).map_err(Error::msg)?;
        visit(&tree, &mut |node| match node {
            Node::Link(link) => links.push(link.url.clone()),
            Node::Image(image) => links.push(image.url.clone()),
            Node::Definition(definition) => links.push(definition.url.clone()),
            Node::Heading(_) => {
                let id = id_of(&node.to_string());
                let numbered = (1..).map(|number| format!("{id}-{number}"));
                let mut free = std::iter::once(id.clone()).chain(numbered);
                ids.extend(free.find(|id| !ids.contains(id)));
            }
            _ => {}
        });
        let includes = text.split("{{#").skip(1).filter_map(|rest| {
            let directive = rest.split("}}").next()?;
            Some(directive.trim().to_owned())
        });
        Ok(Self {
            links,
            includes: includes.collect(),
            ids,
        })
    }
}

/// Calls `look` with a node and all below it, in order.
fn visit(node: &Node, look: &mut impl FnMut(&Node)) {
    look(node);
    for child in node.children().into_iter().flatten() {
        visit(child, look);
    }
}

/// The id that mdBook gives a heading.
fn id_of(heading: &str) -> String {
    let letters = heading.trim().chars().filter_map(|letter| {
        if letter.is_alphanumeric() || letter == '_' || letter == '-' {
            Some(letter.to_ascii_lowercase())
        } else {
            letter.is_whitespace().then_some('-')
        }
    });
    letters.collect()
}

/// The file, and the anchor in it, of a directive `include PATH` or `include PATH:ANCHOR`.
fn resolve(directory: &Path, include: &str) -> Result<(PathBuf, Option<String>), String> {
    let Some(place) = include.strip_prefix("include ") else {
        return Err("no directive of this book, which has `include` alone".into());
    };
    let (path, anchor) = match place.split_once(':') {
        None => (place, None),
        Some((path, anchor)) => (path, Some(anchor.to_owned())),
    };
    let path = normal(&directory.join(path));
    let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
    if let Some(anchor) = &anchor {
        for mark in ["ANCHOR:", "ANCHOR_END:"] {
            if anchors(&text, mark)
                .iter()
                .filter(|name| *name == anchor)
                .count()
                != 1
            {
                return Err(format!("`{mark} {anchor}` does not stand there once"));
            }
        }
    }
    Ok((path, anchor))
}

/// The names behind a mark, in order.
fn anchors(text: &str, mark: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| {
        let (before, name) = line.split_once(mark)?;
        let is_mark = before.ends_with([' ', '/', '#']) || before.is_empty();
        is_mark.then(|| name.trim().to_owned())
    });
    lines.collect()
}

/// Why a link leads nowhere.
fn broken(from: &Path, link: &str, chapters: &BTreeMap<PathBuf, Chapter>) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
    let target = match path {
        "" => from.to_path_buf(),
        _ => normal(&from.parent()?.join(path)),
    };
    match chapters.get(&target) {
        Some(chapter) if fragment.is_empty() || chapter.ids.contains(fragment) => None,
        Some(_) => Some(format!("no heading `#{fragment}` there")),
        None if !target.starts_with(from.parent()?) => Some("outside of the book".into()),
        None if fragment.is_empty() && target.is_file() => None,
        None => Some("no such file".into()),
    }
}

/// Chapters that the summary does not list.
fn unlisted(source: &Path, chapters: &BTreeMap<PathBuf, Chapter>) -> Vec<String> {
    let summary = source.join("SUMMARY.md");
    let Some(listed) = chapters.get(&summary) else {
        return vec!["SUMMARY.md: no such file".into()];
    };
    let listed: BTreeSet<_> = listed.links.iter().map(|link| source.join(link)).collect();
    let others = chapters
        .keys()
        .filter(|path| **path != summary && !listed.contains(*path));
    others
        .map(|path| format!("{}: not in SUMMARY.md", path.display()))
        .collect()
}

/// All files below a directory, sorted.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let directory = normal(directory);
    let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    found.sort();
    Ok(found)
}

/// The path without `.` and `..`, as text.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(normal.pop()),
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    /// What is wrong with a book of these files and a program with two anchors and an output.
    fn found(name: &str, chapters: &[(&str, &str)]) -> Vec<String> {
        let folder = env::temp_dir().join(format!("book-{name}-{}", std::process::id()));
        let (source, programs) = (folder.join("src"), folder.join("programs"));
        fs::create_dir_all(&source).unwrap();
        fs::create_dir_all(&programs).unwrap();
        let program = "// ANCHOR: a\nlet a;\n// ANCHOR_END: a\n// ANCHOR: b\n";
        fs::write(programs.join("a.rs"), program).unwrap();
        for (name, text) in chapters {
            fs::write(source.join(name), text).unwrap();
        }
        let found = check(&source, &programs).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let local = |line: String| line.replace(&format!("{}/", folder.display()), "");
        found.into_iter().map(local).collect()
    }

    #[test]
    fn a_sound_book_has_nothing_to_report_but_what_it_does_not_show() {
        let summary = ("SUMMARY.md", "- [One](one.md)\n- [Two](two.md)\n");
        let one =
            "# One\n{{#include ../programs/a.rs:a}}\n[two](two.md#a-b-c) <https://burn.dev>\n";
        let chapters = [
            summary,
            ("one.md", one),
            ("two.md", "# Two\n## A `b`: c!\n[one](#two)\n"),
        ];
        assert_eq!(
            found("sound", &chapters),
            ["programs/a.rs:b: shown in no chapter"]
        );
    }

    #[test]
    fn each_fault_is_reported() {
        let summary = ("SUMMARY.md", "- [One](one.md)\n- [Three](three.md)\n");
        let one = "# One\n{{#include ../programs/a.rs:a}}{{#include ../programs/a.rs:b}}\n\
                   {{#include ../programs/c.rs}}{{#title x}}\n\
                   [two](two.md#three) [readme](../README.md) [image](a.svg)\n";
        let reported = found("faults", &[summary, ("one.md", one), ("two.md", "# Two\n")]);
        let expected = [
            "SUMMARY.md: link `three.md`: no such file",
            "one.md: include `include ../programs/a.rs:b`: `ANCHOR_END: b` does not stand there once",
            "one.md: include `include ../programs/c.rs`: ",
            "one.md: include `title x`: no directive of this book",
            "one.md: link `two.md#three`: no heading `#three` there",
            "one.md: link `../README.md`: outside of the book",
            "one.md: link `a.svg`: no such file",
            "src/two.md: not in SUMMARY.md",
            "programs/a.rs:b: shown in no chapter",
        ];
        assert_eq!(reported.len(), expected.len(), "{reported:#?}");
        for (reported, expected) in reported.iter().zip(expected) {
            assert!(reported.starts_with(expected), "{reported}");
        }
    }

    #[test]
    fn headings_of_one_name_are_numbered() {
        let chapter = Chapter::parse("# A\n## A\n## A\n").unwrap();
        assert_eq!(
            chapter.ids.into_iter().collect::<Vec<_>>(),
            ["a", "a-1", "a-2"]
        );
    }
}
