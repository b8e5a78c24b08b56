//! SARIF 2.1.0 (OASIS): results of linters and scanners. Pure.
//!
//! Only what a gate decides on is read: `serde-sarif` generates the whole standard, two hundred types, at each build, and
//! refuses a log for an unknown word anywhere in it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

/// What a log says. Suppressed results and those of an earlier analysis that are gone are left out.
#[derive(Debug, Default, PartialEq)]
pub(in crate::gate) struct Sarif {
    pub(super) errors: u64,
    pub(super) warnings: u64,
    pub(super) notes: u64,
    /// Results whose rule has a `security-severity` of 9 or more.
    pub(super) critical: u64,
    /// Results whose rule has a `security-severity` of 7 or more.
    pub(super) high: u64,
    /// Results that their author or somebody else has silenced.
    pub(super) suppressed: u64,
    /// The worst first, then by place.
    pub(super) results: Vec<Found>,
}

/// A result.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) level: Level,
    pub(super) file: String,
    /// Counted from 1; 0 where there is none.
    pub(super) line: u64,
    pub(super) rule: String,
    pub(super) message: String,
}

/// How bad a result is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Error,
    Warning,
    Note,
    None,
}

impl Level {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
            Self::None => "none",
        }
    }
}

impl Sarif {
    /// Names of the rules that found something, sorted.
    pub(super) fn rules(&self) -> BTreeSet<&str> {
        let rules = self.results.iter().map(|found| found.rule.as_str());
        rules.filter(|rule| !rule.is_empty()).collect()
    }
}

