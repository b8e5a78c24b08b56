use super::*;
use crate::gate::mismatches;
use proptest::prelude::*;
use serde_json::{Value, json};
use shape::{Property, Shape};

fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["goals", "stories", "chart", "score", "open"],
        "properties": {
            "goals": {"type": "array", "items": {"type": "string"}},
            "stories": {"type": "array", "items": {"$ref": "#/$defs/story"}},
            "chart": {"type": "string"},
            "score": {"type": "number"},
            "open": {"type": "boolean"},
            "notes": {"type": "string"},
            "files": {"type": "array", "items": {"type": "object", "required": ["path", "needs"], "properties": {
                "path": {"type": "string"}, "needs": {"type": "array", "items": {"type": "string"}}, "what": {"type": "string"}}}},
            "api": {"type": "object", "properties": {"kind": {"enum": ["rest", "cli"]}, "calls": {"type": "array", "items": {"type": "integer"}}}},
            "extra": {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
        },
        "$defs": {"story": {"type": "object", "required": ["id", "text"], "properties": {
            "id": {"type": "string"}, "text": {"type": "string"}, "priority": {"enum": ["P0", "P1"]}}}},
    })
}

#[test]
fn the_outline_names_each_heading_with_its_form() {
    let outline = outline(&schema());
    let (form, told) = outline.split_once("\nEach heading").unwrap();
    assert_eq!(
        form.split_once("apply.\n").unwrap().1,
        "
# goals
A list, `- ` before each. Each: Text; a diagram or code alone in one fenced block.

# stories
A table with the columns id, text, priority. In a cell, write `<br>` for a new line and `\\|` for `|`.

# chart
Text; a diagram or code alone in one fenced block.

# score
A number.

# open
true or false.

# api
Optional. Below it:

## calls
Optional. A list, `- ` before each. Each: A whole number.

## kind
Optional. One of rest, cli.

# extra
Optional. A fenced block of `json`.

# files
Optional. For each a heading `## ` and its number, and below it:

### path
Text; a diagram or code alone in one fenced block.

### needs
A list, `- ` before each. Each: Text; a diagram or code alone in one fenced block.

### what
Optional. Text; a diagram or code alone in one fenced block.

# notes
Optional. Text; a diagram or code alone in one fenced block.
"
    );
    assert!(told.ends_with(&schema().to_string()));
}

const ANSWER: &str = r#"Here is what you asked for.

# Goals
In this order:
1. Fun
2. Speed:
   as fast
   as `x` can

# stories

| ID | Text | Priority |
|----|------|----------|
| S-1 | as a player \| host I want<br>a deal | P0 |
| `S-2` | win | |

# Chart
```mermaid
sequenceDiagram
    # goals
    A->>B: `hit`<br/>me
```

# score
4.5
# open
Yes

# notes
First words.

```python
def f():
    return "```"
```
## A heading of its own
# Another one

Last words.
Underlined
---

# files
## 1
### path
`a.py`
### needs
- b.py
-   c.py
## 2: the rest
### path
b.py
### needs
none
### what
Deals
cards

# api
## kind
rest
## calls
- 1
- 2
# extra
```json
[["a"], []]
```
"#;

#[test]
fn an_answer_is_read_into_the_json_of_its_schema() {
    let value = read(&schema(), ANSWER).unwrap();
    assert_eq!(
        value,
        json!({
            "goals": ["Fun", "Speed:\nas fast\nas `x` can"],
            "stories": [
                {"id": "S-1", "text": "as a player | host I want\na deal", "priority": "P0"},
                {"id": "S-2", "text": "win"},
            ],
            "chart": "sequenceDiagram\n    # goals\n    A->>B: `hit`<br/>me",
            "score": 4.5,
            "open": true,
            "notes": "First words.\n\n```python\ndef f():\n    return \"```\"\n```\n## A heading of its own\n# Another one\n\nLast words.\nUnderlined\n---",
            "files": [
                {"path": "a.py", "needs": ["b.py", "c.py"]},
                {"path": "b.py", "needs": [], "what": "Deals\ncards"},
            ],
            "api": {"kind": "rest", "calls": [1, 2]},
            "extra": [["a"], []],
        })
    );
    assert_eq!(mismatches(&schema(), &value.to_string()), [""; 0]);
    // Headings of another level are as good.
    let deeper = ANSWER
        .replace("\n#", "\n##")
        .replace("    ## goals", "    # goals");
    let mut again = read(&schema(), &deeper).unwrap();
    again["notes"] = value["notes"].clone();
    assert_eq!(again, value);
}

