//! `AgentRun`: one execution of a Standard Operating Procedure.

use crate::{Money, status::AgentRunStatus};
use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// An AgentRun executes a SopDefinition once: an idea, a procedure, a policy and options.
///
/// The spec cannot be changed after creation, but for `suspend`, `cancel`, `decisions` and
/// `ttlSecondsAfterFinished`; `investment` may be raised. To run again, create a new AgentRun. `kubectl sop init` writes a
/// template of one, with its ToolPolicy (MetaGPT: init-config).
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[kube(
    group = "sopwith.dev",
    version = "v1alpha1",
    kind = "AgentRun",
    plural = "agentruns",
    shortname = "ar",
    category = "sopwith",
    namespaced,
    status = "AgentRunStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "An AgentRun executes a SopDefinition once: an idea, a procedure, a policy and options. The spec cannot be changed after creation, but for suspend, cancel, decisions and ttlSecondsAfterFinished; investment may be raised. To run again, create a new AgentRun. `kubectl sop init` writes a template of one, with its ToolPolicy (MetaGPT: init-config).",
    printcolumn(
        name = "SOP",
        type_ = "string",
        json_path = ".spec.sopRef.name",
        description = "The procedure that is executed"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Where the run stands"
    ),
    printcolumn(
        name = "Step",
        type_ = "string",
        json_path = ".status.currentStep",
        description = "The step at work"
    ),
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = ".status.progress",
        description = "Finished steps of all steps"
    ),
    printcolumn(
        name = "Tokens",
        type_ = "integer",
        json_path = ".status.usage.totalTokens",
        description = "Input and output tokens so far"
    ),
    printcolumn(
        name = "Cost",
        type_ = "string",
        json_path = ".status.usage.cost",
        description = "US dollars spent so far"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Round",
        type_ = "integer",
        json_path = ".status.round",
        priority = "1",
        description = "Passes forward through the procedure"
    ),
    printcolumn(
        name = "Launch",
        type_ = "integer",
        json_path = ".status.launch",
        priority = "1",
        description = "Jobs started for this run"
    ),
    printcolumn(
        name = "Policy",
        type_ = "string",
        json_path = ".status.policy.name",
        priority = "1"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = "1"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = "1"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct AgentRunSpec {
    /// The requirement that starts the run, in one line or a few (MetaGPT: idea). Either this or `ideaFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub idea: Option<String>,
    /// Takes the idea from a key of a ConfigMap in the run's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idea_from: Option<ValueSource>,
    /// Named texts that steps may use beside the idea: constraints, non-functional requirements, estimates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub inputs: Vec<RunInput>,
    /// The SopDefinition to execute, in the run's namespace.
    pub sop_ref: LocalRef,
    /// The ToolPolicy that bounds the run, in the run's namespace. Default: the policy named `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_policy_ref: Option<LocalRef>,
    /// Where the run belongs to: decides defaults and what its policy must demand. Default: dev.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// A model name or alias of the policy, used where a role names none. Default: the policy's first model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub model: Option<String>,
    /// The form in which models are asked to answer prompts that have a schema or name their files (MetaGPT: prompt_schema).
    /// Default: json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_schema: Option<PromptSchema>,
    /// Keeps facts across the runs of a project, which are the runs of this namespace with the same name of the project that set
    /// this, too (MetaGPT: enable_longterm_memory). When it is planned the run recalls what earlier ones left, nearest to its idea
    /// first: roles are told of it, templates and expressions see it as `recalled`, the trace says it. If it succeeds, it leaves
    /// its idea, the last word of each role on each action and what gates found, for as long as evidence is kept. Who creates it
    /// must be allowed to read what runs of the namespace left (`get` on `agentruns/dossier`). Needs `project.name`, or a run
    /// to begin with. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_term_memory: Option<bool>,
    /// Feature switches by name. None is defined in this version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub features: BTreeMap<String, bool>,
    /// Money the run may spend, in US dollars, as a decimal string (MetaGPT: investment). Default: "3.0".
    /// May be raised while the run is alive, by those who may approve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub investment: Option<Money>,
    /// Passes forward through the procedure; every backtrack begins a new one (MetaGPT: n-round).
    /// Default: 5; with `runTests` at least 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub rounds: Option<u32>,
    /// Reviews code inside the procedure (MetaGPT: code-review). Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_review: Option<bool>,
    /// Writes and runs tests (MetaGPT: run-tests). Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_tests: Option<bool>,
    /// Writes code; false stops at design and tasks (MetaGPT: implement). Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implement: Option<bool>,
    /// Works on an existing project and leaves what it does not touch as it was (MetaGPT: inc). The idea is taken for a new
    /// requirement or for a bug report, which the procedure sees as `incremental.kind`. Needs `project.source` or `recoverFrom`.
    /// Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incremental: Option<bool>,
    /// Most passes of summarising and repairing code (MetaGPT: max-auto-summarize-code). The procedure sees it as
    /// `options.maxAutoSummarizeCode` and uses it as the `max` of a loop: 0 leaves the loop out, -1 leaves it to the 100 passes
    /// that any loop may have, to rounds and to the budget. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1, max = 100))]
    pub max_auto_summarize_code: Option<i32>,
    /// The file whose QA code is written anew, a path from the root of the existing project (MetaGPT: reqa-file). The procedure
    /// sees it as `options.reqaFile`. Belongs to incremental runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub reqa_file: Option<String>,
    /// The project the run works on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Project>,
    /// Begins from the state of another run at a finished step (MetaGPT: recover-path). What that run had used is shown as
    /// inherited and counts neither against this run's investment nor against the day's budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover_from: Option<RecoverFrom>,
    /// Values for the parameters that the SopDefinition declares.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub parameters: BTreeMap<String, String>,
    /// Who asked for the run. Admission proves it: left out, or the name of the user who creates the object, as
    /// `kubectl auth whoami` shows it. Left out, nobody can be told apart from who approves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub requested_by: Option<String>,
    /// The change record the run belongs to, for example a ticket number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub change_ref: Option<String>,
    /// Stops the run at the next safe point and keeps everything; false goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Ends the run. Cannot be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<bool>,
    /// Decisions of people on gates that wait. One can be added at a time, none at creation; none can be changed or removed.
    /// Their order means nothing. The list is always there, if empty, so that a JSON patch can add to it.
    #[serde(default)]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["step", "gate", "attempt", "by"])))]
    pub decisions: Vec<Decision>,
    /// Where and with what resources the run's pod works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<RunnerPod>,
    /// Most working time in seconds; queueing and human waits do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub deadline_seconds: Option<u32>,
    /// Most seconds from creation to the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub start_deadline_seconds: Option<u32>,
    /// Deletes the finished run after this many seconds. Not honoured on objects that a GitOps tool
    /// tracks: it would create and pay for the run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<u32>,
}

/// Names an object of a known kind in the same namespace.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct LocalRef {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::OBJECT_NAME))]
    pub name: String,
}

/// Where a value comes from.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct ValueSource {
    /// A key of a ConfigMap in the run's namespace.
    pub config_map_key_ref: KeyRef,
}

