//! Answers that are longer than one may be: what was cut is continued.

use sopwith_crds::contract::report::What;

use super::{
    Ask, Llm, LlmError,
    codec::{ChatMessage, Finish, FunctionCall},
};

/// Most requests for one answer.
const PARTS: usize = 4;
/// What the model is told when it had its most tokens.
const GO_ON: &str = "Your answer was cut off at its most tokens. Go on exactly where it ends, repeat nothing of it, and put nothing before or around it.";

/// What a model said, whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// Its text.
    pub text: String,
    /// The functions it calls, in order, each with an id of its own in the conversation.
    pub calls: Vec<FunctionCall>,
}

impl Llm {
    /// Asks for a text. As [`Llm::converse`].
    pub async fn ask(
        &self,
        ask: &mut Ask,
        report: &(dyn Fn(What) + Send + Sync),
    ) -> Result<String, LlmError> {
        self.converse(ask, report).await.map(|said| said.text)
    }

    /// Asks until the answer is whole, or calls functions. `report` is told of every request. Each takes a turn of the
    /// key; afterwards `ask` has the last one.
    pub async fn converse(
        &self,
        ask: &mut Ask,
        report: &(dyn Fn(What) + Send + Sync),
    ) -> Result<Said, LlmError> {
        let mut text = String::new();
        let mut on = ask.clone();
        for _ in 0..PARTS {
            let answer = self.ask_part(&on, report).await?;
            ask.key.turn = on.key.turn;
            text.push_str(&answer.content);
            // A call that was cut cannot be continued: its arguments are no JSON, and the model is told so.
            if answer.finish != Finish::Cut || !answer.calls.is_empty() {
                let calls = numbered(answer.calls, ask.key.turn);
                return Ok(Said { text, calls });
            }
            if answer.content.is_empty() {
                let why = format!(
                    "{} had its most tokens before it wrote a word: raise maxOutputTokens of the role and of the model in the policy",
                    ask.model
                );
                return Err(LlmError::Incomplete(why));
            }
            on.key.turn += 1;
            on.continues = true;
            on.messages.clone_from(&ask.messages);
            on.messages.extend([
                ChatMessage::new("assistant", text.as_str()),
                ChatMessage::new("user", GO_ON),
            ]);
        }
        Err(LlmError::Incomplete(format!(
            "the answer of {} was cut at its most tokens {PARTS} times: raise maxOutputTokens of the role and of the model in the policy, or ask for less",
            ask.model
        )))
    }
}

/// Calls with ids that the conversation has once, whatever the provider gave: some give none, and an endpoint may follow
/// that has not seen those of the last.
fn numbered(calls: Vec<FunctionCall>, turn: u32) -> Vec<FunctionCall> {
    let calls = calls.into_iter().zip(1..);
    calls
        .map(|(call, number): (_, u32)| FunctionCall {
            id: format!("call_{turn}_{number}"),
            ..call
        })
        .collect()
}
