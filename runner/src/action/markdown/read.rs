//! Reads an answer in Markdown into JSON.

use serde_json::{Map, Value, json};

use super::{
    blocks::{Block, Heading, blocks, headings},
    shape::{self, Property, Shape, is},
};

/// The JSON of an answer to a schema, or why it is none.
pub fn read(schema: &Value, answer: &str) -> Result<Value, Vec<String>> {
    let mut reader = Reader {
        root: schema,
        problems: Vec::new(),
    };
    let Shape::Object(properties) = shape::of(schema, schema, 1) else {
        return Err(vec!["the schema has no properties to have headings".into()]);
    };
    let value = reader.object("", &properties, answer, 1);
    if reader.problems.is_empty() {
        Ok(value)
    } else {
        Err(reader.problems)
    }
}

/// The JSON of an answer that names its files itself: `{"files": [{"path", "content"}]}`.
pub fn read_files(answer: &str) -> Result<Value, Vec<String>> {
    let found = headings(answer);
    let mut problems = Vec::new();
    let mut files = Vec::new();
    // A file in Markdown has headings, too: they are in its block.
    for (heading, body) in sections(answer, &found, 0..answer.len()) {
        let path = unquoted(&heading.title);
        let code = blocks(body).into_iter().find_map(|block| match block {
            Block::Code { content, .. } => Some(content),
            _ => None,
        });
        match code {
            Some(content) => files.push(json!({"path": path, "content": content})),
            None => problems.push(format!(
                "below the heading {path} there is no fenced code block"
            )),
        }
    }
    if files.is_empty() && problems.is_empty() {
        problems.push("there is no heading with the path of a file".into());
    }
    if problems.is_empty() {
        Ok(json!({ "files": files }))
    } else {
        Err(problems)
    }
}

struct Reader<'a> {
    root: &'a Value,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    /// An object whose properties have headings. `place` names it in problems.
    fn object(
        &mut self,
        place: &str,
        properties: &[Property<'a>],
        text: &str,
        level: usize,
    ) -> Value {
        let known = |title: &str| {
            properties
                .iter()
                .find(|property| same(property.name, title))
        };
        let all = headings(text);
        let Some(depth) = all
            .iter()
            .find(|heading| known(&heading.title).is_some())
            .map(|heading| heading.level)
        else {
            return self.json_or(place, text, &|| {
                let names: Vec<&str> = properties.iter().map(|property| property.name).collect();
                format!("expected the headings {}", names.join(", "))
            });
        };
        // What has another heading belongs to the text before it, if there is one.
        let mut own: Vec<&Heading> = Vec::new();
        for heading in all.iter().filter(|heading| heading.level == depth) {
            let in_text = own
                .last()
                .and_then(|last| known(&last.title))
                .is_some_and(|before| {
                    let shape = shape::of(self.root, before.schema, level + 1);
                    matches!(shape, Shape::Plain(_))
                });
            if known(&heading.title).is_some() || !in_text {
                own.push(heading);
            }
        }
        let mut object = Map::new();
        for (index, heading) in own.iter().enumerate() {
            let end = own
                .get(index + 1)
                .map_or(text.len(), |next| next.range.start);
            let body = &text[heading.range.end..end];
            let Some(property) = known(&heading.title) else {
                if index > 0 {
                    self.problems.push(format!(
                        "{}there is no property of this name",
                        head(place, &heading.title)
                    ));
                }
                continue;
            };
            let place = inner(place, property.name);
            let value = self.value(&place, property.schema, body, level + 1);
            if object.insert(property.name.to_owned(), value).is_some() {
                self.problems
                    .push(format!("{place}: the heading is there twice"));
            }
        }
        Value::Object(object)
    }

    /// The value that stands below a heading.
    fn value(&mut self, place: &str, schema: &'a Value, text: &str, level: usize) -> Value {
        let shape = shape::of(self.root, schema, level);
        if let Shape::Plain(schema) = shape {
            return plain(schema, text);
        }
        if let Some(found) = json_block(text) {
            return found.unwrap_or_else(|error| {
                self.problems
                    .push(format!("{place}: the block is not JSON: {error}"));
                Value::Null
            });
        }
        match shape {
            Shape::List(items) => list(items, text),
            Shape::Table(columns) => match rows(&columns, text) {
                Some(rows) => rows,
                None if says_nothing(text) => json!([]),
                None => self.json_or(place, text, &|| {
                    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
                    format!("expected a table with the columns {}", names.join(", "))
                }),
            },
            Shape::Items(items) => self.items(place, items, text, level),
            Shape::Object(properties) => self.object(place, &properties, text, level),
            Shape::Plain(_) | Shape::Json => {
                self.json_or(place, text, &|| "expected a fenced block of json".into())
            }
        }
    }

    /// Objects of which each has a heading, and its properties have headings below that.
    fn items(&mut self, place: &str, items: &'a Value, text: &str, level: usize) -> Value {
        let properties = shape::properties(self.root, items);
        let all = headings(text);
        if all.is_empty() {
            return match rows(&properties, text) {
                Some(rows) => rows,
                None if says_nothing(text) => json!([]),
                None => self.json_or(place, text, &|| "expected a heading for each".into()),
            };
        }
        let each = sections(text, &all, 0..text.len()).into_iter().enumerate();
        let values: Vec<Value> = each
            .map(|(index, (_, body))| {
                let place = format!("{place}/{index}");
                self.object(&place, &properties, body, level + 1)
            })
            .collect();
        Value::Array(values)
    }

    fn json_or(&mut self, place: &str, text: &str, expected: &dyn Fn() -> String) -> Value {
        if let Some(Ok(value)) = json_block(text) {
            return value;
        }
        let place = if place.is_empty() {
            "the answer"
        } else {
            place
        };
        self.problems.push(format!("{place}: {}", expected()));
        Value::Null
    }
}

