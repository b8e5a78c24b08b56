//! What keeps an incremental run from writing over the code base. Pure.
//!
//! A model may replace a file of the project that it was shown as it is, and no other: what it did not see it would lose. What
//! steps derive is theirs to write again.

use std::collections::BTreeMap;

use bytes::Bytes;
use sopwith_crds::places::{Keeper, keeper};

use crate::tree::Tree;

/// Most bytes of an existing file that an answer may replace whole; a larger one is changed piece by piece.
pub const MAX_REWRITE_BYTES: usize = 64 << 10;

/// Whether an existing file of the project is under guard: people keep it, and it was there when the run began.
pub fn guarded(path: &str, base: &Tree, layout: &BTreeMap<String, String>) -> bool {
    base.get(path).is_some() && keeper(layout, path) == Keeper::People
}

/// Whether texts show a file as it is. White space at its end does not count: templates trim it.
pub fn shows<'a>(texts: impl IntoIterator<Item = &'a str>, content: &Bytes) -> bool {
    let Ok(content) = std::str::from_utf8(content) else {
        return false;
    };
    let content = content.trim_end();
    texts.into_iter().any(|text| text.contains(content))
}

/// Why an answer may not replace a file, where it may not. `texts` are the messages of its question.
pub fn refusal<'a>(
    path: &str,
    tree: &Tree,
    texts: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let now = tree.get(path)?;
    if now.bytes.len() > MAX_REWRITE_BYTES {
        return Some(format!(
            "{path:?} is in the project and has {} bytes: more than {MAX_REWRITE_BYTES} are not replaced whole in an incremental run; change a part of it with a tool",
            now.bytes.len()
        ));
    }
    (!shows(texts, &now.bytes)).then(|| {
        format!(
            "{path:?} is in the project, and an incremental run replaces only what the model was shown as it is; show it with file(path) in the template, or leave it as it is"
        )
    })
}

/// An answer in the form of the file that it replaces: its line ends, and whether it may be executed.
pub fn in_form_of(before: Option<&crate::tree::TreeFile>, text: String) -> (Bytes, bool) {
    let Some(before) = before else {
        return (text.into(), false);
    };
    let lines = before.bytes.iter().filter(|byte| **byte == b'\n').count();
    let windows = before
        .bytes
        .windows(2)
        .filter(|pair| *pair == b"\r\n")
        .count();
    let text = if windows > 0 && windows == lines && !text.contains('\r') {
        text.replace('\n', "\r\n")
    } else {
        text
    };
    (text.into(), before.executable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopwith_crds::check::defaults;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, text) in files {
            tree.write(path, text.as_bytes().to_vec().into(), true)
                .unwrap();
        }
        tree
    }

    #[test]
    fn only_what_people_keep_and_what_was_there_is_guarded() {
        let base = tree(&[("game/a.py", "x"), ("resources/prd/a.json", "{}")]);
        let layout = defaults::layout(&BTreeMap::new(), "game");
        for (path, expected) in [
            ("game/a.py", true),
            ("game/new.py", false),
            ("resources/prd/a.json", false),
        ] {
            assert_eq!(guarded(path, &base, &layout), expected, "{path}");
        }
    }

    #[test]
    fn a_file_is_replaced_only_where_the_question_shows_it_whole() {
        let large = "x\n".repeat(MAX_REWRITE_BYTES);
        let tree = tree(&[
            ("a.py", "def a():\n    return 1\n"),
            ("empty", ""),
            ("large", &large),
        ]);
        let shown = "The file as it is now:\n\ndef a():\n    return 1\n\nChange it.";
        assert_eq!(refusal("a.py", &tree, ["system", shown]), None);
        assert_eq!(refusal("new.py", &tree, ["x"]), None);
        assert_eq!(refusal("empty", &tree, ["x"]), None);
        for other in ["def a():", "def a():\n    return 2\n", ""] {
            let refused = refusal("a.py", &tree, [other]).unwrap();
            assert!(refused.contains("\"a.py\" is in the project"), "{refused}");
        }
        let refused = refusal("large", &tree, [large.as_str()]).unwrap();
        assert!(refused.contains("are not replaced whole"), "{refused}");
    }

    #[test]
    fn what_is_no_text_is_never_shown() {
        let binary = Bytes::from_static(b"\xff\x00");
        assert!(!shows(["\u{fffd}\0"], &binary));
    }

    #[test]
    fn a_file_keeps_its_line_ends_and_its_permission() {
        let tree = tree(&[("w.bat", "a\r\nb\r\n"), ("mixed", "a\r\nb\n")]);
        let written = |path: &str| in_form_of(tree.get(path), "c\nd\n".into());
        assert_eq!(written("w.bat"), (Bytes::from_static(b"c\r\nd\r\n"), true));
        assert_eq!(written("mixed"), (Bytes::from_static(b"c\nd\n"), true));
        assert_eq!(written("new"), (Bytes::from_static(b"c\nd\n"), false));
        let own = in_form_of(tree.get("w.bat"), "c\r\n".into());
        assert_eq!(own.0, Bytes::from_static(b"c\r\n"));
    }
}
