//! Answers that are not what was asked for: the model is told what is wrong, a few times.

use super::prompt::repair;
use crate::llm::{Ask, codec::ChatMessage};

/// Most repairs of an answer.
const MOST: u32 = 2;

/// The repairs of an answer.
#[derive(Debug, Default)]
pub(crate) struct Repairs(u32);

impl Repairs {
    /// Asks again, with what is wrong with the answer. An error is what the answer is said to be after the last repair.
    pub(crate) fn again(
        &mut self,
        ask: &mut Ask,
        answer: String,
        problems: &[String],
    ) -> Result<(), String> {
        if self.0 == MOST {
            let problems = problems.join("; ");
            return Err(format!(
                "is not what was asked for after {MOST} repairs: {problems}"
            ));
        }
        self.0 += 1;
        ask.key.turn += 1;
        ask.messages.extend([
            ChatMessage::new("assistant", answer),
            ChatMessage::new("user", repair(problems)),
        ]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_repaired_twice_and_then_told() {
        let mut ask = Ask::default();
        let mut repairs = Repairs::default();
        let problems = ["it is empty".to_owned(), "it is no JSON".to_owned()];
        for turn in [2, 3] {
            repairs.again(&mut ask, "x".into(), &problems).unwrap();
            assert_eq!(ask.key.turn, turn);
        }
        let told = repairs.again(&mut ask, "x".into(), &problems).unwrap_err();
        assert_eq!(
            told,
            "is not what was asked for after 2 repairs: it is empty; it is no JSON"
        );
        let roles: Vec<&str> = ask.messages.iter().map(|one| one.role.as_str()).collect();
        assert_eq!(roles, ["assistant", "user", "assistant", "user"]);
        assert!(ask.messages[1].content.contains("it is no JSON"));
    }
}
