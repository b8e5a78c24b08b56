//! Snapshots: everything a later launch needs, in blobs that are addressed by their digest.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use sopwith_crds::{
    contract::{
        Digest, VERSION,
        commits::Commits,
        snapshot::{self, Message, Origin, Snapshot, TreeEntry},
    },
    status::{GateStatus, Usage},
};

use crate::{
    base::Base,
    gate::Said,
    gateway::{Gateway, GatewayError},
    incremental::{Incremental, dependencies::Made},
    measures::Measures,
    sop::State,
    trail::Entry,
    tree::{Tree, TreeError, TreeFile, entry},
    unmet::Unmet,
};

/// Blobs that are moved at once.
const AT_ONCE: usize = 8;

/// Why a snapshot cannot be resumed from.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Its blobs cannot be had.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// It is not what a runner wrote.
    #[error("the snapshot {digest} is wrong: {message}")]
    Wrong {
        /// The snapshot.
        digest: Digest,
        /// Why.
        message: String,
    },
}

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
    /// Transitions and verdicts in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trail: Vec<Entry>,
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
    /// The run's trace.
    pub messages: Vec<Message>,
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

/// The blobs of a run: each is uploaded once.
#[derive(Debug)]
pub struct Blobs {
    gateway: Gateway,
    stored: BTreeSet<Digest>,
    waiting: BTreeMap<Digest, Bytes>,
    last: Last,
}

/// What was worked out for the last snapshot. Most of it is the same in the next one: so a step costs what it adds.
#[derive(Debug, Default)]
struct Last {
    /// Entries of files by path, with the files that they are of.
    files: BTreeMap<String, (TreeFile, TreeEntry)>,
    /// The first so many messages, as JSON lines.
    messages: usize,
    lines: Vec<u8>,
}

impl Last {
    /// The entry of a file that is as it was in the last snapshot.
    fn entry(&self, path: &str, file: &TreeFile) -> Option<TreeEntry> {
        let (known, entry) = self.files.get(path)?;
        (known == file).then(|| entry.clone())
    }

    /// The trace as JSON lines.
    fn lines(&mut self, messages: &[Message]) -> Bytes {
        for message in messages.get(self.messages..).unwrap_or_default() {
            self.lines
                .extend(serde_json::to_vec(message).unwrap_or_default());
            self.lines.push(b'\n');
        }
        self.messages = messages.len();
        Bytes::copy_from_slice(&self.lines)
    }
}

impl Blobs {
    /// No blobs yet.
    pub fn new(gateway: Gateway) -> Self {
        Self {
            gateway,
            stored: BTreeSet::new(),
            waiting: BTreeMap::new(),
            last: Last::default(),
        }
    }

    /// Takes a blob; it is uploaded with the next snapshot.
    pub fn add(&mut self, bytes: Bytes) -> Digest {
        let digest = Digest::of(&bytes);
        self.add_as(digest.clone(), bytes);
        digest
    }

    fn add_as(&mut self, digest: Digest, bytes: Bytes) {
        if !self.stored.contains(&digest) {
            self.waiting.insert(digest, bytes);
        }
    }

    /// Takes the files of a project, and the list of them; they are uploaded with the next snapshot.
    pub fn add_base(&mut self, base: Base) -> Baseline {
        let entries = self.add_files(&base.tree);
        if let Origin::Run { .. } = base.origin {
            // The gateway made them this run's own when it gave them.
            for entry in &entries {
                self.waiting.remove(&entry.digest);
                self.stored.insert(entry.digest.clone());
            }
        }
        let list = serde_json_canonicalizer::to_vec(&entries).unwrap_or_default();
        Baseline {
            base: snapshot::Base {
                origin: base.origin,
                manifest: self.add(list.into()),
                files: u32::try_from(entries.len()).unwrap_or(u32::MAX),
            },
            tree: base.tree,
        }
    }

    /// A blob of the run.
    pub async fn get(&self, digest: &Digest) -> Result<Bytes, GatewayError> {
        match self.waiting.get(digest) {
            Some(bytes) => Ok(bytes.clone()),
            None => self.gateway.get(digest).await,
        }
    }

    /// Blobs of a part of the work, for [`Blobs::absorb`].
    #[must_use]
    pub fn beside(&self) -> Self {
        Self::new(self.gateway.clone())
    }

    /// Takes over what other blobs have not uploaded.
    pub fn absorb(&mut self, other: Self) {
        for (digest, bytes) in other.waiting {
            self.add_as(digest, bytes);
        }
    }

    async fn flush(&mut self) -> Result<(), GatewayError> {
        let gateway = &self.gateway;
        let puts = self
            .waiting
            .iter()
            .map(|(digest, bytes)| async move { gateway.put(digest, bytes.clone()).await });
        stream::iter(puts)
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        self.stored
            .extend(std::mem::take(&mut self.waiting).into_keys());
        Ok(())
    }

