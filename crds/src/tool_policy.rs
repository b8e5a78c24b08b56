//! `ToolPolicy`: which models, tools, secrets, hosts, images, SOPs and budgets a run may use.

mod allowed;
mod bounds;
mod builtin;
mod endpoint;
mod grant;
mod tool;

pub use allowed::{
    AllowedCommand, AllowedGit, AllowedHost, AllowedPackages, DeliverRules, Observability,
};
pub use bounds::{
    Approvals, Budgets, BuiltinPattern, Concurrency, Evidence, OnExhausted, PodRules, Redaction,
    RedactionPattern, Retention, gate_matches,
};
pub use builtin::Builtin;
pub use endpoint::{Endpoint, Model, Provider, RateLimit, Replay, ReplayMode};
pub use grant::{Granted, called, granted, grants_something, wire_name};
pub use tool::{McpServer, Tool, ToolCommand};

use crate::{
    Money,
    agent_run::{Environment, KeyRef},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A ToolPolicy bounds what runs may use. What it does not allow is denied.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[kube(
    group = "sopwith.dev",
    version = "v1alpha1",
    kind = "ToolPolicy",
    plural = "toolpolicies",
    shortname = "tp",
    category = "sopwith",
    namespaced,
    status = "ToolPolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A ToolPolicy says which models, tools, secrets, hosts, images, SOPs and budgets a run may use. What it does not allow is denied. It is live: a narrower policy binds runs in flight at their next launch.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether runs can use it"
    ),
    printcolumn(
        name = "Running",
        type_ = "integer",
        json_path = ".status.running",
        description = "Runs under it that have not ended"
    ),
    printcolumn(
        name = "Tokens Today",
        type_ = "integer",
        json_path = ".status.today.tokens"
    ),
    printcolumn(
        name = "Cost Today",
        type_ = "string",
        json_path = ".status.today.cost"
    ),
    printcolumn(
        name = "Budget Used",
        type_ = "string",
        json_path = ".status.today.ratio",
        description = "Share of the day's budget, 1 is all of it"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Revision",
        type_ = "string",
        json_path = ".status.revision",
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
pub struct ToolPolicySpec {
    /// Environments whose runs may use the policy. Default: dev only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub environments: Vec<Environment>,
    /// SOPs that may be run. Default: every SOP of the namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub sops: Vec<AllowedSop>,
    /// Gates that an SOP must have, as `kind/name` or `kind/*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub required_gates: Vec<String>,
    /// Which evidence counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Endpoints of models, in the order in which they are tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub llm: Vec<Endpoint>,
    /// Tools that roles may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub tools: Vec<Tool>,
    /// Programs that actions and gates may run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub commands: Vec<AllowedCommand>,
    /// Workbench images that may be used: exact names or patterns in which `*` stands for anything but `/`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub images: Vec<String>,
    /// Package indexes that commands with egress may install from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub packages: Vec<AllowedPackages>,
    /// Git repositories that runs may read and write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub git: Vec<AllowedGit>,
    /// What a delivery may not touch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver: Option<DeliverRules>,
    /// Hosts that the run's pod may reach beside the endpoints above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub egress: Vec<AllowedHost>,
    /// What must be observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observability: Option<Observability>,
    /// What only the policy's owner may choose of the run's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRules>,
    /// Most tokens and money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budgets: Option<Budgets>,
    /// Most at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// How approvals count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<Approvals>,
    /// What is masked before it is stored or logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redaction: Option<Redaction>,
    /// How long evidence is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
}

/// The keys of Secrets that endpoints and tools name.
pub fn secrets<'a>(llm: &'a [Endpoint], tools: &'a [Tool]) -> impl Iterator<Item = &'a KeyRef> {
    let endpoints = llm.iter().filter_map(|endpoint| endpoint.secret_ref.as_ref());
    endpoints.chain(tools.iter().filter_map(|tool| tool.secret_ref.as_ref()))
}

/// An SOP that may be run.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct AllowedSop {
    /// Name of the SopDefinition.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The only revision that may be run. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub revision: Option<String>,
}

/// What the operator found out about a policy.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ToolPolicyStatus {
    /// The generation of the spec this status speaks of; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, or Stalled with every mistake the checker found; Reachable once a preflight has run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["type"])))]
    pub conditions: Vec<Condition>,
    /// Digest of the spec, `sha256:` and 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// What was used today (UTC) by all runs under the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub today: Option<Today>,
    /// Runs under it that have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<u32>,
}

/// What was used on a day.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct Today {
    /// The day in UTC, as `2026-01-31`.
    pub date: String,
    /// Input and output tokens.
    pub tokens: u64,
    /// US dollars.
    pub cost: Money,
    /// The larger of the used shares of tokensPerDay and costPerDay, as a decimal string; 1 is all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<String>,
}
