//! Text of programs without what differs from run to run: durations, addresses, places of the workbench. Pure.

use std::sync::LazyLock;

use regex::Regex;

/// Patterns and what stands for them, in this order. A pattern that did not compile would leave the text as it is; the
/// tests would show it.
static RULES: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    [
        (r"\x1b\[[0-9;?]*[ -/]*[@-~]", ""),
        (r"\r\n?", "\n"),
        // A workbench keeps the tree in `…/tree`, temporary files in `…/tmp`.
        (r#"/[^\s:'"()\[\]<>]*?/tree/"#, ""),
        (r#"/[^\s:'"()\[\]<>]*?/tree\b"#, "."),
        (
            r#"/[^\s:'"()\[\]<>]*?/?tmp/[^\s:'"()\[\]<>]*"#,
            "<temporary file>",
        ),
        (r"\b0x[0-9a-fA-F]{4,}\b", "0x…"),
        (r"\b\d+(\.\d+)?\s?(ns|µs|us|ms|s|secs?|seconds?)\b", "N s"),
        (r"[ \t]+\n", "\n"),
    ]
    .into_iter()
    .filter_map(|(pattern, with)| Regex::new(pattern).ok().map(|regex| (regex, with)))
    .collect()
});

/// Most lines and characters that are kept, the last ones.
const MAX_LINES: usize = 60;
const MAX_CHARACTERS: usize = 4000;

/// The text without what differs from run to run, its end where it is long.
pub fn canonical(text: &str) -> String {
    let mut text = text.to_owned();
    for (regex, with) in RULES.iter() {
        text = regex.replace_all(&text, *with).into_owned();
    }
    let text = text.trim_end();
    let lines: Vec<&str> = text.lines().collect();
    let kept = lines[lines.len().saturating_sub(MAX_LINES)..].join("\n");
    let skip = kept.chars().count().saturating_sub(MAX_CHARACTERS);
    if skip == 0 && lines.len() <= MAX_LINES {
        return kept;
    }
    format!("…\n{}", kept.chars().skip(skip).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_gone() {
        for (text, expected) in [
            ("1 failed, 3 passed in 0.12s", "1 failed, 3 passed in N s"),
            ("took 14 ms", "took N s"),
            ("\x1b[31mred\x1b[0m", "red"),
            (
                "File \"/workspace/tree/blackjack/hand.py\", line 3",
                "File \"blackjack/hand.py\", line 3",
            ),
            ("/tmp/xyz/w/tree/a.py:3:1: F401", "a.py:3:1: F401"),
            ("rootdir: /workspace/tree", "rootdir: ."),
            ("in /workspace/tmp/pytest-of-root/x0", "in <temporary file>"),
            ("<Hand object at 0x7f33aa01>", "<Hand object at 0x…>"),
            ("a  \nb\n\n", "a\nb"),
            ("3 tests, line 12", "3 tests, line 12"),
        ] {
            assert_eq!(canonical(text), expected);
        }
    }

    #[test]
    fn the_end_of_a_long_text_is_kept() {
        let long = (0..500)
            .map(|line| format!("line {line}"))
            .collect::<Vec<_>>()
            .join(
                "
",
            );
        let kept = canonical(&long);
        assert!(kept.starts_with('…') && kept.ends_with("line 499"));
        assert_eq!(kept.lines().count(), MAX_LINES + 1);
    }
}
