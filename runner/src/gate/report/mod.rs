//! Reports of programs: what they say to expressions, to people and to the next attempt. Pure.

mod cobertura;
mod junit;
mod lcov;
mod sarif;

use serde_json::{Value, json};
use sopwith_crds::sop_definition::ReportFormat;

use self::{
    junit::{Failing, Junit},
    sarif::{Found, Sarif},
};
use super::{canonical, short};

/// Most failing tests, or results of an analysis, that findings name.
const MAX_NAMED: usize = 20;
/// Most failing tests that expressions see.
const MAX_SEEN: usize = 1000;
/// Most lines of a failing test's message.
const MAX_MESSAGE_LINES: usize = 12;

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

/// Share of lines that ran.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::gate) struct Coverage {
    /// From 0 to 1; 0 where there are no lines.
    rate: f64,
    covered: u64,
    valid: u64,
}

impl Coverage {
    #[allow(clippy::cast_precision_loss, reason = "no project has 2^52 lines")]
    fn of(covered: u64, valid: u64) -> Self {
        let rate = if valid == 0 {
            0.0
        } else {
            covered as f64 / valid as f64
        };
        Self {
            rate,
            covered,
            valid,
        }
    }
}

/// What a report says.
#[derive(Debug)]
pub(super) enum Report {
    /// Tests.
    Tests(Junit),
    /// Lines that ran.
    Coverage(Coverage),
    /// Results of an analysis.
    Analysis(Sarif),
}

/// Reads a report, or says what is wrong with it.
pub(super) fn read(file: &ReportFile) -> Result<Report, String> {
    let bytes = file.bytes.as_ref().map_err(Clone::clone)?;
    match file.format {
        ReportFormat::Junit => junit::parse(bytes).map(Report::Tests),
        ReportFormat::Cobertura => cobertura::parse(bytes).map(Report::Coverage),
        ReportFormat::Lcov => lcov::parse(bytes).map(Report::Coverage),
        ReportFormat::Sarif => sarif::parse(bytes).map(Report::Analysis),
    }
}

impl Report {
    /// Whether it says nothing bad, where the gate has no condition of its own.
    pub(super) fn is_good(&self) -> bool {
        match self {
            Self::Tests(junit) => junit.tests > 0 && junit.failures + junit.errors == 0,
            Self::Coverage(_) => true,
            Self::Analysis(sarif) => sarif.errors == 0,
        }
    }

    /// What it must say, where the gate has no condition of its own.
    pub(super) const fn asked_for(&self) -> Option<&'static str> {
        match self {
            Self::Tests(_) => Some("every test passes"),
            Self::Coverage(_) => None,
            Self::Analysis(_) => Some("no analysis finds an error"),
        }
    }

    /// What expressions see of it.
    pub(super) fn seen(&self) -> Value {
        match self {
            Self::Tests(junit) => {
                let failing = junit.failing.iter().take(MAX_SEEN).map(|test| {
                    json!({"name": test.name, "message": short(&test.message), "at": short(&test.last)})
                });
                json!({"tests": junit.tests, "passed": junit.passed(), "failures": junit.failures,
                    "errors": junit.errors, "skipped": junit.skipped, "failing": failing.collect::<Vec<_>>()})
            }
            Self::Coverage(coverage) => {
                json!({"lineRate": coverage.rate, "linesCovered": coverage.covered, "linesValid": coverage.valid})
            }
            Self::Analysis(sarif) => {
                json!({"results": sarif.results.len(), "errors": sarif.errors, "warnings": sarif.warnings,
                    "notes": sarif.notes, "critical": sarif.critical, "high": sarif.high,
                    "suppressed": sarif.suppressed, "rules": sarif.rules()})
            }
        }
    }

    /// What it says, on one line.
    pub(super) fn observed(&self) -> String {
        match self {
            Self::Tests(junit) => counted(
                format!("{} tests", junit.tests),
                &[
                    (Some(junit.passed()), "passed"),
                    (some(junit.failures), "failed"),
                    (some(junit.errors), "errors"),
                    (some(junit.skipped), "skipped"),
                ],
            ),
            Self::Coverage(coverage) => format!("line coverage {:.3}", coverage.rate),
            Self::Analysis(sarif) => counted(
                results(sarif),
                &[
                    (some(sarif.errors), "errors"),
                    (some(sarif.warnings), "warnings"),
                    (some(sarif.notes), "notes"),
                    (some(sarif.suppressed), "suppressed"),
                ],
            ),
        }
    }

    /// What has to be mended by name, a finding a line or more; nothing where it names nothing bad.
    pub(super) fn named(&self) -> Vec<String> {
        match self {
            Self::Tests(junit) if !junit.failing.is_empty() => {
                let head = format!("{} of {} tests failed:", junit.failing.len(), junit.tests);
                listed(head, &junit.failing, test)
            }
            Self::Analysis(sarif) if !sarif.results.is_empty() => {
                listed(format!("{}:", results(sarif)), &sarif.results, result)
            }
            Self::Tests(_) | Self::Coverage(_) | Self::Analysis(_) => Vec::new(),
        }
    }

    /// Whether it names tests that failed.
    pub(super) fn has_failing_tests(&self) -> bool {
        matches!(self, Self::Tests(junit) if !junit.failing.is_empty())
    }

    /// Its figures as a sentence.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Tests(_) | Self::Analysis(_) => format!("{}.", self.observed()),
            Self::Coverage(coverage) => format!(
                "Line coverage is {:.3} ({} of {} lines).",
                coverage.rate, coverage.covered, coverage.valid
            ),
        }
    }
}

fn some(count: u64) -> Option<u64> {
    (count > 0).then_some(count)
}

fn counted(head: String, parts: &[(Option<u64>, &str)]) -> String {
    let parts = parts.iter();
    let parts: Vec<String> = parts
        .filter_map(|(count, name)| count.map(|count| format!("{count} {name}")))
        .collect();
    if parts.is_empty() {
        head
    } else {
        format!("{head}: {}", parts.join(", "))
    }
}

/// A head and the first of what it counts.
fn listed<T>(head: String, items: &[T], told: impl Fn(&T) -> String) -> Vec<String> {
    let mut lines = vec![head];
    lines.extend(items.iter().take(MAX_NAMED).map(told));
    if items.len() > MAX_NAMED {
        lines.push(format!("- and {} more", items.len() - MAX_NAMED));
    }
    lines
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

fn results(sarif: &Sarif) -> String {
    match sarif.results.len() {
        1 => "1 result".to_owned(),
        many => format!("{many} results"),
    }
}

fn result(found: &Found) -> String {
    let message = canonical(&found.message);
    let first = message.lines().next().unwrap_or_default();
    let place = match (canonical(&found.file), found.line) {
        (file, _) if file.is_empty() => String::new(),
        (file, 0) => format!("{file}: "),
        (file, line) => format!("{file}:{line}: "),
    };
    let rule = if found.rule.is_empty() {
        String::new()
    } else {
        format!("{} ", found.rule)
    };
    format!("- {place}{rule}({}) {first}", found.level.as_str())
}