/// The sections of headings that are as high as the first, each with what stands below it.
fn sections<'a, 'h>(
    text: &'a str,
    found: &'h [Heading],
    within: std::ops::Range<usize>,
) -> Vec<(&'h Heading, &'a str)> {
    let Some(level) = found.first().map(|first| first.level) else {
        return Vec::new();
    };
    let own: Vec<&Heading> = found
        .iter()
        .filter(|heading| heading.level == level)
        .collect();
    let ends = own
        .iter()
        .skip(1)
        .map(|heading| heading.range.start)
        .chain([within.end]);
    own.iter()
        .zip(ends)
        .map(|(heading, end)| (*heading, &text[heading.range.end..end]))
        .collect()
}

/// A single value.
fn plain(schema: &Value, text: &str) -> Value {
    let text = alone(text);
    let word = text.trim();
    let number = || serde_json::from_str::<serde_json::Number>(word).ok();
    if is(schema, "null") && (word.is_empty() || word == "null") {
        return Value::Null;
    }
    if is(schema, "boolean")
        && let Some(value) = match word.to_lowercase().as_str() {
            "true" | "yes" => Some(true),
            "false" | "no" => Some(false),
            _ => None,
        }
    {
        return json!(value);
    }
    if (is(schema, "integer") || is(schema, "number"))
        && let Some(number) = number()
    {
        return Value::Number(number);
    }
    json!(text)
}

/// A text without blank lines around it; where it is one fenced block or one code span and nothing else, what is in it.
fn alone(text: &str) -> String {
    if let [Block::Code { content, .. }] = blocks(text).as_slice()
        && text.trim_start().starts_with(['`', '~'])
    {
        return content.strip_suffix('\n').unwrap_or(content).to_owned();
    }
    unquoted(text.trim_matches(['\n', '\r']).trim_end())
}

/// A word without the backticks around it.
fn unquoted(text: &str) -> String {
    let inner = text
        .trim()
        .strip_prefix('`')
        .and_then(|text| text.strip_suffix('`'))
        .filter(|inner| !inner.is_empty() && !inner.contains(['`', '\n']));
    inner.unwrap_or(text).to_owned()
}

fn list(items: &Value, text: &str) -> Value {
    let listed = blocks(text).into_iter().find_map(|block| match block {
        Block::List(items) => Some(items),
        _ => None,
    });
    let values: Vec<Value> = match listed {
        Some(listed) => listed.iter().map(|item| plain(items, item)).collect(),
        None if says_nothing(text) => Vec::new(),
        None => {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            lines.map(|line| plain(items, line.trim())).collect()
        }
    };
    Value::Array(values)
}

/// The objects of a table; none where there is no table. An empty cell of an optional property is none.
fn rows(columns: &[Property<'_>], text: &str) -> Option<Value> {
    let table = blocks(text).into_iter().find_map(|block| match block {
        Block::Table(rows) => Some(rows),
        _ => None,
    })?;
    let (head, rows) = table.split_first()?;
    let row = |cells: &Vec<String>| {
        let mut object = Map::new();
        for (title, cell) in head.iter().zip(cells) {
            let column = columns.iter().find(|column| same(column.name, title));
            let cell = cell.replace("<br>", "\n").replace("\\|", "|");
            match column {
                Some(column) if cell.is_empty() && !column.required => {}
                Some(column) => {
                    object.insert(column.name.to_owned(), plain(column.schema, &cell));
                }
                None => {
                    object.insert(unquoted(title), json!(cell));
                }
            }
        }
        Value::Object(object)
    };
    Some(rows.iter().map(row).collect())
}

/// The JSON of a text that is one fenced block of it.
fn json_block(text: &str) -> Option<Result<Value, serde_json::Error>> {
    match blocks(text).as_slice() {
        [Block::Code { language, content }] if language.eq_ignore_ascii_case("json") => {
            Some(serde_json::from_str(content))
        }
        _ => None,
    }
}

fn says_nothing(text: &str) -> bool {
    let word = text.trim().trim_end_matches('.').to_lowercase();
    ["", "none", "n/a", "[]", "-"].contains(&word.as_str())
}

/// Whether a heading or column names a property, however it is spelled.
fn same(property: &str, title: &str) -> bool {
    let plain = |text: &str| -> String {
        let letters = text.chars().filter(|c| c.is_alphanumeric());
        letters.flat_map(char::to_lowercase).collect()
    };
    plain(property) == plain(title)
}

fn inner(place: &str, name: &str) -> String {
    format!("{place}/{name}")
}

fn head(place: &str, title: &str) -> String {
    format!("{}: ", inner(place, title))
}
