//! The status of an `AgentRun`: what the operator observed, in references and digests.

use crate::{Money, agent_run::DecisionVerdict, sop_definition::GateKind};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the operator observed of a run. Nobody else writes it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AgentRunStatus {
    /// The generation of the spec this status speaks of; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the run stands, in one word for people. Derived from the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Finished, Succeeded, Ready, Reconciling, Stalled, AwaitingApproval, StepStuck, BudgetExhausted, Suspended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["type"])))]
    pub conditions: Vec<Condition>,
    /// The procedure as it was frozen into the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sop: Option<Revision>,
    /// The policy as it was at the last launch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Revision>,
    /// Whether recorded answers may stand in for models. Such a run shows what its procedure does, and nothing of what models do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<bool>,
    /// The frozen plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanRef>,
    /// Number of the newest launch; 0 before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<u32>,
    /// Job of the newest launch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// Trace of the run, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The step at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_step: Option<String>,
    /// Finished or skipped steps of all steps, as `3/5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Passes forward through the procedure, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<u32>,
    /// The steps in the order of the plan, each with its latest attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub steps: Vec<StepStatus>,
    /// What became of the newest decisions of `spec.decisions`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["step", "gate", "attempt", "by"])))]
    pub decisions: Vec<DecisionStatus>,
    /// What all launches have used, failed attempts included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The earlier run that this one begins with (`spec.project.source.run`, `spec.recoverFrom`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited: Option<Box<Inherited>>,
    /// The Git repository that the run works on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryStatus>,
    /// What an incremental run is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incremental: Option<IncrementalStatus>,
    /// Digest of the newest snapshot, from which the run can be resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Digest of the dossier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dossier: Option<String>,
    /// Head and length of the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditHead>,
    /// Why the run failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When the first step started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the run reached its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

/// The earlier run that a run begins with.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct Inherited {
    /// Name of the AgentRun.
    pub run: String,
    /// Its UID.
    pub uid: String,
    /// Digest of the snapshot that was taken over.
    pub snapshot: String,
    /// The step after which that was taken, where the run recovers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What becomes of the gates of the steps that were finished there, where the run recovers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gates: Option<InheritedGates>,
    /// What the earlier run had used up to there, where the run recovers. It was booked then: it counts neither against this
    /// run's investment nor against the day's budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What becomes of the gates of steps that an earlier run finished.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub enum InheritedGates {
    /// Their verdicts stand: the earlier run had the same procedure, idea, inputs, parameters and options.
    TakenOver,
    /// Each is judged again over what the steps left.
    #[default]
    JudgedAgain,
}

/// What an incremental run is about.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct IncrementalStatus {
    /// What the idea is: a new requirement, or a bug report.
    pub kind: IdeaKind,
    /// Why, in the words of the model that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The file of the project that the idea was written to.
    pub path: String,
    /// How many files people had edited where they may since the last run: inputs of this one.
    pub edited_files: u32,
    /// How many files people had edited although steps derive them; an Event and the run's messages name them.
    pub derived_files: u32,
}

/// What the idea of an incremental run is.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord,
)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "lowercase")]
pub enum IdeaKind {
    /// Something new, or another behaviour.
    #[default]
    Requirement,
    /// Something that does not work as it was meant to.
    Bug,
}

impl IdeaKind {
    /// As expressions and templates see it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requirement => "requirement",
            Self::Bug => "bug",
        }
    }
}

/// A Git repository that a run works on.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct RepositoryStatus {
    /// Its address.
    pub url: String,
    /// The commit that the run began from, 40 hexadecimal digits; every launch works on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The branch that received the run's commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The commit that the branch is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<String>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
#[schemars(transform = crate::leave_description_to_fields)]
pub enum Phase {
    /// No step has started yet; the `Reconciling` condition says what it waits for.
    #[default]
    Pending,
    /// Steps are at work.
    Running,
    /// Waits for a person, a budget or an approval.
    Waiting,
    /// Suspended by its spec.
    Suspended,
    /// Every step finished and every gate passed or was waived.
    Succeeded,
    /// Ended without success; see `failure`.
    Failed,
    /// Ended by its spec.
    Cancelled,
}

impl Phase {
    /// All phases, for metrics that must show a zero.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Running,
        Self::Waiting,
        Self::Suspended,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Whether the run has reached its end.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A named object at a revision.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct Revision {
    /// Name of the object.
    pub name: String,
    /// Digest of its spec, `sha256:` and 64 hexadecimal digits.
    pub revision: String,
}

/// Where the frozen plan is.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct PlanRef {
    /// The immutable ConfigMap that holds it, owned by the run.
    pub config_map: String,
    /// Digest of the plan, `sha256:` and 64 hexadecimal digits.
    pub digest: String,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub enum StepPhase {
    /// Not yet its turn.
    #[default]
    Pending,
    /// At work.
    Running,
    /// Waits for a person.
    Waiting,
    /// Its gates passed or were waived.
    Succeeded,
    /// A gate or an action failed and no way forward was left.
    Failed,
    /// Its `when` was false.
    Skipped,
}

/// The latest attempt of a step; earlier ones are in the run's log.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Name of the step.
    pub name: String,
    /// The role that does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Where the step stands.
    pub phase: StepPhase,
    /// Attempts so far, the present one included.
    #[serde(default)]
    pub attempts: u32,
    /// Why the attempt before this one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_failure: Option<String>,
    /// When the latest attempt started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the latest attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Tokens of all attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    /// US dollars of all attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Money>,
    /// Commit of the project after the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// What happened last, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What the step handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<ArtifactsRef>,
    /// The gates judged in the latest attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub gates: Vec<GateStatus>,
}

