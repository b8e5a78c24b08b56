//! The tools of Sopwith itself: what they are called, what they do, and what they take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A tool of Sopwith itself. All but `search_tools` work on the project's files, within what the step may write.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "snake_case")]
pub enum Builtin {
    /// Reads a file, or some lines of it.
    #[default]
    ReadFile,
    /// Lists files.
    ListFiles,
    /// Looks for a regular expression in files.
    Search,
    /// Replaces a text in a file, or makes a file.
    EditFile,
    /// Applies a unified diff.
    ApplyPatch,
    /// Deletes a file.
    DeleteFile,
    /// Finds tools of the role.
    SearchTools,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ReadFile,
        Self::ListFiles,
        Self::Search,
        Self::EditFile,
        Self::ApplyPatch,
        Self::DeleteFile,
        Self::SearchTools,
    ];

    /// The name as written in a policy.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadFile => "read_file",
            Self::ListFiles => "list_files",
            Self::Search => "search",
            Self::EditFile => "edit_file",
            Self::ApplyPatch => "apply_patch",
            Self::DeleteFile => "delete_file",
            Self::SearchTools => "search_tools",
        }
    }

    /// What a model is told of it.
    pub const fn description(self) -> &'static str {
        match self {
            Self::ReadFile => {
                "Reads a text file of the project, whole or some lines of it. The first line of the result says which lines follow."
            }
            Self::ListFiles => {
                "Lists the project's files with their sizes in bytes, in the order of their paths."
            }
            Self::Search => {
                "Looks for a regular expression in the lines of the project's text files. Gives path:line: text for each line that matches."
            }
            Self::EditFile => {
                "Replaces a text in a file by another. `old` must be in the file exactly once, blanks and line ends included; with \
                 `all` every occurrence is replaced. With an empty `old`, a new file with the text `new` is made."
            }
            Self::ApplyPatch => {
                "Applies a unified diff to one or several files of the project, all of it or nothing. Paths are relative to the \
                 project. A new file is `--- /dev/null`, a deleted one `+++ /dev/null`."
            }
            Self::DeleteFile => "Deletes a file of the project.",
            Self::SearchTools => {
                "Finds tools that you may use by words of their names, descriptions and tags. What is found can be called from then on."
            }
        }
    }

    /// JSON Schema of its arguments.
    pub fn schema(self) -> Value {
        let path = json!({"type": "string", "description": "Path from the project's root, as src/app.py."});
        let glob = json!({"type": "string", "description": "Pattern of paths; * stops at a slash, ** does not. Default: all files."});
        let text = |description: &str| json!({"type": "string", "description": description});
        let (properties, required) = match self {
            Self::ReadFile => (
                json!({
                    "path": path,
                    "from": {"type": "integer", "minimum": 1, "description": "The first line, counted from 1. Default: 1."},
                    "lines": {"type": "integer", "minimum": 1, "description": "How many lines. Default: as many as fit."},
                }),
                json!(["path"]),
            ),
            Self::ListFiles => (json!({"glob": glob}), json!([])),
            Self::Search => (
                json!({
                    "pattern": text("Regular expression without look-around and back-references."),
                    "glob": glob,
                    "ignore_case": {"type": "boolean", "description": "Default: false."},
                    "context": {"type": "integer", "minimum": 0, "maximum": 10, "description": "Lines to show before and after each match. Default: 0."},
                }),
                json!(["pattern"]),
            ),
            Self::EditFile => (
                json!({
                    "path": path,
                    "old": text("The text as it is."),
                    "new": text("The text as it is to be."),
                    "all": {"type": "boolean", "description": "Replace every occurrence. Default: false."},
                }),
                json!(["path", "old", "new"]),
            ),
            Self::ApplyPatch => (
                json!({"patch": text("The unified diff.")}),
                json!(["patch"]),
            ),
            Self::DeleteFile => (json!({"path": path}), json!(["path"])),
            Self::SearchTools => (
                json!({"query": text("Words for what is to be done, as: create issue.")}),
                json!(["query"]),
            ),
        };
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    }
}
