//! Gates of kind `command`: exit codes, and what the programs' reports say. Judging is pure; see
//! [`crate::action::command`] for the running.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sopwith_crds::{
    contract::Digest, language::Expression, sop_definition::CommandGate, status::Trust,
};

use super::{
    Judgement, canonical,
    report::{self, Report, ReportFile},
    squeezed,
};
use crate::workbench::Exit;

/// A report, and what it says or what is wrong with it.
type Parsed<'a> = (&'a ReportFile, Result<Report, String>);

/// What was observed, its reports read.
#[derive(Debug)]
pub struct Read<'a> {
    observation: &'a Observation,
    reports: Vec<Parsed<'a>>,
}

impl<'a> Read<'a> {
    /// Reads the reports.
    pub fn of(observation: &'a Observation) -> Self {
        let reports = observation.reports.iter();
        Self {
            observation,
            reports: reports.map(|file| (file, report::read(file))).collect(),
        }
    }

    /// The exit code of the last program that ran; 127 where none did.
    fn exit_code(&self) -> i64 {
        let last = self.observation.ran.last();
        last.map_or(127, |ran| code(&ran.exit))
    }
}

/// What the programs of an attempt's gates have said, as expressions see it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    reports: Map<String, Value>,
    exit_code: Option<i64>,
}

impl Said {
    /// Whether no program has run.
    pub const fn is_empty(&self) -> bool {
        self.exit_code.is_none()
    }

    /// Adds what the programs of one more gate have said.
    pub fn add(&mut self, read: &Read<'_>) {
        self.exit_code = Some(read.exit_code());
        for (file, report) in &read.reports {
            let seen = report.as_ref().map_or_else(|_| json!({}), Report::seen);
            self.reports.insert(file.name.clone(), seen);
        }
    }

    /// Lets expressions see it.
    pub fn show(&self, context: &mut Value) {
        if let (Some(object), Some(code)) = (context.as_object_mut(), self.exit_code) {
            object.insert("exitCode".to_owned(), json!(code));
            object.insert("reports".to_owned(), Value::Object(self.reports.clone()));
        }
    }
}

/// A program that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// How it ended.
    pub exit: Exit,
    /// The most seconds it had.
    pub seconds: u64,
    /// What it wrote, standard output first.
    pub output: String,
}

/// A test that had to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryRan {
    /// Its name.
    pub name: String,
    /// The program that had to find it failed.
    pub ran: Ran,
    /// The exit code that says so.
    pub exit_code: i32,
}

impl CanaryRan {
    /// What is wrong with it, if it did not fail as it had to.
    fn problem(&self) -> Option<String> {
        let name = &self.name;
        match &self.ran.exit {
            Exit::Code(code) if *code == self.exit_code => None,
            Exit::Code(0) => Some(format!(
                "canary {name} passed, though it must fail: what the code under judgement does changes how it is judged"
            )),
            _ => Some(format!(
                "canary {name} must fail with exit code {}, but {}",
                self.exit_code,
                line(&self.ran)
            )),
        }
    }
}

/// What the programs of a gate did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observation {
    /// Programs that ran, in order.
    pub ran: Vec<Ran>,
    /// Reports, in the order of the gate.
    pub reports: Vec<ReportFile>,
    /// Canaries, in the order of the gate; none where its programs have failed already.
    pub canaries: Vec<CanaryRan>,
}

/// The exit code as a shell would give it.
const fn code(exit: &Exit) -> i64 {
    match exit {
        Exit::Code(code) => *code as i64,
        Exit::Signal(signal) => 128 + *signal as i64,
        Exit::TimedOut | Exit::Exceeded(_) => 124,
        Exit::NotFound(_) => 127,
    }
}

