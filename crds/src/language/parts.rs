//! Rendered texts in parts: what a template says itself, and the values that it prints.

use minijinja::{OutputSpanKind, value::Serde};
use serde_json::Value as Json;

use super::template::{TemplateError, Templates, mistake};

/// A part of a rendered text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The text.
    pub text: String,
    /// The expression that printed it, as `artifacts.prd.text`; none: the template's own words. What a macro or a filter
    /// block gives is one value.
    pub value: Option<String>,
}

impl Part {
    /// Words that stay as they are.
    pub fn words(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            value: None,
        }
    }

    /// A value under the name by which people know it.
    pub fn value(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            value: Some(name.into()),
        }
    }
}

impl Templates {
    /// Renders a named template in parts, in order; together they are what [`Self::render`] gives, which is not bounded here.
    pub fn render_parts(&self, name: &str, context: &Json) -> Result<Vec<Part>, TemplateError> {
        let failed = |error: &minijinja::Error| mistake(error, name);
        let template = self.template(name).map_err(|error| failed(&error))?;
        let (text, spans) = template
            .render_with_spans(Serde(context))
            .map_err(|error| failed(&error))?;
        let mut parts: Vec<Part> = Vec::new();
        let mut end = 0;
        for span in spans {
            let range = span.output_range();
            push_words(&mut parts, text.get(end..range.start).unwrap_or_default());
            end = range.end;
            let printed = text.get(range).unwrap_or_default();
            if span.kind() == OutputSpanKind::Expression {
                let source = self.template(span.name()).ok();
                let source = source.and_then(|template| {
                    let source = template.source().get(span.source_range())?;
                    Some(source.split_whitespace().collect::<Vec<_>>().join(" "))
                });
                parts.push(Part::value(source.unwrap_or_default(), printed));
            } else {
                push_words(&mut parts, printed);
            }
        }
        push_words(&mut parts, text.get(end..).unwrap_or_default());
        Ok(parts)
    }
}

fn push_words(parts: &mut Vec<Part>, words: &str) {
    match parts.last_mut() {
        _ if words.is_empty() => {}
        Some(Part { text, value: None }) => text.push_str(words),
        _ => parts.push(Part::words(words)),
    }
}
