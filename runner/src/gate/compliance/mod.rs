//! Gates of kind `compliance`: the trace against the procedure and its RACI, as a checklist. Pure.

mod path;
mod step;

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;
use sopwith_crds::{
    contract::{plan::RunPlan, snapshot::Message, trail::Entry},
    sop_definition::{ComplianceGate, Step},
    status::Trust,
};

use super::Judgement;

/// What a run has left to be checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trace<'a> {
    pub(crate) plan: &'a RunPlan,
    /// Transitions and verdicts.
    pub(crate) trail: &'a [Entry],
    /// Who did what.
    pub(crate) messages: &'a [Message],
}

/// One line of the checklist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    /// The step; empty where it is the run's.
    step: String,
    /// What must be.
    asked: String,
    /// What the trace says.
    found: String,
    holds: bool,
}

impl Check {
    fn new(step: &str, asked: impl Into<String>, found: Result<String, String>) -> Self {
        let holds = found.is_ok();
        Self {
            step: step.to_owned(),
            asked: asked.into(),
            found: found.unwrap_or_else(|why| why),
            holds,
        }
    }
}

/// Judges the trace up to a gate of the step `at`, which is at work.
pub(crate) fn judge(gate: &ComplianceGate, at: &str, trace: Trace<'_>) -> Judgement {
    let walked = path::walk(trace.plan, trace.trail);
    let mut checks = vec![walked.rounds(trace.plan)];
    for step in in_scope(gate, at, trace.plan) {
        // Unless it is named, a step that was not asked for leaves nothing to check.
        if gate.steps.is_empty() && walked.was_skipped(&step.name) {
            checks.push(walked.skipped(step));
        } else {
            checks.extend(step::checks(step, trace, &walked));
        }
    }
    let bad: Vec<&Check> = checks.iter().filter(|check| !check.holds).collect();
    let mut findings = String::new();
    for check in &bad {
        let _ = write!(findings, "\n- {}: {}", label(check), check.found);
    }
    Judgement {
        passed: bad.is_empty(),
        observed: observed(&checks, &bad),
        threshold: "the trace follows the procedure and its RACI".to_owned(),
        findings: if bad.is_empty() {
            String::new()
        } else {
            format!("The run does not comply with its procedure:{findings}")
        },
        document: Some(document(&checks, &walked, trace)),
        evidence: json!({"sop": trace.plan.sop, "checks": checks, "path": walked.lines}),
        trust: Trust::External,
    }
}

/// The steps that are checked: those named, or all that come before the one at work.
fn in_scope<'a>(gate: &ComplianceGate, at: &str, plan: &'a RunPlan) -> Vec<&'a Step> {
    let before = plan.steps.iter().take_while(|step| step.name != at);
    if gate.steps.is_empty() {
        return before.collect();
    }
    let named = |step: &&Step| gate.steps.contains(&step.name);
    plan.steps.iter().filter(named).collect()
}

fn label(check: &Check) -> String {
    if check.step.is_empty() {
        check.asked.clone()
    } else {
        format!("{}: {}", check.step, check.asked)
    }
}

fn observed(checks: &[Check], bad: &[&Check]) -> String {
    let good = checks.len() - bad.len();
    let head = format!("{good} of {} checks hold", checks.len());
    match bad {
        [] => head,
        [first, ..] => format!("{head}; {}: {}", label(first), first.found),
    }
}

/// The checklist for people.
fn document(checks: &[Check], walked: &path::Walked<'_>, trace: Trace<'_>) -> String {
    let plan = trace.plan;
    let good = checks.iter().filter(|check| check.holds).count();
    let mut text = format!(
        "# Compliance of {}/{}\n\nProcedure {} {}\nPolicy {} {}\n\n{good} of {} checks hold.\n\n| | step | what must be | what the trace says |\n|---|---|---|---|\n",
        plan.run.namespace,
        plan.run.name,
        plan.sop.name,
        plan.sop.revision,
        plan.policy.name,
        plan.policy.revision,
        checks.len()
    );
    for check in checks {
        let mark = if check.holds { "✓" } else { "✗" };
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let _ = writeln!(
            text,
            "| {mark} | {} | {} | {} |",
            cell(&check.step),
            cell(&check.asked),
            cell(&check.found)
        );
    }
    text.push_str("\n## The way\n\n");
    for (index, line) in walked.lines.iter().enumerate() {
        let _ = writeln!(text, "{}. {line}", index + 1);
    }
    text
}

#[cfg(test)]
mod tests;
