//! Gates of kind `command`: exit codes, and what the programs' reports say. Judging is pure; see
//! [`crate::action::command`] for the running.

use serde_json::{Map, Value, json};
use sopwith_crds::{
    contract::Digest,
    language::Expression,
    sop_definition::{CommandGate, ReportFormat},
    status::Trust,
};

use super::{
    Judgement, canonical,
    cobertura::{self, Coverage},
    junit::{self, Failing, Junit},
    squeezed,
};
use crate::workbench::Exit;

/// Most failing tests that findings name.
const MAX_NAMED: usize = 20;
/// Most lines of a failing test's message.
const MAX_MESSAGE_LINES: usize = 12;

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

/// A report that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportFile {
    /// Its name in expressions.
    pub name: String,
    /// How it is written.
    pub format: ReportFormat,
    /// Its path.
    pub path: String,
    /// Its content, or why there is none.
    pub bytes: Result<Vec<u8>, String>,
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

enum Parsed {
    Junit(Junit),
    Coverage(Coverage),
    Bad(String),
}

/// Judges what was observed.
pub fn judge(gate: &CommandGate, observation: &Observation, context: &Value) -> Judgement {
    let parsed: Vec<(&ReportFile, Parsed)> = observation
        .reports
        .iter()
        .map(|report| (report, read(report)))
        .collect();
    let exit = observation.ran.last().map_or(127, |ran| code(&ran.exit));
    let threshold = gate
        .pass
        .as_deref()
        .map_or_else(|| default_pass(&parsed), squeezed);
    let mut problems: Vec<String> = Vec::new();
    for (report, parsed) in &parsed {
        if let Parsed::Bad(why) = parsed {
            problems.push(format!("report {} ({}) {why}", report.name, report.path));
        }
    }
    problems.extend(observation.canaries.iter().filter_map(CanaryRan::problem));
    let passed = problems.is_empty()
        && match &gate.pass {
            None => by_default(observation, &parsed),
            Some(pass) => match holds(pass, exit, &parsed, context) {
                Ok(holds) => holds,
                Err(why) => {
                    problems.push(format!("the condition cannot be judged: {why}"));
                    false
                }
            },
        };
    let observed = observed(observation, &parsed);
    Judgement {
        passed,
        evidence: json!({
            "observed": observed,
            "exitCode": exit,
            "programs": observation.ran.iter().map(program).collect::<Vec<_>>(),
            "reports": parsed.iter().map(|(report, _)| json!({"name": report.name, "path": report.path,
                "digest": report.bytes.as_ref().ok().map(Digest::of)})).collect::<Vec<_>>(),
            "canaries": observation.canaries.iter().map(|canary| json!({"name": canary.name,
                "program": program(&canary.ran)})).collect::<Vec<_>>(),
        }),
        findings: if passed {
            String::new()
        } else {
            findings(observation, &parsed, &problems, &threshold)
        },
        observed,
        threshold,
        trust: Trust::InProcess,
    }
}

fn program(ran: &Ran) -> Value {
    json!({"argv": ran.argv, "exit": described(ran)})
}

fn read(report: &ReportFile) -> Parsed {
    let bytes = match &report.bytes {
        Ok(bytes) => bytes,
        Err(why) => return Parsed::Bad(why.clone()),
    };
    match report.format {
        ReportFormat::Junit => junit::parse(bytes).map_or_else(Parsed::Bad, Parsed::Junit),
        ReportFormat::Cobertura => {
            cobertura::parse(bytes).map_or_else(Parsed::Bad, Parsed::Coverage)
        }
        ReportFormat::Lcov | ReportFormat::Sarif => {
            Parsed::Bad("is in a format that is not supported yet".into())
        }
    }
}

fn default_pass(parsed: &[(&ReportFile, Parsed)]) -> String {
    let tests = parsed
        .iter()
        .any(|(_, parsed)| matches!(parsed, Parsed::Junit(_)));
    if tests {
        "every program exits with 0, and every test passes".into()
    } else {
        "every program exits with 0".into()
    }
}

fn by_default(observation: &Observation, parsed: &[(&ReportFile, Parsed)]) -> bool {
    let good = |parsed: &Parsed| match parsed {
        Parsed::Junit(junit) => junit.tests > 0 && junit.failures + junit.errors == 0,
        Parsed::Coverage(_) => true,
        Parsed::Bad(_) => false,
    };
    !observation.ran.is_empty()
        && observation.ran.iter().all(|ran| ran.exit == Exit::Code(0))
        && parsed.iter().all(|(_, parsed)| good(parsed))
}

