//! Templates and expressions of a procedure: that they compile, and that what they refer to exists.

use super::{
    Found,
    names::{Declared, Scope},
    text::list,
};
use crate::language::{Expression, Templates};
use regex::Regex;
use std::sync::LazyLock;

static TAGS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?s)\{\{(.*?)\}\}|\{%(.*?)%\}").ok());
static STRINGS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?s)"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"#).ok());
static FILTERS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\|\s*([A-Za-z_][A-Za-z0-9_]*)").ok());
static TESTS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\bis\s+(?:not\s+)?([A-Za-z_][A-Za-z0-9_]*)").ok());

/// Each template by itself.
pub(super) fn check(declared: &Declared<'_>, found: &mut Found) {
    for (name, text) in &declared.texts {
        let own = declared.spec.templates.contains_key(*name);
        let path = format!(
            "spec.{}[{name}]",
            if own { "templates" } else { "templatesFrom" }
        );
        if let Err(error) = Templates::empty().add(name, text) {
            found.add(path, format!("line {}: {}", error.line, error.message));
            continue;
        }
        for included in declared.includes(name) {
            if !declared.incomplete && !declared.texts.contains_key(included) {
                found.add(
                    path.clone(),
                    format!(
                        "includes the unknown template `{included}`; known are: {}",
                        list(declared.texts.keys().copied())
                    ),
                );
            }
        }
        for message in unknown_filters(text) {
            found.add(path.clone(), message);
        }
    }
}

/// The interpreter looks filters and tests up only when it meets them: find them before a run does.
fn unknown_filters(text: &str) -> Vec<String> {
    let (Some(tags), Some(strings)) = (TAGS.as_ref(), STRINGS.as_ref()) else {
        return Vec::new();
    };
    if text.contains("{% raw") || text.contains("{%- raw") {
        return Vec::new();
    }
    let probe = Templates::empty();
    let mut messages = Vec::new();
    for tag in tags.captures_iter(text) {
        let Some(inner) = tag.get(1).or_else(|| tag.get(2)) else {
            continue;
        };
        let line = text[..inner.start()].matches('\n').count() + 1;
        let code = strings.replace_all(inner.as_str(), "''");
        for (pattern, what, form) in [
            (FILTERS.as_ref(), "filter", "{{ '' | NAME }}"),
            (TESTS.as_ref(), "test", "{{ '' is NAME }}"),
        ] {
            for name in pattern
                .into_iter()
                .flat_map(|p| p.captures_iter(&code))
                .filter_map(|c| c.get(1))
            {
                let name = name.as_str();
                let unknown = probe
                    .render_inline(&form.replace("NAME", name), &serde_json::Value::Null)
                    .is_err_and(|error| error.message.starts_with(&format!("unknown {what}")));
                if unknown {
                    messages.push(format!("line {line}: there is no {what} `{name}`"));
                }
            }
        }
    }
    messages
}

/// A template by name, used where `scope` is known.
pub(super) fn named(scope: &Scope<'_>, path: &str, name: &str, found: &mut Found) {
    let declared = scope.declared;
    if !declared.texts.contains_key(name) {
        if !declared.incomplete {
            found.add(
                path,
                format!(
                    "there is no template `{name}`; known are: {}",
                    list(declared.texts.keys().copied())
                ),
            );
        }
        return;
    }
    for (template, references) in declared.templates.references(name) {
        for reference in references {
            found.add_some(
                path,
                scope
                    .template_mistake(&reference)
                    .map(|message| format!("template `{template}`: {message}")),
            );
        }
    }
}

/// A templated text: a path, an argument.
pub(super) fn inline(scope: &Scope<'_>, path: &str, text: &str, found: &mut Found) {
    match scope.declared.templates.undeclared_variables_inline(text) {
        Ok(references) => {
            for reference in references {
                found.add_some(path, scope.template_mistake(&reference));
            }
            for message in unknown_filters(text) {
                found.add(path, message);
            }
        }
        Err(error) => found.add(
            path,
            format!(
                "\"{text}\" does not compile, line {}: {}",
                error.line, error.message
            ),
        ),
    }
}

/// A CEL expression.
pub(super) fn expression(scope: &Scope<'_>, path: &str, text: &str, found: &mut Found) {
    match Expression::compile(text) {
        Ok(expression) => {
            for reference in expression.references() {
                let reference: Vec<&str> = reference.iter().map(String::as_str).collect();
                found.add_some(path, scope.mistake(&reference));
            }
        }
        Err(error) => found.add(path, format!("the expression does not compile: {error}")),
    }
}