#[test]
fn what_is_not_in_its_form_is_named() {
    let told = |answer: &str| match read(&schema(), answer) {
        Ok(value) => mismatches(&schema(), &value.to_string()),
        Err(problems) => problems,
    };
    let with = |from: &str, to: &str| {
        assert!(ANSWER.contains(from), "{from}");
        told(&ANSWER.replace(from, to))
    };
    for (problems, expected) in [
        (
            told("nothing"),
            "the answer: expected the headings goals, stories, chart, score, open, api, extra, files, notes",
        ),
        (
            with("4.5", "many"),
            "/score: \"many\" is not of type \"number\"",
        ),
        (
            with("P0", "P9"),
            "/stories/0/priority: \"P9\" is not one of \"P0\" or \"P1\"",
        ),
        (
            with("# open\nYes\n", ""),
            "the document: \"open\" is a required property",
        ),
        (
            with("# open\nYes\n", "# open\nyes\n# open\nno\n"),
            "/open: the heading is there twice",
        ),
        (
            with("# api", "# Other\ntext\n# api"),
            "/Other: there is no property of this name",
        ),
        (
            with("[[\"a\"], []]", "[[\"a\""),
            "/extra: the block is not JSON: EOF while parsing a list at line 2 column 0",
        ),
        (
            with("```json\n[[\"a\"], []]\n```", "a, b"),
            "/extra: expected a fenced block of json",
        ),
        (
            with("### path\nb.py\n", ""),
            "/files/1: \"path\" is a required property",
        ),
        (with("| S-1", "S-1"), ""),
    ] {
        assert_eq!(problems.first().map_or("", String::as_str), expected);
    }
    let no_table = ANSWER.lines().filter(|line| !line.starts_with('|'));
    let no_table: Vec<&str> = no_table.collect();
    assert_eq!(
        told(
            &no_table
                .join("\n")
                .replace("# stories\n", "# stories\nas a player")
        ),
        ["/stories: expected a table with the columns id, text, priority"]
    );
}

#[test]
fn files_are_named_by_their_headings() {
    let answer = "# `src/a.py`\nThe game:\n```python\nprint(1)\n```\n# README.md\n````markdown\n# T\n```sh\nx\n```\n````\n";
    assert_eq!(
        read_files(answer).unwrap(),
        json!({"files": [
            {"path": "src/a.py", "content": "print(1)\n"},
            {"path": "README.md", "content": "# T\n```sh\nx\n```\n"},
        ]})
    );
    assert_eq!(
        read_files("# a\ntext\n").unwrap_err(),
        ["below the heading a there is no fenced code block"]
    );
    assert_eq!(
        read_files("text").unwrap_err(),
        ["there is no heading with the path of a file"]
    );
}

#[test]
fn a_schema_without_properties_is_not_spoken() {
    for (schema, expected) in [
        (schema(), true),
        (json!({"type": "array", "items": {"type": "string"}}), false),
        (json!({"type": "object"}), false),
        (json!({"anyOf": []}), false),
        (json!({"properties": {"a": {}}}), true),
    ] {
        assert_eq!(speaks(&schema), expected, "{schema}");
    }
}

