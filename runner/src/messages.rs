//! The run's messages: who says what to whom, and what a role remembers of it. Pure but for the engine's `say`.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use sopwith_crds::{
    contract::{plan::RunPlan, snapshot::Message},
    sop_definition::{Gate, Role, Step},
    status::Verdict,
};

use crate::{attempt::Spot, engine::Engine};

/// Messages that a role sees which does not say how many.
const WINDOW: u32 = 5;

/// The roles that are told what a step hands over: those of the steps that need it or take one of its outputs, and those that
/// its RACI names as consulted or informed. A step without a role hands on: what it needs goes to those that need it.
/// In the order of the plan.
pub fn audience(plan: &RunPlan, step: &Step) -> Vec<String> {
    let mut open = vec![step];
    let mut passed = BTreeSet::new();
    let mut told = BTreeSet::new();
    while let Some(from) = open.pop() {
        for next in plan.steps.iter().filter(|next| builds_on(next, from)) {
            match &next.role {
                Some(role) => {
                    told.insert(role.as_str());
                }
                None if passed.insert(next.name.as_str()) => open.push(next),
                None => {}
            }
        }
    }
    told.extend(asked_and_told(step));
    in_order(plan, &told)
}

/// The roles that are told how a gate judged: whom RACI names; where it failed, also who did the step, and who does a step
/// that the line can be sent back to.
pub fn judged(plan: &RunPlan, step: &Step, gate: &Gate, failed: bool) -> Vec<String> {
    let mut told: BTreeSet<&str> = asked_and_told(step).collect();
    if failed {
        let back = gate.on_failure.iter().filter_map(|rule| rule.to.as_ref());
        let steps = plan
            .steps
            .iter()
            .filter(|other| other.name == step.name || back.clone().any(|to| *to == other.name));
        told.extend(steps.filter_map(|step| step.role.as_deref()));
    }
    in_order(plan, &told)
}

/// Whether a step needs another, or takes one of its outputs.
fn builds_on(next: &Step, step: &Step) -> bool {
    let takes = |output: &str| next.inputs.iter().any(|input| input.artifact == output);
    next.needs.contains(&step.name) || step.outputs.iter().any(|output| takes(&output.name))
}

fn asked_and_told(step: &Step) -> impl Iterator<Item = &str> {
    let raci = step.raci.iter();
    raci.flat_map(|raci| raci.consulted.iter().chain(&raci.informed))
        .map(String::as_str)
}

/// Those of the names that are roles: RACI names teams and people, too.
fn in_order(plan: &RunPlan, names: &BTreeSet<&str>) -> Vec<String> {
    let roles = plan.roles.iter().map(|role| &role.name);
    roles
        .filter(|role| names.contains(role.as_str()))
        .cloned()
        .collect()
}

/// The newest messages addressed to a role, as many as its memory holds, oldest first.
pub fn remembered<'a>(messages: &'a [Message], role: &Role) -> Vec<&'a Message> {
    let window = role.memory.as_ref().and_then(|memory| memory.window);
    let mut newest: Vec<&Message> = messages
        .iter()
        .rev()
        .filter(|message| message.recipients.contains(&role.name))
        .take(window.unwrap_or(WINDOW) as usize)
        .collect();
    newest.reverse();
    newest
}

/// Messages as templates and expressions see them. Times are left out: the same run sees the same.
pub fn seen(messages: &[&Message]) -> Value {
    let one = |message: &&Message| {
        json!({
            "number": message.number,
            "sender": message.sender,
            "cause": message.cause,
            "attempt": message.attempt,
            "item": message.item.as_deref().unwrap_or_default(),
            "content": message.content,
            "wrote": message.wrote,
        })
    };
    messages.iter().map(one).collect()
}

/// What is added to the trace.
#[derive(Debug, Default)]
pub(crate) struct Said<'a> {
    /// A role, or [`sopwith_crds::contract::snapshot::SYSTEM`].
    pub(crate) sender: &'a str,
    /// Roles.
    pub(crate) recipients: Vec<String>,
    /// The action or gate it comes from, `action/gate` where it belongs to one.
    pub(crate) source: &'a str,
    /// Of a gate.
    pub(crate) verdict: Option<Verdict>,
    /// The text.
    pub(crate) content: String,
    /// Paths.
    pub(crate) wrote: Vec<String>,
    /// Sent to and received from models.
    pub(crate) tokens: (u64, u64),
}

impl Engine {
    /// Adds what an action returned to the run's trace.
    pub(crate) fn acted(
        &mut self,
        spot: Spot<'_>,
        sender: &str,
        content: String,
        wrote: Vec<String>,
        tokens: (u64, u64),
    ) {
        let said = Said {
            sender,
            recipients: audience(&self.plan, spot.step),
            source: spot.action,
            verdict: None,
            content,
            wrote,
            tokens,
        };
        self.say(spot, said);
    }

