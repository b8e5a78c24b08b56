//! Long-term memory: what a run recalls of earlier runs of its project, as prompts, templates and the trace have it. Pure but
//! for the engine's parts.

use std::{collections::BTreeSet, fmt::Write as _};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use sopwith_crds::{
    contract::{
        memory::Fact,
        plan::RunPlan,
        snapshot::{Message, SYSTEM},
    },
    memory::{MAX_TOLD, about},
    sop_definition::Step,
};

use crate::engine::Engine;

/// The cause of the message that says what a run recalls. What steps say has the step and a slash before it.
pub const CAUSE: &str = "memory";

/// The facts that are nearest to what a step has to do, as roles are told of them and templates see them.
pub fn of_step<'a>(plan: &'a RunPlan, step: &Step, findings: &str) -> Vec<&'a Fact> {
    let Some(memory) = &plan.memory else {
        return Vec::new();
    };
    let words = format!("{} {findings}", plan.options.idea);
    about(&memory.facts, &words, &step.name, MAX_TOLD)
}

/// Facts as templates and expressions see them.
pub fn seen(facts: &[&Fact]) -> Value {
    let one = |fact: &&Fact| {
        json!({
            "run": fact.run,
            "sender": fact.sender,
            "source": fact.source,
            "text": fact.text,
        })
    };
    facts.iter().map(one).collect()
}

/// Where a fact comes from, for people and models.
pub fn origin(fact: &Fact) -> String {
    format!("[run {}, {} in {}]", fact.run, fact.sender, fact.source)
}

/// What the trace says of everything that a run recalls.
fn told(facts: &[Fact], project: &str) -> String {
    if facts.is_empty() {
        return format!("recalls nothing: no earlier run of project {project} left anything");
    }
    let runs: BTreeSet<&str> = facts.iter().map(|fact| fact.run.as_str()).collect();
    let runs: Vec<&str> = runs.into_iter().collect();
    let count = match facts.len() {
        1 => "1 fact".to_owned(),
        more => format!("{more} facts"),
    };
    let mut text = format!(
        "recalls {count} of project {project}, left by {}:",
        runs.join(", ")
    );
    for fact in facts {
        let _ = write!(text, "\n- {} {}", origin(fact), fact.text);
    }
    text
}

impl Engine {
    /// Says in the trace what the run recalls. A run that goes on from the state of another has said it there.
    pub(crate) fn tell_recalled(&mut self) {
        let Some(memory) = &self.plan.memory else {
            return;
        };
        let content = told(&memory.facts, &self.plan.options.project_name);
        let mut messages = self.record.messages.iter();
        if messages.any(|message| message.cause == CAUSE && message.content == content) {
            return;
        }
        tracing::info!(facts = memory.facts.len(), "recalled");
        self.record.add(Message {
            number: 0,
            at: Timestamp::now(),
            sender: SYSTEM.to_owned(),
            recipients: Vec::new(),
            cause: CAUSE.to_owned(),
            attempt: 0,
            item: None,
            tool: None,
            verdict: None,
            content,
            wrote: Vec::new(),
            input_tokens: 0,
            output_tokens: 0,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopwith_crds::contract::{memory::Recalled, plan::RunOptions};

    fn fact(run: &str, source: &str, text: &str) -> Fact {
        Fact {
            run: run.into(),
            sender: "writer".into(),
            source: source.into(),
            text: text.into(),
        }
    }

    #[test]
    fn the_trace_says_all_that_is_recalled() {
        assert_eq!(
            told(&[], "game"),
            "recalls nothing: no earlier run of project game left anything"
        );
        assert!(told(&[fact("a", "idea", "x")], "game").starts_with("recalls 1 fact of project"));
        let facts = [
            fact("b", "write/draft", "cards"),
            fact("a", "idea", "a game"),
        ];
        assert_eq!(
            told(&facts, "game"),
            "recalls 2 facts of project game, left by a, b:\n- [run b, writer in write/draft] cards\n- [run a, writer in idea] a game"
        );
    }

    #[test]
    fn a_step_is_told_of_what_is_near_to_it() {
        let far = (0..20).map(|n| fact("a", "other/step", &format!("nothing of it {n}")));
        let near = (0..20).map(|n| fact("b", "other/step", &format!("cards {n}")));
        let own = fact("c", "write/draft", "of the same step");
        let plan = |memory: bool| RunPlan {
            memory: memory.then(|| Recalled {
                facts: far
                    .clone()
                    .chain(near.clone())
                    .chain([own.clone()])
                    .collect(),
            }),
            options: RunOptions {
                idea: "a game of cards".into(),
                ..RunOptions::default()
            },
            ..RunPlan::default()
        };
        let step = Step {
            name: "write".into(),
            ..Step::default()
        };
        let recalls = plan(true);
        let found = of_step(&recalls, &step, "");
        assert_eq!(found.len(), MAX_TOLD);
        assert_eq!(found[0], &own);
        assert!(found[1..].iter().all(|fact| fact.text.starts_with("cards")));
        let found = of_step(&recalls, &step, "nothing of it was mended");
        assert!(found.iter().any(|fact| fact.text.starts_with("nothing")));
        assert_eq!(of_step(&plan(false), &step, ""), [] as [&Fact; 0]);
        assert_eq!(seen(&[&own])[0]["source"], "write/draft");
    }
}