#[derive(Deserialize)]
struct Log {
    version: String,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: Tool,
    /// None, where the analysis gave up before it found anything.
    results: Option<Vec<ResultObject>>,
    #[serde(default)]
    invocations: Vec<Invocation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tool {
    driver: Component,
    #[serde(default)]
    extensions: Vec<Component>,
}

#[derive(Deserialize)]
struct Component {
    #[serde(default)]
    name: String,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: String,
    #[serde(default)]
    default_configuration: Configuration,
    #[serde(default)]
    properties: BTreeMap<String, Value>,
    #[serde(default)]
    message_strings: BTreeMap<String, Message>,
}

#[derive(Default, Deserialize)]
struct Configuration {
    level: Option<Level>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Invocation {
    #[serde(default = "yes")]
    execution_successful: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResultObject {
    rule_id: Option<String>,
    rule_index: Option<i64>,
    rule: RuleReference,
    level: Option<Level>,
    kind: Option<String>,
    message: Message,
    locations: Vec<Location>,
    suppressions: Vec<Suppression>,
    baseline_state: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuleReference {
    id: Option<String>,
    index: Option<i64>,
    tool_component: ComponentReference,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ComponentReference {
    index: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    text: String,
    id: Option<String>,
    arguments: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Location {
    physical_location: PhysicalLocation,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    region: Region,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ArtifactLocation {
    uri: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Region {
    start_line: u64,
}

#[derive(Deserialize)]
struct Suppression {
    status: Option<String>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Sarif, String> {
    let log: Log = serde_json::from_slice(bytes)
        .map_err(|error| format!("is no SARIF log that can be read: {error}"))?;
    if log.version != "2.1.0" {
        return Err(format!("is SARIF {}, but 2.1.0 is read", log.version));
    }
    if log.runs.is_empty() {
        return Err("holds no run of a tool".into());
    }
    let mut sarif = Sarif::default();
    for run in &log.runs {
        let tool = &run.tool.driver.name;
        if !run.invocations.iter().all(|one| one.execution_successful) {
            return Err(format!("says that {tool} did not come to its end"));
        }
        let Some(results) = &run.results else {
            return Err(format!("says that {tool} looked at nothing"));
        };
        for result in results {
            sarif.count(result, &run.tool);
        }
    }
    sarif.results.sort();
    Ok(sarif)
}

impl Sarif {
    fn count(&mut self, result: &ResultObject, tool: &Tool) {
        // Anything but a failure is no finding: what was looked at and is good, or has to be looked at by people.
        let failed = result.kind.as_deref().is_none_or(|kind| kind == "fail");
        let gone = result.baseline_state.as_deref() == Some("absent");
        if !failed || gone {
            return;
        }
        if is_suppressed(&result.suppressions) {
            self.suppressed += 1;
            return;
        }
        let rule = rule_of(result, tool);
        let level = result
            .level
            .or_else(|| rule.and_then(|rule| rule.default_configuration.level))
            .unwrap_or(Level::Warning);
        match level {
            Level::Error => self.errors += 1,
            Level::Warning => self.warnings += 1,
            Level::Note => self.notes += 1,
            Level::None => {}
        }
        let severity = rule.map_or(0.0, severity);
        self.critical += u64::from(severity >= 9.0);
        self.high += u64::from(severity >= 7.0);
        let named = result.rule_id.clone().or_else(|| result.rule.id.clone());
        let place = result.locations.first();
        let place = place.map(|location| &location.physical_location);
        self.results.push(Found {
            level,
            file: place.map_or_else(String::new, |place| file(&place.artifact_location.uri)),
            line: place.map_or(0, |place| place.region.start_line),
            rule: named
                .or_else(|| rule.map(|rule| rule.id.clone()))
                .unwrap_or_default(),
            message: text(&result.message, rule),
        });
    }
}

/// Suppressed is what has suppressions, each of them accepted: one that is under review or rejected leaves the result open.
fn is_suppressed(suppressions: &[Suppression]) -> bool {
    let accepted = |suppression: &Suppression| {
        let status = suppression.status.as_deref();
        status.is_none_or(|status| status == "accepted")
    };
    !suppressions.is_empty() && suppressions.iter().all(accepted)
}

/// The rule that a result names, by its place in the tool or by its name. A name can go on behind the rule's: `CA1000/1`.
fn rule_of<'a>(result: &ResultObject, tool: &'a Tool) -> Option<&'a Rule> {
    let at = |index: Option<i64>| index.and_then(|index| usize::try_from(index).ok());
    let component = match at(result.rule.tool_component.index) {
        Some(extension) => tool.extensions.get(extension)?,
        None => &tool.driver,
    };
    if let Some(index) = at(result.rule_index.or(result.rule.index)) {
        return component.rules.get(index);
    }
    let name = result.rule_id.as_deref().or(result.rule.id.as_deref())?;
    let is = |rule: &&Rule| {
        let rest = name.strip_prefix(rule.id.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    component.rules.iter().find(is)
}

/// From 0 to 10, as code scanning services read it of a rule; 0 where it has none.
fn severity(rule: &Rule) -> f64 {
    match rule.properties.get("security-severity") {
        Some(Value::String(text)) => text.parse().unwrap_or(0.0),
        Some(value) => value.as_f64().unwrap_or(0.0),
        None => 0.0,
    }
}

/// The text, or the rule's text that the result names, its arguments filled in.
fn text(message: &Message, rule: Option<&Rule>) -> String {
    let by_id = message.id.as_ref();
    let by_id = by_id.and_then(|id| rule?.message_strings.get(id));
    let mut text = match by_id {
        Some(named) if message.text.is_empty() => named.text.clone(),
        _ => message.text.clone(),
    };
    for (index, argument) in message.arguments.iter().enumerate() {
        text = text.replace(&format!("{{{index}}}"), argument);
    }
    text
}

fn file(uri: &str) -> String {
    let path = uri.strip_prefix("file://").unwrap_or(uri);
    path.strip_prefix("./").unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn log(results: &Value) -> Vec<u8> {
        let rules = json!([
            {"id": "E1", "defaultConfiguration": {"level": "error"}, "messageStrings": {"m": {"text": "{0} is not {1}"}}},
            {"id": "S1", "properties": {"security-severity": "9.1"}},
            {"id": "S2", "properties": {"security-severity": 7.5}},
        ]);
        let tool = json!({"driver": {"name": "lint", "rules": rules}, "extensions": [{"name": "x", "rules": [{"id": "X1", "defaultConfiguration": {"level": "note"}}]}]});
        json!({"$schema": "s", "version": "2.1.0", "runs": [{"tool": tool, "results": results}]})
            .to_string()
            .into_bytes()
    }

    fn counts(result: &Value) -> (usize, u64, u64, u64, u64, u64, u64) {
        let sarif = parse(&log(&json!([result]))).unwrap();
        (
            sarif.results.len(),
            sarif.errors,
            sarif.warnings,
            sarif.notes,
            sarif.critical,
            sarif.high,
            sarif.suppressed,
        )
    }

    #[test]
    fn results_are_counted_by_their_level_or_their_rules() {
        for (result, expected) in [
            (json!({"message": {"text": "x"}}), (1, 0, 1, 0, 0, 0, 0)),
            (
                json!({"level": "error", "message": {}}),
                (1, 1, 0, 0, 0, 0, 0),
            ),
            (json!({"level": "none"}), (1, 0, 0, 0, 0, 0, 0)),
            (json!({"ruleId": "E1"}), (1, 1, 0, 0, 0, 0, 0)),
            (json!({"ruleId": "E1/a"}), (1, 1, 0, 0, 0, 0, 0)),
            (json!({"ruleId": "E12"}), (1, 0, 1, 0, 0, 0, 0)),
            (json!({"ruleIndex": 0}), (1, 1, 0, 0, 0, 0, 0)),
            (json!({"ruleIndex": -1}), (1, 0, 1, 0, 0, 0, 0)),
            (
                json!({"ruleId": "E1", "level": "note"}),
                (1, 0, 0, 1, 0, 0, 0),
            ),
            (json!({"rule": {"index": 1}}), (1, 0, 1, 0, 1, 1, 0)),
            (json!({"rule": {"id": "S2"}}), (1, 0, 1, 0, 0, 1, 0)),
            (
                json!({"rule": {"index": 0, "toolComponent": {"index": 0}}}),
                (1, 0, 0, 1, 0, 0, 0),
            ),
            (json!({"kind": "pass"}), (0, 0, 0, 0, 0, 0, 0)),
            (json!({"kind": "fail"}), (1, 0, 1, 0, 0, 0, 0)),
            (json!({"baselineState": "absent"}), (0, 0, 0, 0, 0, 0, 0)),
            (json!({"baselineState": "unchanged"}), (1, 0, 1, 0, 0, 0, 0)),
            (json!({"suppressions": []}), (1, 0, 1, 0, 0, 0, 0)),
            (
                json!({"suppressions": [{"kind": "inSource"}]}),
                (0, 0, 0, 0, 0, 0, 1),
            ),
            (
                json!({"suppressions": [{"kind": "external", "status": "accepted"}, {"kind": "external", "status": "rejected"}]}),
                (1, 0, 1, 0, 0, 0, 0),
            ),
        ] {
            assert_eq!(counts(&result), expected, "{result}");
        }
    }

    #[test]
    fn a_result_has_its_rule_its_place_and_its_message_and_the_worst_comes_first() {
        let place = |uri: &str, line: u64| json!([{"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": line}}}]);
        let results = json!([
            {"ruleId": "W9", "locations": place("./b.py", 2), "message": {"text": "later"}},
            {"ruleIndex": 0, "locations": place("file:///workspace/tree/a.py", 7), "message": {"id": "m", "arguments": ["x", "sorted"]}},
        ]);
        let sarif = parse(&log(&results)).unwrap();
        assert_eq!(
            sarif.results,
            [
                Found {
                    level: Level::Error,
                    file: "/workspace/tree/a.py".into(),
                    line: 7,
                    rule: "E1".into(),
                    message: "x is not sorted".into(),
                },
                Found {
                    level: Level::Warning,
                    file: "b.py".into(),
                    line: 2,
                    rule: "W9".into(),
                    message: "later".into(),
                },
            ]
        );
        assert_eq!(sarif.rules(), BTreeSet::from(["E1", "W9"]));
    }

    #[test]
    fn what_is_no_log_of_an_analysis_that_ended_is_refused() {
        let run = |rest: &str| {
            format!(
                r#"{{"version": "2.1.0", "runs": [{{"tool": {{"driver": {{"name": "lint"}}}}{rest}}}]}}"#
            )
        };
        for (text, part) in [
            (String::new(), "is no SARIF log"),
            ("[]".into(), "is no SARIF log"),
            (
                r#"{"version": "2.0.0", "runs": []}"#.into(),
                "is SARIF 2.0.0",
            ),
            (r#"{"version": "2.1.0", "runs": []}"#.into(), "holds no run"),
            (run(""), "lint looked at nothing"),
            (
                run(r#", "results": [{"level": "fatal"}]"#),
                "is no SARIF log",
            ),
            (
                run(r#", "results": [], "invocations": [{"executionSuccessful": false}]"#),
                "lint did not come to its end",
            ),
        ] {
            let problem = parse(text.as_bytes()).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
        assert_eq!(
            parse(run(r#", "results": []"#).as_bytes()).unwrap(),
            Sarif::default()
        );
    }
}
