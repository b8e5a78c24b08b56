//! What an incremental run begins with: what its idea is, and what people edited since the last run.

use crate::status::IdeaKind;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most edited files that a report names.
pub const MOST_TOLD: usize = 20;

/// A file that people edited.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edit {
    /// Its path.
    pub path: String,
    /// What they did to it.
    pub change: Change,
}

/// What people did to a file.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there.
    Added,
    /// Its content is another.
    Changed,
    /// It is gone.
    Removed,
}

impl Change {
    /// As expressions and templates see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// Edited files as they are told: how many, and the first of them.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct EditsTold {
    /// How many there are.
    pub files: u32,
    /// At most [`MOST_TOLD`], in the order of their paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<Edit>,
}

impl EditsTold {
    /// What is told of these.
    pub fn of(edits: &[Edit]) -> Self {
        Self {
            files: u32::try_from(edits.len()).unwrap_or(u32::MAX),
            first: edits.iter().take(MOST_TOLD).cloned().collect(),
        }
    }
}

/// For people: `docs/prds/a.md (changed), game/b.py (removed) and 3 more`.
impl fmt::Display for EditsTold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, edit) in self.first.iter().enumerate() {
            let between = if index == 0 { "" } else { ", " };
            write!(f, "{between}{} ({})", edit.path, edit.change.as_str())?;
        }
        let more = (self.files as usize).saturating_sub(self.first.len());
        if more > 0 {
            write!(f, " and {more} more")?;
        }
        Ok(())
    }
}

/// What an incremental run is about.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Classified {
    /// What its idea is.
    pub kind: IdeaKind,
    /// Why, in the model's words.
    pub reason: String,
    /// The file that the idea was written to.
    pub path: String,
    /// Files that people edited where they may: inputs of the run.
    #[serde(default)]
    pub edited: EditsTold,
    /// Files that people edited although steps derive them: not a source of anything.
    #[serde(default)]
    pub derived: EditsTold,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::report::{Event, What};

    #[test]
    fn a_report_of_it_is_read_as_it_was_written() {
        let edit = Edit {
            path: "game/a.py".into(),
            change: Change::Changed,
        };
        let what = What::Classified {
            found: Box::new(Classified {
                kind: IdeaKind::Bug,
                reason: "it crashes".into(),
                path: "docs/bugfix.txt".into(),
                edited: EditsTold::of(&[edit]),
                derived: EditsTold::default(),
            }),
        };
        let event = Event {
            at: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            what,
        };
        let text = serde_json::to_string(&event).unwrap();
        assert!(
            text.contains(r#""type":"classified","kind":"bug""#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }

    #[test]
    fn the_first_edits_are_named_and_the_others_counted() {
        let edit = |number: usize| Edit {
            path: format!("f{number}"),
            change: Change::Added,
        };
        let edits: Vec<Edit> = (0..MOST_TOLD + 2).map(edit).collect();
        assert_eq!(EditsTold::of(&[]).to_string(), "");
        assert_eq!(
            EditsTold::of(&edits[..2]).to_string(),
            "f0 (added), f1 (added)"
        );
        let told = EditsTold::of(&edits).to_string();
        assert!(told.ends_with("f19 (added) and 2 more"), "{told}");
    }
}
