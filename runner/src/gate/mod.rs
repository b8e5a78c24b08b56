//! Gates: what must hold before the line moves on.
//!
//! Judging is pure; only commands need a workbench ([`crate::action::command`]), and what they left is judged here.

pub mod approval;
mod asking;
mod canonical;
mod command;
mod compliance;
mod document;
mod judging;
mod report;
mod review;
mod running;
pub(crate) mod trust;

pub use canonical::canonical;
pub(crate) use command::described;
pub use command::{CanaryRan, Observation, Ran, Read, Said, judge as judge_command};
pub use report::ReportFile;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sopwith_crds::{
    contract::Digest,
    language::Expression,
    sop_definition::{Gate, GateKind},
    status::{GateStatus, Trust, Verdict},
};

use crate::{context::Place, measures::Measures, tree::Tree};

/// Most characters of what a status shows.
const MAX_SHOWN: usize = 300;

/// What a gate found.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Whether its condition holds.
    pub passed: bool,
    /// What was observed, for people.
    pub observed: String,
    /// What was asked for.
    pub threshold: String,
    /// What has to be mended; canonical text, empty where it passed.
    pub findings: String,
    /// What the verdict rests on. Its digest is the same whenever the same was observed.
    pub evidence: Value,
    /// How far that can be trusted.
    pub trust: Trust,
    /// The same for people, as Markdown, where figures and findings do not tell it all.
    pub document: Option<String>,
}

impl Judgement {
    /// The digest of the evidence.
    pub fn digest(&self) -> Digest {
        Digest::of_json(&self.evidence)
    }

    /// What the status shows, without the time.
    pub fn status(&self, gate: &Gate) -> GateStatus {
        GateStatus {
            name: gate.name.clone(),
            kind: gate.kind,
            verdict: if self.passed {
                Verdict::Passed
            } else {
                Verdict::Failed
            },
            observed: Some(short(&self.observed)),
            threshold: Some(short(&self.threshold)),
            evidence: Some(self.digest().to_string()),
            trust: Some(self.trust),
            decided_by: None,
            at: None,
        }
    }
}

/// A text cut to what a status may show.
pub fn short(text: &str) -> String {
    if text.chars().count() <= MAX_SHOWN {
        return text.to_owned();
    }
    let cut: String = text.chars().take(MAX_SHOWN - 1).collect();
    format!("{cut}…")
}

/// What judging without a workbench needs.
#[derive(Debug, Clone, Copy)]
pub struct Bench<'a> {
    /// Values that expressions see.
    pub context: &'a Value,
    /// Where artifacts are.
    pub places: &'a [Place],
    /// The tree under judgement.
    pub tree: &'a Tree,
    /// JSON Schemas by name.
    pub schemas: &'a BTreeMap<String, Value>,
    /// Paths of the tree that programs wrote last.
    pub programs: &'a BTreeSet<String>,
    /// What gates have measured.
    pub measures: &'a Measures,
}

/// Judges a gate that needs no workbench.
pub fn judge(gate: &Gate, bench: Bench<'_>) -> Judgement {
    match gate.kind {
        GateKind::Schema => schema(gate, bench),
        GateKind::Sections => document::judge(gate, bench),
        GateKind::Expression => expression(gate, bench),
        other => failed(
            format!("gates of kind {other} cannot be judged yet"),
            String::new(),
        ),
    }
}

/// A gate that could not be judged has not passed.
pub(crate) fn failed(findings: String, threshold: String) -> Judgement {
    Judgement {
        passed: false,
        observed: findings.lines().next().unwrap_or_default().to_owned(),
        threshold,
        evidence: json!({ "findings": findings }),
        findings,
        trust: Trust::External,
        document: None,
    }
}

/// The text of an artifact of one file, or why there is none.
pub(crate) fn text_of(name: &str, bench: Bench<'_>) -> Result<(String, String), String> {
    let place = bench
        .places
        .iter()
        .find(|place| place.name == name)
        .ok_or_else(|| format!("there is no artifact {name}"))?;
    let path = place
        .path
        .clone()
        .ok_or_else(|| format!("artifact {name} is a set of files, the gate needs one file"))?;
    let text = bench
        .tree
        .text(&path)
        .ok_or_else(|| format!("artifact {name} is missing: there is no file {path}"))?;
    Ok((path, text))
}

fn schema(gate: &Gate, bench: Bench<'_>) -> Judgement {
    let artifact = gate
        .schema
        .as_ref()
        .map(|schema| schema.artifact.as_str())
        .unwrap_or_default();
    let own = bench
        .places
        .iter()
        .find(|place| place.name == artifact)
        .and_then(|place| place.schema.clone());
    let named = gate
        .schema
        .as_ref()
        .and_then(|schema| schema.schema.clone())
        .or(own);
    let threshold = format!("matches schema {}", named.as_deref().unwrap_or("(none)"));
    let (path, text) = match text_of(artifact, bench) {
        Ok(found) => found,
        Err(why) => return failed(why, threshold),
    };
    let problems = match named.as_ref().and_then(|name| bench.schemas.get(name)) {
        None => {
            return failed(
                format!("artifact {artifact} has no schema that the gate could use"),
                threshold,
            );
        }
        Some(schema) => mismatches(schema, &text),
    };
    let observed = if problems.is_empty() {
        format!("{path} matches")
    } else {
        format!("{path}: {} mistakes", problems.len())
    };
    Judgement {
        passed: problems.is_empty(),
        observed,
        threshold,
        evidence: json!({"path": path, "digest": Digest::of(&text), "problems": problems}),
        findings: if problems.is_empty() {
            String::new()
        } else {
            format!(
                "{path} does not match its schema:\n- {}",
                problems.join("\n- ")
            )
        },
        trust: trust::of_artifact(artifact, bench),
        document: None,
    }
}

