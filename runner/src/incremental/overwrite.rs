//! What keeps an incremental run from writing over the code base. Pure.
//!
//! An answer may replace a file of the project that the model was shown as it is, and no other: what it did not see it would
//! lose. What steps derive is theirs to write again.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use sopwith_crds::places::{Keeper, keeper};

use crate::tree::{Tree, TreeFile};

/// Most bytes of an existing file that an answer may replace whole; a larger one is changed piece by piece.
pub const MAX_REWRITE_BYTES: usize = 64 << 10;

/// The end of a refusal.
const REMEDY: &str =
    "change a part of it with a tool (edit_file, apply_patch), or leave it as it is";

/// Why an answer may not replace a file, where it may not. `base` is the project that the run began with, `texts` are the
/// messages of the question.
pub fn refusal<'a>(
    path: &str,
    (base, now): (&Tree, &Tree),
    layout: &BTreeMap<String, String>,
    texts: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let before = base.get(path)?;
    if keeper(layout, path) != Keeper::People {
        return None;
    }
    // What was deleted meanwhile was the project's all the same.
    let file = now.get(path).unwrap_or(before);
    if file.bytes.len() > MAX_REWRITE_BYTES {
        return Some(format!(
            "{path:?} is in the project and has {} bytes, and an incremental run replaces no file of more than {MAX_REWRITE_BYTES} whole: {REMEDY}",
            file.bytes.len()
        ));
    }
    (!shows(texts, &file.bytes)).then(|| {
        format!(
            "{path:?} is in the project, and an incremental run replaces a file only where you were shown all of it as it is now: {REMEDY}"
        )
    })
}

/// Whether texts show a file as it is. White space at its end does not count, since templates trim it, and neither do line ends,
/// since models see plain ones.
fn shows<'a>(texts: impl IntoIterator<Item = &'a str>, content: &Bytes) -> bool {
    let Ok(content) = std::str::from_utf8(content) else {
        return false;
    };
    let content = plain(content);
    let content = content.trim_end();
    texts.into_iter().any(|text| plain(text).contains(content))
}

/// A text with plain line ends.
fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\r') {
        text.replace("\r\n", "\n").into()
    } else {
        text.into()
    }
}

/// A text with the line ends of the file that it replaces, where those are all the same.
pub fn in_form_of(before: Option<&TreeFile>, text: String) -> Bytes {
    let Some(before) = before else {
        return text.into();
    };
    let lines = before.bytes.split_inclusive(|byte| *byte == b'\n');
    let mut lines = lines.filter(|line| line.ends_with(b"\n")).peekable();
    if lines.peek().is_some() && lines.all(|line| line.ends_with(b"\r\n")) {
        plain(&text).replace('\n', "\r\n").into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopwith_crds::check::defaults;

    fn tree(files: &[(&str, &[u8])]) -> Tree {
        let mut tree = Tree::default();
        for (path, bytes) in files {
            tree.write(path, bytes.to_vec().into(), true).unwrap();
        }
        tree
    }

    fn refused(path: &str, base: &Tree, now: &Tree, texts: &[&str]) -> Option<String> {
        let layout = defaults::layout(&BTreeMap::new(), "game");
        refusal(path, (base, now), &layout, texts.iter().copied())
    }

    #[test]
    fn a_file_is_replaced_only_where_the_question_shows_it_whole() {
        let large = "x\n".repeat(MAX_REWRITE_BYTES / 2 + 1);
        let tree = tree(&[
            ("game/a.py", b"def a():\n    return 1\n"),
            ("game/w.bat", b"echo a\r\necho b\r\n"),
            ("game/empty", b""),
            ("game/image", b"\xff\x00"),
            ("game/large", large.as_bytes()),
            ("resources/prd/a.json", b"{\"a\": 1}"),
            ("test_outputs/junit.xml", b"<a/>"),
        ]);
        let shown = "The file as it is now:\n\ndef a():\n    return 1\n\nChange it.";
        let shown_bat = "echo a\necho b";
        let table: [(&str, &[&str], Option<&str>); 12] = [
            ("game/a.py", &["system", shown], None),
            ("game/a.py", &["def a():"], Some("shown all of it")),
            (
                "game/a.py",
                &["def a():\n    return 2\n"],
                Some("shown all of it"),
            ),
            ("game/a.py", &[], Some("shown all of it")),
            ("game/w.bat", &[shown_bat], None),
            ("game/w.bat", &["echo a\r\necho b\r\n"], None),
            ("game/new.py", &["x"], None),
            ("game/empty", &["x"], None),
            ("game/image", &["\u{fffd}\0"], Some("shown all of it")),
            (
                "game/large",
                &[&large],
                Some("replaces no file of more than 65536 whole"),
            ),
            ("resources/prd/a.json", &["x"], None),
            ("test_outputs/junit.xml", &["x"], None),
        ];
        for (path, texts, expected) in table {
            let found = refused(path, &tree, &tree, texts);
            let fits = match (&found, expected) {
                (Some(found), Some(expected)) => found.contains(expected),
                (None, None) => true,
                _ => false,
            };
            assert!(fits, "{path} {found:?}");
        }
    }

    #[test]
    fn it_counts_what_the_file_is_now_and_what_the_run_made_is_its_own() {
        let base = tree(&[("game/a.py", b"one"), ("game/gone.py", b"three")]);
        let now = tree(&[("game/a.py", b"two"), ("game/made.py", b"four")]);
        for (path, text, may) in [
            ("game/a.py", "two", true),
            ("game/a.py", "one", false),
            ("game/made.py", "", true),
            ("game/gone.py", "three", true),
            ("game/gone.py", "", false),
        ] {
            let found = refused(path, &base, &now, &[text]);
            assert_eq!(found.is_none(), may, "{path} {text} {found:?}");
        }
    }

    #[test]
    fn a_file_keeps_its_line_ends() {
        let tree = tree(&[("w.bat", b"a\r\nb\r\n"), ("mixed", b"a\r\nb\n")]);
        for (path, text, expected) in [
            ("w.bat", "c\nd\n", "c\r\nd\r\n"),
            ("w.bat", "c\r\nd\n", "c\r\nd\r\n"),
            ("mixed", "c\nd\n", "c\nd\n"),
            ("new", "c\nd\n", "c\nd\n"),
        ] {
            let written = in_form_of(tree.get(path), text.to_owned());
            assert_eq!(written, expected.as_bytes(), "{path}");
        }
    }
}