/// A key of a ConfigMap or Secret in the same namespace.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct KeyRef {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::OBJECT_NAME))]
    pub name: String,
    /// Key in its data.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// A named text for the steps. Either `value` or `configMapKeyRef`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.value) != has(self.configMapKeyRef)", "message": "an input needs exactly one of value and configMapKeyRef"}]))]
pub struct RunInput {
    /// Name under which templates and expressions see it, as `inputs.NAME`.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$")
    )]
    pub name: String,
    /// The text itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub value: Option<String>,
    /// A key of a ConfigMap that holds the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
}

/// Where a run belongs to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Development.
    #[default]
    Dev,
    /// Staging.
    Staging,
    /// Production.
    Prod,
}

impl Environment {
    /// The name as written in a spec and in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Staging => "staging",
            Self::Prod => "prod",
        }
    }
}

/// The form in which models are asked to answer.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "lowercase")]
pub enum PromptSchema {
    /// JSON that is validated against a schema.
    #[default]
    Json,
    /// Markdown with a heading for each property of the schema. It is read into the same JSON and validated against the
    /// same schema.
    Markdown,
}

/// The project a run works on.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    /// Names the project and its output directory (MetaGPT: project-name). Default: the name of the project of the earlier
    /// run that this one begins with, else the run's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?$")
    )]
    pub name: Option<String>,
    /// Where the existing project comes from (MetaGPT: project-path).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ProjectSource>,
    /// Where the result is delivered to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver: Option<Delivery>,
}

