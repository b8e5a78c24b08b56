//! Paths, patterns and templated texts.

use regex::Regex;
use std::sync::LazyLock;

static TAGS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?s)\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}").ok());

/// Whether a text has minijinja in it.
pub(super) fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|tag| text.contains(tag))
}

/// What is wrong with a path in the project, if anything. What a template will fill in is taken for a name.
pub(super) fn path_mistake(path: &str) -> Option<String> {
    let plain = TAGS.as_ref().map_or_else(
        || path.to_owned(),
        |tags| tags.replace_all(path, "x").into_owned(),
    );
    let reason = if plain.trim().is_empty() {
        "is empty; name a place in the project"
    } else if plain.starts_with('/') || plain.starts_with('~') {
        "is not relative; write it from the project's root"
    } else if plain.split('/').any(|part| part == "..") {
        "leaves the project with `..`; write it from the project's root"
    } else if plain
        .split('/')
        .any(|part| part.eq_ignore_ascii_case(".git"))
    {
        "is in .git, which nobody may write; choose another place"
    } else if plain.contains('\\') {
        "has a backslash; separate folders with `/`"
    } else if plain.chars().any(char::is_control) {
        "has a control character; take it out"
    } else {
        return None;
    };
    Some(format!("\"{path}\" {reason}"))
}

/// What is wrong with the path of one file, if anything.
pub(super) fn file_mistake(path: &str) -> Option<String> {
    path_mistake(path).or_else(|| {
        let plain = TAGS.as_ref().map_or_else(
            || path.to_owned(),
            |tags| tags.replace_all(path, "x").into_owned(),
        );
        if plain.ends_with('/') {
            Some(format!("\"{path}\" names a folder; name a file in it"))
        } else if plain.contains('*') {
            Some(format!(
                "\"{path}\" is a pattern; name one file, or use glob"
            ))
        } else {
            None
        }
    })
}

/// What is wrong with a pattern of paths, if anything.
pub(super) fn glob_mistake(pattern: &str) -> Option<String> {
    path_mistake(pattern).or_else(|| {
        let plain = TAGS.as_ref().map_or_else(|| pattern.to_owned(), |tags| tags.replace_all(pattern, "x").into_owned());
        [('[', ']'), ('{', '}')].into_iter().find_map(|(open, close)| {
            (plain.matches(open).count() != plain.matches(close).count())
                .then(|| format!("\"{pattern}\" opens a `{open}` that it does not close, or the reverse; balance them"))
        })
    })
}

/// `a`, `b` and `c`, for messages; says so where there is none.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        String::from("none")
    } else {
        names.join(", ")
    }
}
