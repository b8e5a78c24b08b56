//! What is worth a line when a status follows another. Deciding.

use crate::text;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use sopwith_crds::{
    conditions,
    status::{
        AgentRunStatus, GateStatus, IdeaKind, InheritedGates, Phase, StepPhase, StepStatus, Verdict,
    },
};
use std::fmt::Write as _;

/// Most characters of a message in a line.
const MOST: usize = 400;

/// Conditions that speak of trouble or of a wait, shown when they come and when they go.
const SHOWN: [&str; 3] = [
    conditions::STEP_STUCK,
    conditions::AWAITING_APPROVAL,
    conditions::BUDGET_EXHAUSTED,
];

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// When it happened, where the status says so.
    pub(crate) at: Option<Timestamp>,
    /// What happened.
    pub(crate) text: String,
}

impl Line {
    fn new(at: Option<&Time>, text: String) -> Self {
        Self {
            at: at.map(|t| t.0),
            text,
        }
    }
}

/// What happened between two statuses, in the order in which it happened. Without a previous one: everything
/// that the status still tells.
pub(crate) fn changes(old: Option<&AgentRunStatus>, new: &AgentRunStatus) -> Vec<Line> {
    let nothing = AgentRunStatus::default();
    let old = old.unwrap_or(&nothing);
    let mut lines = Vec::new();
    lines.extend(plan(old, new));
    lines.extend(inherited(old, new));
    lines.extend(launch(old, new));
    lines.extend(incremental(old, new));
    lines.extend(waits_for(old, new));
    lines.extend(steps(old, new));
    lines.extend(SHOWN.iter().filter_map(|kind| condition(old, new, kind)));
    lines
}

/// The last words on a run that has ended; none before.
pub(crate) fn ending(status: &AgentRunStatus) -> Option<String> {
    let phase = status.phase.filter(|p| p.is_final())?;
    let took = text::elapsed(
        status.started_at.as_ref().map(|t| t.0),
        status.finished_at.as_ref().map(|t| t.0),
    );
    let took = if took.is_empty() {
        took
    } else {
        format!(" after {took}")
    };
    let attempts: u32 = status.steps.iter().map(|s| s.attempts).sum();
    // Writing to a String cannot fail, here and below.
    let mut said = format!("{phase}{took}: ");
    if let Some(progress) = &status.progress {
        let _ = write!(said, "{progress} steps, ");
    }
    let _ = write!(
        said,
        "{}, {}",
        text::count(attempts as usize, "attempt"),
        text::usage(&status.usage.clone().unwrap_or_default())
    );
    if let Some(usage) = status
        .inherited
        .as_ref()
        .and_then(|from| from.usage.as_ref())
    {
        let _ = write!(said, "; inherited: {}", text::usage(usage));
    }
    if let Some(failure) = &status.failure {
        let step = failure
            .step
            .as_ref()
            .map(|s| format!(" in step {s}"))
            .unwrap_or_default();
        let _ = write!(said, "\n{}{step}:", failure.reason);
        // Findings stand one on a line.
        let lines: Vec<&str> = failure
            .message
            .lines()
            .filter(|l| !l.trim().is_empty())
            .collect();
        let between = if lines.len() > 1 { "\n  " } else { " " };
        for line in lines {
            let _ = write!(said, "{between}{}", text::one_line(line, MOST));
        }
    }
    Some(said)
}

fn plan(old: &AgentRunStatus, new: &AgentRunStatus) -> Option<Line> {
    let plan = new
        .plan
        .as_ref()
        .filter(|p| Some(*p) != old.plan.as_ref())?;
    let revision =
        |r: &sopwith_crds::status::Revision| format!("{}@{}", r.name, text::short(&r.revision));
    let sop = new.sop.as_ref().map(revision).unwrap_or_default();
    let policy = new.policy.as_ref().map(revision).unwrap_or_default();
    let text = format!(
        "plan {} frozen: SOP {sop}, policy {policy}, {}",
        text::short(&plan.digest),
        text::count(new.steps.len(), "step")
    );
    Some(Line::new(None, text))
}

fn inherited(old: &AgentRunStatus, new: &AgentRunStatus) -> Option<Line> {
    let now = new.inherited.as_ref().filter(|_| old.inherited.is_none())?;
    let text = match (&now.step, &now.usage) {
        (Some(step), Some(usage)) => {
            let gates = match now.gates {
                Some(InheritedGates::TakenOver) => "its verdicts stand",
                _ => "every gate is judged again",
            };
            format!(
                "recovers from {} after step {step}, {gates}; inherited: {}",
                now.run,
                text::usage(usage)
            )
        }
        _ => format!("begins with the project of {}", now.run),
    };
    Some(Line::new(None, text))
}

