//! The blocks of a Markdown document, as far as answers need them.

use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// A heading that begins with `#`, outside of lists, quotes and code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heading {
    pub(super) level: usize,
    pub(super) title: String,
    /// Where it stands in the document.
    pub(super) range: Range<usize>,
}

/// A block below a heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Block {
    /// A fenced or indented block: its language and what is in it.
    Code { language: String, content: String },
    /// The source of each of its items.
    List(Vec<String>),
    /// The source of each cell, row by row, the head first.
    Table(Vec<Vec<String>>),
    /// Anything else.
    Other,
}

fn parser(text: &str) -> impl Iterator<Item = (Event<'_>, Range<usize>)> {
    Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter()
}

/// The headings of a document in order.
pub(super) fn headings(text: &str) -> Vec<Heading> {
    let mut found = Vec::new();
    let mut depth = 0;
    for (event, range) in parser(text) {
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                let source = text[range.clone()].trim();
                // A line that is underlined is one in a text.
                if depth == 0 && source.starts_with('#') {
                    let title = source.trim_matches('#').trim().to_owned();
                    found.push(Heading {
                        level: level as usize,
                        title,
                        range,
                    });
                }
                depth += 1;
            }
            Event::Start(_) => depth += 1,
            Event::End(_) => depth -= 1,
            _ => {}
        }
    }
    found
}

/// The blocks of a text at its top, in order.
pub(super) fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut events = parser(text);
    while let Some((event, _)) = events.next() {
        let Event::Start(tag) = event else {
            found.push(Block::Other);
            continue;
        };
        found.push(match tag {
            Tag::CodeBlock(kind) => Block::Code {
                language: match kind {
                    CodeBlockKind::Fenced(info) => info.to_string(),
                    CodeBlockKind::Indented => String::new(),
                },
                content: code(&mut events),
            },
            Tag::List(_) => Block::List(items(text, &mut events)),
            Tag::Table(_) => Block::Table(rows(text, &mut events)),
            _ => {
                skip(&mut events);
                Block::Other
            }
        });
    }
    found
}

/// To the end of the block that has begun.
fn skip(events: &mut dyn Iterator<Item = (Event<'_>, Range<usize>)>) {
    let mut depth = 1;
    for (event, _) in events {
        match event {
            Event::Start(_) => depth += 1,
            Event::End(_) => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

fn code(events: &mut dyn Iterator<Item = (Event<'_>, Range<usize>)>) -> String {
    let mut content = String::new();
    for (event, _) in events {
        match event {
            Event::Text(text) => content.push_str(&text),
            Event::End(TagEnd::CodeBlock) => break,
            _ => {}
        }
    }
    content
}

fn items(text: &str, events: &mut dyn Iterator<Item = (Event<'_>, Range<usize>)>) -> Vec<String> {
    let mut found = Vec::new();
    while let Some((event, range)) = events.next() {
        match event {
            Event::Start(Tag::Item) => {
                skip(events);
                found.push(item(&text[range]));
            }
            Event::End(TagEnd::List(_)) => break,
            _ => {}
        }
    }
    found
}

/// The source of an item without its mark and the indent that follows from it.
fn item(source: &str) -> String {
    let mark = source.trim_start_matches(|c: char| c.is_ascii_digit());
    let mark = mark.trim_start_matches(['-', '*', '+', '.', ')']);
    let width = source.len() - mark.trim_start_matches([' ', '\t']).len();
    let lines = source.lines().enumerate().map(|(number, line)| {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let from = if number == 0 {
            width
        } else {
            indent.min(width)
        };
        line.get(from..).unwrap_or_default()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn rows(
    text: &str,
    events: &mut dyn Iterator<Item = (Event<'_>, Range<usize>)>,
) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for (event, range) in events {
        match event {
            Event::Start(Tag::TableHead | Tag::TableRow) => found.push(Vec::new()),
            Event::Start(Tag::TableCell) => {
                if let Some(row) = found.last_mut() {
                    row.push(text[range].trim().to_owned());
                }
            }
            Event::End(TagEnd::Table) => break,
            _ => {}
        }
    }
    found
}
