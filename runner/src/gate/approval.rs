//! What people decide on, and what follows from what they decided.

use std::sync::Arc;

use serde_json::{Value, json};
use sopwith_crds::{
    agent_run::{Decision, DecisionVerdict},
    contract::{
        Digest,
        plan::RunPlan,
        report::{self, Next},
        snapshot::TreeEntry,
    },
    sop_definition::{Gate, GateKind},
    status::{FailureReason, GateStatus, Trust, Verdict},
};

use super::{judging::Found, short};
use crate::{
    attempt::{Decided, Spot, Stopped},
    context::Place,
    engine::Engine,
    sop::{Point, Wait, Way, targets},
    tree::{Tree, entry},
};

/// A question to people.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The gate.
    pub gate: String,
    /// Its kind.
    pub kind: GateKind,
    /// Where it stands.
    pub point: Point,
    /// What is decided on: stored as canonical JSON, and named by its digest.
    pub subject: Value,
    /// The question.
    pub question: String,
    /// What failed, as the next attempt is told; none at a gate that only people judge.
    pub failed: Option<String>,
}

/// Why a gate asks that is not judged by people.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// What was observed.
    pub observed: String,
    /// What has to be mended.
    pub findings: String,
    /// Digest of the evidence.
    pub evidence: Digest,
}

/// What people decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What follows.
    pub verdict: DecisionVerdict,
    /// With `Backtrack`: the step to go back to.
    pub to: Option<String>,
    /// Who decided so.
    pub by: String,
    /// Their reasons, a line each.
    pub reasons: String,
}

/// From the most cautious to the least: where people differ, the first counts.
const CAUTIOUS_FIRST: [DecisionVerdict; 6] = [
    DecisionVerdict::Cancel,
    DecisionVerdict::Reject,
    DecisionVerdict::Backtrack,
    DecisionVerdict::Retry,
    DecisionVerdict::Proceed,
    DecisionVerdict::Approve,
];

/// What these decisions say about a wait. Those on anything else say nothing.
pub fn answer(wait: &Wait, decisions: &[Decision]) -> Option<Answer> {
    let meant = |decision: &&Decision| {
        decision.step == wait.step
            && decision.gate == wait.gate
            && decision.attempt == wait.attempt
            && decision.subject == wait.subject.as_str()
    };
    let meant: Vec<&Decision> = decisions.iter().filter(meant).collect();
    let verdict = CAUTIOUS_FIRST
        .into_iter()
        .find(|verdict| meant.iter().any(|decision| decision.verdict == *verdict))?;
    let mut same: Vec<&&Decision> = meant
        .iter()
        .filter(|decision| decision.verdict == verdict)
        .collect();
    same.sort_by_key(|decision| &decision.by);
    let reasons = same.iter().filter_map(|decision| {
        let reason = decision.reason.as_deref()?.trim();
        (!reason.is_empty()).then(|| format!("{}: {reason}", decision.by))
    });
    let by: Vec<&str> = same.iter().map(|decision| decision.by.as_str()).collect();
    Some(Answer {
        verdict,
        to: same.first().and_then(|decision| decision.to.clone()),
        by: by.join(", "),
        reasons: reasons.collect::<Vec<_>>().join("\n"),
    })
}

/// The document that people decide on. The same work gives the same document.
fn subject(
    plan: &RunPlan,
    spot: Spot<'_>,
    gate: &Gate,
    shown: &[(String, Vec<TreeEntry>)],
    failed: Option<&Failed>,
) -> Value {
    let shown: Vec<Value> = shown
        .iter()
        .map(|(name, files)| json!({"name": name, "files": files}))
        .collect();
    let mut subject = json!({
        "sop": plan.sop,
        "step": spot.step.name,
        "gate": gate.name,
        "attempt": spot.attempt,
        "question": question(gate, failed),
        "artifacts": shown,
    });
    if let (Some(failed), Some(fields)) = (failed, subject.as_object_mut()) {
        let failed = json!({"observed": failed.observed, "findings": failed.findings, "evidence": failed.evidence});
        fields.insert("failed".to_owned(), failed);
    }
    subject
}