/// Where a text is not JSON that matches a schema, in canonical order; at most twenty places.
pub fn mismatches(schema: &Value, text: &str) -> Vec<String> {
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return vec![format!("is not JSON: {error}")],
    };
    mismatches_of(schema, &value)
}

/// The same of a value.
pub(crate) fn mismatches_of(schema: &Value, value: &Value) -> Vec<String> {
    let validator = match jsonschema::validator_for(schema) {
        Ok(validator) => validator,
        Err(error) => return vec![format!("the schema itself is wrong: {error}")],
    };
    let mut problems: Vec<String> = validator
        .iter_errors(value)
        .map(|error| {
            let place = error.instance_path().to_string();
            let place = if place.is_empty() {
                "the document".to_owned()
            } else {
                place
            };
            short(&format!("{place}: {error}"))
        })
        .collect();
    problems.sort();
    problems.truncate(20);
    problems
}

fn expression(gate: &Gate, bench: Bench<'_>) -> Judgement {
    let text = gate.expression.as_deref().unwrap_or_default();
    let threshold = squeezed(text);
    let expression = match Expression::compile(text) {
        Ok(expression) => expression,
        Err(error) => {
            return failed(
                format!("the gate's expression is wrong: {error}"),
                threshold,
            );
        }
    };
    match expression.holds(bench.context) {
        Err(error) => failed(
            format!("the condition cannot be judged: {error}\n{threshold}"),
            threshold,
        ),
        Ok(passed) => Judgement {
            passed,
            observed: if passed { "holds" } else { "does not hold" }.to_owned(),
            evidence: json!({"expression": threshold, "values": seen(&expression, bench.context)}),
            findings: if passed {
                String::new()
            } else {
                format!("This condition does not hold:\n{threshold}")
            },
            threshold,
            trust: trust::of_expression(text, bench),
            document: None,
        },
    }
}

/// Digests of the values that an expression refers to.
fn seen(expression: &Expression, context: &Value) -> BTreeMap<String, Digest> {
    let value = |path: &[String]| {
        path.iter()
            .try_fold(context, |value, name| value.get(name))
            .unwrap_or(&Value::Null)
    };
    expression
        .references()
        .iter()
        .map(|path| (path.join("."), Digest::of_json(value(path))))
        .collect()
}

/// An expression on one line.
pub(crate) fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bytes::Bytes;
    use sopwith_crds::sop_definition::SchemaGate;

    pub(crate) fn place(name: &str, path: &str) -> Place {
        Place {
            name: name.into(),
            step: "s".into(),
            path: Some(path.into()),
            glob: None,
            schema: Some("doc".into()),
            frozen: false,
        }
    }

    fn judged(gate: &Gate, text: &str, context: &Value) -> Judgement {
        let mut tree = Tree::default();
        tree.write("doc.json", Bytes::copy_from_slice(text.as_bytes()), false)
            .unwrap();
        let schema =
            json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}});
        let (places, schemas) = (
            [place("doc", "doc.json"), place("gone", "gone.json")],
            [("doc".to_owned(), schema)].into(),
        );
        judge(
            gate,
            Bench {
                context,
                places: &places,
                tree: &tree,
                schemas: &schemas,
                programs: &BTreeSet::new(),
                measures: &Measures::default(),
            },
        )
    }

    #[test]
    fn a_schema_gate_names_each_mistake() {
        let gate = |artifact: &str| Gate {
            kind: GateKind::Schema,
            schema: Some(SchemaGate {
                artifact: artifact.into(),
                schema: None,
            }),
            ..Gate::default()
        };
        for (artifact, text, passed, findings) in [
            ("doc", "{\"a\": 1}", true, ""),
            (
                "doc",
                "{\"a\": \"x\"}",
                false,
                "doc.json does not match its schema:\n- /a: \"x\" is not of type \"integer\"",
            ),
            (
                "doc",
                "{}",
                false,
                "doc.json does not match its schema:\n- the document: \"a\" is a required property",
            ),
            (
                "doc",
                "{",
                false,
                "doc.json does not match its schema:\n- is not JSON: EOF while parsing an object at line 1 column 1",
            ),
            (
                "gone",
                "{}",
                false,
                "artifact gone is missing: there is no file gone.json",
            ),
            ("none", "{}", false, "there is no artifact none"),
        ] {
            let judgement = judged(&gate(artifact), text, &Value::Null);
            assert_eq!(
                (judgement.passed, judgement.findings.as_str()),
                (passed, findings)
            );
        }
    }

    #[test]
    fn an_expression_that_is_false_or_cannot_be_judged_does_not_pass() {
        let gate = |text: &str| Gate {
            kind: GateKind::Expression,
            expression: Some(text.into()),
            ..Gate::default()
        };
        let context = json!({"round": 1, "artifacts": {"doc": {"json": {"a": 1}}}});
        for (text, passed) in [
            ("artifacts.doc.json.a == 1", true),
            ("artifacts.doc.json.a == 2", false),
            ("artifacts.doc.json.b == 2", false),
            ("round", false),
            ("round ==", false),
        ] {
            let judgement = judged(&gate(text), "{}", &context);
            assert_eq!(judgement.passed, passed, "{text}: {}", judgement.findings);
            assert_eq!(judgement.findings.is_empty(), passed);
        }
        let evidence = judged(&gate("round == 1"), "{}", &context).digest();
        assert_ne!(
            evidence,
            judged(&gate("round == 1"), "{}", &json!({"round": 2})).digest()
        );
    }
}