/// Where an existing project comes from: exactly one of the fields.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct ProjectSource {
    /// A Git repository that the policy allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
    /// Name of an AgentRun in the same namespace, whose project is taken over as that run leaves it; this run waits for its
    /// end. Who creates this run must be allowed to read what that one left (`get` on `agentruns/dossier`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::OBJECT_NAME))]
    pub run: Option<String>,
    /// Digest of a folder that was uploaded into the run's namespace with `kubectl sop push`, `sha256:` and 64 hexadecimal
    /// digits. Uploads are kept for 7 days; the first launch of a run takes its own copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub upload: Option<String>,
}

/// As expressions and templates see it: the address and `@` before the revision, `run` and its name, or the digest.
impl fmt::Display for ProjectSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.git, &self.run, &self.upload) {
            (Some(git), _, _) => match &git.reference {
                Some(reference) => write!(f, "{}@{reference}", git.url),
                None => f.write_str(&git.url),
            },
            (None, Some(run), _) => write!(f, "run {run}"),
            (None, None, upload) => f.write_str(upload.as_deref().unwrap_or_default()),
        }
    }
}

/// A Git repository at a revision.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct GitSource {
    /// Address of the repository (https or ssh), without credentials: those come from the policy.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// Branch, tag or commit. Default: the repository's default branch.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub reference: Option<String>,
}

/// Where a result is delivered to.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct Delivery {
    /// A branch of the source repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitDelivery>,
}

/// A branch that receives the result, a commit a step.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct GitDelivery {
    /// Name of the branch.
    #[schemars(length(min = 1, max = 256))]
    pub branch: String,
}

/// The state a run begins from.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct RecoverFrom {
    /// Name of an AgentRun in the same namespace. Who creates this run must be allowed to read what that one left (`get` on
    /// `agentruns/dossier`).
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::OBJECT_NAME))]
    pub run: String,
    /// A step that it finished; what came after it is left behind. Default: the last one that it finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub step: Option<String>,
}

/// As expressions and templates see it: the run, and after a slash the step where one is named.
impl fmt::Display for RecoverFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Some(step) => write!(f, "{}/{step}", self.run),
            None => f.write_str(&self.run),
        }
    }
}

/// What a person decided on a gate that waits.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// The step that waits.
    #[schemars(length(min = 1, max = 63))]
    pub step: String,
    /// The gate that waits.
    #[schemars(length(min = 1, max = 63))]
    pub gate: String,
    /// The attempt of the step that is decided on, counted from 1. A decision counts for no other.
    #[schemars(range(min = 1, max = 10000))]
    pub attempt: u32,
    /// Digest of what is decided on, as the condition AwaitingApproval gives it. A decision counts for no other.
    #[schemars(length(min = 71, max = 71), regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub subject: String,
    /// What was decided.
    pub verdict: DecisionVerdict,
    /// With `Backtrack`: the step to go back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub to: Option<String>,
    /// Who decided. Admission proves it: it must be the name of the user who makes the request.
    #[schemars(length(min = 1, max = 256))]
    pub by: String,
    /// Why, for people and auditors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub reason: Option<String>,
    /// When, RFC 3339, by the clock of who decided. What counts is when the operator saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub at: Option<String>,
}

/// What a person can decide.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub enum DecisionVerdict {
    /// Of an approval gate: it passes.
    #[default]
    Approve,
    /// Of an approval gate: it fails, and its `onFailure` rules say what follows.
    Reject,
    /// Of a gate that failed and asks: goes on all the same; the verdict becomes Waived.
    Proceed,
    /// Of a gate that failed and asks: the step is tried again.
    Retry,
    /// Of a gate that failed and asks: goes back to the step named by `to`.
    Backtrack,
    /// Of a gate that failed and asks: the run ends.
    Cancel,
}

/// Where and with what resources the run's pod works.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct RunnerPod {
    /// Resources of each workbench container, where commands run.
    /// Default: requests 500m CPU and 1 GiB, limits 2 CPU and 4 GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints the pod tolerates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Priority class of the pod. Not one of the system's own, which push other pods off their nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::OBJECT_NAME), extend("x-kubernetes-validations" = [{"rule": "!self.startsWith('system-')", "message": "the system's own priority classes are not for runs"}]))]
    pub priority_class_name: Option<String>,
    /// Queue of a job queueing system (Kueue); the Job starts suspended and is admitted by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub queue_name: Option<String>,
}
