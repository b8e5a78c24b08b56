//! What a model's answer must be and where it goes. Pure.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::tree::matcher;

/// A file in an answer that names its files itself.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct NamedFile {
    /// Its path.
    pub path: String,
    /// Its content.
    pub content: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedFiles {
    files: Vec<NamedFile>,
}

/// The schema of an answer that names its files itself.
pub fn files_schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["files"],
        "properties": {"files": {"type": "array", "items": {
            "type": "object",
            "additionalProperties": false,
            "required": ["path", "content"],
            "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
        }}},
    })
}

/// Reads an answer that names its files itself, each of which must match one of the patterns.
pub fn named_files(answer: &str, patterns: &[String]) -> Result<Vec<NamedFile>, String> {
    let parsed: NamedFiles = serde_json::from_str(answer).map_err(|error| {
        format!("the answer is not {{\"files\": [{{\"path\", \"content\"}}]}}: {error}")
    })?;
    let matchers: Result<Vec<_>, _> = patterns.iter().map(|pattern| matcher(pattern)).collect();
    let matchers = matchers.map_err(|error| error.to_string())?;
    for file in &parsed.files {
        if !matchers.iter().any(|matcher| matcher.is_match(&file.path)) {
            return Err(format!(
                "the path {:?} is not allowed here; allowed are {}",
                file.path,
                patterns.join(", ")
            ));
        }
    }
    Ok(parsed.files)
}

/// The answer without the one fenced code block around it, where there is one.
pub fn unfenced(answer: &str) -> &str {
    let text = answer.trim();
    let Some((open, rest)) = text.split_once('\n') else {
        return answer;
    };
    let fence: usize = open.bytes().take_while(|byte| *byte == b'`').count();
    let Some(inner) = rest
        .strip_suffix(&"`".repeat(fence))
        .filter(|_| fence >= 3 && !open[fence..].contains('`'))
    else {
        return answer;
    };
    let inner = match inner.strip_suffix('\n') {
        Some(_) => inner,
        None if inner.is_empty() => inner,
        None => return answer,
    };
    if is_one_block(inner, fence) {
        inner
    } else {
        answer
    }
}

/// Whether the text between two fences is one block: fences inside it pair up.
fn is_one_block(inner: &str, fence: usize) -> bool {
    let mut open = false;
    for line in inner.lines() {
        let ticks = line.bytes().take_while(|byte| *byte == b'`').count();
        if ticks < fence {
            continue;
        }
        match (open, line[ticks..].trim().is_empty()) {
            // The end of the outer block: what follows is another one.
            (false, true) => return false,
            (false, false) => open = true,
            (true, true) => open = false,
            (true, false) => {}
        }
    }
    !open
}

/// What the model is told about an answer that is not what was asked for.
pub fn repair(problems: &[String]) -> String {
    format!(
        "Your answer is not what was asked for:\n- {}\nAnswer again, whole, with nothing around it.",
        problems.join("\n- ")
    )
}

/// A file's text ends with a line end.
pub fn ended(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') {
        text.to_owned()
    } else {
        format!("{text}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_code_block_around_an_answer_is_taken_off() {
        for (answer, expected) in [
            ("```python\na\nb\n```\n", "a\nb\n"),
            ("```\na\n```", "a\n"),
            ("a", "a"),
            (
                "```python\na\n```\nand\n```python\nb\n```",
                "```python\na\n```\nand\n```python\nb\n```",
            ),
            (
                "```markdown\n# T\n```sh\nx\n```\nend\n```",
                "# T\n```sh\nx\n```\nend\n",
            ),
            ("````md\n```\nx\n```\n````", "```\nx\n```\n"),
            ("text\n```\na\n```", "text\n```\na\n```"),
            ("```python\na", "```python\na"),
            ("```\n```", ""),
        ] {
            assert_eq!(unfenced(answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn an_answer_may_write_only_where_the_patterns_allow() {
        let patterns = ["src/**/*.py".to_owned(), "README.md".to_owned()];
        let answer = |path: &str| json!({"files": [{"path": path, "content": "x"}]}).to_string();
        assert_eq!(
            named_files(&answer("src/a/b.py"), &patterns).unwrap()[0].path,
            "src/a/b.py"
        );
        assert!(named_files(&answer("README.md"), &patterns).is_ok());
        for path in ["src/a.txt", "tests/a.py", "../src/a.py"] {
            assert!(
                named_files(&answer(path), &patterns)
                    .unwrap_err()
                    .contains("is not allowed here"),
                "{path}"
            );
        }
        assert!(named_files("{}", &patterns).is_err());
        assert!(named_files("[]", &patterns).is_err());
    }
}
