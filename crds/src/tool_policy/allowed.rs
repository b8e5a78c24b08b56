//! Programs, packages, repositories and hosts that a run may use.

use crate::{agent_run::KeyRef, sop_definition::NetworkAccess};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
