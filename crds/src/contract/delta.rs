//! How snapshots are stored: each says what changed since the one before, and every so often one says everything.
//!
//! So what a step costs does not grow with what the run has done before, and a snapshot is read from a few blobs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Digest, VERSION,
    commits::Commits,
    snapshot::{Base, Snapshot, TreeEntry},
    trail::Entry,
};
use crate::status::{GateStatus, Usage};

/// The most blobs that a snapshot is read from, with its own.
pub const LONGEST: usize = 16;

/// What a snapshot has otherwise than the one it goes on from. Stored as JSON, its fields in the order in which they stand here;
/// the digest of that is the digest of the snapshot.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Delta {
    /// Version of the shape.
    pub version: u32,
    /// Digest of the plan it belongs to.
    pub plan: String,
    /// The snapshot that it goes on from; none: it says everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Digest>,
    /// Files of the project by path.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub tree: Changes<TreeEntry>,
    /// Blob with the messages since: JSON lines of [`super::snapshot::Message`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Digest>,
    /// Transitions and verdicts since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trail: Vec<Entry>,
    /// State of the machine, all of it.
    pub machine: serde_json::Value,
    /// What all launches have used up to here.
    pub spent: Usage,
    /// Reports that gates read, by path.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub evidence: Changes<TreeEntry>,
    /// Gates by `step/gate`.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub gates: Changes<GateStatus>,
    /// What an earlier run had used, from whose state the run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited: Option<Usage>,
    /// Blobs with what models were asked and answered since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cassette: Vec<Digest>,
    /// The project as the run found it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// The commits made since; what they are made on, and what the next one names.
    #[serde(default, skip_serializing_if = "Commits::is_empty")]
    pub commits: Commits,
}

impl Delta {
    /// What was used up to here, with what was inherited: what a run inherits that takes this over.
    pub fn used_in_all(&self) -> Usage {
        let mut used = self.spent.clone();
        if let Some(inherited) = &self.inherited {
            used.add(inherited);
        }
        used
    }
}

/// What changed of things by name.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Changes<T> {
    /// Those that are new or otherwise.
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, T>,
    /// Names of those that are no more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gone: BTreeSet<String>,
}

impl<T> Default for Changes<T> {
    fn default() -> Self {
        Self {
            set: BTreeMap::new(),
            gone: BTreeSet::new(),
        }
    }
}

impl<T: Clone + PartialEq> Changes<T> {
    /// What leads from one state to another.
    pub fn between(before: &BTreeMap<String, T>, now: &BTreeMap<String, T>) -> Self {
        let set = now
            .iter()
            .filter(|(name, thing)| before.get(*name) != Some(*thing));
        let gone = before.keys().filter(|name| !now.contains_key(*name));
        Self {
            set: set
                .map(|(name, thing)| (name.clone(), thing.clone()))
                .collect(),
            gone: gone.cloned().collect(),
        }
    }
}

impl<T> Changes<T> {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.gone.is_empty()
    }

    /// Makes of the one state the other.
    pub fn apply(self, things: &mut BTreeMap<String, T>) {
        for name in &self.gone {
            things.remove(name);
        }
        things.extend(self.set);
    }
}

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A part of it is not what a runner wrote.
    #[error("{digest} is no snapshot: {message}")]
    Shape {
        /// The part.
        digest: Digest,
        /// Why.
        message: String,
    },
    /// Another release wrote it.
    #[error("version {0} of the shape, this program reads version {VERSION}")]
    Version(u32),
    /// It goes on from a snapshot of another plan.
    #[error("it goes on from {0}, which belongs to another plan")]
    OtherPlan(Digest),
    /// It would be read from too many blobs.
    #[error("it goes on from more than {LONGEST} others")]
    TooLong,
}

/// A snapshot that is being read: the blob that is named by its digest first, then those that it goes on from. Pure: who reads
/// fetches the blobs.
#[derive(Debug, Default)]
pub struct Reading {
    deltas: Vec<Delta>,
}

impl Reading {
    /// Takes a blob; gives the one to take next, none once the snapshot is whole.
    pub fn take(&mut self, digest: &Digest, bytes: &[u8]) -> Result<Option<Digest>, ReadError> {
        let delta: Delta = serde_json::from_slice(bytes).map_err(|error| ReadError::Shape {
            digest: digest.clone(),
            message: error.to_string(),
        })?;
        if delta.version != VERSION {
            return Err(ReadError::Version(delta.version));
        }
        if self.deltas.iter().any(|later| later.plan != delta.plan) {
            return Err(ReadError::OtherPlan(digest.clone()));
        }
        let next = delta.after.clone();
        self.deltas.push(delta);
        if next.is_some() && self.deltas.len() >= LONGEST {
            return Err(ReadError::TooLong);
        }
        Ok(next)
    }

