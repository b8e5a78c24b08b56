//! Answers that are longer than one may be: what was cut is continued.

use sopwith_crds::contract::report::What;

use super::{
    Ask, Llm, LlmError,
    codec::{ChatMessage, Finish},
};

/// Most requests for one answer.
const PARTS: usize = 4;
/// What the model is told when it had its most tokens.
const GO_ON: &str = "Your answer was cut off at its most tokens. Go on exactly where it ends, repeat nothing of it, and put nothing before or around it.";

impl Llm {
    /// Asks until the answer is whole. `report` is told of every request. Each takes a turn of the key; afterwards `ask`
    /// has the last one.
    pub async fn ask(
        &self,
        ask: &mut Ask,
        report: &(dyn Fn(What) + Send + Sync),
    ) -> Result<String, LlmError> {
        let mut text = String::new();
        let mut on = ask.clone();
        for _ in 0..PARTS {
            let answer = self.ask_part(&on, report).await?;
            ask.key.turn = on.key.turn;
            text.push_str(&answer.content);
            if answer.finish != Finish::Cut {
                return Ok(text);
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