/// What an incremental run is about.
fn incremental(old: &AgentRunStatus, new: &AgentRunStatus) -> Option<Line> {
    let now = new.incremental.as_ref();
    let now = now.filter(|now| old.incremental.as_ref() != Some(now))?;
    let what = match now.kind {
        IdeaKind::Requirement => "a new requirement",
        IdeaKind::Bug => "a bug report",
    };
    let mut said = format!("the idea is {what}, written to {}", now.path);
    for (what, files) in [
        ("edited by hand", now.edited_files),
        ("edited by hand although derived", now.derived_files),
    ] {
        if files > 0 {
            let _ = write!(said, "; {what}: {files}");
        }
    }
    Some(Line::new(None, said))
}

fn launch(old: &AgentRunStatus, new: &AgentRunStatus) -> Option<Line> {
    let number = new.launch.filter(|n| *n > old.launch.unwrap_or_default())?;
    let job = new
        .job_name
        .as_ref()
        .map(|j| format!(": Job {j}"))
        .unwrap_or_default();
    Some(Line::new(None, format!("launch {number}{job}")))
}

/// Why the run is not at work.
fn waits_for(old: &AgentRunStatus, new: &AgentRunStatus) -> Option<Line> {
    let phase = new.phase.unwrap_or_default();
    if phase.is_final() {
        return None;
    }
    let reason = reason(new)?;
    let known = reason.reason == phase.to_string() && reason.message.is_empty();
    let before = reason_of(old);
    let changed = if phase == Phase::Running {
        // While steps are at work the message changes with each of them; the steps have lines of their own.
        before.is_none_or(|b| b.reason != reason.reason)
            && !["Running", "Progressing"].contains(&&*reason.reason)
    } else {
        before.is_none_or(|b| b.reason != reason.reason || b.message != reason.message)
    };
    (changed && !known).then(|| {
        let said = text::one_line(&reason.message, MOST);
        Line::new(
            Some(&reason.last_transition_time)
                .filter(|_| before.is_none_or(|b| b.status != reason.status)),
            format!(
                "{}: {}: {said}",
                phase.to_string().to_lowercase(),
                reason.reason
            ),
        )
    })
}

fn reason(status: &AgentRunStatus) -> Option<&Condition> {
    reason_of(status).filter(|c| !c.reason.is_empty())
}

fn reason_of(status: &AgentRunStatus) -> Option<&Condition> {
    conditions::find(&status.conditions, conditions::RECONCILING)
        .filter(|c| c.status == "True")
        .or_else(|| conditions::find(&status.conditions, conditions::READY))
}

fn round(old: &AgentRunStatus, new: &AgentRunStatus, at: Option<Timestamp>) -> Option<Line> {
    // Who comes late sees rounds only by the attempts of the steps.
    let late = old.round.is_none() && at.is_none();
    let round = new
        .round
        .filter(|r| *r > 1 && new.round != old.round && !late)?;
    Some(Line {
        at,
        text: format!("round {round}"),
    })
}

/// Lines of all steps. The step at work is the newest, so it comes last; times have whole seconds only, so the
/// order of the plan decides between equal ones. A new round begins with the step at work.
fn steps(old: &AgentRunStatus, new: &AgentRunStatus) -> Vec<Line> {
    let (mut past, mut present) = (Vec::new(), Vec::new());
    for step in &new.steps {
        let before = old.steps.iter().find(|s| s.name == step.name);
        let at_work = matches!(step.phase, StepPhase::Running | StepPhase::Waiting);
        let lines = if at_work { &mut present } else { &mut past };
        lines.extend(step_lines(before, step, new));
    }
    past.sort_by_key(|line| line.at);
    let round = round(old, new, present.first().and_then(|line| line.at));
    past.into_iter().chain(round).chain(present).collect()
}

fn step_lines(old: Option<&StepStatus>, new: &StepStatus, run: &AgentRunStatus) -> Vec<Line> {
    let nothing = StepStatus::default();
    let old = old.unwrap_or(&nothing);
    let mut lines = Vec::new();
    if new.attempts > old.attempts {
        lines.push(Line::new(new.started_at.as_ref(), started(new, &run.steps)));
    } else if new.phase == StepPhase::Running && old.phase != StepPhase::Running {
        lines.push(Line::new(None, format!("step {} goes on", new.name)));
    }
    let time = |own: &Option<Time>| {
        own.clone()
            .or_else(|| new.finished_at.clone())
            .or_else(|| new.started_at.clone())
    };
    for gate in &new.gates {
        if gate.verdict != Verdict::Pending && !old.gates.contains(gate) {
            lines.push(Line::new(time(&gate.at).as_ref(), judged(&new.name, gate)));
        }
    }
    let over = !matches!(new.phase, StepPhase::Pending | StepPhase::Running);
    let ended_again = new.finished_at.is_some() && new.finished_at != old.finished_at;
    if (over && (new.phase != old.phase || new.attempts > old.attempts)) || ended_again {
        lines.push(Line::new(time(&None).as_ref(), ended(new, run)));
    }
    lines
}