/// Judges what was observed; `context` shows what was said.
pub fn judge(gate: &CommandGate, read: &Read<'_>, context: &Value) -> Judgement {
    let (observation, parsed, exit) = (read.observation, &read.reports, read.exit_code());
    let threshold = gate
        .pass
        .as_deref()
        .map_or_else(|| default_pass(parsed), squeezed);
    let mut problems: Vec<String> = Vec::new();
    for (file, report) in parsed {
        if let Err(why) = report {
            problems.push(format!("report {} ({}) {why}", file.name, file.path));
        }
    }
    problems.extend(observation.canaries.iter().filter_map(CanaryRan::problem));
    let passed = problems.is_empty()
        && match &gate.pass {
            None => by_default(observation, parsed),
            Some(pass) => match holds(pass, context) {
                Ok(holds) => holds,
                Err(why) => {
                    problems.push(format!("the condition cannot be judged: {why}"));
                    false
                }
            },
        };
    let observed = observed(observation, parsed);
    Judgement {
        passed,
        evidence: json!({
            "observed": observed,
            "exitCode": exit,
            "programs": observation.ran.iter().map(program).collect::<Vec<_>>(),
            "reports": parsed.iter().map(|(file, _)| json!({"name": file.name, "path": file.path,
                "digest": file.bytes.as_ref().ok().map(Digest::of)})).collect::<Vec<_>>(),
            "canaries": observation.canaries.iter().map(|canary| json!({"name": canary.name,
                "program": program(&canary.ran)})).collect::<Vec<_>>(),
        }),
        findings: if passed {
            String::new()
        } else {
            findings(observation, parsed, &problems, &threshold)
        },
        observed,
        threshold,
        trust: Trust::InProcess,
        document: None,
    }
}

fn program(ran: &Ran) -> Value {
    json!({"argv": ran.argv, "exit": described(ran)})
}

