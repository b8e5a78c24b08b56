//! Incremental runs: what is asked for, what people edited, and what may be written over.

pub mod dependencies;
pub mod edits;
pub mod guard;
mod sort;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sopwith_crds::{
    contract::plan::RunPlan,
    places::{BUGFIX, DEPENDENCIES, Keeper, REQUIREMENT, keeper},
};

use self::edits::Edits;
use crate::tree::Tree;

/// What an incremental run is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Incremental {
    /// What the idea is.
    pub kind: Kind,
    /// What people edited since the last run.
    #[serde(flatten)]
    pub edits: Edits,
    /// Edited files that a model was shown as they are.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub seen: BTreeSet<String>,
}

/// What the idea of an incremental run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Something new, or another behaviour.
    Requirement,
    /// Something that does not work as it was meant to.
    Bug,
}

impl Kind {
    /// As expressions and templates see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requirement => "requirement",
            Self::Bug => "bug",
        }
    }

    /// The place of the layout that the idea is written to, and that of the other kind.
    const fn places(self) -> (&'static str, &'static str) {
        match self {
            Self::Requirement => (REQUIREMENT, BUGFIX),
            Self::Bug => (BUGFIX, REQUIREMENT),
        }
    }
}

/// What expressions and templates see as `incremental`. Empty but for `changed` in a run that is not incremental.
pub fn seen(
    incremental: Option<&Incremental>,
    layout: &BTreeMap<String, String>,
    base: &Tree,
    tree: &Tree,
) -> Value {
    let edits = incremental.map(|incremental| incremental.edits.clone());
    let edits = edits.unwrap_or_default();
    json!({
        "kind": incremental.map_or("", |incremental| incremental.kind.as_str()),
        "edited": edits.edited,
        "derived": edits.derived,
        "changed": changed(layout, base, tree),
    })
}

/// The paths that differ from the project that the run began with, what is gone included; without what the system keeps and
/// what is of one run only.
fn changed<'a>(
    layout: &BTreeMap<String, String>,
    base: &'a Tree,
    tree: &'a Tree,
) -> BTreeSet<&'a str> {
    let differs = |(path, file): &(&str, &crate::tree::TreeFile)| base.get(path) != Some(*file);
    let written = tree.iter().filter(differs);
    let gone = base.iter().filter(|(path, _)| tree.get(path).is_none());
    written
        .chain(gone)
        .map(|(path, _)| path)
        .filter(|path| matches!(keeper(layout, path), Keeper::People | Keeper::Steps))
        .collect()
}

/// Writes the idea where the iteration goes on from, and takes away what an earlier one left; gives the path.
fn written(plan: &RunPlan, kind: Kind, tree: &mut Tree) -> Result<String, crate::tree::TreeError> {
    let (own, other) = kind.places();
    let path = |name: &str| plan.layout.get(name).cloned().unwrap_or_default();
    tree.remove(&path(other));
    let text = format!("{}\n", plan.options.idea.trim_end());
    tree.write(&path(own), text.into(), false)?;
    Ok(path(own))
}

/// Where the list of dependencies is.
pub fn list_of(layout: &BTreeMap<String, String>) -> &str {
    layout.get(DEPENDENCIES).map_or("", String::as_str)
}