    /// Adds to the run's trace, behind the calls of tools that came before.
    pub(crate) fn say(&mut self, spot: Spot<'_>, said: Said<'_>) {
        self.say_calls();
        self.record.add(Message {
            number: 0,
            at: Timestamp::now(),
            sender: said.sender.to_owned(),
            recipients: said.recipients,
            cause: format!("{}/{}", spot.step.name, said.source),
            attempt: spot.attempt,
            item: spot.label(),
            tool: None,
            verdict: said.verdict,
            content: said.content,
            wrote: said.wrote,
            input_tokens: said.tokens.0,
            output_tokens: said.tokens.1,
        });
    }

    /// Adds the calls of tools that are not in the trace yet. Nobody is told of them but who reads the trace.
    pub(crate) fn say_calls(&mut self) {
        for record in self.tools.book.take() {
            let machine = &mut self.record.machine;
            machine.wrote(&record.wrote, record.by_program);
            self.made_by_tools(&record.wrote);
            self.record.add(Message {
                number: 0,
                at: record.at,
                sender: record.sender,
                recipients: Vec::new(),
                cause: record.cause,
                attempt: record.attempt,
                item: None,
                tool: Some(record.tool),
                verdict: None,
                content: record.content,
                wrote: record.wrote,
                input_tokens: 0,
                output_tokens: 0,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sopwith_crds::sop_definition::{Artifact, ArtifactRef, FailureRule, Memory, Raci};

    fn step(name: &str, role: Option<&str>, needs: &[&str]) -> Step {
        Step {
            name: name.into(),
            role: role.map(str::to_owned),
            needs: needs.iter().map(|need| (*need).to_owned()).collect(),
            ..Step::default()
        }
    }

    /// think → write → (check) → publish; the reviewer takes the plan of `think` without needing it.
    fn plan() -> RunPlan {
        let mut think = step("think", Some("thinker"), &[]);
        think.outputs.push(Artifact {
            name: "plan".into(),
            ..Artifact::default()
        });
        let mut write = step("write", Some("writer"), &["think"]);
        write.raci = Some(Raci {
            consulted: vec!["lawyer".into(), "the board".into()],
            informed: vec!["thinker".into()],
            ..Raci::default()
        });
        let mut review = step("review", Some("reviewer"), &[]);
        review.inputs.push(ArtifactRef {
            artifact: "plan".into(),
            optional: None,
        });
        let steps = vec![
            think,
            write,
            review,
            step("check", None, &["write"]),
            step("publish", Some("publisher"), &["check"]),
        ];
        let roles = ["lawyer", "publisher", "reviewer", "thinker", "writer"];
        RunPlan {
            roles: roles.map(role).into(),
            steps,
            ..RunPlan::default()
        }
    }

    fn role(name: &str) -> Role {
        Role {
            name: name.into(),
            ..Role::default()
        }
    }

    #[test]
    fn a_message_goes_to_who_builds_on_it_and_whom_raci_names() {
        let plan = plan();
        for (index, expected) in [
            (0, &["reviewer", "writer"][..]),
            (1, &["lawyer", "publisher", "thinker"]),
            (2, &[]),
            (3, &["publisher"]),
            (4, &[]),
        ] {
            let step = &plan.steps[index];
            assert_eq!(audience(&plan, step), expected, "{}", step.name);
        }
    }

    #[test]
    fn a_failed_gate_is_told_to_who_has_to_mend_it() {
        let plan = plan();
        let gate = Gate {
            on_failure: vec![FailureRule {
                to: Some("think".into()),
                ..FailureRule::default()
            }],
            ..Gate::default()
        };
        for (index, failed, expected) in [
            (1, true, &["lawyer", "thinker", "writer"][..]),
            (1, false, &["lawyer", "thinker"]),
            (3, true, &["thinker"]),
            (3, false, &[]),
        ] {
            let step = &plan.steps[index];
            assert_eq!(judged(&plan, step, &gate, failed), expected);
        }
    }

    #[test]
    fn a_role_remembers_the_newest_messages_addressed_to_it() {
        let message = |number: u64, to: &str| Message {
            number,
            at: Timestamp::UNIX_EPOCH,
            sender: "a".into(),
            recipients: vec![to.into()],
            cause: "s/a".into(),
            attempt: 1,
            item: None,
            verdict: None,
            tool: None,
            content: String::new(),
            wrote: Vec::new(),
            input_tokens: 0,
            output_tokens: 0,
        };
        let messages: Vec<Message> = (1..=16)
            .map(|number| message(number, if number % 2 == 0 { "writer" } else { "lawyer" }))
            .collect();
        let windowed = |window: Option<u32>| {
            let mut role = role("writer");
            role.memory = Some(Memory { window });
            let found = remembered(&messages, &role);
            found.iter().map(|found| found.number).collect::<Vec<_>>()
        };
        assert_eq!(windowed(Some(2)), [14, 16]);
        assert_eq!(windowed(None), [8, 10, 12, 14, 16]);
        assert_eq!(windowed(Some(0)), [0; 0]);
        assert_eq!(windowed(Some(100)).len(), 8);
        let seen = seen(&remembered(&messages, &role("writer")));
        assert_eq!(seen[4]["number"], 16);
        assert!(seen[4].get("at").is_none());
    }
}
