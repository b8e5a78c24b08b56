//! Tools that roles may call.

use super::RateLimit;
use crate::agent_run::KeyRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

fn json_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "description": "JSON Schema of the arguments.", "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
