//! The way of a run through its procedure: transitions and verdicts in order. With the messages it is the run's trace.

use serde::{Deserialize, Serialize};

use crate::{
    sop_definition::GateKind,
    status::{Trust, Verdict},
};

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
    /// An earlier run made the attempt. Its verdicts follow.
    TakenOver,
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
