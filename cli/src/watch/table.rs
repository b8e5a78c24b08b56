//! The table that a terminal shows. Deciding.

use crate::text;
use jiff::Timestamp;
use sopwith_crds::{
    AgentRun,
    status::{AgentRunStatus, StepPhase, StepStatus, Verdict},
};

const HEAD: [&str; 8] = [
    "STEP", "ROLE", "STATE", "TRY", "GATES", "TOKENS", "COST", "TIME",
];

/// The table of a run: a line about the whole, then one for each step.
pub(crate) fn table(run: &AgentRun, now: Timestamp) -> String {
    let nothing = AgentRunStatus::default();
    let status = run.status.as_ref().unwrap_or(&nothing);
    let mut rows: Vec<[String; 8]> = vec![HEAD.map(str::to_owned)];
    rows.extend(status.steps.iter().map(|step| row(step, now)));
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|i| {
            rows.iter()
                .map(|r| r[i].chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let mut lines = vec![summary(run, status, now)];
    if !status.steps.is_empty() {
        lines.extend(rows.iter().map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            cells.join("  ").trim_end().to_owned()
        }));
    }
    lines.join("\n")
}

fn summary(run: &AgentRun, status: &AgentRunStatus, now: Timestamp) -> String {
    let started = status.started_at.as_ref().map(|t| t.0);
    let ended = status.finished_at.as_ref().map_or(now, |t| t.0);
    let usage = status.usage.clone().unwrap_or_default();
    let parts = [
        run.metadata.name.clone().unwrap_or_default(),
        run.spec.sop_ref.name.clone(),
        status.phase.unwrap_or_default().to_string(),
        status
            .progress
            .as_ref()
            .map(|p| format!("{p} steps"))
            .unwrap_or_default(),
        status
            .round
            .filter(|r| *r > 1)
            .map(|r| format!("round {r}"))
            .unwrap_or_default(),
        format!("{} tokens", text::grouped(usage.total_tokens)),
        text::dollars(usage.cost),
        status
            .inherited
            .as_ref()
            .and_then(|from| from.usage.as_ref())
            .map(|usage| format!("{} inherited", text::dollars(usage.cost)))
            .unwrap_or_default(),
        text::elapsed(started, Some(ended)),
    ];
    let shown: Vec<String> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    shown.join(" · ")
}

fn row(step: &StepStatus, now: Timestamp) -> [String; 8] {
    let tokens = step.tokens.map(|t| text::grouped(t.input + t.output));
    let started = step.started_at.as_ref().map(|t| t.0);
    let ended = match step.phase {
        StepPhase::Running | StepPhase::Waiting => Some(now),
        _ => step.finished_at.as_ref().map(|t| t.0),
    };
    [
        format!("{} {}", mark(step.phase), step.name),
        step.role.clone().unwrap_or_default(),
        format!("{:?}", step.phase),
        if step.attempts == 0 {
            String::new()
        } else {
            step.attempts.to_string()
        },
        step.gates.iter().map(|g| verdict_mark(g.verdict)).collect(),
        tokens.unwrap_or_default(),
        step.cost.map(text::dollars).unwrap_or_default(),
        text::elapsed(started, ended),
    ]
}

const fn mark(phase: StepPhase) -> char {
    match phase {
        StepPhase::Pending => '·',
        StepPhase::Running => '▶',
        StepPhase::Waiting => '⏸',
        StepPhase::Succeeded => '✓',
        StepPhase::Failed => '✗',
        StepPhase::Skipped => '–',
    }
}

const fn verdict_mark(verdict: Verdict) -> char {
    match verdict {
        Verdict::Pending => '·',
        Verdict::Passed => '✓',
        Verdict::Failed => '✗',
        Verdict::Waived => '~',
        Verdict::Skipped => '–',
    }
}
