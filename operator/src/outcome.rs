//! The one place that turns what happened to a run into a log line, an Event and a metric.

use crate::metrics::Metrics;
use kube::{
    Resource,
    runtime::events::{Event, EventType, Recorder},
};
use sopwith_crds::{
    AgentRun,
    status::{DecisionStatus, FailureReason},
};
use std::borrow::Cow;

/// Longest note of an Event; the API takes 1 KiB.
const MAX_NOTE: usize = 1000;

/// Something that happened to a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The plan is frozen.
    Planned {
        /// ConfigMap that holds it.
        config_map: String,
        /// How many steps it has.
        steps: usize,
    },
    /// The run is planned without proof of who asked for it.
    NotProven,
    /// The Job of a launch was made.
    Launched {
        /// Number of the launch.
        launch: u32,
        /// The Job.
        job: String,
    },
    /// A launch ended without having been asked to; another follows.
    LaunchLost {
        /// Number of the lost launch.
        launch: u32,
        /// How it ended.
        message: String,
    },
    /// The project that the run begins with is loaded.
    ProjectLoaded {
        /// What it is.
        message: String,
    },
    /// An incremental run knows what its idea is.
    Classified {
        /// What, and where it was written to.
        message: String,
    },
    /// People edited files of the project where they may.
    ProjectEdited {
        /// Which.
        message: String,
    },
    /// People edited files of the project that steps derive.
    DerivedEdited {
        /// Which, and what to do.
        message: String,
    },
    /// The run's commits were pushed.
    Delivered {
        /// Where to.
        message: String,
    },
    /// An attempt of a step ended.
    StepFinished {
        /// The step.
        step: String,
        /// Its attempt.
        attempt: u32,
        /// Whether its gates passed.
        passed: bool,
        /// How long it took.
        seconds: f64,
        /// What it says.
        message: String,
    },
    /// A gate failed.
    GateFailed {
        /// The step.
        step: String,
        /// Its attempt.
        attempt: u32,
        /// The gate.
        gate: String,
        /// What was observed.
        observed: String,
    },
    /// The step is tried again.
    Retrying {
        /// The step.
        step: String,
        /// The attempt that comes.
        attempt: u32,
    },
    /// An earlier step is done again.
    Backtracked {
        /// The step whose gate failed.
        step: String,
        /// Its attempt.
        attempt: u32,
        /// The step that is done again.
        to: String,
    },
    /// A gate waits for people.
    ApprovalRequested {
        /// The step.
        step: String,
        /// Its attempt.
        attempt: u32,
        /// The gate.
        gate: String,
        /// What they are asked.
        question: String,
    },
    /// A decision counts, or does not.
    Decision(DecisionStatus),
    /// A step left no trace for too long.
    StepStuck {
        /// Which, since when, what to do.
        message: String,
    },
    /// Something stands in the way of the run.
    Obstacle {
        /// Its typed reason.
        reason: String,
        /// What it is and what to do.
        message: String,
    },
    /// The run is suspended.
    Suspended,
    /// Every step finished.
    Succeeded {
        /// What it took.
        message: String,
    },
    /// The run ended without success.
    Failed {
        /// Why.
        reason: FailureReason,
        /// What happened.
        message: String,
    },
}

