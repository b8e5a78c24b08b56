//! In which form a model answers, and what an answer in that form says. Pure.

use std::borrow::Cow;

use serde_json::Value;
use sopwith_crds::{agent_run::PromptSchema, contract::plan::RunPlan, sop_definition::Prompt};

use super::{
    markdown,
    prompt::{files_schema, unfenced},
};
use crate::gate::mismatches;

/// The form of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// Any text.
    Text,
    /// The text of one file, which may stand in one fenced block.
    File,
    /// JSON that matches a schema of this name.
    Json(String, Value),
    /// Markdown that is read into such JSON.
    Markdown(Value),
    /// Markdown that names its files itself, read into such JSON.
    MarkdownFiles(Value),
}

impl Form {
    /// The form in which a prompt of a run asks for its answer.
    pub fn of(plan: &RunPlan, prompt: &Prompt) -> Self {
        let markdown = plan.options.prompt_schema == PromptSchema::Markdown;
        let schema = prompt.schema.as_ref();
        match schema.and_then(|name| Some((name, plan.schemas.get(name)?))) {
            Some((name, schema)) => Self::matching(plan, name, schema),
            None if prompt.writes.files.is_some() && markdown => {
                Self::MarkdownFiles(files_schema())
            }
            None if prompt.writes.files.is_some() => Self::Json("files".to_owned(), files_schema()),
            None if prompt.writes.path.is_some() => Self::File,
            None => Self::Text,
        }
    }

    /// The form in which a run asks for what matches a schema.
    pub fn matching(plan: &RunPlan, name: &str, schema: &Value) -> Self {
        let markdown = plan.options.prompt_schema == PromptSchema::Markdown;
        if markdown && markdown::speaks(schema) {
            Self::Markdown(schema.clone())
        } else {
            Self::Json(name.to_owned(), schema.clone())
        }
    }

    /// What the question says about it.
    pub fn words(&self) -> Option<String> {
        match self {
            Self::Markdown(schema) => Some(markdown::outline(schema)),
            Self::MarkdownFiles(_) => Some(markdown::files_outline()),
            Self::Text | Self::File | Self::Json(..) => None,
        }
    }

    /// Name and schema that the protocol is told.
    pub fn schema(&self) -> Option<(String, Value)> {
        match self {
            Self::Json(name, schema) => Some((name.clone(), schema.clone())),
            _ => None,
        }
    }

    /// What an answer says, or what is wrong with it.
    pub fn read<'a>(&self, answer: &'a str) -> Result<Cow<'a, str>, Vec<String>> {
        if answer.trim().is_empty() {
            return Err(vec!["it is empty".to_owned()]);
        }
        let (schema, text) = match self {
            Self::Text => return Ok(answer.into()),
            Self::File => return Ok(unfenced(answer).into()),
            Self::Json(_, schema) => (schema, Cow::from(unfenced(answer))),
            Self::Markdown(schema) => (schema, pretty(&markdown::read(schema, unfenced(answer))?)),
            Self::MarkdownFiles(schema) => {
                (schema, pretty(&markdown::read_files(unfenced(answer))?))
            }
        };
        let problems = mismatches(schema, &text);
        if problems.is_empty() {
            Ok(text)
        } else {
            Err(problems)
        }
    }
}

fn pretty(value: &Value) -> Cow<'static, str> {
    serde_json::to_string_pretty(value)
        .unwrap_or_default()
        .into()
}
