//! The frozen plan of a run: everything the runner needs to know, nothing that may change.

use super::{Digest, memory::Recalled};
use crate::{
    Money,
    agent_run::{Environment, KeyRef, PromptSchema},
    repository::RepositoryUrl,
    sop_definition::{Role, Step},
    status::{InheritedGates, Revision, Usage},
    tool_policy::{Budgets, Endpoint, Evidence, Tool},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Key of the ConfigMap that holds the gzipped JSON of the plan.
pub const PLAN_KEY: &str = "plan.json.gz";
/// Key of the ConfigMap that holds the certificate authority of the gateway (PEM).
pub const CA_KEY: &str = "ca.crt";
/// Folder in the runner container where the plan's ConfigMap is mounted.
pub const PLAN_DIR: &str = "/etc/sopwith/plan";
/// Folder below which Secrets are mounted, each in a folder of its own name, in the runner container only.
pub const SECRETS_DIR: &str = "/etc/sopwith/secrets";
/// Folder below which cassettes and certificate authorities are mounted, each ConfigMap in a folder of its own name.
pub const CONFIG_DIR: &str = "/etc/sopwith/config";
/// File with the token for the gateway.
pub const TOKEN_FILE: &str = "/var/run/secrets/sopwith.dev/token";
/// Folder with the sockets of the workbenches, shared by the runner and the workbenches.
pub const SOCKETS_DIR: &str = "/run/sopwith";
/// Folder with the injected binary `runner`, read-only in the workbenches.
pub const BIN_DIR: &str = "/sopwith";
/// Folder in a workbench where the tree is laid out.
pub const WORK_DIR: &str = "/workspace";
/// Variable of the runner container: address of the gateway.
pub const GATEWAY_URL_VARIABLE: &str = "SOPWITH_GATEWAY_URL";
/// Variable of the runner container: number of the launch.
pub const LAUNCH_VARIABLE: &str = "SOPWITH_LAUNCH";
/// Variable of the runner container: digest of the plan. The runner refuses any other plan: a kubelet goes on mounting
/// what it has cached of an immutable ConfigMap when one of the same name takes its place.
pub const PLAN_DIGEST_VARIABLE: &str = "SOPWITH_PLAN_DIGEST";
/// Most seconds from one report of the runner to the next.
pub const REPORT_EVERY_SECONDS: u64 = 3;
/// Exit code of a runner whose launch came to its proper end, whatever the run's outcome.
pub const EXIT_ENDED: i32 = 0;

/// Everything the runner needs to know of a run. Frozen in an immutable ConfigMap.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunPlan {
    /// Version of the shape.
    pub version: u32,
    /// Whose plan it is.
    pub run: RunIdentity,
    /// The procedure at its revision.
    pub sop: Revision,
    /// The policy at its revision.
    pub policy: Revision,
    /// What the run asked for, with every default filled in.
    pub options: RunOptions,
    /// Places of the project by name, defaults filled in.
    pub layout: BTreeMap<String, String>,
    /// Texts in minijinja by name, those from ConfigMaps included.
    pub templates: BTreeMap<String, String>,
    /// JSON Schemas by name.
    pub schemas: BTreeMap<String, serde_json::Value>,
    /// Who works.
    pub roles: Vec<Role>,
    /// The steps in the order in which they run.
    pub steps: Vec<Step>,
    /// Endpoints of models in the order in which they are tried, as the policy gives them.
    pub llm: Vec<Endpoint>,
    /// The tools of the policy that roles and actions of the procedure are granted, as the policy gives them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// Bounds of the policy for this run.
    pub budgets: Budgets,
    /// One workbench for each distinct image.
    pub workbenches: Vec<Workbench>,
    /// Most requests to models at once.
    pub llm_concurrency: u32,
    /// The project that the run begins with, where it is kept by Sopwith.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Which evidence counts, its gates named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// The repository that the run begins with. The first launch reads what the reference stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// The state of an earlier run that the run begins from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover: Option<Recover>,
    /// What the run recalls of the earlier runs of its project; none where it has no long-term memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Recalled>,
}

/// The state of an earlier run at a finished step, pinned when the plan is made.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Recover {
    /// Name of the earlier run.
    pub run: String,
    /// Its UID.
    pub uid: String,
    /// The step after which the state was taken.
    pub step: String,
    /// The snapshot that holds it.
    pub snapshot: Digest,
    /// What becomes of the gates of finished steps.
    pub gates: InheritedGates,
    /// What the earlier run had used up to there, with what it had inherited itself.
    pub usage: Usage,
}

/// An existing project that is kept by Sopwith, pinned when the plan is made.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(
    tag = "from",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Source {
    /// What an earlier run of the same namespace left.
    Run {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// Its last snapshot.
        snapshot: Digest,
    },
    /// An archive that was uploaded into the namespace.
    Upload {
        /// Digest of the archive.
        digest: Digest,
    },
}

/// Whose plan it is.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct RunIdentity {
    /// Namespace of the `AgentRun`.
    pub namespace: String,
    /// Name of the `AgentRun`.
    pub name: String,
    /// UID of the `AgentRun`.
    pub uid: String,
}

/// The Git repository that a run works on, with what the policy says of it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    /// Its address.
    pub url: RepositoryUrl,
    /// Branch, tag or commit to begin from; none: the default branch.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Name of the Secret with the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The certificate authorities that its server is checked against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<KeyRef>,
    /// Where the result goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver: Option<Deliver>,
}

/// The branch that receives a run's commits.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Deliver {
    /// Its name, without `refs/heads/`.
    pub branch: String,
    /// Patterns of paths that may not be written, beside what never may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_paths: Vec<String>,
    /// Patterns of paths that may be written all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_paths: Vec<String>,
}

/// What the run asked for, with every default filled in.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RunOptions {
    /// The requirement.
    pub idea: String,
    /// Named texts beside it.
    pub inputs: BTreeMap<String, String>,
    /// Values of the procedure's parameters, defaults filled in.
    pub parameters: BTreeMap<String, String>,
    /// Where the run belongs to.
    pub environment: Environment,
    /// Name of the project.
    pub project_name: String,
    /// A model name or alias, used where a role names none.
    pub model: String,
    /// The form in which models are asked to answer.
    pub prompt_schema: PromptSchema,
    /// Money the run may spend.
    pub investment: Money,
    /// Passes forward.
    pub rounds: u32,
    /// Reviews code.
    pub code_review: bool,
    /// Writes and runs tests.
    pub run_tests: bool,
    /// Writes code.
    pub implement: bool,
    /// Works on an existing project.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incremental: bool,
    /// Most rounds of summarising and repairing code; -1 has no limit of its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_auto_summarize_code: i32,
    /// The file whose QA code is written anew; empty where none is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reqa_file: String,
    /// Where the existing project comes from, in words; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub project_source: String,
    /// The run, and after a slash its step, from whose state this one begins; empty where it begins anew.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub recover_from: String,
    /// Working time in seconds, where it is bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u32>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(value: &i32) -> bool {
    *value == 0
}

/// A container in which commands run.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Workbench {
    /// Name of its container and, with `.sock` behind it, of its socket.
    pub name: String,
    /// Its image.
    pub image: String,
}
