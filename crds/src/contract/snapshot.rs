//! Snapshots: from what a run can be resumed, and what `kubectl sop pull` fetches.

use super::{Digest, commits::Commits, trail::Entry};
use crate::status::{GateStatus, Usage, Verdict};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// The state of a run after an attempt of a step. How it is stored: [`super::delta`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Digest of the plan it belongs to.
    pub plan: String,
    /// The project's files by path.
    pub tree: BTreeMap<String, TreeEntry>,
    /// Blobs with the messages of the run, in order: [`messages`] reads them.
    pub messages: Vec<Digest>,
    /// Transitions and verdicts in order.
    pub trail: Vec<Entry>,
    /// State of the machine, as the runner's engine keeps it.
    pub machine: serde_json::Value,
    /// What all launches have used up to here.
    pub spent: Usage,
    /// Reports that gates read (JUnit, coverage), by path: evidence, not part of the project.
    pub evidence: BTreeMap<String, TreeEntry>,
    /// Gates judged so far, latest attempt, by `step/gate`.
    pub gates: BTreeMap<String, GateStatus>,
    /// What an earlier run had used, from whose state the run began; not part of `spent`.
    pub inherited: Option<Usage>,
    /// Blobs with what models were asked and answered, in order, as [`crate::cassette::encode`] writes them.
    pub cassette: Vec<Digest>,
    /// The project as the run found it; none where it began with an empty one.
    pub base: Option<Base>,
    /// The project as commits of Git.
    pub commits: Commits,
}

/// The project as a run found it: what the run changed is told by comparing with it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Base {
    /// Where it came from.
    pub origin: Origin,
    /// Blob with its files: canonical JSON of a list of [`TreeEntry`], in the order of their paths. The files are blobs, too.
    pub manifest: Digest,
    /// How many files it has.
    pub files: u32,
}

/// Where a project came from.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(
    tag = "from",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Origin {
    /// A Git repository.
    Git {
        /// Its address, without credentials.
        url: String,
        /// The commit that was read, 40 hexadecimal digits; empty where the repository had none.
        commit: String,
        /// The branch that was read; none where a tag or a commit was named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branch: Option<String>,
    },
    /// What an earlier run left.
    Run {
        /// Its name.
        name: String,
        /// Its last snapshot.
        snapshot: Digest,
    },
    /// An uploaded archive.
    Upload {
        /// Digest of the archive.
        digest: Digest,
    },
}

/// For people: `https://git.example.com/shop at 3f2a…`, `run shop-1`, `upload sha256:…`.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Git { url, commit, .. } if commit.is_empty() => {
                write!(f, "{url}, which has no commits")
            }
            Self::Git { url, commit, .. } => write!(f, "{url} at {commit}"),
            Self::Run { name, .. } => write!(f, "run {name}"),
            Self::Upload { digest } => write!(f, "upload {digest}"),
        }
    }
}

/// One file.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct TreeEntry {
    /// Path in the project, relative, `/` between its parts.
    pub path: String,
    /// Digest of its content, stored as a blob.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Whether it may be executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// The sender of what no role said: gates, programs, rendered files, the system itself.
pub const SYSTEM: &str = "sopwith";

/// What an action returned, in the order of the run: its trace.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Counted from 1 over the run.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// The role, or `sopwith` for gates, commands and rendered files.
    pub sender: String,
    /// Roles it is addressed to, in the order of the procedure. What an action returns goes to the roles of the steps that need
    /// its step or take its outputs; a gate that failed to who has to mend it; both to whom RACI names as consulted or informed.
    /// None: nobody, it is told to who reads the trace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recipients: Vec<String>,
    /// What caused it: `step/action` or `step/gate`.
    pub cause: String,
    /// Of the step.
    pub attempt: u32,
    /// Where it is a call of a tool: which tool, `NAME/FUNCTION` where it has several. The content is its arguments and
    /// its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The item of a loop, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// Of a gate: how it judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// The text, where it is short.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub content: String,
    /// Paths that were written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrote: Vec<String>,
    /// Tokens sent to a model for it.
    #[serde(default)]
    pub input_tokens: u64,
    /// Tokens received from a model for it.
    #[serde(default)]
    pub output_tokens: u64,
}

/// The messages of a blob: JSON lines.
pub fn messages(blob: &[u8]) -> Result<Vec<Message>, serde_json::Error> {
    let lines = blob.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    lines.map(serde_json::from_slice).collect()
}
