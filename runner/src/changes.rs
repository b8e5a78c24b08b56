//! What changed in the project, as a unified diff. Pure.

use std::{collections::BTreeSet, fmt::Write as _};

use similar::TextDiff;

use crate::tree::{Tree, TreeFile};

/// Most bytes of a file whose lines are shown.
const MAX_FILE_BYTES: usize = 1 << 20;
/// Most bytes that are shown of all files together; of the rest only the names.
const MAX_BYTES: usize = 512 << 10;

/// What makes one tree of the other: files in the order of their paths, each as `diff -u` shows it. Empty where they are the
/// same.
pub fn diff(before: &Tree, after: &Tree) -> String {
    let paths: BTreeSet<&str> = before
        .iter()
        .chain(after.iter())
        .map(|(path, _)| path)
        .collect();
    let mut shown = String::new();
    let mut left_out = Vec::new();
    for path in paths {
        let (old, new) = (before.get(path), after.get(path));
        if old == new {
            continue;
        }
        let text = of_file(path, old, new);
        if shown.len() + text.len() > MAX_BYTES {
            left_out.push(path);
        } else {
            shown.push_str(&text);
        }
    }
    if !left_out.is_empty() {
        let (count, paths) = (left_out.len(), left_out.join(", "));
        let _ = writeln!(
            shown,
            "{count} more files changed, too much to show: {paths}"
        );
    }
    shown
}

fn of_file(path: &str, old: Option<&TreeFile>, new: Option<&TreeFile>) -> String {
    let mut out = String::new();
    let runs = |file: Option<&TreeFile>| file.is_some_and(|file| file.executable);
    match (old, new) {
        (Some(_), Some(_)) if runs(old) == runs(new) => {}
        (_, Some(file)) if file.executable => {
            let _ = writeln!(out, "{path} can be executed");
        }
        (Some(_), Some(_)) => {
            let _ = writeln!(out, "{path} can no longer be executed");
        }
        _ => {}
    }
    let (Some(one), Some(other)) = (text(old), text(new)) else {
        let size = |file: Option<&TreeFile>| file.map_or(0, |file| file.bytes.len());
        let (one, other) = (size(old), size(new));
        let _ = writeln!(
            out,
            "{path} changed, from {one} bytes to {other} that are not shown"
        );
        return out;
    };
    let name = |side: &str, file: Option<&TreeFile>| {
        file.map_or_else(|| "/dev/null".to_owned(), |_| format!("{side}/{path}"))
    };
    let (from, to) = (name("a", old), name("b", new));
    let lines = TextDiff::from_lines(one, other);
    let hunks = lines.unified_diff().to_string();
    if !hunks.is_empty() || from == "/dev/null" || to == "/dev/null" {
        let _ = write!(out, "--- {from}\n+++ {to}\n{hunks}");
    }
    out
}

/// The text of a file that can be shown; of one that is not there, nothing.
fn text(file: Option<&TreeFile>) -> Option<&str> {
    match file {
        None => Some(""),
        Some(file) if file.bytes.len() > MAX_FILE_BYTES => None,
        Some(file) => std::str::from_utf8(&file.bytes).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn tree(files: &[(&str, &[u8], bool)]) -> Tree {
        let mut tree = Tree::default();
        for (path, bytes, executable) in files {
            tree.write(path, Bytes::copy_from_slice(bytes), *executable)
                .unwrap();
        }
        tree
    }

    #[test]
    fn what_changed_is_shown_and_nothing_else() {
        let before = tree(&[
            ("a.py", b"one\ntwo\nthree\n", false),
            ("gone", b"x\n", false),
            ("same", b"x", false),
            ("tool", b"x\n", false),
            ("image", &[0xff, 0], false),
        ]);
        let after = tree(&[
            ("a.py", b"one\n2\nthree\n", false),
            ("new.py", b"n\n", false),
            ("empty", b"", false),
            ("same", b"x", false),
            ("tool", b"x\n", true),
            ("image", &[0xff, 1, 2], false),
        ]);
        assert_eq!(
            diff(&before, &after),
            "--- a/a.py\n+++ b/a.py\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n\
             --- /dev/null\n+++ b/empty\n\
             --- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n\
             image changed, from 2 bytes to 3 that are not shown\n\
             --- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+n\n\
             tool can be executed\n"
        );
        assert_eq!(diff(&after, &after), "");
    }

    #[test]
    fn of_too_much_the_names_are_shown() {
        let large = vec![b'x'; MAX_FILE_BYTES + 1];
        let lines: Vec<u8> = (0..60_000)
            .flat_map(|n| format!("{n:08}\n").into_bytes())
            .collect();
        let after = tree(&[
            ("a", &large, false),
            ("b", &lines, false),
            ("c", b"c\n", false),
        ]);
        let shown = diff(&Tree::default(), &after);
        assert_eq!(
            shown,
            "a changed, from 0 bytes to 1048577 that are not shown\n--- /dev/null\n+++ b/c\n@@ -0,0 +1 @@\n+c\n\
             1 more files changed, too much to show: b\n"
        );
    }
}
