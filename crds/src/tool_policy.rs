//! `ToolPolicy`: which models, tools, secrets, hosts, images, SOPs and budgets a run may use.

use crate::{
    Money,
    agent_run::{Environment, KeyRef, LocalRef},
    sop_definition::NetworkAccess,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// An endpoint of models.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.provider != 'replay' || has(self.replay)", "message": "an endpoint of provider replay needs the field replay"},
    {"rule": "self.provider == 'replay' || !has(self.replay)", "message": "the field replay belongs to endpoints of provider replay"},
    {"rule": "self.provider != 'azure' || has(self.baseUrl)", "message": "an endpoint of provider azure needs baseUrl, the address of the resource"}
]))]
pub struct Endpoint {
    /// Name of the endpoint.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Which protocol it speaks.
    pub provider: Provider,
    /// Its address, http or https. Default: the provider's public one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://"))]
    pub base_url: Option<String>,
    /// The API version (azure).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub api_version: Option<String>,
    /// The API key. It is mounted into the runner only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<KeyRef>,
    /// Certificates (PEM) of a private authority that the endpoint's certificate is checked against, in a
    /// ConfigMap of the same namespace. Default: the public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<KeyRef>,
    /// Most seconds between two pieces of an answer. Default: the timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub idle_timeout_seconds: Option<u32>,
    /// Most seconds of a request. Default: by environment 30, 60 or 90.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: Option<u32>,
    /// What the alert on latency measures against, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub latency_target_seconds: Option<u32>,
    /// Most requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Where answers come from (replay).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// Models it serves.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub models: Vec<Model>,
}

/// Which protocol an endpoint speaks.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq, Hash)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// `OpenAI`, or anything that speaks its chat completions.
    #[default]
    Openai,
    /// Azure `OpenAI`.
    Azure,
    /// Ollama.
    Ollama,
    /// Groq.
    Groq,
    /// A cassette of recorded answers; no network.
    Replay,
}

impl Provider {
    /// The name as written in a spec and in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Azure => "azure",
            Self::Ollama => "ollama",
            Self::Groq => "groq",
            Self::Replay => "replay",
        }
    }
}

/// Where recorded answers come from.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// ConfigMap in the same namespace; all its keys together are the cassette.
    pub cassette_ref: LocalRef,
    /// What happens when a request differs from the recorded one. Default: strict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ReplayMode>,
}

/// What happens when a request differs from the recorded one.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub enum ReplayMode {
    /// The run fails and shows the difference.
    #[default]
    Strict,
    /// New gates judge recorded artifacts.
    GatesOnly,
    /// Records anew from the first difference on.
    RecordFromDifference,
}

/// Most calls.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Calls a minute.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub per_minute: u32,
    /// Calls at once after a pause. Default: perMinute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
}

/// A model and what it costs.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// Name as the provider knows it.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Names under which roles may ask for it, for example strong, fast, judge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub aliases: Vec<String>,
    /// Name of the deployment (azure). Default: the model's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub deployment: Option<String>,
    /// Tokens that a request and its answer may have together. Default: 128000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 256, max = 100_000_000))]
    pub context_window: Option<u32>,
    /// Most tokens of an answer. Default: 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_output_tokens: Option<u32>,
    /// What it can do: jsonSchema, tools, streaming, reasoning. Default: jsonSchema and streaming.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub capabilities: Vec<String>,
    /// US dollars per million input tokens, as a decimal string. Required where money is bounded, which it
    /// always is by the run's investment; "0" for a local model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_per_million: Option<Money>,
    /// US dollars per million cached input tokens. Default: inputPerMillion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input_per_million: Option<Money>,
    /// US dollars per million output tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_per_million: Option<Money>,
}

/// A tool that roles may call.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "[has(self.builtin), has(self.command), has(self.mcp)].filter(x, x).size() == 1", "message": "a tool needs exactly one of builtin, command and mcp"}]))]
pub struct Tool {
    /// Name of the tool.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// What it does, for models and people. Default: the tool's own documentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
    /// The functions that may be called (MetaGPT: include_functions). Default: none of a class-like tool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "set"))]
    pub include_functions: Vec<String>,
    /// Whether its failures raise an alert. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical: Option<bool>,
    /// Most seconds of a call. Default: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<u32>,
    /// Most calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Most calls of one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_calls: Option<u32>,
    /// Its credential. It is mounted where the tool runs, only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<KeyRef>,
    /// Digest of the list of functions that was approved; another list is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub list_digest: Option<String>,
    /// A tool of Sopwith itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub builtin: Option<String>,
    /// A program in a workbench.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<ToolCommand>,
    /// An MCP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp: Option<McpServer>,
}