impl Outcome {
    /// The reason of the Event, a word of the API.
    pub fn reason(&self) -> Cow<'static, str> {
        match self {
            Self::Planned { .. } => "Planned".into(),
            Self::NotProven => "AdmissionNotEnforced".into(),
            Self::Launched { .. } => "Launched".into(),
            Self::LaunchLost { .. } => "LaunchLost".into(),
            Self::ProjectLoaded { .. } => "ProjectLoaded".into(),
            Self::Classified { .. } => "Classified".into(),
            Self::ProjectEdited { .. } => "ProjectEdited".into(),
            Self::DerivedEdited { .. } => "DerivedEdited".into(),
            Self::Delivered { .. } => "Delivered".into(),
            Self::StepFinished { .. } => "StepFinished".into(),
            Self::GateFailed { .. } => "GateFailed".into(),
            Self::Retrying { .. } => "Retrying".into(),
            Self::Backtracked { .. } => "Backtracked".into(),
            Self::ApprovalRequested { .. } => "ApprovalRequested".into(),
            Self::Decision(decision) if decision.counts => "DecisionCounted".into(),
            Self::Decision(_) => "DecisionIgnored".into(),
            Self::StepStuck { .. } => "StepStuck".into(),
            Self::Obstacle { reason, .. } => reason.clone().into(),
            Self::Suspended => "Suspended".into(),
            Self::Succeeded { .. } => "Succeeded".into(),
            Self::Failed { reason, .. } => reason.to_string().into(),
        }
    }

    /// What is told to people.
    pub fn note(&self) -> String {
        match self {
            Self::Planned { config_map, steps } => {
                format!("{steps} steps, frozen in ConfigMap {config_map}")
            }
            Self::NotProven => "begun although nobody proves who asks for runs and who decides: admission.insecure is set in the chart".to_owned(),
            Self::Launched { launch, job } => format!("launch {launch}: Job {job}"),
            Self::StepFinished {
                step,
                attempt,
                passed,
                seconds,
                message,
            } => format!(
                "step {step}, attempt {attempt} {} after {seconds:.1} s: {message}",
                if *passed { "passed" } else { "failed" }
            ),
            Self::GateFailed {
                step,
                attempt,
                gate,
                observed,
            } => format!("gate {gate} of step {step}, attempt {attempt} failed: {observed}"),
            Self::Retrying { step, attempt } => {
                format!("step {step} is tried again, attempt {attempt}")
            }
            Self::Backtracked { step, attempt, to } => {
                format!("after step {step}, attempt {attempt} the line goes back to step {to}")
            }
            Self::ApprovalRequested {
                step,
                attempt,
                gate,
                question,
            } => format!(
                "gate {gate} of step {step}, attempt {attempt} waits for people: {question}; the condition AwaitingApproval says how to decide"
            ),
            Self::Decision(decision) => {
                let DecisionStatus {
                    step,
                    gate,
                    attempt,
                    by,
                    verdict,
                    message,
                    ..
                } = decision;
                format!(
                    "{verdict:?} by {by} on gate {gate} of step {step}, attempt {attempt} {}: {message}",
                    if decision.counts { "counts" } else { "does not count" }
                )
            }
            Self::ProjectLoaded { message }
            | Self::Classified { message }
            | Self::ProjectEdited { message }
            | Self::DerivedEdited { message }
            | Self::Delivered { message }
            | Self::StepStuck { message }
            | Self::LaunchLost { message, .. }
            | Self::Obstacle { message, .. }
            | Self::Succeeded { message }
            | Self::Failed { message, .. } => message.clone(),
            Self::Suspended => "suspended by spec.suspend; everything is kept".to_owned(),
        }
    }

    /// Events of one reason are told apart by it: the recorder would else keep the first note only.
    fn action(&self) -> String {
        match self {
            Self::StepFinished { step, attempt, .. }
            | Self::Retrying { step, attempt }
            | Self::Backtracked { step, attempt, .. } => format!("{step}/{attempt}"),
            Self::GateFailed {
                step,
                attempt,
                gate,
                ..
            }
            | Self::ApprovalRequested {
                step,
                attempt,
                gate,
                ..
            } => format!("{step}/{attempt}/{gate}"),
            Self::Decision(decision) => format!(
                "{}/{}/{}/{}",
                decision.step, decision.attempt, decision.gate, decision.by
            ),
            Self::Launched { launch, .. } | Self::LaunchLost { launch, .. } => {
                format!("Launch{launch}")
            }
            _ => "Reconcile".to_owned(),
        }
        .chars()
        .take(128)
        .collect()
    }

    fn is_warning(&self) -> bool {
        match self {
            Self::StepFinished { passed, .. } => !passed,
            Self::Decision(decision) => !decision.counts,
            Self::NotProven
            | Self::DerivedEdited { .. }
            | Self::GateFailed { .. }
            | Self::LaunchLost { .. }
            | Self::StepStuck { .. }
            | Self::Obstacle { .. }
            | Self::Failed { .. } => true,
            _ => false,
        }
    }
}

/// Tells what happened to a run: in the log, as an Event, as metrics. An Event that is refused is no failure of the run.
pub async fn tell(run: &AgentRun, outcome: &Outcome, recorder: &Recorder, metrics: &Metrics) {
    let (name, namespace) = (
        run.metadata.name.as_deref(),
        run.metadata.namespace.as_deref(),
    );
    let (reason, note) = (outcome.reason(), outcome.note());
    tracing::info!(run = name, namespace, reason = %reason, "{note}");
    if let Outcome::StepFinished { step, seconds, .. } = outcome {
        metrics.step_ended(run, step, *seconds);
    }
    let event = Event {
        type_: if outcome.is_warning() {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: reason.into_owned(),
        note: Some(clipped(note)),
        action: outcome.action(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, &run.object_ref(&())).await {
        tracing::info!(run = name, namespace, %error, "an event was not recorded");
    }
}

fn clipped(mut note: String) -> String {
    if note.len() > MAX_NOTE {
        let end = (0..=MAX_NOTE)
            .rev()
            .find(|i| note.is_char_boundary(*i))
            .unwrap_or(0);
        note.truncate(end);
        note.push('…');
    }
    note
}
