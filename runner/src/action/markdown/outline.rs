//! What a model is told about the form of its answer.

use std::fmt::Write as _;

use serde_json::Value;

use super::shape::{self, Shape, choices, is};

/// How an answer to a schema is written.
pub fn outline(schema: &Value) -> String {
    let mut out = String::from(
        "Answer in Markdown, with nothing around it. Write these headings exactly so and in this order; below each stands what \
         its line says. Leave out what is optional and does not apply.\n",
    );
    write(&mut out, schema, schema, 1);
    let _ = write!(
        out,
        "\nEach heading is a property of this JSON Schema, which what you write must match:\n{schema}"
    );
    out
}

/// How an answer that names its files itself is written.
pub fn files_outline() -> String {
    "Answer in Markdown, with nothing around it: for each file a heading `# ` with its path, and below it the whole file in one \
     fenced code block. Where the file has a fence itself, use a longer one."
        .to_owned()
}

fn write(out: &mut String, root: &Value, schema: &Value, level: usize) {
    let Shape::Object(properties) = shape::of(root, schema, level) else {
        return;
    };
    for property in properties {
        let optional = if property.required { "" } else { "Optional. " };
        let heading = "#".repeat(level);
        let _ = write!(out, "\n{heading} {}\n{optional}", property.name);
        let below = shape::of(root, property.schema, level + 1);
        let _ = writeln!(out, "{}", words(&below, level + 1));
        match below {
            Shape::Object(_) => write(out, root, property.schema, level + 1),
            Shape::Items(items) => write(out, root, items, level + 2),
            _ => {}
        }
    }
}

fn words(shape: &Shape<'_>, level: usize) -> String {
    match shape {
        Shape::Plain(schema) => plain(schema),
        Shape::List(items) => format!("A list, `- ` before each. Each: {}", plain(items)),
        Shape::Table(columns) => {
            let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
            format!(
                "A table with the columns {}. In a cell, write `<br>` for a new line and `\\|` for `|`.",
                names.join(", ")
            )
        }
        Shape::Items(_) => format!(
            "For each a heading `{} ` and its number, and below it:",
            "#".repeat(level)
        ),
        Shape::Object(_) => "Below it:".to_owned(),
        Shape::Json => "A fenced block of `json`.".to_owned(),
    }
}

fn plain(schema: &Value) -> String {
    if let Some(choices) = choices(schema) {
        let choices: Vec<String> = choices.iter().map(word).collect();
        return format!("One of {}.", choices.join(", "));
    }
    let text = if is(schema, "integer") {
        "A whole number."
    } else if is(schema, "number") {
        "A number."
    } else if is(schema, "boolean") {
        "true or false."
    } else {
        "Text; a diagram or code alone in one fenced block."
    };
    text.to_owned()
}

fn word(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