fn holds(
    pass: &str,
    exit: i64,
    parsed: &[(&ReportFile, Parsed)],
    context: &Value,
) -> Result<bool, String> {
    let reports: Map<String, Value> = parsed
        .iter()
        .map(|(report, parsed)| (report.name.clone(), seen(parsed)))
        .collect();
    let mut context = context.clone();
    if let Some(object) = context.as_object_mut() {
        object.insert("exitCode".into(), json!(exit));
        object.insert("reports".into(), Value::Object(reports));
    }
    let expression = Expression::compile(pass).map_err(|error| error.to_string())?;
    expression
        .holds(&context)
        .map_err(|error| error.to_string())
}

/// What expressions see of a report.
fn seen(parsed: &Parsed) -> Value {
    match parsed {
        Parsed::Junit(junit) => {
            json!({"tests": junit.tests, "passed": junit.passed(), "failures": junit.failures,
            "errors": junit.errors, "skipped": junit.skipped})
        }
        Parsed::Coverage(coverage) => {
            json!({"lineRate": coverage.rate, "linesCovered": coverage.covered, "linesValid": coverage.valid})
        }
        Parsed::Bad(_) => json!({}),
    }
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

fn counted(junit: &Junit) -> String {
    let mut parts = vec![format!("{} passed", junit.passed())];
    for (count, name) in [
        (junit.failures, "failed"),
        (junit.errors, "errors"),
        (junit.skipped, "skipped"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {name}"));
        }
    }
    format!("{} tests: {}", junit.tests, parts.join(", "))
}

fn observed(observation: &Observation, parsed: &[(&ReportFile, Parsed)]) -> String {
    let reports = parsed.iter().map(|(report, parsed)| match parsed {
        Parsed::Junit(junit) => counted(junit),
        Parsed::Coverage(coverage) => format!("line coverage {:.3}", coverage.rate),
        Parsed::Bad(why) => format!("report {} {why}", report.name),
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
    parsed: &[(&ReportFile, Parsed)],
    problems: &[String],
    threshold: &str,
) -> String {
    let mut out: Vec<String> = Vec::new();
    for (_, parsed) in parsed {
        if let Parsed::Junit(junit) = parsed
            && !junit.failing.is_empty()
        {
            out.push(format!(
                "{} of {} tests failed:",
                junit.failing.len(),
                junit.tests
            ));
            out.extend(junit.failing.iter().take(MAX_NAMED).map(test));
            if junit.failing.len() > MAX_NAMED {
                out.push(format!("- and {} more", junit.failing.len() - MAX_NAMED));
            }
        }
    }
    // Named tests say it better than the output they came with, which differs with versions and settings.
    if out.is_empty() {
        for ran in observation
            .ran
            .iter()
            .filter(|ran| ran.exit != Exit::Code(0))
        {
            let output = canonical(&ran.output);
            out.push(if output.is_empty() {
                line(ran)
            } else {
                format!("{}:\n{output}", line(ran))
            });
        }
        out.extend(problems.iter().cloned());
        out.extend(parsed.iter().filter_map(|(_, parsed)| match parsed {
            Parsed::Coverage(coverage) => Some(format!(
                "Line coverage is {:.3} ({} of {} lines).",
                coverage.rate, coverage.covered, coverage.valid
            )),
            Parsed::Junit(junit) => Some(format!("{}.", counted(junit))),
            Parsed::Bad(_) => None,
        }));
        out.push(format!("Asked for: {threshold}"));
    } else {
        out.extend(observation.canaries.iter().filter_map(CanaryRan::problem));
    }
    out.join("\n")
}

fn test(failing: &Failing) -> String {
    let message = canonical(&failing.message);
    let mut lines: Vec<String> = message
        .lines()
        .take(MAX_MESSAGE_LINES)
        .map(|line| format!("  {line}"))
        .collect();
    // pytest ends the text of a failure with its place: `tests/test_hand.py:34: AssertionError`.
    let place = canonical(&failing.last);
    if place
        .split(':')
        .nth(1)
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    {
        lines.push(format!("  {place}"));
    }
    format!("- {}\n{}", failing.name, lines.join("\n"))
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

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
