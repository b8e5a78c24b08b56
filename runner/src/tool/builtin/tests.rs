use bytes::Bytes;
use serde_json::json;
use sopwith_crds::contract::Digest;

use super::*;
use crate::guard::Guard;
pub(super) use crate::tree::of as tree;

const MOST: usize = 400;

fn looked(builtin: Builtin, arguments: &Value, tree: &Tree) -> String {
    look(builtin, arguments, tree, MOST).unwrap_or_else(|error| format!("error: {error}"))
}

#[test]
fn a_file_is_read_whole_or_in_lines_and_says_which() {
    let long: String = (1..=100)
        .map(|line| format!("line {line}"))
        .collect::<Vec<_>>()
        .join("\n")
        + "\n";
    let mut tree = tree(&[("a.py", "one\ntwo\nthree"), ("empty", ""), ("long", &long)]);
    tree.write("blob", Bytes::from_static(b"\xff\xfe\x00"), false)
        .unwrap();
    tree.write("wide", "ä".repeat(300).into(), false).unwrap();
    let table = [
        (
            json!({"path": "a.py"}),
            "a.py: all 3 lines\none\ntwo\nthree",
        ),
        (
            json!({"path": "a.py", "from": 2, "lines": 1}),
            "a.py: lines 2 to 2 of 3\ntwo\n",
        ),
        (
            json!({"path": "a.py", "from": 3}),
            "a.py: lines 3 to 3 of 3\nthree",
        ),
        (
            json!({"path": "a.py", "from": 4}),
            "error: \"a.py\" has 3 lines, and line 4 is not there",
        ),
        (json!({"path": "empty"}), "empty: empty\n"),
        (
            json!({"path": "b.py"}),
            "error: there is no file \"b.py\"; list_files shows what there is",
        ),
        (
            json!({"path": "blob"}),
            "error: \"blob\" is no text: 3 bytes that are not UTF-8",
        ),
    ];
    for (arguments, expected) in table {
        assert_eq!(
            looked(Builtin::ReadFile, &arguments, &tree),
            expected,
            "{arguments}"
        );
    }
    let first = looked(Builtin::ReadFile, &json!({"path": "long"}), &tree);
    assert!(
        first.starts_with(
            "long: lines 1 to 51 of 100; the rest does not fit, read on from line 52\nline 1\n"
        ),
        "{first}"
    );
    assert!(
        first.ends_with("line 51\n") && first.len() < MOST + 100,
        "{first}"
    );
    let wide = looked(Builtin::ReadFile, &json!({"path": "wide"}), &tree);
    assert_eq!(wide.chars().filter(|c| *c == 'ä').count(), MOST / 2);
}