    /// Takes the files of a project; gives what a snapshot lists.
    fn add_files(&mut self, tree: &Tree) -> Vec<TreeEntry> {
        let mut files = BTreeMap::new();
        for (path, file) in tree.iter() {
            let entry = self.last.entry(path, file).unwrap_or_else(|| {
                let entry = entry(path, file);
                self.add_as(entry.digest.clone(), file.bytes.clone());
                entry
            });
            files.insert(path.to_owned(), (file.clone(), entry));
        }
        let entries = files.values().map(|(_, entry)| entry.clone()).collect();
        self.last.files = files;
        entries
    }

    /// Uploads a snapshot after everything it refers to; gives its digest.
    pub async fn save(
        &mut self,
        plan: &Digest,
        tree: &Tree,
        record: &Record,
        spent: Usage,
    ) -> Result<Digest, GatewayError> {
        let tree = self.add_files(tree);
        let lines = self.last.lines(&record.messages);
        let messages = self.add(lines);
        self.flush().await?;
        let snapshot = Snapshot {
            version: VERSION,
            plan: plan.to_string(),
            tree,
            messages: Some(messages),
            machine: serde_json::to_value(&record.machine).unwrap_or_default(),
            spent,
            evidence: record.evidence.values().cloned().collect(),
            gates: record.gates.clone(),
            inherited: record.inherited.clone(),
            cassette: record.cassette.clone(),
            base: record.baseline.as_ref().map(|line| line.base.clone()),
            commits: record.commits.clone(),
        };
        let bytes = serde_json::to_vec(&snapshot)
            .map_err(|error| GatewayError::Refused(format!("the snapshot is no JSON: {error}")))?;
        let digest = self.add(bytes.into());
        self.flush().await?;
        Ok(digest)
    }

    /// Restores what a snapshot holds.
    pub async fn load(
        &mut self,
        digest: &Digest,
        plan: &Digest,
    ) -> Result<(Tree, Record), SnapshotError> {
        let wrong = |message: String| SnapshotError::Wrong {
            digest: digest.clone(),
            message,
        };
        let snapshot = read(&self.gateway, digest).await?;
        if snapshot.plan != plan.as_str() {
            return Err(wrong(format!(
                "it belongs to the plan {}, not {plan}",
                snapshot.plan
            )));
        }
        self.restore(snapshot, digest).await
    }

    /// Restores what a snapshot holds, of whatever plan.
    pub(crate) async fn restore(
        &mut self,
        snapshot: Snapshot,
        digest: &Digest,
    ) -> Result<(Tree, Record), SnapshotError> {
        let wrong = |message: String| SnapshotError::Wrong {
            digest: digest.clone(),
            message,
        };
        let machine =
            serde_json::from_value(snapshot.machine).map_err(|error| wrong(error.to_string()))?;
        let mut messages = Vec::new();
        if let Some(log) = &snapshot.messages {
            for line in self
                .gateway
                .get(log)
                .await?
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
            {
                messages.push(
                    serde_json::from_slice(line)
                        .map_err(|error| wrong(format!("its messages: {error}")))?,
                );
            }
        }
        let tree = files(&self.gateway, &snapshot.tree, &Tree::default())
            .await
            .map_err(|error| error.of(digest))?;
        let baseline = match snapshot.base {
            Some(base) => Some(self.baseline(base, &tree).await?),
            None => None,
        };
        self.stored.extend(
            snapshot
                .tree
                .iter()
                .chain(&snapshot.evidence)
                .map(|entry| entry.digest.clone())
                .chain(snapshot.cassette.iter().cloned()),
        );
        let evidence = snapshot
            .evidence
            .into_iter()
            .map(|entry| (entry.path.clone(), entry))
            .collect();
        Ok((
            tree,
            Record {
                baseline,
                commits: snapshot.commits,
                machine,
                messages,
                evidence,
                gates: snapshot.gates,
                inherited: snapshot.inherited,
                cassette: snapshot.cassette,
            },
        ))
    }

    /// The project that the run began with; what it left as it was is taken from the tree.
    async fn baseline(
        &mut self,
        base: snapshot::Base,
        tree: &Tree,
    ) -> Result<Baseline, SnapshotError> {
        let bytes = self.gateway.get(&base.manifest).await?;
        let entries: Vec<TreeEntry> =
            serde_json::from_slice(&bytes).map_err(|error| SnapshotError::Wrong {
                digest: base.manifest.clone(),
                message: error.to_string(),
            })?;
        let files = files(&self.gateway, &entries, tree).await;
        let tree = files.map_err(|error| error.of(&base.manifest))?;
        self.stored.insert(base.manifest.clone());
        self.stored
            .extend(entries.into_iter().map(|entry| entry.digest));
        Ok(Baseline { base, tree })
    }
}

