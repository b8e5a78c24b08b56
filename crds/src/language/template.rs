//! Minijinja templates, strict about what is undefined and bounded in work and size.

use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, value::Serde};
use regex::Regex;
use serde_json::Value as Json;
use std::{
    collections::BTreeMap,
    str::FromStr,
    sync::{Arc, LazyLock},
};

/// Instructions, and blocks of 64 bytes made, that one rendering may use.
const FUEL: u64 = 1_000_000;
/// The most that a rendering may give, in bytes.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// How deep includes, macros and loops may nest (an include counts for 10).
const MAX_RECURSION: usize = 120;
static INCLUDES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"\{%[-+]?\s*(?:include|import|from|extends)\s+(?:"([^"]*)"|'([^']*)')"#).ok()
});

/// The name under which an error speaks of a text that is not a named template.
const INLINE: &str = "text";

/// Why a template cannot be compiled or rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template {template}, line {line}: {message}")]
pub struct TemplateError {
    /// Name of the template; `text` where it has none.
    pub template: String,
    /// Line of the mistake, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// Since when `diff()` tells what changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Since {
    /// The step began, in this round.
    #[default]
    Step,
    /// The present attempt of the step began.
    Attempt,
    /// The run began.
    Run,
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "step" => Ok(Self::Step),
            "attempt" => Ok(Self::Attempt),
            "run" => Ok(Self::Run),
            other => Err(format!(
                "diff(\"{other}\") is not known; use diff(\"step\"), diff(\"attempt\") or diff(\"run\")"
            )),
        }
    }
}

/// The files that templates see through `file(path)`, `glob(pattern)` and `diff(since)`.
pub trait Files: Send + Sync + 'static {
    /// The text of a file; `None` where it is not there or not text.
    fn file(&self, path: &str) -> Option<String>;
    /// The paths that match a pattern, sorted.
    fn glob(&self, pattern: &str) -> Vec<String>;
    /// What changed, as a unified diff; empty where nothing did.
    fn diff(&self, since: Since) -> String;
}

/// No files at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFiles;

impl Files for NoFiles {
    fn file(&self, _: &str) -> Option<String> {
        None
    }
    fn glob(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
    fn diff(&self, _: Since) -> String {
        String::new()
    }
}

/// The templates of a procedure, compiled.
#[derive(Clone, Debug)]
pub struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    /// Compiles all templates; the error is the first mistake in the order of their names.
    pub fn new(texts: &BTreeMap<String, String>) -> Result<Self, TemplateError> {
        let mut templates = Self::empty();
        for (name, text) in texts {
            templates.add(name, text)?;
        }
        Ok(templates)
    }