#[test]
fn files_are_listed_with_sizes_and_what_is_left_out_is_told() {
    let project = tree(&[("src/a.py", "x"), ("src/b.txt", "yy"), ("README.md", "")]);
    assert_eq!(
        looked(Builtin::ListFiles, &json!({}), &project),
        "3 files\nREADME.md 0\nsrc/a.py 1\nsrc/b.txt 2\n"
    );
    assert_eq!(
        looked(Builtin::ListFiles, &json!({"glob": "**/*.py"}), &project),
        "1 files\nsrc/a.py 1\n"
    );
    assert!(
        looked(Builtin::ListFiles, &json!({"glob": "["}), &project).starts_with("error: pattern")
    );
    let names: Vec<String> = (0..100).map(|number| format!("file{number:03}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let told = looked(Builtin::ListFiles, &json!({}), &tree(&many));
    assert!(told.starts_with("100 files; the first 40 are shown, 60 more are not: ask with a narrower glob\nfile000 0\n"), "{told}");
}

#[test]
fn a_search_shows_lines_with_their_places() {
    let long = format!("needle {}\n", "x".repeat(400));
    let project = tree(&[
        (
            "a.py",
            "import os\n\ndef find():\n    return os\n\ndef other():\n    pass\n",
        ),
        ("b.md", "Find it\n"),
        ("c/long.txt", &long),
    ]);
    let table = [
        (
            json!({"pattern": "^def "}),
            "2 lines in 1 files\na.py:3: def find():\na.py:6: def other():\n",
        ),
        (
            json!({"pattern": "find"}),
            "1 lines in 1 files\na.py:3: def find():\n",
        ),
        (
            json!({"pattern": "find", "ignore_case": true}),
            "2 lines in 2 files\na.py:3: def find():\nb.md:1: Find it\n",
        ),
        (
            json!({"pattern": "find", "ignore_case": true, "glob": "*.md"}),
            "1 lines in 1 files\nb.md:1: Find it\n",
        ),
        (
            json!({"pattern": "def", "context": 1}),
            "2 lines in 1 files\na.py-2- \na.py:3: def find():\na.py-4-     return os\na.py-5- \na.py:6: def other():\na.py-7-     pass\n",
        ),
        (
            json!({"pattern": "import|other", "context": 1}),
            "2 lines in 1 files\na.py:1: import os\na.py-2- \n--\na.py-5- \na.py:6: def other():\na.py-7-     pass\n",
        ),
        (json!({"pattern": "nowhere"}), "0 lines in 0 files\n"),
    ];
    for (arguments, expected) in table {
        assert_eq!(
            looked(Builtin::Search, &arguments, &project),
            expected,
            "{arguments}"
        );
    }
    let cut = looked(Builtin::Search, &json!({"pattern": "needle"}), &project);
    assert!(cut.ends_with("xxx …\n") && cut.len() < 350, "{cut}");
    let wrong = looked(Builtin::Search, &json!({"pattern": "("}), &project);
    assert!(
        wrong.starts_with("error: the pattern is no regular expression"),
        "{wrong}"
    );
    let many = tree(&[("m", &"hit\n".repeat(1000))]);
    let told = looked(Builtin::Search, &json!({"pattern": "hit"}), &many);
    assert!(
        told.contains("there are more: ask with a narrower pattern or glob"),
        "{told}"
    );
    assert!(told.len() < MOST + 200, "{}", told.len());
}

fn place(step: &str, path: Option<&str>, glob: Option<&str>) -> Place {
    Place {
        name: format!("of-{step}"),
        step: step.into(),
        path: path.map(str::to_owned),
        glob: glob.map(str::to_owned),
        schema: None,
        frozen: false,
    }
}

/// Changes as the step `code`, whose are `src/**`; `tests/**` are of another, and `docs/plan.md` is frozen.
pub(super) fn change_as_code(
    builtin: Builtin,
    arguments: &Value,
    tree: &mut Tree,
) -> Result<Changed, String> {
    let places = [
        place("code", None, Some("src/**")),
        place("test", None, Some("tests/**")),
    ];
    let frozen = [(
        "docs/plan.md".to_owned(),
        Frozen {
            artifact: "plan".into(),
            step: "think".into(),
            digest: Digest::of(""),
        },
    )]
    .into();
    let writer = Writer {
        step: "code",
        places: &places,
        frozen: &frozen,
        guard: &Guard::default(),
    };
    change(builtin, arguments, tree, writer)
}

#[test]
fn a_text_is_replaced_where_it_is_once() {
    let before = "def f():\n    return 1\n\ndef g():\n    return 1\n";
    let table = [
        (
            "def f",
            "def h",
            false,
            Ok("def h():\n    return 1\n\ndef g():\n    return 1\n"),
        ),
        (
            "    return 1\n",
            "    return 2\n",
            true,
            Ok("def f():\n    return 2\n\ndef g():\n    return 2\n"),
        ),
        (
            "return 1",
            "return 2",
            false,
            Err("is in \"src/a.py\" 2 times; add lines around it"),
        ),
        (
            "return 3",
            "return 2",
            false,
            Err("`old` is not in \"src/a.py\"; read the file again"),
        ),
        ("  return 1", "x", false, Err("2 times")),
        (
            "\treturn 1",
            "x",
            false,
            Err("line 2 is like its first line, but not the same to the last blank"),
        ),
        ("def f", "def f", false, Err("nothing would change")),
        (
            "",
            "x",
            false,
            Err("is there already; give the text in `old`"),
        ),
    ];
    for (old, new, all, expected) in table {
        let mut tree = tree(&[("src/a.py", before)]);
        let arguments = json!({"path": "src/a.py", "old": old, "new": new, "all": all});
        let changed = change_as_code(Builtin::EditFile, &arguments, &mut tree);
        match expected {
            Ok(text) => {
                assert_eq!(changed.unwrap().wrote, ["src/a.py"], "{old}");
                assert_eq!(tree.text("src/a.py").as_deref(), Some(text));
            }
            Err(words) => {
                let error = changed.unwrap_err();
                assert!(error.contains(words), "{old}: {error}");
                assert_eq!(tree.text("src/a.py").as_deref(), Some(before));
            }
        }
    }
}

#[test]
fn line_ends_and_modes_stay_as_they_are() {
    let mut tree = Tree::default();
    tree.write("src/run.sh", Bytes::from_static(b"a\r\nb\r\nc\r\n"), true)
        .unwrap();
    let arguments = json!({"path": "src/run.sh", "old": "a\nb", "new": "a\nx"});
    change_as_code(Builtin::EditFile, &arguments, &mut tree).unwrap();
    let patch =
        json!({"patch": "--- a/src/run.sh\n+++ b/src/run.sh\n@@ -1,3 +1,3 @@\n a\n-x\n+y\n c\n"});
    change_as_code(Builtin::ApplyPatch, &patch, &mut tree).unwrap();
    let file = tree.get("src/run.sh").unwrap();
    assert_eq!(
        (&file.bytes[..], file.executable),
        (&b"a\r\ny\r\nc\r\n"[..], true)
    );
}

#[test]
fn files_are_made_and_deleted() {
    let mut tree = tree(&[("src/a", "x")]);
    let made = change_as_code(
        Builtin::EditFile,
        &json!({"path": "src/b", "old": "", "new": "y"}),
        &mut tree,
    );
    assert_eq!(made.unwrap().told, "made src/b");
    let deleted = change_as_code(Builtin::DeleteFile, &json!({"path": "src/a"}), &mut tree);
    assert_eq!(
        deleted.unwrap(),
        Changed {
            told: "deleted src/a".into(),
            wrote: vec!["src/a".into()]
        }
    );
    assert_eq!(
        tree.iter().map(|(path, _)| path).collect::<Vec<_>>(),
        ["src/b"]
    );
    let gone = change_as_code(Builtin::DeleteFile, &json!({"path": "src/a"}), &mut tree);
    assert_eq!(gone.unwrap_err(), "there is no file \"src/a\"");
}

/// Every way to change a file, for each place that is not this step's.
#[test]
fn nothing_is_written_where_the_step_may_not() {
    let table = [
        ("../x", "`..` component"),
        ("/etc/passwd", "is absolute"),
        (".git/config", "leads into a git directory"),
        ("src/a/b", "would be a file and a folder"),
        (
            "tests/test_a.py",
            "belongs to the outputs of test, and nobody else may write it",
        ),
        (
            "docs/plan.md",
            "belongs to the artifact plan that step think froze",
        ),
    ];
    for (path, words) in table {
        let new = [
            (
                Builtin::EditFile,
                json!({"path": path, "old": "", "new": "y"}),
            ),
            (
                Builtin::ApplyPatch,
                json!({"patch": format!("--- /dev/null\n+++ b/{}\n@@ -0,0 +1 @@\n+y\n", path.trim_start_matches('/'))}),
            ),
        ];
        for (builtin, arguments) in new {
            let absolute = path.starts_with('/') && builtin == Builtin::ApplyPatch;
            let mut tree = tree(&[("src/a", "x")]);
            let before = tree.clone();
            match change_as_code(builtin, &arguments, &mut tree) {
                // Heads of patches are relative by themselves.
                Ok(_) => assert!(absolute, "{path}"),
                Err(error) => {
                    assert!(error.contains(words), "{path}: {error}");
                    assert_eq!(tree, before);
                }
            }
        }
    }
    for path in ["tests/test_a.py", "docs/plan.md"] {
        let there = [
            (
                Builtin::EditFile,
                json!({"path": path, "old": "x", "new": "y"}),
            ),
            (Builtin::DeleteFile, json!({"path": path})),
            (
                Builtin::ApplyPatch,
                json!({"patch": format!("--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-x\n+y\n")}),
            ),
            (
                Builtin::ApplyPatch,
                json!({"patch": format!("--- a/{path}\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n")}),
            ),
        ];
        for (builtin, arguments) in there {
            let mut tree = tree(&[(path, "x\n")]);
            let before = tree.clone();
            assert!(
                change_as_code(builtin, &arguments, &mut tree).is_err(),
                "{path} {builtin:?}"
            );
            assert_eq!(tree, before);
        }
    }
}