fn question(gate: &Gate, failed: Option<&Failed>) -> String {
    let asked = gate
        .approval
        .as_ref()
        .and_then(|approval| approval.message.clone());
    match (failed, asked) {
        (Some(failed), _) => format!("gate {} failed: {}", gate.name, failed.observed),
        (None, Some(asked)) => asked,
        (None, None) => format!("May the line pass gate {}?", gate.name),
    }
}

/// The artifacts that a gate shows, with their files: those it names, or all that the step hands over.
fn shown(gate: &Gate, step: &str, places: &[Place], tree: &Tree) -> Vec<(String, Vec<TreeEntry>)> {
    let named = gate
        .approval
        .as_ref()
        .map(|approval| approval.artifacts.as_slice())
        .unwrap_or_default();
    let wanted = |place: &&Place| {
        if named.is_empty() {
            place.step == step
        } else {
            named.contains(&place.name)
        }
    };
    let files = |place: &Place| {
        let paths = place.paths(tree).unwrap_or_default();
        let files = paths.iter();
        files
            .filter_map(|path| tree.get(path).map(|file| entry(path, file)))
            .collect()
    };
    let mut shown: Vec<(String, Vec<TreeEntry>)> = places
        .iter()
        .filter(wanted)
        .map(|place| (place.name.clone(), files(place)))
        .collect();
    shown.sort_by(|one, other| one.0.cmp(&other.0));
    shown
}

impl Engine {
    /// A question about a gate, as things stand now.
    pub(crate) fn asked(
        &self,
        spot: Spot<'_>,
        point: Point,
        gate: &Gate,
        failed: Option<Failed>,
    ) -> Asked {
        let shown = self
            .tree
            .read(|tree| shown(gate, &spot.step.name, &self.places, tree));
        Asked {
            gate: gate.name.clone(),
            kind: gate.kind,
            point,
            subject: subject(&self.plan, spot, gate, &shown, failed.as_ref()),
            question: question(gate, failed.as_ref()),
            failed: failed.map(|failed| failed.findings),
        }
    }

    /// Stops at a gate that only people judge.
    pub(crate) fn ask(&mut self, spot: Spot<'_>, index: usize, gate: &Gate) -> Stopped {
        let Some(point) = spot.point(index) else {
            let message = format!(
                "gate {} asks people in a loop, or between actions that a role picks",
                spot.gate(gate)
            );
            return Stopped::Failed(FailureReason::InvalidPlan, message);
        };
        let asked = self.asked(spot, point, gate, None);
        let status = GateStatus {
            name: gate.name.clone(),
            kind: gate.kind,
            verdict: Verdict::Pending,
            observed: Some(short(&asked.question)),
            threshold: Some("people approve".to_owned()),
            evidence: Some(Digest::of_json(&asked.subject).to_string()),
            trust: Some(Trust::Human),
            ..GateStatus::default()
        };
        self.judged(spot, gate, status, String::new());
        Stopped::Asks(Box::new(asked))
    }

    /// Keeps what is decided on, and gives the wait for the machine and for the report.
    pub(crate) fn wait(&mut self, step: &str, attempt: u32, asked: &Asked) -> (Wait, Next) {
        let bytes = serde_json_canonicalizer::to_vec(&asked.subject).unwrap_or_default();
        let subject = self.blobs.add(bytes.into());
        let mut back = Vec::new();
        let options = if asked.kind == GateKind::Approval {
            vec![DecisionVerdict::Approve, DecisionVerdict::Reject]
        } else {
            back = targets(&self.plan, self.state(), step);
            let mut options = vec![DecisionVerdict::Proceed, DecisionVerdict::Retry];
            if !back.is_empty() {
                options.push(DecisionVerdict::Backtrack);
            }
            options.push(DecisionVerdict::Cancel);
            options
        };
        let told = report::Wait {
            gate: asked.gate.clone(),
            kind: asked.kind,
            subject: subject.clone(),
            question: short(&asked.question),
            options,
            back,
        };
        let wait = Wait {
            step: step.to_owned(),
            attempt,
            gate: asked.gate.clone(),
            point: asked.point,
            subject,
            failed: asked.failed.clone(),
        };
        (wait, Next::Wait(Box::new(told)))
    }

