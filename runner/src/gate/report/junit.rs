//! JUnit XML. There is no specification; this reads what pytest, Maven, go-junit-report and jest write. Pure.
//!
//! Test cases are counted one by one: totals in root elements are often missing or wrong.

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};

/// What a report says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::gate) struct Junit {
    pub(super) tests: u64,
    pub(super) failures: u64,
    pub(super) errors: u64,
    pub(super) skipped: u64,
    /// Test cases that failed, in the order of their names.
    pub(super) failing: Vec<Failing>,
}

/// A test case that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Failing {
    pub(super) name: String,
    pub(super) message: String,
    /// The last line of its text, which names file and line in pytest's reports.
    pub(super) last: String,
}

impl Junit {
    pub(super) const fn passed(&self) -> u64 {
        self.tests
            .saturating_sub(self.failures + self.errors + self.skipped)
    }
}

/// One test case while it is read.
#[derive(Default)]
struct Case {
    name: String,
    failed: bool,
    error: bool,
    skipped: bool,
    message: String,
    text: String,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Junit, String> {
    let report = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    let mut reader = Reader::from_str(report);
    let mut junit = Junit::default();
    let mut case: Option<Case> = None;
    let mut inside = false;
    let mut depth = 0usize;
    let mut rooted = false;
    loop {
        match reader
            .read_event()
            .map_err(|error| format!("is not XML: {error}"))?
        {
            Event::Start(element) => {
                depth += 1;
                rooted |= root(depth, &element)?;
                inside |= open(&element, &mut case)?;
            }
            Event::Empty(element) => {
                rooted |= root(depth + 1, &element)?;
                open(&element, &mut case)?;
                if element.local_name().as_ref() == "testcase" {
                    close(&mut case, &mut junit);
                }
            }
            Event::End(element) => {
                depth = depth.saturating_sub(1);
                match element.local_name().as_ref() {
                    "testcase" => close(&mut case, &mut junit),
                    "failure" | "error" => inside = false,
                    _ => {}
                }
            }
            Event::Text(text) if inside => push(&mut case, &text),
            Event::CData(text) if inside => push(&mut case, &text),
            Event::GeneralRef(name) if inside => push(&mut case, &entity(&name)),
            Event::Eof if depth > 0 => return Err("ends in the middle".into()),
            Event::Eof if !rooted => return Err("is empty".into()),
            Event::Eof => break,
            _ => {}
        }
    }
    junit.failing.sort();
    Ok(junit)
}

fn root(depth: usize, element: &BytesStart<'_>) -> Result<bool, String> {
    let name = element.local_name();
    if depth == 1 && !matches!(name.as_ref(), "testsuites" | "testsuite") {
        return Err(format!(
            "is no JUnit report: its root is <{}>",
            name.as_ref()
        ));
    }
    Ok(depth == 1)
}

/// Begins a test case or notes what it says; whether text that follows belongs to a failure.
fn open(element: &BytesStart<'_>, case: &mut Option<Case>) -> Result<bool, String> {
    match (element.local_name().as_ref(), case) {
        ("testcase", case) => {
            let (class, name) = (
                attribute(element, "classname")?,
                attribute(element, "name")?.unwrap_or_default(),
            );
            let name = class
                .filter(|class| !class.is_empty())
                .map_or(name.clone(), |class| format!("{class}::{name}"));
            *case = Some(Case {
                name,
                ..Case::default()
            });
        }
        (kind @ ("failure" | "error"), Some(case)) => {
            case.failed |= kind == "failure";
            case.error |= kind == "error";
            if case.message.is_empty() {
                case.message = attribute(element, "message")?.unwrap_or_default();
            }
            return Ok(true);
        }
        ("skipped", Some(case)) => case.skipped = true,
        _ => {}
    }
    Ok(false)
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    let attribute = element
        .try_get_attribute(name)
        .map_err(|error| format!("is not XML: {error}"))?;
    let value = attribute.map(|attribute| {
        attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map(std::borrow::Cow::into_owned)
    });
    value
        .transpose()
        .map_err(|error| format!("is not XML: {error}"))
}

fn push(case: &mut Option<Case>, text: &str) {
    if let Some(case) = case {
        case.text.push_str(text);
    }
}

fn entity(name: &str) -> String {
    match name {
        "lt" => "<".into(),
        "gt" => ">".into(),
        "amp" => "&".into(),
        "quot" => "\"".into(),
        "apos" => "'".into(),
        number => {
            let code = number.strip_prefix("#x").map_or_else(
                || {
                    number
                        .strip_prefix('#')
                        .and_then(|digits| digits.parse().ok())
                },
                |digits| u32::from_str_radix(digits, 16).ok(),
            );
            code.and_then(char::from_u32)
                .map(String::from)
                .unwrap_or_default()
        }
    }
}

/// A case counts once, as the worst that it says.
fn close(case: &mut Option<Case>, junit: &mut Junit) {
    let Some(case) = case.take() else { return };
    junit.tests += 1;
    if case.error {
        junit.errors += 1;
    } else if case.failed {
        junit.failures += 1;
    } else if case.skipped {
        junit.skipped += 1;
    }
    if case.error || case.failed {
        let last = case
            .text
            .trim_end()
            .lines()
            .last()
            .unwrap_or_default()
            .trim()
            .to_owned();
        let message = if case.message.is_empty() {
            case.text.lines().next().unwrap_or_default().to_owned()
        } else {
            case.message
        };
        junit.failing.push(Failing {
            name: case.name,
            message,
            last,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PYTEST: &str = r#"<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" errors="9" failures="9" tests="99" time="0.05">
<testcase classname="tests.test_hand" name="test_ok" time="0.001" />
<testcase classname="tests.test_hand" name="test_aces" time="0.001"><failure message="AssertionError: assert 22 == 12&#10; +  where 22 = value(&lt;Hand&gt;)">def test_aces():
&gt;       assert hand.value == 12
tests/test_hand.py:34: AssertionError</failure></testcase>
<testcase classname="" name="tests.test_cli" time="0.0"><error message="collection failure">ImportError</error></testcase>
<testcase classname="t" name="s"><skipped type="pytest.skip" message="no">x</skipped></testcase>
</testsuite></testsuites>"#;

    #[test]
    fn cases_are_counted_and_totals_are_not_believed() {
        let junit = parse(PYTEST.as_bytes()).unwrap();
        assert_eq!(
            (
                junit.tests,
                junit.passed(),
                junit.failures,
                junit.errors,
                junit.skipped
            ),
            (4, 1, 1, 1, 1)
        );
        assert_eq!(
            junit.failing,
            [
                Failing {
                    name: "tests.test_cli".into(),
                    message: "collection failure".into(),
                    last: "ImportError".into()
                },
                Failing {
                    name: "tests.test_hand::test_aces".into(),
                    message: "AssertionError: assert 22 == 12\n +  where 22 = value(<Hand>)".into(),
                    last: "tests/test_hand.py:34: AssertionError".into(),
                },
            ]
        );
    }

    #[test]
    fn what_is_no_report_is_refused() {
        for (text, part) in [
            ("", "is empty"),
            ("hello", "is empty"),
            ("<coverage/>", "is no JUnit report"),
            ("<testsuites><testsuite>", "ends in the middle"),
            ("<testsuites><a></b></testsuites>", "is not XML"),
        ] {
            let problem = parse(text.as_bytes()).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
        assert_eq!(parse(b"<testsuite/>").unwrap(), Junit::default());
    }

    #[test]
    fn a_failure_without_text_counts() {
        let junit = parse(
            b"<testsuite><testcase name='a'><failure/></testcase><testcase name='b'/></testsuite>",
        )
        .unwrap();
        assert_eq!(
            (junit.tests, junit.failures, junit.failing[0].name.as_str()),
            (2, 1, "a")
        );
    }
}
