//! What the last snapshot holds, and what there is since: a step costs what it adds. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sopwith_crds::{
    contract::{
        Digest, VERSION,
        commits::Commits,
        delta::{Changes, Delta, LONGEST},
        snapshot::{Message, TreeEntry},
    },
    status::{GateStatus, Usage},
};

use super::Record;
use crate::tree::{Tree, TreeFile, entry};

/// What the last snapshot holds; nothing before the first.
#[derive(Debug, Default)]
pub(super) struct Last {
    /// The snapshot.
    at: Option<Digest>,
    /// How many blobs it is read from.
    length: usize,
    tree: Tree,
    evidence: BTreeMap<String, TreeEntry>,
    gates: BTreeMap<String, GateStatus>,
    lists: Lengths,
}

/// How long the lists are that only grow.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Lengths {
    messages: usize,
    trail: usize,
    cassette: usize,
    commits: usize,
}

impl Lengths {
    const fn of(record: &Record) -> Self {
        Self {
            messages: record.messages.len(),
            trail: record.trail.len(),
            cassette: record.cassette.len(),
            commits: record.commits.made.len(),
        }
    }

    const fn within(self, other: Self) -> bool {
        self.messages <= other.messages
            && self.trail <= other.trail
            && self.cassette <= other.cassette
            && self.commits <= other.commits
    }
}

/// What a snapshot has to say.
#[derive(Debug)]
pub(super) struct Since {
    /// All of it but where the messages are.
    pub(super) delta: Delta,
    /// The files that are new or otherwise.
    pub(super) files: Vec<(Digest, Bytes)>,
    /// The messages, as JSON lines; none: there are no new ones.
    pub(super) messages: Option<Bytes>,
}

impl Last {
    /// The snapshot `at`, which was read from so many blobs.
    pub(super) fn read(at: Digest, length: usize, tree: &Tree, record: &Record) -> Self {
        Self {
            at: Some(at),
            length,
            tree: tree.clone(),
            evidence: record.evidence.clone(),
            gates: record.gates.clone(),
            lists: Lengths::of(record),
        }
    }

    /// What there is since: everything, where the next snapshot would otherwise be read from too many blobs. The next is told
    /// against this, once [`Last::stands_at`] says where it is.
    pub(super) fn since(
        &mut self,
        plan: &Digest,
        tree: &Tree,
        record: &Record,
        spent: Usage,
    ) -> Since {
        let now = Lengths::of(record);
        if self.length >= LONGEST || !self.lists.within(now) {
            *self = Self::default();
        }
        let (files, changed) = self.changed(tree);
        let before = self.lists;
        let delta = Delta {
            version: VERSION,
            plan: plan.to_string(),
            after: self.at.clone(),
            tree: changed,
            messages: None,
            trail: since(&record.trail, before.trail).to_vec(),
            machine: serde_json::to_value(&record.machine).unwrap_or_default(),
            spent,
            evidence: Changes::between(&self.evidence, &record.evidence),
            gates: Changes::between(&self.gates, &record.gates),
            inherited: record.inherited.clone(),
            cassette: since(&record.cassette, before.cassette).to_vec(),
            base: record.baseline.as_ref().map(|line| line.base.clone()),
            commits: Commits {
                base: record.commits.base.clone(),
                made: since(&record.commits.made, before.commits).to_vec(),
                items: record.commits.items.clone(),
            },
        };
        let messages = since(&record.messages, before.messages);
        self.tree = tree.clone();
        delta.evidence.clone().apply(&mut self.evidence);
        delta.gates.clone().apply(&mut self.gates);
        self.lists = now;
        Since {
            delta,
            files,
            messages: (!messages.is_empty()).then(|| lines(messages)),
        }
    }

    /// Where the snapshot is that was told last.
    pub(super) fn stands_at(&mut self, digest: Digest) {
        self.at = Some(digest);
        self.length += 1;
    }

    fn changed(&self, tree: &Tree) -> (Vec<(Digest, Bytes)>, Changes<TreeEntry>) {
        let written = tree.written_since(&self.tree).map(|(path, file)| {
            let TreeFile { bytes, .. } = file;
            (entry(path, file), bytes.clone())
        });
        let written: Vec<_> = written.collect();
        let set = written.iter().map(|(entry, _)| {
            let entry = entry.clone();
            (entry.path.clone(), entry)
        });
        let gone = tree.gone_since(&self.tree).map(str::to_owned);
        let changes = Changes {
            set: set.collect(),
            gone: gone.collect::<BTreeSet<_>>(),
        };
        let files = written
            .into_iter()
            .map(|(entry, bytes)| (entry.digest, bytes));
        (files.collect(), changes)
    }
}

fn since<T>(list: &[T], length: usize) -> &[T] {
    list.get(length..).unwrap_or_default()
}

fn lines(messages: &[Message]) -> Bytes {
    let mut lines = Vec::new();
    for message in messages {
        lines.extend(serde_json::to_vec(message).unwrap_or_default());
        lines.push(b'\n');
    }
    lines.into()
}
