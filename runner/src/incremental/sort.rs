//! Sorting the idea of an incremental run: a new requirement, or a bug report.

use serde::Deserialize;
use serde_json::{Value, json};
use sopwith_crds::contract::plan::RunPlan;

use super::Kind;

/// What a model answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Sorted {
    /// What the idea is.
    pub(super) kind: Kind,
    /// Why, in a sentence.
    pub(super) reason: String,
}

/// The schema of the answer.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["kind", "reason"],
        "properties": {
            "kind": {"enum": ["requirement", "bug"]},
            "reason": {"type": "string", "minLength": 1},
        },
    })
}

/// System and user message of the question.
pub(super) fn question(plan: &RunPlan) -> (String, String) {
    let system = "You sort requests for an existing project. A requirement asks for something new, or for another behaviour. \
                  A bug report says that something does not work as it was meant to, and asks for nothing new.";
    let user = format!(
        "Project: {}\n\nRequest:\n{}\n\nIs it a requirement or a bug report? Answer with one JSON object: \
         {{\"kind\": \"requirement\" or \"bug\", \"reason\": one sentence}}. Write nothing around it.",
        plan.options.project_name,
        plan.options.idea.trim_end()
    );
    (system.to_owned(), user)
}
