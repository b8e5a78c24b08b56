//! The tools of Sopwith itself: looking at the project's files and changing them. Pure functions over the tree.
//!
//! What is read is bounded, and says so where more is there. What is written obeys what every write of a step obeys: it
//! stays in the project, belongs to no other step and to nothing that another step froze.

mod edit;
mod patch;
mod read;

use std::collections::BTreeMap;

use serde_json::Value;
use sopwith_crds::tool_policy::Builtin;

use crate::{
    context::Place,
    guard::Guard,
    ownership::{others, refusal},
    snapshot::Frozen,
    tree::Tree,
};

/// Whose writes these are.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The step.
    pub step: &'a str,
    /// Whose the paths of the project are.
    pub places: &'a [Place],
    /// What was frozen, by path.
    pub frozen: &'a BTreeMap<String, Frozen>,
    /// What nobody may write.
    pub guard: &'a Guard,
}

impl Writer<'_> {
    /// Whether the step may write or delete a path.
    fn may(&self, path: &str) -> Result<(), String> {
        if let Some(frozen) = self
            .frozen
            .get(path)
            .filter(|frozen| frozen.step != self.step)
        {
            return Err(format!(
                "the path {path:?} belongs to the artifact {} that step {} froze, and nobody may change it",
                frozen.artifact, frozen.step
            ));
        }
        let owners = others(path, self.step, self.places).map_err(|error| error.to_string())?;
        if !owners.is_empty() {
            return Err(refusal(path, &owners));
        }
        self.guard.refusal(path).map_or(Ok(()), Err)
    }

    /// Writes a text, the file's mode kept.
    fn write(&self, tree: &mut Tree, path: &str, text: String) -> Result<(), String> {
        self.may(path)?;
        tree.rewrite(path, text.into())
            .map(drop)
            .map_err(|error| error.to_string())
    }
}

/// What a change did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// What the model is told.
    pub told: String,
    /// Paths that were written or deleted.
    pub wrote: Vec<String>,
}

/// Whether a tool changes files.
pub const fn writes(builtin: Builtin) -> bool {
    matches!(
        builtin,
        Builtin::EditFile | Builtin::ApplyPatch | Builtin::DeleteFile
    )
}

/// What a tool that looks gives, at most about `most` bytes; an error is why it gives nothing.
pub fn look(
    builtin: Builtin,
    arguments: &Value,
    tree: &Tree,
    most: usize,
) -> Result<String, String> {
    match builtin {
        Builtin::ReadFile => read::file(arguments, tree, most),
        Builtin::ListFiles => read::list(arguments, tree, most),
        Builtin::Search => read::search(arguments, tree, most),
        other => Err(format!("{} does not look at files", other.as_str())),
    }
}

/// Changes files: all that was asked for, or nothing.
pub fn change(
    builtin: Builtin,
    arguments: &Value,
    tree: &mut Tree,
    writer: Writer<'_>,
) -> Result<Changed, String> {
    let mut changed = tree.clone();
    let told = match builtin {
        Builtin::EditFile => edit::file(arguments, &mut changed, writer),
        Builtin::DeleteFile => edit::delete(arguments, &mut changed, writer),
        Builtin::ApplyPatch => patch::apply(arguments, &mut changed, writer),
        other => Err(format!("{} does not change files", other.as_str())),
    }?;
    *tree = changed;
    Ok(told)
}

/// A string argument; empty where there is none.
fn text<'a>(arguments: &'a Value, name: &str) -> &'a str {
    arguments
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A number argument.
fn number(arguments: &Value, name: &str) -> Option<usize> {
    let number = arguments.get(name)?.as_u64()?;
    usize::try_from(number).ok()
}

fn flag(arguments: &Value, name: &str) -> bool {
    arguments
        .get(name)
        .and_then(Value::as_bool)
        .unwrap_or(false)
}

/// The text of a file, or why there is none.
fn file_text<'a>(tree: &'a Tree, path: &str) -> Result<&'a str, String> {
    let file = tree
        .get(path)
        .ok_or_else(|| format!("there is no file {path:?}; list_files shows what there is"))?;
    std::str::from_utf8(&file.bytes).map_err(|_| {
        format!(
            "{path:?} is no text: {} bytes that are not UTF-8",
            file.bytes.len()
        )
    })
}

/// How the lines of a text end, all of them.
fn line_end(text: &str) -> &'static str {
    let (both, all) = (text.matches("\r\n").count(), text.matches('\n').count());
    if both > 0 && both == all {
        "\r\n"
    } else {
        "\n"
    }
}

#[cfg(test)]
mod patch_tests;
#[cfg(test)]
mod tests;
