//! The file that says which file of the project depends on which, and how the last run left each of them. Pure.
//!
//! `{"version": 1, "digest": …, "files": {PATH: {"digest": …, "dependsOn": [PATH]}}}`, a line for each file, so that a
//! change of one is a change of one line. The digest is that of `files`: what somebody edited is not believed. MetaGPT's own
//! form, `{PATH: [PATH]}`, is read, too.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sopwith_crds::{
    contract::{Digest, VERSION},
    places::{Keeper, keeper},
};

use crate::tree::Tree;

/// What is known of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its content, as the last run left it; none where another program wrote the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The files that it was made from.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub depends_on: BTreeSet<String>,
}

/// The files of a project by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dependencies(pub BTreeMap<String, Entry>);

/// What a list says, and whether it can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// It is not there.
    Missing,
    /// It is as it was written.
    Known(Dependencies),
    /// Somebody edited it, or it never was such a list.
    Edited,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    digest: Digest,
    files: Dependencies,
}

/// What was written while an attempt worked, each file with what it was made from.
pub type Made = BTreeMap<String, BTreeSet<String>>;

impl Dependencies {
    /// Reads a list.
    pub fn read(bytes: Option<&[u8]>) -> Read {
        let Some(bytes) = bytes else {
            return Read::Missing;
        };
        if let Ok(written) = serde_json::from_slice::<Written>(bytes) {
            let whole = written.version == VERSION && written.digest == written.files.digest();
            return if whole {
                Read::Known(written.files)
            } else {
                Read::Edited
            };
        }
        serde_json::from_slice::<BTreeMap<String, BTreeSet<String>>>(bytes).map_or(
            Read::Edited,
            |files| {
                let entry = |(path, depends_on)| {
                    let entry = Entry {
                        digest: None,
                        depends_on,
                    };
                    (path, entry)
                };
                Read::Known(Self(files.into_iter().map(entry).collect()))
            },
        )
    }

    /// The text of a list.
    pub fn text(&self) -> String {
        let lines: Vec<String> = self
            .0
            .iter()
            .map(|(path, entry)| format!("    {}: {}", json(path), json(entry)))
            .collect();
        format!(
            "{{\n  \"version\": {VERSION},\n  \"digest\": {},\n  \"files\": {{\n{}\n  }}\n}}\n",
            json(&self.digest()),
            lines.join(",\n")
        )
    }

    /// The list for a tree: what was made now depends on what it was made from, all else on what it did before. What is of
    /// one run only, and the list itself, is not in it.
    #[must_use]
    pub fn of(&self, tree: &Tree, layout: &BTreeMap<String, String>, made: &Made) -> Self {
        let listed = |path: &str| match keeper(layout, path) {
            Keeper::People | Keeper::Steps => true,
            Keeper::System | Keeper::Nobody => false,
        };
        let there = tree.iter().filter(|(path, _)| listed(path));
        let entry = |(path, file): (&str, &crate::tree::TreeFile)| {
            let before = self.0.get(path).map(|entry| &entry.depends_on);
            let depends_on = made.get(path).or(before).cloned().unwrap_or_default();
            let entry = Entry {
                digest: Some(Digest::of(&file.bytes)),
                depends_on,
            };
            (path.to_owned(), entry)
        };
        Self(there.map(entry).collect())
    }

