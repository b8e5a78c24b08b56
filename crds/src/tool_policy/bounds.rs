//! What a policy bounds: pod, money, concurrency, approvals, what is kept and how long.

use crate::{Money, agent_run::LocalRef, sop_definition::GateKind, status::Trust};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// How many people must approve, or let a failed gate pass. One who rejects is enough. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub count: Option<u32>,
    /// Whether the requester's own approval does not count; runs must then say who requested them. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub separation_of_duties: Option<bool>,
    /// Seconds after which a question that was not answered counts as rejected. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub expires_after_seconds: Option<u32>,
}

/// Which evidence counts: not every gate that must be there has to be beyond doubt, but these must.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq, Eq)]
#[schemars(transform = crate::leave_description_to_fields)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The least that the evidence of these gates is to be trusted: `external` leaves out what the judged code could have
    /// influenced, `human` all that people have not decided.
    pub minimum_trust: Trust,
    /// Gates, as `kind/name` or `kind/*`. Each must be in the SOP, and a run only succeeds after it has passed. Default:
    /// requiredGates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub gates: Vec<String>,
}

/// Whether a gate is meant by `kind/name` or `kind/*`.
pub fn gate_matches(pattern: &str, kind: GateKind, name: &str) -> bool {
    pattern
        .split_once('/')
        .is_some_and(|(of, named)| of == kind.as_str() && (named == "*" || named == name))
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