/// A program as a tool.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct ToolCommand {
    /// The program and its arguments; each is a minijinja template over `arguments`.
    #[schemars(length(min = 1, max = 64))]
    pub argv: Vec<String>,
    /// JSON Schema of the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "json_object")]
    pub schema: Option<serde_json::Value>,
}

/// An MCP server: by address, or as a container of the run's pod.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.url) != has(self.image)", "message": "an MCP server needs exactly one of url and image"}]))]
pub struct McpServer {
    /// Address of a server that speaks streamable HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://"))]
    pub url: Option<String>,
    /// Image of a server that speaks over stdin and stdout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Its program and arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub argv: Vec<String>,
}

/// A program that actions and gates may run.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct AllowedCommand {
    /// The first words of its argument list; `["pytest"]` allows pytest with any arguments.
    #[schemars(length(min = 1, max = 16))]
    pub argv: Vec<String>,
    /// The most it may reach. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkAccess>,
}

/// A package index that commands may install from.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct AllowedPackages {
    /// Address of the index.
    #[schemars(length(min = 1, max = 2048))]
    pub index: String,
    /// Names of packages; `*` stands for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "set"))]
    pub allow: Vec<String>,
}

/// Git repositories that runs may read and write.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct AllowedGit {
    /// The first part of their addresses.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// The credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<KeyRef>,
    /// Branches that may be written, as patterns. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "set"))]
    pub branches: Vec<String>,
}

/// What a delivery may not touch.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct DeliverRules {
    /// Patterns of paths. Default: CI definitions, CODEOWNERS and submodules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub deny_paths: Vec<String>,
}

/// A host that may be reached.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.host) != has(self.cidr)", "message": "an egress entry needs exactly one of host and cidr"}]))]
pub struct AllowedHost {
    /// Name of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// Range of addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub cidr: Option<String>,
    /// Port. Default: 443.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
}

/// What must be observed.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct Observability {
    /// Whether runs are refused while traces cannot be exported. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
}

/// What only the policy's owner may choose of the run's pod, since each can widen rights.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct PodRules {
    /// Runtime class, for example gvisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
    /// Service account of the pod; its token is never mounted. Default: default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// Secrets for pulling workbench images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub image_pull_secrets: Vec<LocalRef>,
    /// Further labels of the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
    /// Further annotations of the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
}

/// Most tokens and money. Days are UTC.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Budgets {
    /// Tokens a day of all runs under the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub tokens_per_day: Option<u64>,
    /// US dollars a day of all runs under the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_per_day: Option<Money>,
    /// Tokens of one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub tokens_per_run: Option<u64>,
    /// US dollars of one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_per_run: Option<Money>,
    /// What happens to a run whose budget is spent. Default: Fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exhausted: Option<OnExhausted>,
}

/// What happens to a run whose budget is spent.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub enum OnExhausted {
    /// It waits, with everything kept.
    Pause,
    /// It fails, with everything kept.
    #[default]
    Fail,
}

/// Most at once.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Concurrency {
    /// Runs at once; others wait in the order of their creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub runs: Option<u32>,
    /// Requests to models at once, of one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub llm_requests: Option<u32>,
}

/// How approvals count.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Approvals {
    /// How many people must approve. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub count: Option<u32>,
    /// Whether the requester's own approval does not count. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separation_of_duties: Option<bool>,
    /// Seconds after which an unanswered question fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub expires_after_seconds: Option<u32>,
}

/// What is masked before it is stored or logged.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct Redaction {
    /// Patterns that Sopwith brings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub builtin: Vec<BuiltinPattern>,
    /// Patterns of one's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub patterns: Vec<RedactionPattern>,
    /// Whether prompts are masked before they are sent, too. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<bool>,
}

/// Patterns that Sopwith brings.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub enum BuiltinPattern {
    /// Addresses of electronic mail.
    #[default]
    Email,
    /// Telephone numbers.
    Phone,
    /// Numbers of payment cards.
    Card,
    /// International bank account numbers.
    Iban,
    /// IP addresses.
    Ip,
    /// National identity numbers.
    NationalId,
}

/// A pattern of one's own.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct RedactionPattern {
    /// Name of the pattern.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Regular expression in the syntax of the Rust regex crate.
    #[schemars(length(min = 1, max = 1024))]
    pub regex: String,
    /// What stands in its place. Default: the pattern's name in brackets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub replace_with: Option<String>,
}

/// How long evidence is kept.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct Retention {
    /// Days after the end of the run. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36500))]
    pub days: Option<u32>,
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

fn json_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "description": "JSON Schema of the arguments.", "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
