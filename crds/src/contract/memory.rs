//! Long-term memory: the facts that a run leaves for later runs of its project.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What one run leaves. Written once, when it succeeded.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Version of the shape.
    pub version: u32,
    /// Namespace of the run.
    pub namespace: String,
    /// The project.
    pub project: String,
    /// Name of the run.
    pub run: String,
    /// UID of the run.
    pub uid: String,
    /// When it ended.
    pub at: Timestamp,
    /// The facts, in the order of the run.
    pub facts: Vec<Fact>,
}

/// What a run recalls of the earlier runs of its project, pinned when its plan is made.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Recalled {
    /// The facts, nearest to the idea first, then the newest.
    pub facts: Vec<Fact>,
}

/// Something that a run learned.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Fact {
    /// Name of the run.
    pub run: String,
    /// The role that said it; `sopwith` for what gates found and for the idea.
    pub sender: String,
    /// Where in the run: `step/action`, `step/gate` or `idea`.
    pub source: String,
    /// What.
    pub text: String,
}

impl Fact {
    /// The step it comes from; empty where it comes from none.
    pub fn step(&self) -> &str {
        self.source.split_once('/').map_or("", |(step, _)| step)
    }
}
