//! Answers in Markdown: a heading for each property, below it text, a list, a table or headings one level deeper. What is
//! read is the same JSON that a model would have answered itself, and it is checked against the same schema. Pure.
//!
//! What stands below a heading follows from the schema of its property:
//!
//! | schema | Markdown |
//! |---|---|
//! | string | text as it stands; where it is one fenced block and nothing else, what is in it |
//! | number, boolean | the value |
//! | list of those | a list |
//! | list of objects of those | a table, a column for each property |
//! | object; list of other objects | headings one level deeper: for the properties; for the items, and theirs below them |
//! | anything else, or too deep for headings | a fenced `json` block, which is taken anywhere else, too |

mod blocks;
mod outline;
mod read;
mod shape;

pub use outline::{files_outline, outline};
pub use read::{read, read_files};

/// Whether answers to a schema can be asked for in Markdown: its top is an object with properties.
pub fn speaks(schema: &serde_json::Value) -> bool {
    matches!(shape::of(schema, schema, 1), shape::Shape::Object(_))
}

#[cfg(test)]
mod tests;
