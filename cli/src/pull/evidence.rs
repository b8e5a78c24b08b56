//! What the reports among the evidence say. Deciding.

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};
use std::fmt;

/// What a report says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Report {
    /// Test results as `JUnit` XML. Cases are counted: pytest's root element has no totals.
    Tests {
        /// Cases.
        cases: u64,
        /// Cases with a failure.
        failures: u64,
        /// Cases with an error.
        errors: u64,
        /// Cases that were skipped.
        skipped: u64,
    },
    /// Coverage as Cobertura XML.
    Coverage {
        /// Share of the lines that ran, from 0 to 1.
        line_rate: f64,
        /// Lines that ran and lines that could, where the report says so.
        lines: Option<(u64, u64)>,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tests {
                cases,
                failures,
                errors,
                skipped,
            } => {
                let passed = cases.saturating_sub(failures + errors + skipped);
                write!(f, "tests: {passed} of {cases} passed")?;
                for (number, what) in [
                    (failures, "failed"),
                    (errors, "with errors"),
                    (skipped, "skipped"),
                ] {
                    if *number > 0 {
                        write!(f, ", {number} {what}")?;
                    }
                }
                Ok(())
            }
            Self::Coverage { line_rate, lines } => {
                write!(f, "line coverage: {:.1} %", line_rate * 100.0)?;
                match lines {
                    Some((ran, all)) => write!(f, " ({ran} of {all} lines)"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Reads a report; none where the bytes are something else.
pub(crate) fn report(bytes: &[u8]) -> Option<Report> {
    let mut reader = Reader::from_reader(bytes);
    let mut buffer = Vec::new();
    loop {
        match reader.read_event_into(&mut buffer).ok()? {
            Event::Start(root) | Event::Empty(root) => match root.local_name().as_ref() {
                "coverage" => return coverage(&root),
                "testsuites" | "testsuite" => break,
                _ => return None,
            },
            Event::Eof => return None,
            _ => {}
        }
        buffer.clear();
    }
    tests(reader)
}

fn coverage(root: &BytesStart<'_>) -> Option<Report> {
    let number = |name: &str| {
        let attribute = root.try_get_attribute(name).ok()??;
        Some(attribute.value.into_owned())
    };
    Some(Report::Coverage {
        line_rate: number("line-rate")?.parse().ok()?,
        lines: number("lines-covered")
            .zip(number("lines-valid"))
            .and_then(|(ran, all)| Some((ran.parse().ok()?, all.parse().ok()?))),
    })
}

fn tests(mut reader: Reader<&[u8]>) -> Option<Report> {
    let (mut cases, mut failures, mut errors, mut skipped) = (0, 0, 0, 0);
    let mut buffer = Vec::new();
    loop {
        match reader.read_event_into(&mut buffer).ok()? {
            Event::Start(element) | Event::Empty(element) => match element.local_name().as_ref() {
                "testcase" => cases += 1,
                "failure" => failures += 1,
                "error" => errors += 1,
                "skipped" => skipped += 1,
                _ => {}
            },
            Event::Eof => break,
            _ => {}
        }
        buffer.clear();
    }
    Some(Report::Tests {
        cases,
        failures,
        errors,
        skipped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        r#"<?xml version="1.0"?><testsuites><testsuite name="pytest" tests="9"><testcase name="a"/><testcase name="b"><failure message="x">at</failure></testcase><testcase name="c"><skipped/></testcase></testsuite></testsuites>"#,
        Some("tests: 1 of 3 passed, 1 failed, 1 skipped")
    )]
    #[case(
        r#"<?xml version="1.0" ?><!DOCTYPE coverage SYSTEM "http://x/coverage-04.dtd"><coverage version="7" line-rate="0.9412" lines-covered="16" lines-valid="17"><packages/></coverage>"#,
        Some("line coverage: 94.1 % (16 of 17 lines)")
    )]
    #[case(r#"<coverage line-rate="1"/>"#, Some("line coverage: 100.0 %"))]
    #[case("<html/>", None)]
    #[case("{}", None)]
    #[case("", None)]
    fn reports_are_told_by_their_root(#[case] xml: &str, #[case] said: Option<&str>) {
        let read = report(xml.as_bytes()).map(|r| r.to_string());
        assert_eq!(read.as_deref(), said);
    }
}
