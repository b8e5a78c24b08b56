//! What people edited in a project since the last run left it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sopwith_crds::{
    contract::{
        Digest,
        incremental::{Change, Edit},
    },
    places::{DEPENDENCIES, Keeper, keeper},
};

use super::dependencies::{Dependencies, Read};
use crate::tree::Tree;

/// What people edited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edits {
    /// Where they may: inputs of the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edited: Vec<Edit>,
    /// Where steps derive files from others: no source of anything, and lost when they are derived again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub derived: Vec<Edit>,
}

/// Compares a project with how the last run left it; none where no run left a list of its files, so that nothing can be told.
/// A list that was edited itself tells nothing but that.
pub fn edits(tree: &Tree, layout: &BTreeMap<String, String>) -> Option<Edits> {
    let path = layout.get(DEPENDENCIES)?;
    let list = match Dependencies::read(tree.get(path).map(|file| &*file.bytes)) {
        Read::Known(list) if list.knows() => list,
        Read::Known(_) | Read::Missing => return None,
        Read::Edited => {
            let derived = vec![Edit {
                path: path.clone(),
                change: Change::Changed,
            }];
            return Some(Edits {
                edited: Vec::new(),
                derived,
            });
        }
    };
    let mut found = Edits::default();
    let mut tell = |path: &str, change| {
        let edit = Edit {
            path: path.to_owned(),
            change,
        };
        match keeper(layout, path) {
            Keeper::People => found.edited.push(edit),
            Keeper::Steps => found.derived.push(edit),
            Keeper::System | Keeper::Nobody => {}
        }
    };
    for (path, entry) in &list.0 {
        match (tree.get(path), &entry.digest) {
            (None, Some(_)) => tell(path, Change::Removed),
            (Some(file), Some(digest)) if Digest::of(&file.bytes) != *digest => {
                tell(path, Change::Changed);
            }
            (_, _) => {}
        }
    }
    for (path, _) in tree.iter().filter(|(path, _)| !list.0.contains_key(*path)) {
        tell(path, Change::Added);
    }
    found.edited.sort();
    found.derived.sort();
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incremental::dependencies::Made;
    use sopwith_crds::check::defaults;

    fn layout() -> BTreeMap<String, String> {
        defaults::layout(&BTreeMap::new(), "game")
    }

    fn write(tree: &mut Tree, path: &str, text: &str) {
        tree.write(path, text.as_bytes().to_vec().into(), false)
            .unwrap();
    }

    /// A project as a run left it.
    fn left() -> Tree {
        let mut tree = Tree::default();
        for path in [
            "docs/prds/a.md",
            "resources/prd/a.json",
            "game/a.py",
            "game/b.py",
            "tests/test_a.py",
            "README.md",
            "tmp/notes",
        ] {
            write(&mut tree, path, "as it was");
        }
        let list = Dependencies::default().of(&tree, &layout(), &Made::new());
        write(&mut tree, ".dependencies.json", &list.text());
        tree
    }

    fn told(edits: &[Edit]) -> Vec<(&str, Change)> {
        edits
            .iter()
            .map(|edit| (edit.path.as_str(), edit.change))
            .collect()
    }

    #[test]
    fn edits_are_told_apart_by_who_keeps_the_place() {
        let mut tree = left();
        assert_eq!(edits(&tree, &layout()), Some(Edits::default()));
        for path in [
            "docs/prds/a.md",
            "resources/prd/a.json",
            "game/a.py",
            "tmp/notes",
        ] {
            write(&mut tree, path, "edited");
        }
        write(&mut tree, "docs/prds/b.md", "new");
        write(&mut tree, "resources/seq_flow/b.mmd", "new");
        write(&mut tree, "docs/bugfix.txt", "the system's");
        tree.remove("game/b.py");
        let found = edits(&tree, &layout()).unwrap();
        assert_eq!(
            told(&found.edited),
            [
                ("docs/prds/a.md", Change::Changed),
                ("docs/prds/b.md", Change::Added),
                ("game/a.py", Change::Changed),
                ("game/b.py", Change::Removed),
            ]
        );
        assert_eq!(
            told(&found.derived),
            [
                ("resources/prd/a.json", Change::Changed),
                ("resources/seq_flow/b.mmd", Change::Added),
            ]
        );
    }

    #[test]
    fn without_a_list_that_can_be_believed_nothing_is_told_but_that_it_was_edited() {
        let mut tree = left();
        let text = tree.text(".dependencies.json").unwrap();
        tree.remove(".dependencies.json");
        write(&mut tree, "game/a.py", "edited");
        assert_eq!(edits(&tree, &layout()), None);
        let forged = text.replacen("sha256:", "sha256:0", 1);
        for list in ["{\"a\": 1}", "no JSON", &forged] {
            write(&mut tree, ".dependencies.json", list);
            let found = edits(&tree, &layout()).unwrap();
            assert_eq!(
                told(&found.derived),
                [(".dependencies.json", Change::Changed)]
            );
            assert_eq!(told(&found.edited), []);
        }
        write(&mut tree, ".dependencies.json", "{\"game/a.py\": []}");
        assert_eq!(edits(&tree, &layout()), None, "another program's list");
    }
}