    /// How many blobs were taken.
    pub fn length(&self) -> usize {
        self.deltas.len()
    }

    /// What was read.
    pub fn whole(self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for delta in self.deltas.into_iter().rev() {
            go_on(&mut snapshot, delta);
        }
        snapshot
    }
}

fn go_on(snapshot: &mut Snapshot, delta: Delta) {
    delta.tree.apply(&mut snapshot.tree);
    delta.evidence.apply(&mut snapshot.evidence);
    delta.gates.apply(&mut snapshot.gates);
    snapshot.messages.extend(delta.messages);
    snapshot.trail.extend(delta.trail);
    snapshot.cassette.extend(delta.cassette);
    let Commits { base, made, items } = delta.commits;
    snapshot.commits.base = base;
    snapshot.commits.made.extend(made);
    snapshot.commits.items = items;
    snapshot.plan = delta.plan;
    snapshot.machine = delta.machine;
    snapshot.spent = delta.spent;
    snapshot.inherited = delta.inherited;
    snapshot.base = delta.base;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every state of two things that may be there, in one of two ways.
    fn states() -> Vec<BTreeMap<String, u8>> {
        let ways = [None, Some(0), Some(1)];
        let both = ways.iter().flat_map(|a| ways.iter().map(move |b| (*a, *b)));
        both.map(|(a, b)| {
            let things = [("a", a), ("b", b)].into_iter();
            let there = things.filter_map(|(name, thing)| Some((name.to_owned(), thing?)));
            there.collect()
        })
        .collect()
    }

    #[test]
    fn changes_lead_from_one_state_to_the_other() {
        for before in states() {
            for now in states() {
                let changes = Changes::between(&before, &now);
                assert_eq!(changes.is_empty(), before == now);
                let mut reached = before.clone();
                changes.apply(&mut reached);
                assert_eq!(reached, now, "from {before:?}");
            }
        }
    }

    fn bytes(delta: &Delta) -> Vec<u8> {
        serde_json::to_vec(delta).unwrap()
    }

    fn delta(after: Option<&Digest>) -> Delta {
        Delta {
            version: VERSION,
            plan: "plan".to_owned(),
            after: after.cloned(),
            ..Delta::default()
        }
    }

    #[test]
    fn a_snapshot_is_read_from_the_newest_to_one_that_says_everything() {
        let first = Delta {
            messages: Some(Digest::of("one")),
            machine: 1.into(),
            ..delta(None)
        };
        let at = Digest::of(bytes(&first));
        let second = Delta {
            messages: Some(Digest::of("two")),
            machine: 2.into(),
            ..delta(Some(&at))
        };
        let mut reading = Reading::default();
        let next = reading
            .take(&Digest::of("second"), &bytes(&second))
            .unwrap();
        assert_eq!(next, Some(at.clone()));
        assert_eq!(reading.take(&at, &bytes(&first)).unwrap(), None);
        assert_eq!(reading.length(), 2);
        let snapshot = reading.whole();
        assert_eq!(snapshot.messages, [Digest::of("one"), Digest::of("two")]);
        assert_eq!(snapshot.machine, 2);
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        let at = Digest::of("some");
        let take = |reading: &mut Reading, delta: &Delta| reading.take(&at, &bytes(delta));
        let mut reading = Reading::default();
        let error = reading.take(&at, b"{\"version\": 1}").unwrap_err();
        assert!(matches!(error, ReadError::Shape { .. }), "{error}");
        let other = Delta {
            version: VERSION + 1,
            ..delta(None)
        };
        let error = take(&mut reading, &other).unwrap_err();
        assert!(matches!(error, ReadError::Version(2)), "{error}");
        let goes_on = delta(Some(&at));
        for _ in 1..LONGEST {
            assert_eq!(take(&mut reading, &goes_on).unwrap(), Some(at.clone()));
        }
        let other = Delta {
            plan: "other".to_owned(),
            ..delta(None)
        };
        let error = take(&mut reading, &other).unwrap_err();
        assert!(matches!(error, ReadError::OtherPlan(_)), "{error}");
        let error = take(&mut reading, &goes_on).unwrap_err();
        assert!(matches!(error, ReadError::TooLong), "{error}");
    }
}
