//! lcov's tracefiles, as `geninfo(1)` describes them: share of lines that ran. Pure.
//!
//! Only lines are read. The crate `lcov` (passively maintained) refuses the records of functions that lcov 2 has added.

use std::collections::BTreeMap;

use super::Coverage;

/// Lines are counted; a file's own figures (`LF`, `LH`) are used where it lists no lines.
pub(super) fn parse(bytes: &[u8]) -> Result<Coverage, String> {
    let report = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    let mut lines: BTreeMap<(&str, u64), bool> = BTreeMap::new();
    let (mut covered, mut valid, mut files) = (0, 0, 0);
    let mut section: Option<Section<'_>> = None;
    for (index, text) in report.lines().enumerate() {
        let text = text.trim();
        let wrong = |what: &str| format!("is no lcov tracefile: line {} {what}", index + 1);
        let (kind, value) = text.split_once(':').unwrap_or((text, ""));
        match (kind, &mut section) {
            ("SF", section @ None) => *section = Some(Section::of(value)),
            ("SF", Some(_)) => return Err(wrong("begins a file within another")),
            ("DA", Some(section)) => {
                let (line, ran) =
                    line(value).ok_or_else(|| wrong("is not DA:<line>,<executions>"))?;
                section.listed = true;
                // Several tests list a file several times; a line ran if one of them says so.
                *lines.entry((section.file, line)).or_default() |= ran;
            }
            ("LF", Some(section)) => section.found = value.parse().unwrap_or(0),
            ("LH", Some(section)) => section.hit = value.parse().unwrap_or(0),
            ("end_of_record", Some(ended)) => {
                files += 1;
                if !ended.listed {
                    valid += ended.found;
                    covered += ended.hit.min(ended.found);
                }
                section = None;
            }
            ("DA" | "end_of_record", None) => return Err(wrong("belongs to no file")),
            _ => {}
        }
    }
    if section.is_some() {
        return Err("ends in the middle".into());
    }
    if files == 0 {
        return Err("is no lcov tracefile: it names no file".into());
    }
    valid += lines.len() as u64;
    covered += lines.values().filter(|ran| **ran).count() as u64;
    Ok(Coverage::of(covered, valid))
}

/// What is said of one file.
struct Section<'a> {
    file: &'a str,
    listed: bool,
    found: u64,
    hit: u64,
}

impl<'a> Section<'a> {
    const fn of(file: &'a str) -> Self {
        Self {
            file,
            listed: false,
            found: 0,
            hit: 0,
        }
    }
}

/// Number of a line, and whether it ran. Some compilers count in floating point.
fn line(value: &str) -> Option<(u64, bool)> {
    let mut fields = value.split(',');
    let number = fields.next()?.trim().parse().ok()?;
    let executions: f64 = fields.next()?.trim().parse().ok()?;
    Some((number, executions > 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What node's test runner, istanbul and lcov 2 write.
    const TRACE: &str = "TN:\nSF:src/a.js\nFNL:0,1,3\nFNA:0,2,total\nFN:1,total\nFNDA:2,total\nFNF:1\nFNH:1\nBRDA:2,e0,0,-\nBRF:1\nBRH:0\nDA:1,2\nDA:2,0\nDA:3,1,4fGx\nLF:3\nLH:2\nend_of_record\n";

    #[test]
    fn lines_are_counted_once_over_tests() {
        let again = "TN:other\nSF:src/a.js\nDA:2,5\nend_of_record\nSF:src/b.js\nDA:1,1.5e3\nend_of_record\n";
        let totals = "SF:c.js\nLF:4\nLH:9\nend_of_record\n";
        for (text, covered, valid) in [
            (TRACE.to_owned(), 2, 3),
            (TRACE.replace('\n', "\r\n"), 2, 3),
            (format!("{TRACE}{again}"), 4, 4),
            (format!("{TRACE}{totals}"), 6, 7),
            ("SF:empty.js\nend_of_record".to_owned(), 0, 0),
        ] {
            let coverage = parse(text.as_bytes()).unwrap();
            assert_eq!(
                (coverage.covered, coverage.valid),
                (covered, valid),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_tracefile_is_refused() {
        for (text, part) in [
            ("", "names no file"),
            ("<coverage/>", "names no file"),
            ("DA:1,1\n", "line 1 belongs to no file"),
            ("SF:a\nDA:x,1\nend_of_record", "line 2 is not DA"),
            ("SF:a\nDA:1\nend_of_record", "line 2 is not DA"),
            ("SF:a\nSF:b\n", "line 2 begins a file within another"),
            ("SF:a\nDA:1,1\n", "ends in the middle"),
        ] {
            let problem = parse(text.as_bytes()).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
    }
}
