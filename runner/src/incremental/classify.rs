//! Whether the idea of an incremental run is a new requirement or a bug report: what a model is asked, and what it answers. Pure.

use serde::Deserialize;
use serde_json::{Value, json};
use sopwith_crds::{
    contract::{cassette::Key, plan::RunPlan, snapshot::SYSTEM},
    status::IdeaKind,
};

use crate::{
    action::prompt::unfenced,
    gate::mismatches,
    llm::{Ask, codec::ChatMessage},
};

/// The action by which its request is known, with [`SYSTEM`] as the step.
pub(super) const ACTION: &str = "classify";
/// Most tokens of the answer: a word and a sentence, and what models think before that.
const MAX_OUTPUT_TOKENS: u32 = 2000;
/// Characters of a reason that are kept.
const MAX_REASON: usize = 300;

/// What a model answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Answer {
    /// What the idea is.
    pub(super) kind: IdeaKind,
    /// Why, in a sentence.
    pub(super) reason: String,
}

/// The question.
pub(super) fn question(plan: &RunPlan) -> Ask {
    let system = "You sort requests for an existing project. A requirement asks for something new, or for another behaviour. \
                  A bug report says that something does not work as it was meant to, and asks for nothing new.";
    let user = format!(
        "Project: {}\n\nRequest:\n{}\n\nIs it a requirement or a bug report? Answer with one JSON object: \
         {{\"kind\": \"requirement\" or \"bug\", \"reason\": one sentence}}. Write nothing around it.",
        plan.options.project_name,
        plan.options.idea.trim_end()
    );
    Ask {
        key: Key {
            step: SYSTEM.to_owned(),
            action: ACTION.to_owned(),
            ..Key::default()
        },
        model: plan.options.model.clone(),
        messages: vec![
            ChatMessage::new("system", system),
            ChatMessage::new("user", user),
        ],
        max_output: Some(MAX_OUTPUT_TOKENS),
        schema: Some((ACTION.to_owned(), schema())),
        ..Ask::default()
    }
}

/// The schema of the answer.
fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["kind", "reason"],
        "properties": {
            "kind": {"type": "string", "enum": ["requirement", "bug"]},
            "reason": {"type": "string"},
        },
    })
}

/// What an answer says, or what is wrong with it.
pub(super) fn read(answer: &str) -> Result<Answer, Vec<String>> {
    let text = unfenced(answer);
    let problems = mismatches(&schema(), text);
    if !problems.is_empty() {
        return Err(problems);
    }
    let read: Answer = serde_json::from_str(text).map_err(|error| vec![error.to_string()])?;
    let reason = read.reason.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(Answer {
        reason: reason.chars().take(MAX_REASON).collect(),
        ..read
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopwith_crds::contract::plan::RunOptions;

    #[test]
    fn an_answer_is_one_of_two_words_and_why() {
        let table = [
            (
                r#"{"kind": "bug", "reason": "it\n crashes"}"#,
                Some((IdeaKind::Bug, "it crashes")),
            ),
            (
                "```json\n{\"kind\": \"requirement\", \"reason\": \"\"}\n```",
                Some((IdeaKind::Requirement, "")),
            ),
            (r#"{"kind": "chore", "reason": "x"}"#, None),
            (r#"{"kind": "bug"}"#, None),
            ("bug", None),
            ("", None),
        ];
        for (text, expected) in table {
            let found = read(text).ok();
            let found = found
                .as_ref()
                .map(|answer| (answer.kind, answer.reason.as_str()));
            assert_eq!(found, expected, "{text}");
        }
        let long = json!({"kind": "bug", "reason": "x".repeat(1000)}).to_string();
        assert_eq!(read(&long).unwrap().reason.len(), MAX_REASON);
    }

    #[test]
    fn the_question_has_a_key_of_its_own_and_shows_the_idea() {
        let plan = RunPlan {
            options: RunOptions {
                idea: "it crashes at 21\n".into(),
                project_name: "blackjack".into(),
                model: "gpt".into(),
                ..RunOptions::default()
            },
            ..RunPlan::default()
        };
        let ask = question(&plan);
        assert_eq!(ask.key.to_string(), "sopwith/classify attempt 1 turn 1");
        assert_eq!(ask.model, "gpt");
        let user = &ask.messages[1].content;
        assert!(
            user.contains("Project: blackjack\n\nRequest:\nit crashes at 21\n\nIs it"),
            "{user}"
        );
    }
}
