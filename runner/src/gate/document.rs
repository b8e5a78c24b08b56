//! Gates of kind `sections`: a Markdown document has its headings, each with text below it. Pure.

use pulldown_cmark::{Event, Parser, Tag, TagEnd};
use serde_json::json;
use sopwith_crds::{contract::Digest, sop_definition::Gate};

use super::{Bench, Judgement, failed, text_of, trust};

pub(super) fn judge(gate: &Gate, bench: Bench<'_>) -> Judgement {
    let Some(sections) = &gate.sections else {
        return failed("the gate names no sections".into(), String::new());
    };
    let threshold = sections.headings.join(", ");
    let (path, text) = match text_of(&sections.artifact, bench) {
        Ok(found) => found,
        Err(why) => return failed(why, threshold),
    };
    let found = headings(&text);
    let mut problems = Vec::new();
    for heading in &sections.headings {
        match found.iter().find(|(name, _)| *name == plain(heading)) {
            None => problems.push(format!("the heading \"{heading}\" is missing")),
            Some((_, false)) => {
                problems.push(format!("the heading \"{heading}\" has no text below it"));
            }
            Some(_) => {}
        }
    }
    let (asked, good) = (
        sections.headings.len(),
        sections.headings.len() - problems.len(),
    );
    Judgement {
        passed: problems.is_empty(),
        observed: format!("{good} of {asked} sections in {path}"),
        threshold,
        evidence: json!({"path": path, "digest": Digest::of(&text), "problems": problems}),
        findings: if problems.is_empty() {
            String::new()
        } else {
            format!("{path} is not complete:\n- {}", problems.join("\n- "))
        },
        trust: trust::of_artifact(&sections.artifact, bench),
        document: None,
    }
}

/// Headings in plain form, each with whether there is text below it (its own or of a heading below it).
fn headings(text: &str) -> Vec<(String, bool)> {
    let mut found: Vec<(String, u8, bool)> = Vec::new();
    let mut heading: Option<(String, u8)> = None;
    for event in Parser::new(text) {
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                heading = Some((String::new(), level as u8));
            }
            Event::End(TagEnd::Heading(_)) => {
                if let Some((name, level)) = heading.take() {
                    found.push((plain(&name), level, false));
                }
            }
            Event::Text(text) | Event::Code(text) => match &mut heading {
                Some((name, _)) => name.push_str(&text),
                None if !text.trim().is_empty() => fill(&mut found),
                None => {}
            },
            _ => {}
        }
    }
    found
        .into_iter()
        .map(|(name, _, filled)| (name, filled))
        .collect()
}

/// Text belongs to the last heading and to those above it.
fn fill(found: &mut [(String, u8, bool)]) {
    let mut level = u8::MAX;
    for (_, own, filled) in found.iter_mut().rev() {
        if *own < level {
            *filled = true;
            level = *own;
        }
    }
}

/// A heading without case, numbering and decoration.
fn plain(heading: &str) -> String {
    let text = heading
        .trim()
        .trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | ')' | ' ' | '#'));
    let text = text.trim_end_matches([':', ' ', '#']);
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measures::Measures;
    use crate::{gate::tests::place, tree::Tree};
    use bytes::Bytes;
    use sopwith_crds::sop_definition::{GateKind, SectionsGate};
    use std::collections::BTreeSet;

    #[test]
    fn headings_are_compared_without_case_and_numbering_and_need_text() {
        let text = "# 1. Goals:\n\nx\n\n## API\n### REST\n- a\n\n## Empty\n\n## `Code` style\n```\nx\n```\n## Last\n";
        for (heading, problem) in [
            ("goals", None),
            ("API", None),
            ("2) rest", None),
            ("Code style", None),
            ("Empty", Some("the heading \"Empty\" has no text below it")),
            ("Last", Some("the heading \"Last\" has no text below it")),
            ("Scope", Some("the heading \"Scope\" is missing")),
        ] {
            let mut tree = Tree::default();
            tree.write("d.md", Bytes::copy_from_slice(text.as_bytes()), false)
                .unwrap();
            let gate = Gate {
                kind: GateKind::Sections,
                sections: Some(SectionsGate {
                    artifact: "d".into(),
                    headings: vec![heading.into()],
                }),
                ..Gate::default()
            };
            let (places, schemas) = ([place("d", "d.md")], std::collections::BTreeMap::new());
            let bench = Bench {
                context: &serde_json::Value::Null,
                places: &places,
                tree: &tree,
                schemas: &schemas,
                programs: &BTreeSet::new(),
                measures: &Measures::default(),
            };
            let judgement = judge(&gate, bench);
            let expected = problem.map_or_else(String::new, |problem| {
                format!("d.md is not complete:\n- {problem}")
            });
            assert_eq!(judgement.findings, expected);
            assert_eq!(judgement.passed, problem.is_none());
        }
    }
}
