//! The API of Sopwith: its three kinds, the contracts between its processes, and the checker that all of them share.
//!
//! Everything here is pure: no client, no clock, no file system.

// Clippy takes the keys of kube's `printcolumn` lists for repeated attributes.
#![allow(clippy::duplicated_attributes)]

pub mod agent_run;
pub mod check;
pub mod conditions;
pub mod contract;
pub mod language;
pub mod manifest;
pub mod money;
pub mod plan;
pub mod sop_definition;
pub mod status;
pub mod tool_policy;

pub use agent_run::{AgentRun, AgentRunSpec};
pub use money::Money;
pub use sop_definition::{SopDefinition, SopDefinitionSpec};
pub use status::AgentRunStatus;
pub use tool_policy::{ToolPolicy, ToolPolicySpec};

/// The API group of all kinds.
pub const GROUP: &str = "sopwith.dev";
/// Label on every object made for a run: the name of the `AgentRun`.
pub const RUN_LABEL: &str = "sopwith.dev/run";
/// Label on every Job and pod of a run: the launch it belongs to.
pub const LAUNCH_LABEL: &str = "sopwith.dev/launch";
/// Audience of the token with which a runner speaks to the gateway.
pub const GATEWAY_AUDIENCE: &str = "gateway.sopwith.dev";
/// The name of the `ToolPolicy` that a run without `toolPolicyRef` uses.
pub const DEFAULT_POLICY: &str = "default";

/// The keys of a list that is a map for server-side apply, for `extend` attributes.
pub(crate) fn keys(keys: &[&str]) -> serde_json::Value {
    keys.into()
}

/// Takes a type's own description out of its schema. Kubernetes inlines types, and the type's words would stand where
/// those of the field belong, with its default.
pub(crate) fn leave_description_to_fields(schema: &mut schemars::Schema) {
    schema.remove("description");
}
