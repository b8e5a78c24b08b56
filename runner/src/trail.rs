//! The way of a run through its procedure: transitions and verdicts in order. With the messages it is the run's trace.

use serde::{Deserialize, Serialize};
use sopwith_crds::{
    sop_definition::GateKind,
    status::{Trust, Verdict},
};

use crate::sop::{Happened, State, Way};

/// One thing that happened on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The step.
    pub step: String,
    /// Its attempt; 0 where it was skipped before the first.
    pub attempt: u32,
    /// The round.
    pub round: u32,
    /// What happened.
    #[serde(flatten)]
    pub what: Passage,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "camelCase")]
pub enum Passage {
    /// The step's `when` was false.
    Skipped,
    /// An attempt began.
    Began,
    /// A gate was judged, or people decided on it.
    Judged {
        /// The gate, with the action it belongs to: `action/gate`.
        gate: String,
        /// Its kind.
        kind: GateKind,
        /// The verdict.
        verdict: Verdict,
        /// How far its evidence can be trusted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trust: Option<Trust>,
        /// Who decided, where people did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// The attempt waits for people.
    Waits {
        /// At this gate.
        gate: String,
    },
    /// The attempt goes on after people decided.
    GoesOn,
    /// The attempt passed.
    Passed,
    /// The attempt did not pass.
    Failed {
        /// The gate that failed, where it was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gate: Option<String>,
        /// What followed.
        then: Then,
    },
}

/// What followed an attempt that did not pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Then {
    /// The same step again.
    Retry,
    /// An earlier step again.
    Back(String),
    /// People are asked.
    Ask,
    /// The run failed.
    Fail,
}

impl Entry {
    /// The entry of a transition; `state` is the one before it.
    pub fn of(state: &State, happened: &Happened, way: &Way) -> Self {
        let then = || match way {
            Way::Retry => Then::Retry,
            Way::Backtrack { to } => Then::Back(to.clone()),
            Way::Ask => Then::Ask,
            Way::Proceed | Way::Fail(_) => Then::Fail,
        };
        let (step, what) = match happened {
            Happened::Skipped { step } => (step, Passage::Skipped),
            Happened::Started { step } => (step, Passage::Began),
            Happened::Waits(wait) => (
                &wait.step,
                Passage::Waits {
                    gate: wait.gate.clone(),
                },
            ),
            Happened::Resumed { step } => (step, Passage::GoesOn),
            Happened::Passed { step } => (step, Passage::Passed),
            Happened::GateFailed(fault) | Happened::Steered { fault, .. } => (
                &fault.step,
                Passage::Failed {
                    gate: Some(fault.gate.clone()),
                    then: then(),
                },
            ),
            Happened::Failed { step, .. } => (
                step,
                Passage::Failed {
                    gate: None,
                    then: Then::Fail,
                },
            ),
        };
        let before = state.step(step).attempts;
        Self {
            step: step.clone(),
            attempt: before + u32::from(what == Passage::Began),
            round: state.round,
            what,
        }
    }
}
