//! The state of a run: where each step stands, what was used, and at which gate it waits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sopwith_crds::{
    contract::{Digest, plan::RunPlan},
    status::{Failure, FailureReason},
};

/// Where a step stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Not yet its turn, or again.
    #[default]
    Pending,
    /// An attempt is under way.
    Running,
    /// An attempt waits for a person.
    Waiting,
    /// Its gates passed.
    Finished,
    /// Its `when` was false.
    Skipped,
}

/// A step's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepState {
    /// Where it stands.
    pub phase: Phase,
    /// Attempts so far, over all rounds.
    pub attempts: u32,
    /// What the next attempt has to mend; canonical text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub findings: String,
    /// The work of the next attempt is there: an earlier run did it, and only its gates are judged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inherited: bool,
}

/// The place of a gate in a step: what stands before it is done and judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The action it belongs to, counted from 0; none: it stands at the end of the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<usize>,
    /// Which of its gates, counted from 0.
    pub gate: usize,
}

/// An attempt that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// The step.
    pub step: String,
    /// Its attempt.
    pub attempt: u32,
    /// The gate.
    pub gate: String,
    /// Where it stands.
    pub point: Point,
    /// Digest of what is decided on.
    pub subject: Digest,
    /// What failed, as the next attempt is told; none at a gate that only people judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// The state of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Passes forward, counted from 1.
    pub round: u32,
    /// Steps by name.
    pub steps: BTreeMap<String, StepState>,
    /// How often each rule was used, by `step/gate#index`.
    #[serde(default)]
    pub used: BTreeMap<String, u32>,
    /// The attempt that waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// Why the run failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl State {
    /// The state of a run that has not begun.
    pub fn new(plan: &RunPlan) -> Self {
        let steps = plan
            .steps
            .iter()
            .map(|step| (step.name.clone(), StepState::default()));
        Self {
            round: 1,
            steps: steps.collect(),
            ..Self::default()
        }
    }

    /// A step's state.
    pub fn step(&self, name: &str) -> StepState {
        self.steps.get(name).cloned().unwrap_or_default()
    }

    /// The state of a run that takes over that of an earlier one. Its rounds, and how often each rule was used, are its own.
    /// Steps that were finished or skipped are; or, where `judge` says so, those that were finished are judged again.
    pub fn recovered(plan: &RunPlan, earlier: &Self, judge: bool) -> Self {
        let mut state = Self::new(plan);
        for (name, step) in &mut state.steps {
            let before = earlier.step(name);
            match before.phase {
                Phase::Finished if judge => step.inherited = true,
                Phase::Finished | Phase::Skipped if !judge => {
                    step.phase = before.phase;
                    step.attempts = before.attempts;
                }
                _ => {}
            }
        }
        state
    }

    /// Whether only the gates of the step's next attempt are judged.
    pub fn inherited(&self, name: &str) -> bool {
        self.steps.get(name).is_some_and(|step| step.inherited)
    }

    /// Whether a step is behind the line.
    pub(super) fn settled(&self, name: &str) -> bool {
        matches!(self.step(name).phase, Phase::Finished | Phase::Skipped)
    }

    pub(super) fn set(&mut self, name: &str, change: impl FnOnce(&mut StepState)) {
        change(self.steps.entry(name.to_owned()).or_default());
    }

    pub(super) fn fail(&mut self, step: &str, reason: FailureReason, message: &str) {
        self.set(step, |step| step.phase = Phase::Pending);
        self.failure = Some(Failure {
            reason,
            step: Some(step.to_owned()),
            message: message.to_owned(),
        });
    }
}