    fn digest(&self) -> Digest {
        Digest::of_json(self)
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The files of the project that an item of a loop names, anywhere in it, but for the file itself.
pub fn named(item: &Value, tree: &Tree, own: &str) -> BTreeSet<String> {
    fn walk(value: &Value, found: &mut BTreeSet<String>, is_file: &dyn Fn(&str) -> bool) {
        match value {
            Value::String(text) if is_file(text) => {
                found.insert(text.clone());
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, found, is_file)),
            Value::Object(fields) => fields
                .values()
                .for_each(|value| walk(value, found, is_file)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    walk(item, &mut found, &|text| {
        text != own && tree.get(text).is_some()
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use sopwith_crds::check::defaults;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for (path, text) in files {
            tree.write(path, text.as_bytes().to_vec().into(), false)
                .unwrap();
        }
        tree
    }

    fn layout() -> BTreeMap<String, String> {
        defaults::layout(&BTreeMap::new(), "game")
    }

    fn set(paths: &[&str]) -> BTreeSet<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn a_list_names_what_each_file_was_made_from_and_keeps_what_it_knew() {
        let first = tree(&[
            ("docs/prds/a.md", "a"),
            ("game/a.py", "x"),
            ("tmp/x", "x"),
            ("docs/requirement.txt", "r"),
        ]);
        let made = Made::from([("game/a.py".to_owned(), set(&["docs/prds/a.md"]))]);
        let list = Dependencies::default().of(&first, &layout(), &made);
        assert_eq!(
            list.0.keys().collect::<Vec<_>>(),
            ["docs/prds/a.md", "game/a.py"]
        );
        assert_eq!(list.0["game/a.py"].depends_on, set(&["docs/prds/a.md"]));
        let second = tree(&[("game/a.py", "y"), ("game/b.py", "z")]);
        let made = Made::from([("game/b.py".to_owned(), set(&["game/a.py"]))]);
        let next = list.of(&second, &layout(), &made);
        assert_eq!(next.0.keys().collect::<Vec<_>>(), ["game/a.py", "game/b.py"]);
        assert_eq!(next.0["game/a.py"].depends_on, set(&["docs/prds/a.md"]));
        assert_ne!(next.0["game/a.py"].digest, list.0["game/a.py"].digest);
    }

    #[test]
    fn a_list_is_read_as_it_was_written_a_line_for_each_file_and_no_edit_is_believed() {
        let tree = tree(&[("game/a.py", "x"), ("game/ünï \"b\".py", "y")]);
        let list = Dependencies::default().of(&tree, &layout(), &Made::new());
        let text = list.text();
        assert_eq!(text.lines().count(), 8, "{text}");
        assert_eq!(
            Dependencies::read(Some(text.as_bytes())),
            Read::Known(list.clone())
        );
        let forged = text.replace("a.py", "c.py");
        for edited in [
            forged.as_str(),
            "",
            "[]",
            "{\"a\": 1}",
            &text.replace("\"version\": 1", "\"version\": 2"),
        ] {
            assert_eq!(
                Dependencies::read(Some(edited.as_bytes())),
                Read::Edited,
                "{edited}"
            );
        }
        assert_eq!(Dependencies::read(None), Read::Missing);
        let none = Dependencies::default();
        let empty = none.text();
        assert_eq!(Dependencies::read(Some(empty.as_bytes())), Read::Known(none));
    }

    #[test]
    fn the_list_of_a_project_of_metagpt_is_read() {
        let theirs = r#"{"docs/system_designs/a.json": ["docs/prds/a.json"], "game/a.py": []}"#;
        let Read::Known(list) = Dependencies::read(Some(theirs.as_bytes())) else {
            panic!("not read");
        };
        assert_eq!(
            list.0["docs/system_designs/a.json"].depends_on,
            set(&["docs/prds/a.json"])
        );
        assert_eq!(list.0["game/a.py"].digest, None);
    }

    #[test]
    fn an_item_names_files_wherever_they_stand_in_it() {
        let tree = tree(&[("a.py", ""), ("b.py", ""), ("c.py", "")]);
        let item = json!({"path": "a.py", "needs": ["b.py", {"also": "c.py"}], "what": "not a file"});
        assert_eq!(named(&item, &tree, "a.py"), set(&["b.py", "c.py"]));
        assert_eq!(named(&json!("b.py"), &tree, "a.py"), set(&["b.py"]));
        assert_eq!(named(&json!(4), &tree, "a.py"), set(&[]));
    }
}