fn default_pass(parsed: &[Parsed<'_>]) -> String {
    let mut asked = vec!["every program exits with 0"];
    for (_, report) in parsed {
        let of_report = report.as_ref().ok().and_then(Report::asked_for);
        asked.extend(of_report.filter(|one| !asked.contains(one)));
    }
    match asked.as_slice() {
        [one] => (*one).to_owned(),
        asked => asked.join(", and "),
    }
}

fn by_default(observation: &Observation, parsed: &[Parsed<'_>]) -> bool {
    !observation.ran.is_empty()
        && observation.ran.iter().all(|ran| ran.exit == Exit::Code(0))
        && parsed
            .iter()
            .all(|(_, report)| report.as_ref().is_ok_and(Report::is_good))
}

fn holds(pass: &str, context: &Value) -> Result<bool, String> {
    let expression = Expression::compile(pass).map_err(|error| error.to_string())?;
    expression.holds(context).map_err(|error| error.to_string())
}

pub(crate) fn described(ran: &Ran) -> String {
    match &ran.exit {
        Exit::Code(code) => format!("exited with {code}"),
        Exit::Signal(signal) => format!("was ended by signal {signal}"),
        Exit::TimedOut => format!(
            "was still running after its {} seconds and was killed",
            ran.seconds
        ),
        Exit::Exceeded(what) => format!("was killed: {what}"),
        Exit::NotFound(why) => format!("could not be started: {why}"),
    }
}

fn line(ran: &Ran) -> String {
    format!("`{}` {}", ran.argv.join(" "), described(ran))
}

fn observed(observation: &Observation, parsed: &[Parsed<'_>]) -> String {
    let reports = parsed.iter().map(|(file, report)| match report {
        Ok(report) => report.observed(),
        Err(why) => format!("report {} {why}", file.name),
    });
    let bad = observation
        .ran
        .iter()
        .filter(|ran| ran.exit != Exit::Code(0))
        .map(|ran| {
            let program = ran.argv.first().map(String::as_str).unwrap_or_default();
            format!("{program} {}", described(ran))
        });
    let canaries = observation
        .canaries
        .iter()
        .map(|canary| match canary.problem() {
            None => format!("canary {} failed as it must", canary.name),
            Some(_) => format!("canary {} did not fail as it must", canary.name),
        });
    let parts: Vec<String> = reports.chain(bad).chain(canaries).collect();
    if parts.is_empty() {
        "every program exited with 0".into()
    } else {
        parts.join("; ")
    }
}

fn findings(
    observation: &Observation,
    parsed: &[Parsed<'_>],
    problems: &[String],
    threshold: &str,
) -> String {
    let read = || parsed.iter().filter_map(|(_, report)| report.as_ref().ok());
    let mut out: Vec<String> = read().flat_map(Report::named).collect();
    // Failing tests say it better than figures and output, which differs with versions and settings.
    if read().any(Report::has_failing_tests) {
        out.extend(observation.canaries.iter().filter_map(CanaryRan::problem));
        return out.join("\n");
    }
    if out.is_empty() {
        let failed = observation.ran.iter();
        for ran in failed.filter(|ran| ran.exit != Exit::Code(0)) {
            let output = canonical(&ran.output);
            out.push(if output.is_empty() {
                line(ran)
            } else {
                format!("{}:\n{output}", line(ran))
            });
        }
    }
    out.extend(problems.iter().cloned());
    out.extend(read().map(Report::told));
    out.push(format!("Asked for: {threshold}"));
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopwith_crds::sop_definition::ReportFormat;

    fn judge(gate: &CommandGate, observation: &Observation, context: &Value) -> Judgement {
        let (read, mut said, mut context) =
            (Read::of(observation), Said::default(), context.clone());
        said.add(&read);
        said.show(&mut context);
        super::judge(gate, &read, &context)
    }

    const RED: &str = "<testsuite><testcase classname='t' name='a'/><testcase classname='t' name='b'><failure message='assert 22 == 12'>x\nt.py:3: AssertionError</failure></testcase></testsuite>";
    const GREEN: &str = "<testsuite><testcase classname='t' name='a'/></testsuite>";
    const COVERED: &str = "<coverage lines-covered='9' lines-valid='10'/>";

    fn ran(exit: Exit, output: &str) -> Ran {
        Ran {
            argv: vec!["pytest".into(), "-q".into()],
            exit,
            seconds: 5,
            output: output.into(),
        }
    }

    fn report(name: &str, format: ReportFormat, text: Option<&str>) -> ReportFile {
        ReportFile {
            name: name.into(),
            format,
            path: format!("{name}.xml"),
            bytes: text
                .map(|text| text.as_bytes().to_vec())
                .ok_or_else(|| "was not written".into()),
        }
    }

    fn judged(
        pass: Option<&str>,
        exits: &[Exit],
        junit: Option<&str>,
        coverage: Option<&str>,
    ) -> Judgement {
        let observation = Observation {
            ran: exits
                .iter()
                .map(|exit| ran(exit.clone(), "1 failed in 0.3s"))
                .collect(),
            reports: vec![
                report("junit", ReportFormat::Junit, junit),
                report("coverage", ReportFormat::Cobertura, coverage),
            ],
            canaries: vec![],
        };
        let gate = CommandGate {
            pass: pass.map(str::to_owned),
            ..CommandGate::default()
        };
        judge(
            &gate,
            &observation,
            &json!({"parameters": {"coverage": "0.80"}}),
        )
    }

    #[test]
    fn exit_codes_and_reports_decide() {
        let pass = Some(
            "exitCode == 0 && reports.junit.failures == 0 && reports.coverage.lineRate >= double(parameters.coverage)",
        );
        let ok = [Exit::Code(0)];
        let table = [
            (None, &ok[..], Some(GREEN), Some(COVERED), true),
            (pass, &ok[..], Some(GREEN), Some(COVERED), true),
            (
                None,
                &[Exit::Code(1)][..],
                Some(GREEN),
                Some(COVERED),
                false,
            ),
            (None, &ok[..], Some(RED), Some(COVERED), false),
            (pass, &ok[..], Some(RED), Some(COVERED), false),
            (None, &ok[..], Some("<testsuite/>"), Some(COVERED), false),
            (
                pass,
                &ok[..],
                Some(GREEN),
                Some("<coverage lines-covered='7' lines-valid='10'/>"),
                false,
            ),
            (Some("true"), &ok[..], None, Some(COVERED), false),
            (
                Some("true"),
                &ok[..],
                Some("no xml <"),
                Some(COVERED),
                false,
            ),
            (Some("exitCode"), &ok[..], Some(GREEN), Some(COVERED), false),
            (
                Some("exitCode == 1"),
                &[Exit::Code(0), Exit::Code(1)][..],
                Some(GREEN),
                Some(COVERED),
                true,
            ),
            (
                None,
                &[Exit::TimedOut][..],
                Some(GREEN),
                Some(COVERED),
                false,
            ),
            (None, &[][..], Some(GREEN), Some(COVERED), false),
        ];
        for (pass, exits, junit, coverage, expected) in table {
            let judgement = judged(pass, exits, junit, coverage);
            assert_eq!(
                judgement.passed, expected,
                "{pass:?} {exits:?} {junit:?} {coverage:?}: {}",
                judgement.findings
            );
            assert_eq!(judgement.findings.is_empty(), expected);
            assert_eq!(judgement.trust, Trust::InProcess);
        }
    }

    #[test]
    fn findings_name_the_failing_tests_or_else_show_the_output() {
        let red = judged(None, &[Exit::Code(1)], Some(RED), Some(COVERED));
        assert_eq!(
            red.findings,
            "1 of 2 tests failed:\n- t::b\n  assert 22 == 12\n  t.py:3: AssertionError"
        );
        assert_eq!(
            red.observed,
            "2 tests: 1 passed, 1 failed; line coverage 0.900; pytest exited with 1"
        );
        let gone = judged(
            None,
            &[Exit::NotFound("no pytest in PATH".into())],
            None,
            None,
        );
        assert_eq!(
            gone.findings,
            "`pytest -q` could not be started: no pytest in PATH:\n1 failed in N s\nreport junit (junit.xml) was not written\nreport coverage (coverage.xml) was not written\nAsked for: every program exits with 0"
        );
    }

    #[test]
    fn a_canary_that_does_not_fail_as_it_must_fails_the_gate() {
        for (exit, expected) in [
            (Exit::Code(1), None),
            (
                Exit::Code(0),
                Some("canary lazy passed, though it must fail: "),
            ),
            (
                Exit::Code(4),
                Some("canary lazy must fail with exit code 1, but `pytest -q` exited with 4\n"),
            ),
            (Exit::Signal(9), Some("was ended by signal 9")),
            (
                Exit::TimedOut,
                Some("was still running after its 5 seconds"),
            ),
        ] {
            let observation = Observation {
                ran: vec![ran(Exit::Code(0), "")],
                reports: vec![],
                canaries: vec![CanaryRan {
                    name: "lazy".into(),
                    ran: ran(exit.clone(), ""),
                    exit_code: 1,
                }],
            };
            for pass in [None, Some("true".to_owned())] {
                let gate = CommandGate {
                    pass,
                    ..CommandGate::default()
                };
                let judgement = judge(&gate, &observation, &json!({}));
                assert_eq!(judgement.passed, expected.is_none(), "{exit:?}");
                let said = expected.is_none_or(|part| judgement.findings.contains(part));
                assert!(said, "{exit:?}: {}", judgement.findings);
                assert!(
                    judgement.observed.contains("canary lazy"),
                    "{}",
                    judgement.observed
                );
                assert_eq!(judgement.evidence["canaries"][0]["name"], "lazy");
            }
        }
    }

    #[test]
    fn results_of_an_analysis_are_named_and_errors_fail_the_gate() {
        let sarif = |level: &str| {
            format!(
                r#"{{"version": "2.1.0", "runs": [{{"tool": {{"driver": {{"name": "lint"}}}}, "results": [{{"ruleId": "F401", "level": "{level}",
                "message": {{"text": "`os` is not used"}}, "locations": [{{"physicalLocation": {{"artifactLocation": {{"uri": "file:///workspace/tree/a.py"}}, "region": {{"startLine": 3}}}}}}]}}]}}]}}"#
            )
        };
        let judged = |pass: Option<&str>, sarif: &str| {
            let observation = Observation {
                ran: vec![ran(Exit::Code(0), "")],
                reports: vec![
                    report("lint", ReportFormat::Sarif, Some(sarif)),
                    report(
                        "coverage",
                        ReportFormat::Lcov,
                        Some("SF:a\nDA:1,1\nDA:2,0\nend_of_record\n"),
                    ),
                ],
                ..Observation::default()
            };
            let gate = CommandGate {
                pass: pass.map(str::to_owned),
                ..CommandGate::default()
            };
            judge(&gate, &observation, &json!({}))
        };
        assert!(judged(None, &sarif("warning")).passed);
        let error = judged(None, &sarif("error"));
        assert_eq!(
            error.findings,
            "1 result:\n- a.py:3: F401 (error) `os` is not used\n1 result: 1 errors.\nLine coverage is 0.500 (1 of 2 lines).\nAsked for: every program exits with 0, and no analysis finds an error"
        );
        for (pass, expected) in [
            ("reports.lint.warnings <= 1", true),
            ("reports.lint.results == 0", false),
            ("!('F401' in reports.lint.rules)", false),
            (
                "reports.lint.critical + reports.lint.high + reports.lint.notes + reports.lint.suppressed == 0",
                true,
            ),
            (
                "reports.coverage.lineRate >= 0.5 && reports.coverage.linesValid == 2",
                true,
            ),
        ] {
            let judgement = judged(Some(pass), &sarif("warning"));
            assert_eq!(judgement.passed, expected, "{pass}: {}", judgement.findings);
        }
    }

    #[test]
    fn the_evidence_is_the_same_for_the_same_observation() {
        let digest =
            |junit: &str| judged(None, &[Exit::Code(0)], Some(junit), Some(COVERED)).digest();
        assert_eq!(digest(GREEN), digest(GREEN));
        assert_ne!(
            digest(GREEN),
            digest("<testsuite><testcase name='b'/></testsuite>")
        );
    }
}
