//! `SopDefinition`: who does what, what each step hands over, and what must be true before the line moves on.

mod gate;
mod step;

pub use gate::{
    AfterFailure, ApprovalGate, Canary, CommandGate, ComplianceGate, FailureAction, FailureRule,
    Gate, GateKind, Measure, Report, ReportFormat, ReviewCriterion, ReviewGate, SchemaGate,
    SectionsGate, Workspace,
};
pub use step::{
    Action, Artifact, ArtifactRef, Command, Loop, LoopAction, NetworkAccess, OnStuck, Prompt,
    PromptWrites, Raci, Render, Step, ToolCall, Work,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A SopDefinition is a Standard Operating Procedure: roles, steps, contracts and gates.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[kube(
    group = "sopwith.dev",
    version = "v1alpha1",
    kind = "SopDefinition",
    plural = "sopdefinitions",
    shortname = "sop",
    category = "sopwith",
    namespaced,
    status = "SopDefinitionStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A SopDefinition is a Standard Operating Procedure: roles, steps, contracts and gates. Each AgentRun freezes the procedure it starts with; a later change affects later runs only.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the procedure can be run"
    ),
    printcolumn(name = "Steps", type_ = "integer", json_path = ".status.steps"),
    printcolumn(name = "Roles", type_ = "integer", json_path = ".status.roles"),
    printcolumn(
        name = "Running",
        type_ = "integer",
        json_path = ".status.runsInFlight",
        description = "Runs of it that have not ended"
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
pub struct SopDefinitionSpec {
    /// What a run may set when it uses this procedure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub parameters: Vec<Parameter>,
    /// Places of the project by name, used as `layout.NAME` in paths and templates, for example
    /// `prds: docs/prds`. Default: the places of MetaGPT's layout.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub layout: BTreeMap<String, String>,
    /// Texts in minijinja (Jinja2) by name, used by prompts and `render`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub templates: BTreeMap<String, String>,
    /// JSON Schemas by name, used by prompts, artifacts and gates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "json_objects")]
    pub schemas: BTreeMap<String, serde_json::Value>,
    /// ConfigMaps in the same namespace whose keys are further templates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub templates_from: Vec<ConfigMapRef>,
    /// Who works.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub roles: Vec<Role>,
    /// What is done, one step at a time in the order of their needs.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["name"])))]
    pub steps: Vec<Step>,
}

/// A value that a run may set.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct Parameter {
    /// Name, used as `parameters.NAME`.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$")
    )]
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Used where the run sets nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub default: Option<String>,
    /// Whether a run must set it. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
}

/// A ConfigMap in the same namespace.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapRef {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::OBJECT_NAME))]
    pub config_map: String,
}

/// Somebody of the team: a model with a profile.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// Name of the role.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// What it is, as `Product Manager`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub profile: Option<String>,
    /// What it is to reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub goal: Option<String>,
    /// What it has to keep to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub constraints: Option<String>,
    /// How it chooses among the actions of a step (MetaGPT: react_mode of a role). Default: ByOrder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub react_mode: Option<ReactMode>,
    /// What it remembers of the run. With it, prompts whose templates do not show `messages` themselves end with those that its
    /// memory holds. Default: nothing is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// A model name or alias of the policy. Default: the run's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub model: Option<String>,
    /// Sampling temperature from "0" to "2", as a decimal string. Default: the provider's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6), regex(pattern = r"^[0-2](\.[0-9]{1,4})?$"))]
    pub temperature: Option<String>,
    /// Most tokens of one answer. Default: the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_output_tokens: Option<u32>,
    /// Tools of the policy that it may call: names, `NAME/FUNCTION` for one function of an MCP server, or `tag:WORD` for
    /// every tool with that tag. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub tools: Vec<String>,
    /// Most turns in one action: questions to the model, each of which it can answer with calls of tools. In the last
    /// one it can call none. With `reactMode: Free` also the most actions that it picks in one attempt of a step, from 2
    /// (MetaGPT: max_react_loop). Default: 1; with tools 10; for picks 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 200))]
    pub max_turns: Option<u32>,
}

impl Role {
    /// Whether its model picks the actions of a step.
    pub fn picks(&self) -> bool {
        self.react_mode == Some(ReactMode::Free)
    }
}

/// How a role chooses among its actions.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub enum ReactMode {
    /// In the order they are written (MetaGPT: BY_ORDER).
    #[default]
    ByOrder,
    /// Before each action the model picks the next of those whose `when` holds, or says that it is done (MetaGPT: REACT). Then
    /// the step's outputs must be there, and its gates judge. At most `maxTurns` actions in an attempt; an action is not done
    /// again while nothing in the project has changed since. Gates of its actions cannot ask people.
    Free,
}

impl ReactMode {
    /// The place of the question which action is next, in the trace and in cassettes: no action of such a step has this name.
    pub const CHOICE: &str = "react";
    /// What a role says that has nothing more to do: no action of such a step has this name.
    pub const DONE: &str = "done";
}

/// What a role remembers.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct Memory {
    /// How many of the newest messages addressed to it a prompt sees, as `messages` (MetaGPT: memory of a role). A message is
    /// addressed to the roles whose steps need the step it comes from or take its outputs, and to those that RACI names as
    /// consulted or informed; what a gate found goes to who has to mend it. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub window: Option<u32>,
}

/// What the operator found out about a procedure.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SopDefinitionStatus {
    /// The generation of the spec this status speaks of; -1 until the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, or Stalled with every mistake the checker found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = crate::keys(&["type"])))]
    pub conditions: Vec<Condition>,
    /// Digest of the spec, `sha256:` and 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// How many steps it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// How many roles it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<u32>,
    /// Runs of it that have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs_in_flight: Option<u32>,
}

fn json_objects(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "description": "JSON Schemas by name, used by prompts, artifacts and gates.",
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": { "type": "object", "x-kubernetes-preserve-unknown-fields": true }
    })
}
