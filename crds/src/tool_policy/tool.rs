//! Tools that roles may call.

use super::{Builtin, RateLimit};
use crate::agent_run::KeyRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A tool that roles may call.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "[has(self.builtin), has(self.command), has(self.mcp)].filter(x, x).size() == 1", "message": "a tool needs exactly one of builtin, command and mcp"}]))]
pub struct Tool {
    /// Name of the tool. It is what models call it, so it has letters, digits, `_` and `-` only.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[a-zA-Z0-9_-]+$"))]
    pub name: String,
    /// What it does, for models and people. Default: the tool's own documentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Words to find it by, and by which roles can be granted all tools that have one (`tag:WORD`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
    /// The functions of an MCP server that may be called (MetaGPT: include_functions). Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "set"))]
    pub include_functions: Vec<String>,
    /// Whether its failures raise an alert. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical: Option<bool>,
    /// Most seconds of a call, and of the wait for its turn where there is a rateLimit. Default: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout_seconds: Option<u32>,
    /// Most calls of one run in a time. A call waits for its turn, at most timeoutSeconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Most calls of one run, over all its launches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_calls: Option<u32>,
    /// Its credential, of an MCP server: sent as a bearer token. It is mounted into the runner only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<KeyRef>,
    /// Digest of the server's list of functions as it was approved, with their descriptions and schemas; the tool is
    /// refused while the server has another list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub list_digest: Option<String>,
    /// A tool of Sopwith itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Builtin>,
    /// A program in a workbench.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<ToolCommand>,
    /// An MCP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp: Option<McpServer>,
}

/// A program in a workbench as a tool. Its result is its exit code and its output.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[schemars(transform = crate::leave_description_to_fields)]
pub struct ToolCommand {
    /// The program and its arguments; no shell is involved. Each but the first is a minijinja template over `arguments`.
    /// All arguments are on standard input, too, as one JSON document.
    #[schemars(length(min = 1, max = 64))]
    pub argv: Vec<String>,
    /// The workbench's image. The policy that has the tool allows it.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// Patterns of files that are taken from the workbench into the project afterwards, as far as the step may write them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub collect: Vec<String>,
    /// JSON Schema of the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "json_object")]
    pub schema: Option<serde_json::Value>,
}

/// An MCP server: by address, or as a container of the run's pod.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.url) != has(self.image)", "message": "an MCP server needs exactly one of url and image"}]))]
pub struct McpServer {
    /// Address of a server that speaks streamable HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://"))]
    pub url: Option<String>,
    /// Certificates (PEM) of a private authority that the server's certificate is checked against, in a ConfigMap of
    /// the same namespace. Default: the public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<KeyRef>,
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