fn started(step: &StepStatus, all: &[StepStatus]) -> String {
    let role = step
        .role
        .as_ref()
        .map(|r| format!(" ({r})"))
        .unwrap_or_default();
    if step.attempts < 2 {
        return format!("step {} started{role}", step.name);
    }
    let mut said = format!(
        "step {} started again{role}, attempt {}",
        step.name, step.attempts
    );
    if let Some((by, why)) = sent_back_by(step, all) {
        let _ = write!(said, ", sent back by {by}: {}", text::one_line(why, MOST));
    } else if let Some(why) = &step.previous_failure {
        let _ = write!(said, ", because: {}", text::one_line(why, MOST));
    }
    said
}

/// The later step whose gate failed and that waits for this one again, with its reason.
fn sent_back_by<'a>(step: &StepStatus, all: &'a [StepStatus]) -> Option<(&'a str, &'a str)> {
    let failed = |s: &&StepStatus| {
        s.name != step.name
            && s.phase == StepPhase::Pending
            && s.gates.iter().any(|g| g.verdict == Verdict::Failed)
    };
    let by = all.iter().find(failed)?;
    let why = by.previous_failure.as_deref().or(by.message.as_deref())?;
    Some((&by.name, why))
}

fn judged(step: &str, gate: &GateStatus) -> String {
    // What a passed gate asked for is in the procedure; of a failed one it is needed here.
    let mut said = format!(
        "gate {step}/{} {} ({})",
        gate.name,
        gate.verdict.word(),
        gate.kind
    );
    let observed = gate.observed.as_deref().map(|o| text::one_line(o, MOST));
    // Of a gate that passed nobody asks.
    let wanted = gate
        .threshold
        .as_deref()
        .filter(|_| gate.verdict == Verdict::Failed)
        .map(|t| format!("wanted: {}", text::one_line(t, MOST)));
    let by = gate
        .decided_by
        .as_deref()
        .map(|b| format!("decided by {}", text::one_line(b, MOST)));
    let detail: Vec<String> = [observed, wanted, by].into_iter().flatten().collect();
    if !detail.is_empty() {
        said.push_str(": ");
        said.push_str(&detail.join("; "));
    }
    said
}

fn ended(step: &StepStatus, run: &AgentRunStatus) -> String {
    let failed = step.gates.iter().any(|g| g.verdict == Verdict::Failed);
    let how = match step.phase {
        StepPhase::Succeeded => "succeeded",
        StepPhase::Failed => "failed",
        StepPhase::Skipped => "skipped",
        StepPhase::Waiting => "waits",
        StepPhase::Pending | StepPhase::Running if failed => "failed an attempt",
        StepPhase::Pending | StepPhase::Running => "ended an attempt",
    };
    let mut said = format!("step {} {how}", step.name);
    let took = text::elapsed(
        step.started_at.as_ref().map(|t| t.0),
        step.finished_at.as_ref().map(|t| t.0),
    );
    let spent = step.tokens.map(|tokens| {
        let cost = text::dollars(step.cost.unwrap_or_default());
        format!(
            "{} tokens, {cost}",
            text::grouped(tokens.input + tokens.output)
        )
    });
    let so_far = run.usage.as_ref().filter(|_| spent.is_some()).map(|usage| {
        let cost = text::dollars(usage.cost);
        format!(
            "the run so far {} tokens, {cost}",
            text::grouped(usage.total_tokens)
        )
    });
    let took = Some(took).filter(|t| !t.is_empty());
    let detail: Vec<String> = [took, spent, so_far].into_iter().flatten().collect();
    if !detail.is_empty() {
        let _ = write!(said, " ({})", detail.join("; "));
    }
    if let Some(message) = step.message.as_ref().filter(|m| !m.is_empty()) {
        said.push_str(": ");
        said.push_str(&text::one_line(message, MOST));
    }
    said
}

fn condition(old: &AgentRunStatus, new: &AgentRunStatus, kind: &str) -> Option<Line> {
    let was = conditions::is_true(&old.conditions, kind);
    let is = conditions::find(&new.conditions, kind).filter(|c| c.status == "True");
    match (was, is) {
        (false, Some(now)) => Some(Line::new(
            Some(&now.last_transition_time),
            format!(
                "{kind}: {}: {}",
                now.reason,
                // A command that is cut cannot be copied.
                text::one_line(
                    &now.message,
                    if kind == conditions::AWAITING_APPROVAL {
                        usize::MAX
                    } else {
                        MOST
                    }
                )
            ),
        )),
        (true, None) => Some(Line::new(None, format!("{kind} is over"))),
        _ => None,
    }
}

/// Words for verdicts.
pub(crate) trait Word {
    /// In lower case, as it stands in a sentence.
    fn word(&self) -> &'static str;
}

impl Word for Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Waived => "waived",
            Self::Skipped => "skipped",
        }
    }
}
