//! What a run gathers: of this a snapshot is made, and from a snapshot it is made again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sopwith_crds::{
    contract::{
        Digest,
        commits::Commits,
        snapshot::{self, Message, TreeEntry},
        trail::Entry,
    },
    status::{GateStatus, Usage},
};

use crate::{
    gate::Said,
    incremental::{Incremental, dependencies::Made},
    measures::Measures,
    sop::State,
    tree::Tree,
    unmet::Unmet,
};

/// Where the machine stands, as it is kept in a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Steps, rounds, rules.
    pub state: State,
    /// Digests of frozen files by path, with the step that froze them.
    #[serde(default)]
    pub frozen: BTreeMap<String, Frozen>,
    /// Seconds of work up to here, for the run's deadline.
    #[serde(default)]
    pub worked_seconds: u64,
    /// What gates have measured.
    #[serde(default, skip_serializing_if = "Measures::is_empty")]
    pub measures: Measures,
    /// What the programs of the attempt's gates have said.
    #[serde(default, skip_serializing_if = "Said::is_empty")]
    pub said: Said,
    /// Files of the project that programs in a workbench wrote last.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub by_programs: BTreeSet<String>,
    /// Calls of each tool up to here, for what the policy allows in a run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tool_calls: BTreeMap<String, u32>,
    /// The snapshot at which each step first began in its round: what it changed is told against it, and a rule may take the
    /// project back there. None: before the first snapshot, without a file but those of a base.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub starts: BTreeMap<String, Option<Digest>>,
    /// Where the attempt at work, or the last one, began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Begun>,
    /// Gates that failed and have not passed since.
    #[serde(default, skip_serializing_if = "Unmet::is_empty")]
    pub unmet: Unmet,
    /// Of an incremental run, what it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incremental: Option<Incremental>,
    /// What this run wrote, each file with those it was made from; where it keeps the list of dependencies.
    #[serde(default, skip_serializing_if = "Made::is_empty")]
    pub made: Made,
}

impl Machine {
    /// Notes who wrote files last.
    pub fn wrote(&mut self, paths: &[String], by_program: bool) {
        for path in paths {
            if by_program {
                self.by_programs.insert(path.clone());
            } else {
                self.by_programs.remove(path);
            }
        }
    }
}

/// Where an attempt began: what it changed is told against the tree of this snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The step.
    pub step: String,
    /// The snapshot; none at the beginning of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Digest>,
}

/// A file that later steps may not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// The artifact it belongs to.
    pub artifact: String,
    /// The step that handed it over.
    pub step: String,
    /// Its content.
    pub digest: Digest,
}

/// The project as the run found it.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// Where it came from, and the blob that lists it.
    pub base: snapshot::Base,
    /// Its files.
    pub tree: Tree,
}

/// What a run has gathered.
#[derive(Debug, Default)]
pub struct Record {
    /// The project that it began with.
    pub baseline: Option<Baseline>,
    /// The project as commits.
    pub commits: Commits,
    /// The machine.
    pub machine: Machine,
    /// The run's trace: who said what.
    pub messages: Vec<Message>,
    /// The other part of it: transitions and verdicts in order.
    pub trail: Vec<Entry>,
    /// Reports that gates read, by path.
    pub evidence: BTreeMap<String, TreeEntry>,
    /// Verdicts by `step/gate`.
    pub gates: BTreeMap<String, GateStatus>,
    /// What an earlier run had used, from whose state the run began.
    pub inherited: Option<Usage>,
    /// Blobs with what models were asked and answered.
    pub cassette: Vec<Digest>,
}

impl Record {
    /// Adds a message to the trace; it gets the number of its place.
    pub fn add(&mut self, message: Message) {
        self.messages.push(Message {
            number: self.messages.len() as u64 + 1,
            ..message
        });
    }
}
