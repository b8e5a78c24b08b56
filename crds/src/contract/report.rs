//! What the runner tells the gateway, and what it is told.
//!
//! All paths below are relative to `/v1/runs/{namespace}/{name}`; the token names the pod, and the pod must
//! belong to the launch in the path.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET launches/{n}` | | [`LaunchStart`] |
//! | `POST launches/{n}/reports` | [`ReportBatch`] | [`ReportReply`] |
//! | `HEAD blobs/{digest}` | | 200 or 404 |
//! | `PUT blobs/{digest}` | bytes | 200 or 201; 422 where the digest differs |
//! | `GET blobs/{digest}` | | bytes; of the run's own, and of the earlier run that it begins with |
//! | `GET uploads/{digest}` | | bytes of the archive that `spec.project.source.upload` names |
//!
//! People upload projects with `PUT /v1/namespaces/{namespace}/uploads/{digest}`; 200 or 201, 422 where the digest differs.
//!
//! Errors are [`Problem`] with a 4xx or 5xx status. 409 on a report: another launch has taken over; stop.

use super::{Digest, incremental::Classified, snapshot::Origin};
use crate::{
    agent_run::{Decision, DecisionVerdict},
    sop_definition::GateKind,
    status::{ArtifactsRef, Failure, GateStatus, Usage, Verdict},
    tool_policy::Provider,
};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most bytes of a batch of reports.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// Most bytes of a blob.
pub const MAX_BLOB_BYTES: usize = 64 * 1024 * 1024;

/// What a launch begins with.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LaunchStart {
    /// Digest of the snapshot to resume from; none at the beginning of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Digest>,
    /// The highest sequence number stored for this launch and pod; 0 where there is none.
    pub acknowledged: u64,
    /// What earlier launches have used.
    pub spent: Usage,
    /// Calls of each tool that earlier launches reported, those that were refused left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tool_calls: BTreeMap<String, u32>,
    /// Orders already in force.
    pub orders: Orders,
    /// What was decided on the gate at which the snapshot waits: those decisions that count, once they are enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decision>,
}

/// A batch of events of one launch. Batches are numbered from 1 without gaps; the same number is the same batch.
/// A batch without events is a sign of life and is not stored.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ReportBatch {
    /// Version of the shape.
    pub version: u32,
    /// Number of the batch; of a sign of life, the number of the last batch.
    pub sequence: u64,
    /// What happened, in order.
    #[serde(default)]
    pub events: Vec<Event>,
    /// What this launch has used since its start, at the end of the batch.
    pub usage: Usage,
}

/// Answer to a batch.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct ReportReply {
    /// The highest sequence number that is stored.
    pub acknowledged: u64,
    /// What the runner has to do.
    pub orders: Orders,
}

/// What the runner has to do.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Orders {
    /// Stop at once, keep everything, end with [`Outcome::Suspended`].
    #[serde(default)]
    pub suspend: bool,
    /// Stop at once, end with [`Outcome::Cancelled`].
    #[serde(default)]
    pub cancel: bool,
}

/// Why a call was refused.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Problem {
    /// `CamelCase` word for machines.
    pub reason: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// Something that happened, with its time.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Event {
    /// When, by the runner's clock.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum What {
    /// The runner is at work.
    LaunchStarted {
        /// Version of the runner.
        runner: String,
        /// The snapshot it resumed from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resumed_from: Option<Digest>,
    },
    /// A Secret or a key that the policy grants is not there yet. The runner looks again every second.
    SecretMissing {
        /// Name of the Secret.
        secret: String,
        /// Key in its data.
        key: String,
    },
    /// Every Secret is there.
    SecretsFound,
    /// The existing project is loaded, before any step. Told in the first launch that gets so far.
    ProjectLoaded {
        /// Where it came from.
        origin: Origin,
        /// How many files it has.
        files: u32,
        /// What of the source is not part of the project, for people: links, submodules.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        left_out: String,
        /// A snapshot with it, its blobs uploaded before this is reported: later launches go on from there.
        snapshot: Digest,
    },
    /// An incremental run knows what its idea is and what people edited, before any step. Told before the snapshot that has it.
    Classified {
        /// What it knows.
        #[serde(flatten)]
        found: Box<Classified>,
    },
    /// The state of an earlier run is taken over, before any step.
    Recovered {
        /// Name of the earlier run.
        run: String,
        /// The step after which the state was taken.
        step: String,
        /// A snapshot with it, its blobs uploaded before this is reported: later launches go on from there.
        snapshot: Digest,
    },
    /// A step that the earlier run had finished counts as finished here, its gates as judged.
    StepInherited {
        /// The step.
        step: String,
        /// Attempts that the earlier run made.
        attempts: u32,
        /// What it handed over.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        artifacts: Option<ArtifactsRef>,
        /// Its verdicts, as they were.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        gates: Vec<GateStatus>,
    },
    /// A pass forward begins.
    RoundStarted {
        /// Counted from 1.
        round: u32,
    },
    /// An attempt of a step begins.
    StepStarted {
        /// The step.
        step: String,
        /// Counted from 1.
        attempt: u32,
    },
    /// A person decided, and the attempt that waited goes on where it stood.
    StepResumed {
        /// The step.
        step: String,
        /// Counted from 1.
        attempt: u32,
    },
    /// A step's `when` was false.
    StepSkipped {
        /// The step.
        step: String,
        /// Why.
        message: String,
    },
    /// An action ended. A sign of progress.
    ActionEnded {
        /// The step.
        step: String,
        /// Of the step.
        attempt: u32,
        /// The action; in a loop `loop/action`.
        action: String,
        /// The item of a loop, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<String>,
        /// What it did, for people: `wrote docs/prds/blackjack.md`.
        message: String,
    },
    /// A request to a model ended. A sign of progress.
    LlmRequest {
        /// The step.
        step: String,
        /// Name of the endpoint.
        endpoint: String,
        /// Its provider.
        provider: Provider,
        /// The model that was asked.
        model: String,
        /// `ok`, an HTTP status as `429`, or `timeout`, `connection`, `protocol`, `truncated`, `filtered`, `refused`,
        /// `difference`.
        status: String,
        /// From the request to the end of the answer.
        seconds: f64,
        /// Tokens sent.
        input_tokens: u64,
        /// Of these, tokens the provider had cached.
        #[serde(default)]
        cached_input_tokens: u64,
        /// Tokens received.
        output_tokens: u64,
        /// Of these, tokens of thinking, where the provider tells.
        #[serde(default)]
        reasoning_tokens: u64,
    },
    /// A call of a tool ended, or was refused. A sign of progress.
    ToolCall {
        /// The step.
        step: String,
        /// Name of the tool in the policy; `unknown` where it has none of the name that was called.
        tool: String,
        /// Of a class-like tool, the function.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        function: Option<String>,
        /// Whether the policy calls the tool critical.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        critical: bool,
        /// How it ended.
        status: ToolStatus,
        /// From the call to its end, without the wait for its turn.
        seconds: f64,
    },
    /// A request is not as it was recorded, and the next endpoint is asked. Told once, of the first.
    RequestDiffers {
        /// The step.
        step: String,
        /// The request and how it differs, for people.
        difference: String,
    },
    /// A gate judged. A sign of progress.
    GateJudged {
        /// The step.
        step: String,
        /// Of the step.
        attempt: u32,
        /// The verdict and what it rests on.
        gate: GateStatus,
        /// Findings that are given to the role before the next attempt. Canonical text.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        findings: String,
    },
    /// An attempt of a step ended, or waits for a person.
    StepEnded {
        /// How.
        #[serde(flatten)]
        end: Box<StepEnd>,
    },
    /// The run's commits were pushed, or found there where an earlier launch had pushed them.
    Delivered {
        /// The repository.
        url: String,
        /// The branch.
        branch: String,
        /// The commit that it is at, 40 hexadecimal digits.
        commit: String,
    },
    /// The launch ended. Always the last event.
    LaunchEnded {
        /// How.
        outcome: Outcome,
        /// Digest of the last snapshot.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        snapshot: Option<Digest>,
        /// Where the outcome is `Failed`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
}