impl Blobs {
    /// The tree of an earlier snapshot of the same run, and which files of it programs wrote. What is the same in `near` is not
    /// fetched again.
    pub async fn earlier(
        &self,
        digest: &Digest,
        near: &Tree,
    ) -> Result<(Tree, BTreeSet<String>), SnapshotError> {
        let snapshot = read(&self.gateway, digest).await?;
        let machine: Machine =
            serde_json::from_value(snapshot.machine).map_err(|error| SnapshotError::Wrong {
                digest: digest.clone(),
                message: error.to_string(),
            })?;
        let tree = files(&self.gateway, &snapshot.tree, near).await;
        let tree = tree.map_err(|error| error.of(digest))?;
        Ok((tree, machine.by_programs))
    }
}

/// Reads a snapshot.
pub(crate) async fn read(gateway: &Gateway, digest: &Digest) -> Result<Snapshot, SnapshotError> {
    let wrong = |message: String| SnapshotError::Wrong {
        digest: digest.clone(),
        message,
    };
    let bytes = gateway.get(digest).await?;
    let snapshot: Snapshot =
        serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    if snapshot.version != VERSION {
        return Err(wrong(format!(
            "version {} of the shape, this runner reads {VERSION}",
            snapshot.version
        )));
    }
    Ok(snapshot)
}

/// Why the files of a list cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl FilesError {
    fn of(self, digest: &Digest) -> SnapshotError {
        match self {
            Self::Gateway(error) => error.into(),
            Self::Tree(error) => SnapshotError::Wrong {
                digest: digest.clone(),
                message: error.to_string(),
            },
        }
    }
}

/// Fetches the files of a list; those that another tree has with the same content are taken from there.
pub(crate) async fn files(
    gateway: &Gateway,
    entries: &[TreeEntry],
    near: &Tree,
) -> Result<Tree, FilesError> {
    let at_hand: BTreeMap<Digest, Bytes> = near
        .iter()
        .map(|(_, file)| (Digest::of(&file.bytes), file.bytes.clone()))
        .collect();
    let gets = entries.iter().map(|entry| {
        let known = at_hand.get(&entry.digest).cloned();
        async move {
            let bytes = match known {
                Some(bytes) => bytes,
                None => gateway.get(&entry.digest).await?,
            };
            Ok::<_, GatewayError>((entry, bytes))
        }
    });
    let found: Vec<_> = stream::iter(gets).buffered(AT_ONCE).try_collect().await?;
    let mut tree = Tree::default();
    for (entry, bytes) in found {
        tree.write(&entry.path, bytes, entry.executable)?;
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::LocalGateway;

    #[test]
    fn what_is_the_same_as_in_the_last_snapshot_is_not_worked_out_again() {
        let mut blobs = Blobs::new(Gateway::Local(LocalGateway::default()));
        let mut tree = Tree::default();
        let mut write = |tree: &mut Tree, path: &str, text: &'static str, executable: bool| {
            tree.write(path, Bytes::from_static(text.as_bytes()), executable)
                .unwrap();
            assert_eq!(blobs.add_files(tree), tree.entries(), "{path} {text}");
        };
        write(&mut tree, "a", "one", false);
        write(&mut tree, "b", "one", false);
        write(&mut tree, "a", "two", false);
        write(&mut tree, "a", "two", true);
        tree.remove("b");
        write(&mut tree, "c", "three", false);
        let message = |number: u64| Message {
            number,
            at: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            sender: "s".into(),
            recipients: Vec::new(),
            cause: "c".into(),
            attempt: 1,
            item: None,
            tool: None,
            verdict: None,
            content: format!("{number}\n"),
            wrote: Vec::new(),
            input_tokens: 0,
            output_tokens: 0,
        };
        let all = [message(1), message(2), message(3)];
        let mut last = Last::default();
        for some in [&all[..1], &all[..1], &all] {
            let lines = last.lines(some);
            let read: Vec<Message> = lines
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(|line| serde_json::from_slice(line).unwrap())
                .collect();
            assert_eq!(read, some);
        }
    }

    #[tokio::test]
    async fn what_is_saved_is_restored_and_a_foreign_plan_is_refused() {
        let gateway = Gateway::Local(LocalGateway::default());
        let mut blobs = Blobs::new(gateway.clone());
        let mut tree = Tree::default();
        tree.write("a/b.py", Bytes::from_static(b"x = 1\n"), true)
            .unwrap();
        let mut record = Record::default();
        record.machine.state.round = 3;
        record.evidence.insert(
            "j.xml".into(),
            TreeEntry {
                path: "j.xml".into(),
                digest: Digest::of("j"),
                size: 1,
                executable: false,
            },
        );
        let plan = Digest::of("plan");
        let digest = blobs
            .save(&plan, &tree, &record, Usage::default())
            .await
            .unwrap();
        assert_eq!(
            blobs
                .save(&plan, &tree, &record, Usage::default())
                .await
                .unwrap(),
            digest
        );
        let (restored, after) = Blobs::new(gateway.clone())
            .load(&digest, &plan)
            .await
            .unwrap();
        assert_eq!(restored, tree);
        assert_eq!(
            (after.machine, after.evidence),
            (record.machine, record.evidence)
        );
        assert!(
            Blobs::new(gateway)
                .load(&digest, &Digest::of("other"))
                .await
                .is_err()
        );
    }
}
