use serde_json::json;

use super::{
    tests::{change_as_code, tree},
    *,
};

const FIVE: &str = "one\ntwo\nthree\nfour\nfive\n";

/// A file before, the hunks of a patch, and the file after or why not.
#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn a_patch_is_applied_by_its_lines_not_by_its_numbers() {
    let table: [(&str, &str, &str, Result<&str, &str>); 18] = [
        (
            "as it should be",
            FIVE,
            "@@ -2,3 +2,3 @@\n two\n-three\n+3\n four\n",
            Ok("one\ntwo\n3\nfour\nfive\n"),
        ),
        (
            "wrong numbers",
            FIVE,
            "@@ -40,1 +7,9 @@\n two\n-three\n+3\n four\n",
            Ok("one\ntwo\n3\nfour\nfive\n"),
        ),
        (
            "no numbers",
            FIVE,
            "@@\n two\n-three\n four\n",
            Ok("one\ntwo\nfour\nfive\n"),
        ),
        (
            "a heading behind",
            FIVE,
            "@@ -1,2 +1,3 @@ def f():\n one\n+1.5\n two\n",
            Ok("one\n1.5\ntwo\nthree\nfour\nfive\n"),
        ),
        (
            "two hunks",
            FIVE,
            "@@ -1,2 +1,1 @@\n-one\n two\n@@ -4,2 +3,3 @@\n four\n+4.5\n five\n",
            Ok("two\nthree\nfour\n4.5\nfive\n"),
        ),
        (
            "blank lines behind",
            FIVE,
            "@@ -5 +5,2 @@\n five\n+six\n\n\n",
            Ok("one\ntwo\nthree\nfour\nfive\nsix\n"),
        ),
        (
            "an empty line without its blank",
            "a\n\nb\n",
            "@@ -1,3 +1,3 @@\n a\n\n-b\n+c\n",
            Ok("a\n\nc\n"),
        ),
        (
            "the nearest of two",
            "x\n1\nx\n2\n",
            "@@ -3,1 +3,1 @@\n-x\n+y\n",
            Ok("x\n1\ny\n2\n"),
        ),
        (
            "two and no number",
            "x\n1\nx\n2\n",
            "@@\n-x\n+y\n",
            Err("its lines are in the file 2 times"),
        ),
        (
            "only added, by its number",
            FIVE,
            "@@ -2,0 +3 @@\n+2.5\n",
            Ok("one\ntwo\n2.5\nthree\nfour\nfive\n"),
        ),
        (
            "only added, nowhere",
            FIVE,
            "@@\n+2.5\n",
            Err("no line of the file around what it adds"),
        ),
        (
            "not there",
            FIVE,
            "@@ -1,2 +1,2 @@\n one\n-zwei\n+2\n",
            Err("hunk 1 does not fit: its lines are not in the file as they stand, from `one` on"),
        ),
        (
            "out of order",
            FIVE,
            "@@ -4 +4 @@\n-four\n+4\n@@ -1 +1 @@\n-one\n+1\n",
            Err("hunk 2 does not fit"),
        ),
        (
            "no end before",
            "a\nb",
            "@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+c\n",
            Ok("a\nc\n"),
        ),
        (
            "no end after",
            "a\nb\n",
            "@@ -1,2 +1,2 @@\n a\n-b\n+c\n\\ No newline at end of file\n",
            Ok("a\nc"),
        ),
        (
            "no end and not said",
            "a\nb",
            "@@ -1,2 +1,2 @@\n-a\n+c\n b\n",
            Ok("c\nb"),
        ),
        (
            "a removed line like a head",
            "-- x\ny\n",
            "@@ -1,2 +1 @@\n--- x\n y\n",
            Ok("y\n"),
        ),
        (
            "a foreign sign",
            FIVE,
            "@@ -1 +1 @@\n*one\n",
            Err("begins with none of blank, + and -"),
        ),
    ];
    for (name, before, hunks, expected) in table {
        let mut tree = tree(&[("src/a", before)]);
        let patch = format!(
            "diff --git a/src/a b/src/a\nindex 1..2 100644\n--- a/src/a\t2026-01-01\n+++ b/src/a\n{hunks}"
        );
        match (
            change_as_code(Builtin::ApplyPatch, &json!({"patch": patch}), &mut tree),
            expected,
        ) {
            (Ok(changed), Ok(after)) => {
                assert_eq!(tree.text("src/a").as_deref(), Some(after), "{name}");
                assert_eq!(changed.told, "patched src/a\n", "{name}");
            }
            (Err(error), Err(words)) => assert!(error.contains(words), "{name}: {error}"),
            (other, _) => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_patch_over_several_files_is_applied_whole_or_not_at_all() {
    let files = [("src/a", "x\n"), ("src/b", "y\n")];
    let good = "```diff\n--- a/src/a\n+++ b/src/a\n@@ -1 +1 @@\n-x\n+z\n--- /dev/null\n+++ b/src/new\n@@ -0,0 +1,2 @@\n+1\n+2\n--- a/src/b\n+++ /dev/null\n@@ -1 +0,0 @@\n-y\n```";
    let mut tree = tree(&files);
    let changed = change_as_code(Builtin::ApplyPatch, &json!({"patch": good}), &mut tree).unwrap();
    assert_eq!(changed.told, "patched src/a\nmade src/new\ndeleted src/b\n");
    assert_eq!(changed.wrote, ["src/a", "src/new", "src/b"]);
    assert_eq!(
        (tree.text("src/a").unwrap(), tree.text("src/new").unwrap()),
        ("z\n".into(), "1\n2\n".into())
    );
    assert!(tree.get("src/b").is_none());
    let table = [
        (
            "--- a/src/a\n+++ b/src/a\n@@ -1 +1 @@\n-x\n+z\n--- a/src/b\n+++ b/src/b\n@@ -1 +1 @@\n-no\n+z\n",
            "src/b: hunk 1 does not fit",
        ),
        (
            "--- a/src/a\n+++ b/src/c\n@@ -1 +1 @@\n-x\n+z\n",
            "renames \"src/a\" to \"src/c\"",
        ),
        (
            "diff --git a/src/a b/src/c\nrename from src/a\nrename to src/c\n",
            "`rename from src/a`",
        ),
        (
            "--- /dev/null\n+++ b/src/a\n@@ -0,0 +1 @@\n+z\n",
            "which is there already",
        ),
        (
            "--- a/src/none\n+++ b/src/none\n@@ -1 +1 @@\n-x\n+z\n",
            "there is no file \"src/none\"",
        ),
        ("--- a/src/a\n+++ b/src/a\n", "no hunk for \"src/a\""),
        ("--- a/src/b\n+++ /dev/null\n", "leaves lines of it"),
        ("change x to y", "names no file"),
        ("@@ -1 +1 @@\n-x\n+z\n", "a hunk before it names a file"),
    ];
    for (patch, words) in table {
        let mut tree = super::tests::tree(&files);
        let before = tree.clone();
        let error =
            change_as_code(Builtin::ApplyPatch, &json!({"patch": patch}), &mut tree).unwrap_err();
        assert!(error.contains(words), "{patch}: {error}");
        assert_eq!(tree, before);
    }
    let many: String = (0..51)
        .map(|number| format!("--- /dev/null\n+++ b/src/f{number}\n@@ -0,0 +1 @@\n+x\n"))
        .collect::<Vec<_>>()
        .concat();
    let error =
        change_as_code(Builtin::ApplyPatch, &json!({"patch": many}), &mut tree).unwrap_err();
    assert!(error.contains("over 51 files, the most is 50"), "{error}");
    let large = json!({"patch": "+x\n".repeat(200_000)});
    let error = change_as_code(Builtin::ApplyPatch, &large, &mut tree).unwrap_err();
    assert!(error.contains("the most is 524288"), "{error}");
}