/// How a call of a tool ended.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum ToolStatus {
    /// It did what it was called for.
    #[default]
    Ok,
    /// The tool said that it failed.
    Failed,
    /// It did not end in its time.
    Timeout,
    /// The arguments do not match the tool's schema: it was not called.
    Invalid,
    /// The role was not granted it, or the policy allows no more calls: it was not called.
    Denied,
}

impl ToolStatus {
    /// The word in metric labels and in what people read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Invalid => "invalid",
            Self::Denied => "denied",
        }
    }
}

/// How an attempt of a step ended, or how far it has come where it waits for a person.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StepEnd {
    /// The step.
    pub step: String,
    /// Counted from 1.
    pub attempt: u32,
    /// `Passed` or `Failed`; `Pending` where it waits.
    pub verdict: Verdict,
    /// For people: what was handed over, or why it failed, or what it waits for.
    pub message: String,
    /// What the attempt used; after a wait, since then.
    pub usage: Usage,
    /// What it handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<ArtifactsRef>,
    /// The commit of the project after the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The snapshot after the attempt, its blobs uploaded before this is reported.
    pub snapshot: Digest,
    /// What comes next.
    pub next: Next,
}

/// What comes after an attempt of a step.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(tag = "do", rename_all = "camelCase")]
pub enum Next {
    /// The next step of the plan, or the end.
    Proceed,
    /// The same step again.
    Retry,
    /// An earlier step again.
    Backtrack {
        /// The step.
        to: String,
    },
    /// A person decides.
    Wait(Box<Wait>),
    /// The run ends.
    Fail,
}

/// A gate that waits for a person.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Wait {
    /// The gate.
    pub gate: String,
    /// Its kind: of kind `approval` it has not been judged; of any other it failed.
    pub kind: GateKind,
    /// Digest of the document that says what is decided on, stored as a blob. A decision counts for no other.
    pub subject: Digest,
    /// What people are asked, or what failed.
    pub question: String,
    /// What can be decided.
    pub options: Vec<DecisionVerdict>,
    /// The steps that a decision can send the line back to; none where no round is left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub back: Vec<String>,
}

/// How a launch ended.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum Outcome {
    /// Every step finished.
    Succeeded,
    /// The run failed.
    Failed,
    /// The run waits for a person or a budget.
    Waiting,
    /// By order.
    Suspended,
    /// By order.
    Cancelled,
    /// The launch could not go on (SIGTERM, lost workbench); another launch may.
    Interrupted,
}

/// The runner's last words in its termination message, for when the gateway cannot be reached. At most 4096 bytes as JSON.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastWords {
    /// Version of the shape.
    pub version: u32,
    /// How the launch ended.
    pub outcome: Outcome,
    /// Digest of the last snapshot that was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Digest>,
    /// The highest sequence number that the gateway acknowledged.
    pub acknowledged: u64,
    /// What the launch used.
    pub usage: Usage,
    /// Where the outcome is `Failed`; its message is cut to fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Names a gate in messages.
pub fn gate_label(kind: GateKind, name: &str) -> String {
    format!("{}/{name}", kind.as_str())
}