/// Token counts.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct Tokens {
    /// Tokens sent to models.
    pub input: u64,
    /// Tokens received from models.
    pub output: u64,
}

/// What a step handed over.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct ArtifactsRef {
    /// Digest of the list of files and their digests.
    pub manifest: String,
    /// How many files it lists.
    pub count: u32,
}

/// What a gate found.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
#[schemars(transform = crate::leave_description_to_fields)]
pub enum Verdict {
    /// Not judged yet.
    #[default]
    Pending,
    /// Its condition held.
    Passed,
    /// Its condition did not hold, or could not be judged.
    Failed,
    /// Failed, and a person let the line go on.
    Waived,
    /// Does not apply to this run.
    Skipped,
}

/// How far the evidence of a verdict can be trusted, the least first.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, PartialOrd, Ord,
)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub enum Trust {
    /// The judged code ran beside its judge and could have influenced it.
    InProcess,
    /// The judge was out of reach of what it judged.
    #[default]
    External,
    /// A person judged.
    Human,
}

impl Trust {
    /// The name as written in a spec and in status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InProcess => "inProcess",
            Self::External => "external",
            Self::Human => "human",
        }
    }
}

/// The verdict of one gate and what it rests on.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// Name of the gate.
    pub name: String,
    /// Kind of the gate.
    pub kind: GateKind,
    /// What it found.
    pub verdict: Verdict,
    /// What was observed, for people: `coverage 0.91, 23 tests passed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<String>,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<String>,
    /// Digest of the evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// How far the evidence can be trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// Who decided, where a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// When it was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

/// What became of a decision.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct DecisionStatus {
    /// The step it names.
    pub step: String,
    /// The gate it names.
    pub gate: String,
    /// The attempt it names.
    pub attempt: u32,
    /// Who decided.
    pub by: String,
    /// What was decided.
    pub verdict: DecisionVerdict,
    /// Whether it counts.
    pub counts: bool,
    /// Why it does not, or what it adds up to.
    pub message: String,
}

/// What was used. Failed attempts count.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Requests made to models.
    pub llm_requests: u64,
    /// Requests to models that failed.
    pub llm_errors: u64,
    /// Tokens sent to models.
    pub input_tokens: u64,
    /// Tokens received from models.
    pub output_tokens: u64,
    /// Input and output tokens together.
    pub total_tokens: u64,
    /// US dollars.
    pub cost: Money,
    /// Calls of tools.
    pub tool_calls: u64,
    /// Calls of tools that failed.
    pub tool_failures: u64,
}

impl Usage {
    /// Adds what another launch or step used.
    pub fn add(&mut self, other: &Self) {
        self.llm_requests += other.llm_requests;
        self.llm_errors += other.llm_errors;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.total_tokens += other.total_tokens;
        self.cost += other.cost;
        self.tool_calls += other.tool_calls;
        self.tool_failures += other.tool_failures;
    }
}

/// Head and length of the audit log.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct AuditHead {
    /// Digest of the newest record.
    pub head: String,
    /// Number of records.
    pub length: u64,
}

/// Why a run failed. The set is API: alerts and pipelines match on it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
#[schemars(transform = crate::leave_description_to_fields)]
pub enum FailureReason {
    /// The procedure, policy and options do not make a plan.
    InvalidPlan,
    /// The plan does not fit into a ConfigMap.
    PlanTooLarge,
    /// The policy does not allow what the run asks for.
    PolicyDenied,
    /// The existing project that the run begins with cannot be had, or is not as the run needs it.
    ProjectUnavailable,
    /// The commits could not be pushed; the run keeps them.
    DeliveryFailed,
    /// A gate failed and no way forward was left.
    GateFailed,
    /// A person rejected.
    Rejected,
    /// A backtrack was needed and no round was left.
    RoundsExhausted,
    /// The investment or a budget of the policy is spent.
    BudgetExhausted,
    /// A step, action or command took too long.
    StepTimeout,
    /// The run's working time is over.
    DeadlineExceeded,
    /// The first step did not start in time.
    StartDeadlineExceeded,
    /// No model answered.
    ProviderFailed,
    /// The runner went away without a last word, too often.
    RunnerLost,
    /// The node went away.
    NodeLost,
    /// Cancelled by its spec.
    Cancelled,
    /// A fault of Sopwith itself.
    #[default]
    Internal,
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a run failed.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct Failure {
    /// Machine-readable reason.
    pub reason: FailureReason,
    /// The step at work, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What happened and what to do, for people.
    pub message: String,
}

impl fmt::Display for GateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
