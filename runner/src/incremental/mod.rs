//! Incremental runs: what is asked for, what people edited, what was made from what, and what may be written over.

mod begin;
mod classify;
pub mod dependencies;
pub mod edits;
pub mod overwrite;
mod write;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sopwith_crds::{
    contract::{
        Digest,
        incremental::{Classified, EditsTold},
        plan::RunPlan,
    },
    places::{BUGFIX, Keeper, REQUIREMENT, keeper},
    status::IdeaKind,
};

use self::edits::Edits;
use crate::tree::{Tree, TreeError};

/// What an incremental run is about, as it is kept in its snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incremental {
    /// Digest of the idea that was classified.
    pub idea: Digest,
    /// What it is.
    pub kind: IdeaKind,
    /// Why, in the model's words.
    pub reason: String,
    /// What people edited since the last run.
    #[serde(flatten)]
    pub edits: Edits,
}

impl Incremental {
    /// As it is reported; `path` is the file that the idea was written to.
    pub fn told(&self, path: String) -> Classified {
        Classified {
            kind: self.kind,
            reason: self.reason.clone(),
            path,
            edited: EditsTold::of(&self.edits.edited),
            derived: EditsTold::of(&self.edits.derived),
        }
    }
}

/// What expressions and templates see as `incremental`; empty in a run that is not incremental. `base` is the project that the
/// run began with.
pub fn seen(
    incremental: Option<&Incremental>,
    layout: &BTreeMap<String, String>,
    base: Option<&Tree>,
    tree: &Tree,
) -> Value {
    let Some(incremental) = incremental else {
        return json!({"kind": "", "edited": [], "derived": [], "changed": []});
    };
    let nothing = Tree::default();
    json!({
        "kind": incremental.kind.as_str(),
        "edited": incremental.edits.edited,
        "derived": incremental.edits.derived,
        "changed": changed(layout, base.unwrap_or(&nothing), tree),
    })
}

/// The paths that differ between two trees, what is gone included, in order; without what the system keeps and what is of one
/// run only.
fn changed<'a>(layout: &BTreeMap<String, String>, base: &'a Tree, tree: &'a Tree) -> Vec<&'a str> {
    let written = tree.written_since(base).map(|(path, _)| path);
    let mut paths: Vec<&str> = written
        .chain(tree.gone_since(base))
        .filter(|path| matches!(keeper(layout, path), Keeper::People | Keeper::Steps))
        .collect();
    paths.sort_unstable();
    paths
}

/// The places of the layout to which the idea of a kind is written, and to which that of the other kind would be.
const fn places(kind: IdeaKind) -> (&'static str, &'static str) {
    match kind {
        IdeaKind::Requirement => (REQUIREMENT, BUGFIX),
        IdeaKind::Bug => (BUGFIX, REQUIREMENT),
    }
}

/// Writes the idea where the iteration goes on from, and takes away what an earlier one left; gives the path.
fn written(plan: &RunPlan, kind: IdeaKind, tree: &mut Tree) -> Result<String, TreeError> {
    let (own, other) = places(kind);
    let place = |name: &str| plan.layout.get(name).cloned().unwrap_or_default();
    tree.remove(&place(other));
    let path = place(own);
    let text = format!("{}\n", plan.options.idea.trim_end());
    tree.write(&path, text.into(), false)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::of as tree;
    use sopwith_crds::{
        check::defaults,
        contract::{
            incremental::{Change, Edit},
            plan::RunOptions,
        },
    };

    fn layout() -> BTreeMap<String, String> {
        defaults::layout(&BTreeMap::new(), "game")
    }

    #[test]
    fn the_idea_stands_where_its_kind_goes_and_nowhere_else() {
        let plan = RunPlan {
            layout: layout(),
            options: RunOptions {
                idea: "it crashes\n\n".into(),
                ..RunOptions::default()
            },
            ..RunPlan::default()
        };
        for (kind, path, other) in [
            (IdeaKind::Bug, "docs/bugfix.txt", "docs/requirement.txt"),
            (
                IdeaKind::Requirement,
                "docs/requirement.txt",
                "docs/bugfix.txt",
            ),
        ] {
            let mut tree = tree(&[
                ("docs/bugfix.txt", "old"),
                ("docs/requirement.txt", "old"),
                ("docs/prds/a.md", "a"),
            ]);
            assert_eq!(written(&plan, kind, &mut tree).unwrap(), path);
            assert_eq!(tree.text(path).as_deref(), Some("it crashes\n"));
            assert_eq!(tree.get(other), None);
            assert!(tree.get("docs/prds/a.md").is_some());
        }
        let mut clash = tree(&[("docs", "a file")]);
        assert!(written(&plan, IdeaKind::Bug, &mut clash).is_err());
    }

    #[test]
    fn an_incremental_run_sees_what_it_is_about_and_what_it_changed() {
        let base = tree(&[
            ("game/a.py", "1"),
            ("game/b.py", "1"),
            ("game/c.py", "1"),
            ("docs/bugfix.txt", "1"),
        ]);
        let now = tree(&[
            ("game/a.py", "1"),
            ("game/b.py", "2"),
            ("game/d.py", "1"),
            (".dependencies.json", "{}"),
            ("tmp/x", "1"),
            ("resources/prd/a.json", "1"),
        ]);
        let incremental = Incremental {
            idea: Digest::of("x"),
            kind: IdeaKind::Bug,
            reason: "it crashes".into(),
            edits: Edits {
                edited: vec![Edit {
                    path: "game/a.py".into(),
                    change: Change::Changed,
                }],
                derived: Vec::new(),
            },
        };
        assert_eq!(
            seen(Some(&incremental), &layout(), Some(&base), &now),
            json!({
                "kind": "bug",
                "edited": [{"path": "game/a.py", "change": "changed"}],
                "derived": [],
                "changed": ["game/b.py", "game/c.py", "game/d.py", "resources/prd/a.json"],
            })
        );
        assert_eq!(
            seen(None, &layout(), Some(&base), &now),
            json!({"kind": "", "edited": [], "derived": [], "changed": []})
        );
        let kept = serde_json::to_value(&incremental).unwrap();
        assert_eq!(
            serde_json::from_value::<Incremental>(kept).unwrap(),
            incremental
        );
    }
}
