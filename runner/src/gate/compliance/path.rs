//! The trail walked again by the rules of the procedure: what is not allowed there is a mistake.

use std::collections::{BTreeMap, BTreeSet};

use sopwith_crds::{
    contract::{
        plan::RunPlan,
        trail::{Entry, Passage, Then},
    },
    sop_definition::{FailureAction, GateKind, Step},
    status::{Trust, Verdict},
};

use super::Check;
use crate::sop::again;

/// Where a step stands while the trail is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stand {
    #[default]
    Open,
    AtWork,
    Done,
    Skipped,
}

/// The last verdict of a gate in an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judged<'a> {
    pub(super) kind: GateKind,
    pub(super) verdict: Verdict,
    pub(super) trust: Option<Trust>,
    pub(super) by: Option<&'a str>,
}

/// What the trail says of a step.
#[derive(Debug, Default)]
pub(super) struct Walk<'a> {
    stand: Stand,
    /// The latest attempt.
    pub(super) attempt: u32,
    /// The round in which it ended last.
    round: u32,
    /// The verdicts of the latest attempt by gate.
    pub(super) gates: BTreeMap<&'a str, Judged<'a>>,
    /// What was against the procedure.
    mistakes: Vec<String>,
}

/// The trail, walked.
#[derive(Debug)]
pub(super) struct Walked<'a> {
    steps: BTreeMap<&'a str, Walk<'a>>,
    round: u32,
    /// Every transition, told.
    pub(super) lines: Vec<String>,
}

/// Walks the trail.
pub(super) fn walk<'a>(plan: &'a RunPlan, trail: &'a [Entry]) -> Walked<'a> {
    let known = plan.steps.iter();
    let mut walked = Walked {
        steps: known
            .map(|step| (step.name.as_str(), Walk::default()))
            .collect(),
        round: 1,
        lines: Vec::new(),
    };
    for entry in trail {
        walked.take(plan, entry);
        walked.tell(entry);
    }
    walked
}

impl<'a> Walked<'a> {
    fn take(&mut self, plan: &'a RunPlan, entry: &'a Entry) {
        let Some(step) = plan.steps.iter().find(|step| step.name == entry.step) else {
            return;
        };
        let before = self.mistakes_of(step, entry);
        let Some(walk) = self.steps.get_mut(step.name.as_str()) else {
            return;
        };
        walk.mistakes.extend(before);
        walk.round = self.round;
        match &entry.what {
            Passage::Skipped => walk.stand = Stand::Skipped,
            Passage::Began | Passage::TakenOver => {
                walk.stand = Stand::AtWork;
                walk.attempt = entry.attempt;
                walk.gates.clear();
            }
            Passage::Judged {
                gate,
                kind,
                verdict,
                trust,
                by,
            } => {
                let judged = Judged {
                    kind: *kind,
                    verdict: *verdict,
                    trust: *trust,
                    by: by.as_deref(),
                };
                walk.gates.insert(gate, judged);
            }
            Passage::Waits { .. } | Passage::GoesOn => {}
            Passage::Passed => walk.stand = Stand::Done,
            Passage::Failed { then, .. } => match then {
                Then::Retry | Then::Fail => walk.stand = Stand::Open,
                Then::Ask => {}
                Then::Back(to) => {
                    self.round += 1;
                    for name in again(plan, &step.name, to) {
                        if let Some(walk) = self.steps.get_mut(name.as_str()) {
                            walk.stand = Stand::Open;
                        }
                    }
                }
            },
        }
    }

    /// What of an entry is against the procedure, as things stand before it.
    fn mistakes_of(&self, step: &Step, entry: &Entry) -> Vec<String> {
        let attempt = entry.attempt;
        let walk = &self.steps[step.name.as_str()];
        let at_work = walk.stand == Stand::AtWork && walk.attempt == attempt;
        let mut mistakes = Vec::new();
        match &entry.what {
            Passage::Skipped | Passage::Began => {
                let needs = step.needs.iter().map(String::as_str);
                let open = needs.filter(|need| !self.is_settled(need));
                mistakes.extend(
                    open.map(|need| format!("attempt {attempt} began before {need} was finished")),
                );
                let others = self.steps.iter();
                let mut busy = others.filter(|(_, other)| other.stand == Stand::AtWork);
                if let Some((other, _)) = busy.next() {
                    mistakes.push(format!("attempt {attempt} began while {other} was at work"));
                }
            }
            Passage::GoesOn | Passage::Waits { .. } | Passage::Judged { .. } | Passage::Passed
                if !at_work =>
            {
                let what = match &entry.what {
                    Passage::Judged { gate, .. } => format!("gate {gate} was judged"),
                    Passage::Passed => "it was finished".to_owned(),
                    _ => "it waited for people".to_owned(),
                };
                mistakes.push(format!(
                    "{what} in attempt {attempt}, which was not at work"
                ));
            }
            Passage::Passed => {
                let failed = walk.gates.iter();
                let failed = failed.filter(|(_, judged)| {
                    matches!(judged.verdict, Verdict::Failed | Verdict::Pending)
                });
                mistakes.extend(failed.map(|(gate, _)| {
                    format!("it was finished although gate {gate} had not passed")
                }));
            }
            Passage::Failed { gate, then } => {
                mistakes.extend(self.way_mistake(step, gate.as_deref(), then));
            }
            Passage::GoesOn
            | Passage::Waits { .. }
            | Passage::Judged { .. }
            | Passage::TakenOver => {}
        }
        if matches!(entry.what, Passage::Skipped) && step.when.is_none() {
            mistakes.push("it was skipped, though the procedure always asks for it".to_owned());
        }
        if matches!(entry.what, Passage::Began) && attempt != walk.attempt + 1 {
            mistakes.push(format!(
                "attempt {attempt} followed attempt {}",
                walk.attempt
            ));
        }
        mistakes
    }