    /// Books what people decided; an error is where it does not let the attempt go on.
    pub(crate) fn decided(&mut self, end: Spot<'_>, decided: &Decided) -> Result<(), Stopped> {
        let Decided { wait, answer } = decided;
        let plan = Arc::clone(&self.plan);
        let place = plan
            .steps
            .iter()
            .find(|step| step.name == wait.step)
            .and_then(|step| match wait.point.action {
                None => Some((end, step.gates.get(wait.point.gate)?)),
                Some(index) => {
                    let action = step.actions.get(index)?;
                    let spot = end.of_action(index, action);
                    Some((spot, action.gates.get(wait.point.gate)?))
                }
            });
        let Some((spot, gate)) = place else {
            let message = format!("the plan has no gate {} where it waited", wait.gate);
            return Err(Stopped::Failed(FailureReason::InvalidPlan, message));
        };
        let (verdict, word) = match answer.verdict {
            DecisionVerdict::Approve => (Verdict::Passed, "approved"),
            DecisionVerdict::Proceed => (Verdict::Waived, "waived"),
            DecisionVerdict::Reject => (Verdict::Failed, "rejected"),
            DecisionVerdict::Retry => (Verdict::Failed, "to be tried again"),
            DecisionVerdict::Backtrack => (Verdict::Failed, "sent back"),
            DecisionVerdict::Cancel => (Verdict::Failed, "cancelled"),
        };
        let why = match answer.reasons.as_str() {
            "" => String::new(),
            reasons => format!(": {}", reasons.replace('\n', "; ")),
        };
        let known = self
            .record
            .gates
            .get(&format!("{}/{}", wait.step, wait.gate));
        let mut status = known.cloned().unwrap_or_default();
        status.verdict = verdict;
        status.decided_by = Some(short(&answer.by));
        if wait.failed.is_none() {
            status.observed = Some(short(&format!("{word} by {}{why}", answer.by)));
        }
        let findings = match (verdict, &wait.failed) {
            (Verdict::Failed, None) => format!("{word} by {}{why}", answer.by),
            (Verdict::Failed, Some(failed)) if answer.reasons.is_empty() => failed.clone(),
            (Verdict::Failed, Some(failed)) => format!("{failed}\n{}", answer.reasons),
            _ => String::new(),
        };
        self.judged(spot, gate, status.clone(), findings.clone());
        if verdict != Verdict::Failed {
            return Ok(());
        }
        let message = format!("gate {} {word} by {}{why}", wait.gate, answer.by);
        let reason = match (answer.verdict, &wait.failed) {
            (DecisionVerdict::Cancel, _) => FailureReason::Cancelled,
            (_, None) => FailureReason::Rejected,
            (_, Some(_)) => FailureReason::GateFailed,
        };
        let found = Found {
            status: &status,
            findings: &findings,
        };
        let fault = Box::new(self.fault(spot, gate, reason, message, found)?);
        Err(match steered(answer, reason) {
            Some(way) => Stopped::Steered(fault, way),
            None => Stopped::Gate { fault, asked: None },
        })
    }
}

/// Where people send the line; none where the gate's rules say it.
fn steered(answer: &Answer, reason: FailureReason) -> Option<Way> {
    match (answer.verdict, &answer.to) {
        (DecisionVerdict::Retry, _) => Some(Way::Retry),
        (DecisionVerdict::Backtrack, Some(to)) => Some(Way::Backtrack { to: to.clone() }),
        _ if reason == FailureReason::Rejected => None,
        _ => Some(Way::Fail(reason)),
    }
}
