//! Programs, packages, repositories and hosts that a run may use.

use crate::{
    agent_run::{KeyRef, LocalRef},
    sop_definition::NetworkAccess,
};
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
    /// The first part of their addresses, https or ssh, whole parts of the path at a time: `https://git.example.com/team`.
    /// Where several entries fit, the longest counts.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// The Secret with the credential, mounted in the runner only. For https: the key `password`, with `username` beside it
    /// or not, or the key `token`, which is sent as a bearer token. For ssh: the keys `ssh-privatekey` and `known_hosts`;
    /// a host that is not in `known_hosts` is not spoken to. Default: none, as for public repositories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,
    /// A key of a ConfigMap with the certificate authorities (PEM) that the server is checked against, in place of the
    /// public ones. For https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<KeyRef>,
    /// Branches that may be written, as patterns in which `*` stops at a slash and `**` does not. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "set"))]
    pub branches: Vec<String>,
}

/// What a delivery may not touch: a step that writes it fails.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct DeliverRules {
    /// Patterns of paths in which `*` stops at a slash and `**` does not. They are denied beside what always is:
    /// definitions of pipelines (`.github/workflows/**`, `.gitlab-ci.yml`, `Jenkinsfile` …), `CODEOWNERS` and `.gitmodules`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub deny_paths: Vec<String>,
    /// Patterns of paths that may be written although they would be denied, for example `.github/workflows/docs.yml`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub allow_paths: Vec<String>,
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