    /// After a failed gate the line goes where one of its rules says, or people.
    fn way_mistake(&self, step: &Step, gate: Option<&str>, then: &Then) -> Option<String> {
        let (action, target) = match then {
            Then::Retry => (FailureAction::Retry, None),
            Then::Back(to) => (FailureAction::Backtrack, Some(to)),
            Then::Ask | Then::Fail => return None,
        };
        let name = gate.unwrap_or_default();
        let judged = self.steps[step.name.as_str()].gates.get(name);
        let by_people = judged.is_some_and(|judged| judged.by.is_some());
        let own = name.rsplit('/').next().unwrap_or_default();
        let rules = step.all_gates().filter(|gate| gate.name == own);
        let mut rules = rules.flat_map(|gate| &gate.on_failure);
        let allowed = rules
            .any(|rule| rule.action == action && (target.is_none() || rule.to.as_ref() == target));
        let went = target.map_or_else(
            || "was tried again".to_owned(),
            |to| format!("went back to {to}"),
        );
        (!allowed && !by_people)
            .then(|| format!("after gate {name} the line {went}, which no rule and nobody said"))
    }

    fn is_settled(&self, step: &str) -> bool {
        let walk = self.steps.get(step);
        walk.is_some_and(|walk| matches!(walk.stand, Stand::Done | Stand::Skipped))
    }

    pub(super) fn was_skipped(&self, step: &str) -> bool {
        self.steps
            .get(step)
            .is_some_and(|walk| walk.stand == Stand::Skipped)
    }

    pub(super) fn of(&self, step: &str) -> &Walk<'a> {
        &self.steps[step]
    }

    pub(super) fn rounds(&self, plan: &RunPlan) -> Check {
        let most = plan.options.rounds;
        let found = format!("{} of {most} rounds", self.round);
        let found = if self.round <= most {
            Ok(found)
        } else {
            Err(found)
        };
        Check::new("", "no more rounds than allowed", found)
    }

    /// A step that was not asked for: all there is to say of it.
    pub(super) fn skipped(&self, step: &Step) -> Check {
        let walk = self.of(&step.name);
        let why = step.when.as_deref().map(super::super::squeezed);
        let found = match walk.mistakes.as_slice() {
            [] => Ok(format!(
                "skipped: {} does not hold",
                why.unwrap_or_default()
            )),
            mistakes => Err(mistakes.join("; ")),
        };
        Check::new(&step.name, "done, or not asked for", found)
    }

    fn tell(&mut self, entry: &Entry) {
        let (step, attempt) = (&entry.step, entry.attempt);
        let line = match &entry.what {
            Passage::Skipped => format!("{step}: skipped"),
            Passage::Began => format!("{step}: attempt {attempt} begins (round {})", entry.round),
            Passage::TakenOver => format!("{step}: attempt {attempt} is of an earlier run"),
            Passage::Judged {
                gate,
                kind,
                verdict,
                by,
                ..
            } => {
                let by = by
                    .as_ref()
                    .map_or_else(String::new, |by| format!(", decided by {by}"));
                format!("{step}: {kind}/{gate} {verdict:?}{by}")
            }
            Passage::Waits { gate } => format!("{step}: waits for people at gate {gate}"),
            Passage::GoesOn => format!("{step}: attempt {attempt} goes on"),
            Passage::Passed => format!("{step}: attempt {attempt} passed"),
            Passage::Failed { then, .. } => match then {
                Then::Retry => format!("{step}: attempt {attempt} failed, again"),
                Then::Back(to) => format!("{step}: attempt {attempt} failed, back to {to}"),
                Then::Ask => format!("{step}: attempt {attempt} failed, people are asked"),
                Then::Fail => format!("{step}: attempt {attempt} failed"),
            },
        };
        self.lines.push(line);
    }
}

impl Walk<'_> {
    /// Whether the step was done, and in which attempt.
    pub(super) fn done(&self) -> Result<String, String> {
        match self.stand {
            Stand::Done => Ok(format!("attempt {} in round {}", self.attempt, self.round)),
            Stand::Skipped => Err("it was skipped".to_owned()),
            Stand::AtWork => Err(format!("attempt {} has not ended", self.attempt)),
            Stand::Open if self.attempt == 0 => Err("it was never begun".to_owned()),
            Stand::Open => Err(format!("attempt {} failed", self.attempt)),
        }
    }

    /// Whether every transition of it was allowed.
    pub(super) fn in_order(&self, needs: &[String]) -> Result<String, String> {
        match self.mistakes.as_slice() {
            [] if needs.is_empty() => Ok("it needs none".to_owned()),
            [] => Ok(format!("after {}", needs.join(", "))),
            mistakes => {
                let distinct: BTreeSet<&String> = mistakes.iter().collect();
                let distinct: Vec<&str> = distinct.into_iter().map(String::as_str).collect();
                Err(distinct.join("; "))
            }
        }
    }
}