/// How a model writes a value of a shape.
fn written(root: &Value, property: &Property<'_>, value: &Value, level: usize) -> String {
    let text = |value: &Value| match value {
        Value::String(text) if text.contains('\n') || text.trim() != text => {
            format!("~~~~~\n{text}\n~~~~~")
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let heading = |level: usize, name: &str| format!("{} {name}\n\n", "#".repeat(level));
    let mut out = heading(level, property.name);
    match shape::of(root, property.schema, level + 1) {
        Shape::Plain(_) => out += &text(value),
        Shape::List(_) => {
            for item in value.as_array().unwrap() {
                out.extend(["- ", &text(item).replace('\n', "\n  "), "\n"]);
            }
        }
        Shape::Table(columns) => {
            let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
            out.extend([
                "|",
                &names.join("|"),
                "|\n|",
                &"---|".repeat(names.len()),
                "\n",
            ]);
            for row in value.as_array().unwrap() {
                let cell = |name: &&str| {
                    let cell = row.get(*name).map_or(String::new(), |value| {
                        value
                            .as_str()
                            .map_or_else(|| value.to_string(), str::to_owned)
                    });
                    cell.replace('|', "\\|").replace('\n', "<br>")
                };
                let cells: Vec<String> = names.iter().map(cell).collect();
                out.extend([
                    "|",
                    &cells.join("|"),
                    "|
",
                ]);
            }
        }
        Shape::Items(items) => {
            for (index, item) in value.as_array().unwrap().iter().enumerate() {
                out += &heading(level + 1, &(index + 1).to_string());
                for property in shape::properties(root, items) {
                    if let Some(value) = item.get(property.name) {
                        out += &written(root, &property, value, level + 2);
                    }
                }
            }
        }
        Shape::Object(properties) => {
            for property in properties {
                if let Some(value) = value.get(property.name) {
                    out += &written(root, &property, value, level + 1);
                }
            }
        }
        Shape::Json => out.extend(["```json\n", &value.to_string(), "\n```"]),
    }
    out + "\n\n"
}

fn word() -> impl Strategy<Value = Value> {
    "[a-zäß][a-z0-9 .,_/()-]{0,18}[a-z0-9]".prop_map(Value::from)
}

fn prose() -> impl Strategy<Value = Value> {
    prop_oneof![
        word(),
        "[a-z#| `*\n<>-]{0,60}[a-z]".prop_map(Value::from),
        Just(json!("graph TD\n    A[\"x | y\"] --> B\n\n    %% end")),
        Just(json!("text\n```py\n# goals\n```\nmore")),
    ]
}

prop_compose! {
    fn document()(
        goals in prop::collection::vec(word(), 0..4),
        stories in prop::collection::vec((word(), word(), prop::option::of(prop_oneof![Just("P0"), Just("P1")])), 0..4),
        chart in prose(),
        score in -1000..1000i64,
        open: bool,
        notes in prop::option::of(prose()),
        files in prop::option::of(prop::collection::vec((word(), prop::collection::vec(word(), 0..3), prop::option::of(prose())), 1..3)),
        extra in prop::option::of(prop::collection::vec(prop::collection::vec(prose(), 0..2), 0..2)),
    ) -> Value {
        let stories: Vec<Value> = stories.into_iter().map(|(id, text, priority)| {
            let mut story = json!({"id": id, "text": text});
            if let Some(priority) = priority { story["priority"] = json!(priority); }
            story
        }).collect();
        let mut document = json!({"goals": goals, "stories": stories, "chart": chart, "score": score, "open": open});
        if let Some(notes) = notes { document["notes"] = notes; }
        if let Some(extra) = extra { document["extra"] = json!(extra); }
        if let Some(files) = files {
            let files: Vec<Value> = files.into_iter().map(|(path, needs, what)| {
                let mut file = json!({"path": path, "needs": needs});
                if let Some(what) = what { file["what"] = what; }
                file
            }).collect();
            document["files"] = json!(files);
        }
        document
    }
}

proptest! {
    #[test]
    fn what_a_model_writes_in_the_form_is_what_is_read(document in document()) {
        let schema = schema();
        let Shape::Object(properties) = shape::of(&schema, &schema, 1) else { unreachable!() };
        let answer: String = properties
            .iter()
            .filter_map(|property| Some(written(&schema, property, document.get(property.name)?, 1)))
            .collect();
        prop_assert_eq!(read(&schema, &answer).unwrap(), document, "{}", answer);
    }
}
