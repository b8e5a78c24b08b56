//! Cobertura XML: share of lines that ran. Pure.

use std::collections::BTreeMap;

use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};

use super::Coverage;

/// Lines are counted; the root's own figures are used where it lists no lines.
pub(super) fn parse(bytes: &[u8]) -> Result<Coverage, String> {
    let report = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    let mut reader = Reader::from_str(report);
    let mut lines: BTreeMap<(String, u64), bool> = BTreeMap::new();
    let (mut file, mut root, mut depth) = (String::new(), None, 0usize);
    loop {
        let event = reader
            .read_event()
            .map_err(|error| format!("is not XML: {error}"))?;
        let element = match &event {
            Event::Start(element) | Event::Empty(element) => element,
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                continue;
            }
            Event::Eof if depth > 0 => return Err("ends in the middle".into()),
            Event::Eof => break,
            _ => continue,
        };
        match element.local_name().as_ref() {
            "coverage" if root.is_none() => root = Some(figures(element)),
            other if root.is_none() => {
                return Err(format!("is no Cobertura report: its root is <{other}>"));
            }
            "class" => file = text(element, "filename").unwrap_or_default(),
            "line" => {
                if let (Some(number), Some(hits)) =
                    (number(element, "number"), number(element, "hits"))
                {
                    // A line is listed under its method and its class; it ran if either says so.
                    *lines.entry((file.clone(), number)).or_default() |= hits > 0;
                }
            }
            _ => {}
        }
        depth += usize::from(matches!(event, Event::Start(_)));
    }
    let root = root.ok_or("is empty")?;
    if lines.is_empty() {
        return Ok(root);
    }
    Ok(Coverage::of(
        lines.values().filter(|ran| **ran).count() as u64,
        lines.len() as u64,
    ))
}

fn figures(element: &BytesStart<'_>) -> Coverage {
    if let (Some(covered), Some(valid)) = (
        number(element, "lines-covered"),
        number(element, "lines-valid"),
    ) {
        return Coverage::of(covered.min(valid), valid);
    }
    let rate = text(element, "line-rate").and_then(|rate| rate.parse::<f64>().ok());
    let rate = rate
        .filter(|rate| (0.0..=1.0).contains(rate))
        .unwrap_or(0.0);
    Coverage {
        rate,
        covered: 0,
        valid: 0,
    }
}

fn text(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = element.try_get_attribute(name).ok().flatten()?;
    attribute
        .normalized_value(XmlVersion::Implicit1_0)
        .ok()
        .map(std::borrow::Cow::into_owned)
}

fn number(element: &BytesStart<'_>, name: &str) -> Option<u64> {
    text(element, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_once_and_the_root_is_the_fallback() {
        let lines = r#"<coverage line-rate="1" lines-covered="9" lines-valid="9"><packages><package><classes>
            <class filename="a.py"><methods><method><lines><line number="1" hits="0"/></lines></method></methods>
              <lines><line number="1" hits="2"/><line number="2" hits="0"/></lines></class>
            <class filename="b.py"><lines><line number="1" hits="1"/><line number="2" hits="1"/></lines></class>
            </classes></package></packages></coverage>"#;
        for (text, rate, covered, valid) in [
            (lines, 0.75, 3, 4),
            (r#"<coverage line-rate="0.5"/>"#, 0.5, 0, 0),
            (
                r#"<coverage line-rate="0.5" lines-covered="9" lines-valid="10"></coverage>"#,
                0.9,
                9,
                10,
            ),
            (r#"<coverage line-rate="7"/>"#, 0.0, 0, 0),
            (r"<!DOCTYPE coverage SYSTEM 'x'><coverage/>", 0.0, 0, 0),
        ] {
            let coverage = parse(text.as_bytes()).unwrap();
            assert!((coverage.rate - rate).abs() < 1e-9, "{text}");
            assert_eq!(
                (coverage.covered, coverage.valid),
                (covered, valid),
                "{text}"
            );
        }
        assert!(
            parse(b"<testsuites/>")
                .unwrap_err()
                .contains("root is <testsuites>")
        );
        assert!(parse(b"").is_err());
        assert!(parse(b"<coverage><packages>").is_err());
    }
}