    /// No templates yet.
    pub fn empty() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_recursion_limit(MAX_RECURSION);
        environment.set_fuel(Some(FUEL));
        // Without it an error names no expression.
        environment.set_debug(true);
        environment.add_filter("json", minijinja::filters::tojson);
        Self { environment }.with_files(NoFiles)
    }

    /// Compiles one more template.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), TemplateError> {
        self.environment
            .add_template_owned(name.to_owned(), text.to_owned())
            .map_err(|error| mistake(&error, name))
    }

    /// The same templates over other files.
    #[must_use]
    pub fn with_files(mut self, files: impl Files) -> Self {
        let files = Arc::new(files);
        let (of_glob, of_diff) = (Arc::clone(&files), Arc::clone(&files));
        self.environment.add_function("file", move |path: &str| {
            files.file(path).ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidOperation,
                    format!("there is no text file {path}"),
                )
            })
        });
        self.environment
            .add_function("glob", move |pattern: &str| of_glob.glob(pattern));
        self.environment
            .add_function("diff", move |since: Option<&str>| {
                let since = since.map_or(Ok(Since::default()), str::parse);
                let since: Since =
                    since.map_err(|why| Error::new(ErrorKind::InvalidOperation, why))?;
                Ok::<_, Error>(of_diff.diff(since))
            });
        self
    }

    /// Whether there is a template of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.environment.get_template(name).is_ok()
    }

    /// Renders a named template. `context` is an object whose members are the values by name.
    pub fn render(&self, name: &str, context: &Json) -> Result<String, TemplateError> {
        let template = self
            .environment
            .get_template(name)
            .map_err(|error| mistake(&error, name))?;
        let text = template
            .render(Serde(context))
            .map_err(|error| mistake(&error, name))?;
        bounded(text, name)
    }

    /// Renders a text that is no named template: a path, an argument.
    pub fn render_inline(&self, text: &str, context: &Json) -> Result<String, TemplateError> {
        let template = self.inline(text)?;
        let text = template
            .render(Serde(context))
            .map_err(|error| mistake(&error, INLINE))?;
        bounded(text, INLINE)
    }

    /// The values that a named template refers to, as far as their path is written out
    /// (`artifacts.prd.json`), sorted; those of templates it includes are not among them.
    pub fn undeclared_variables(&self, name: &str) -> Vec<String> {
        self.environment
            .get_template(name)
            .map(|template| sorted(template.undeclared_variables(true)))
            .unwrap_or_default()
    }

    /// The same of a text that is no named template.
    pub fn undeclared_variables_inline(&self, text: &str) -> Result<Vec<String>, TemplateError> {
        Ok(sorted(self.inline(text)?.undeclared_variables(true)))
    }

    /// What a template and those it includes refer to, by template: [`Self::undeclared_variables`].
    pub fn references(&self, name: &str) -> BTreeMap<String, Vec<String>> {
        let mut found = BTreeMap::new();
        let mut open = vec![name.to_owned()];
        while let Some(name) = open.pop() {
            if !found.contains_key(&name) {
                if let Ok(template) = self.template(&name) {
                    open.extend(includes(template.source()).into_iter().map(str::to_owned));
                }
                found.insert(name.clone(), self.undeclared_variables(&name));
            }
        }
        found
    }

    /// Whether a template, or one it includes, refers to a value: `findings`, or a part of it.
    pub fn shows(&self, name: &str, value: &str) -> bool {
        let root = |reference: &String| reference.split('.').next() == Some(value);
        self.references(name).values().flatten().any(root)
    }

    pub(super) fn template(
        &self,
        name: &str,
    ) -> Result<minijinja::Template<'_, '_>, minijinja::Error> {
        self.environment.get_template(name)
    }

    fn inline<'a>(&'a self, text: &'a str) -> Result<minijinja::Template<'a, 'a>, TemplateError> {
        self.environment
            .template_from_named_str(INLINE, text)
            .map_err(|error| mistake(&error, INLINE))
    }
}

/// The names of templates that a text includes, as far as they are written out.
pub(crate) fn includes(text: &str) -> Vec<&str> {
    let found = INCLUDES.iter().flat_map(|tag| tag.captures_iter(text));
    found
        .filter_map(|tag| tag.get(1).or_else(|| tag.get(2)))
        .map(|name| name.as_str())
        .collect()
}

fn sorted(names: std::collections::HashSet<String>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().collect();
    names.sort();
    names
}

fn bounded(text: String, template: &str) -> Result<String, TemplateError> {
    if text.len() > MAX_OUTPUT_BYTES {
        return Err(TemplateError {
            template: template.to_owned(),
            line: 1,
            message: format!(
                "gives {} bytes, the most is {MAX_OUTPUT_BYTES}: show less of the files",
                text.len()
            ),
        });
    }
    Ok(text)
}

/// Says which template, which line and which expression; of an included template, that one.
pub(super) fn mistake(error: &Error, template: &str) -> TemplateError {
    let mut cause = error;
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(inner) = inner.downcast_ref::<Error>() {
            cause = inner;
        }
        source = inner.source();
    }
    let mut message = match cause.kind() {
        ErrorKind::OutOfFuel => String::from("does too much work; show fewer or smaller files"),
        kind => kind.to_string(),
    };
    if let Some(detail) = cause.detail() {
        message = if cause.kind() == ErrorKind::SyntaxError {
            detail.to_owned()
        } else {
            format!("{message}: {detail}")
        };
    }
    if let (Some(range), Some(text)) = (cause.range(), cause.template_source())
        && let Some(expression) = text.get(range)
        && cause.kind() != ErrorKind::SyntaxError
    {
        let expression: String = expression.chars().take(120).collect();
        message = format!("{message}, at `{}`", expression.trim());
    }
    TemplateError {
        template: cause.name().unwrap_or(template).to_owned(),
        line: cause.line().unwrap_or(1),
        message,
    }
}
