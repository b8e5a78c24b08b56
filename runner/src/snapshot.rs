//! Snapshots: everything a later launch needs, in blobs that are addressed by their digest.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use sopwith_crds::{
    contract::{
        Digest, VERSION,
        snapshot::{Message, Snapshot, TreeEntry},
    },
    status::{GateStatus, Usage},
};

use crate::{
    gateway::{Gateway, GatewayError},
    sop::State,
    tree::{Tree, TreeError},
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

/// What a run has gathered.
#[derive(Debug, Default)]
pub struct Record {
    /// The machine.
    pub machine: Machine,
    /// The run's trace.
    pub messages: Vec<Message>,
    /// Reports that gates read, by path.
    pub evidence: BTreeMap<String, TreeEntry>,
    /// Verdicts by `step/gate`.
    pub gates: BTreeMap<String, GateStatus>,
}

/// The blobs of a run: each is uploaded once.
#[derive(Debug)]
pub struct Blobs {
    gateway: Gateway,
    stored: BTreeSet<Digest>,
    waiting: BTreeMap<Digest, Bytes>,
}

impl Blobs {
    /// No blobs yet.
    pub fn new(gateway: Gateway) -> Self {
        Self {
            gateway,
            stored: BTreeSet::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// Takes a blob; it is uploaded with the next snapshot.
    pub fn add(&mut self, bytes: Bytes) -> Digest {
        let digest = Digest::of(&bytes);
        if !self.stored.contains(&digest) {
            self.waiting.insert(digest.clone(), bytes);
        }
        digest
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

    /// Uploads a snapshot after everything it refers to; gives its digest.
    pub async fn save(
        &mut self,
        plan: &Digest,
        tree: &Tree,
        record: &Record,
        spent: Usage,
    ) -> Result<Digest, GatewayError> {
        for (_, file) in tree.iter() {
            self.add(file.bytes.clone());
        }
        let messages = self.add(lines(&record.messages).into());
        self.flush().await?;
        let snapshot = Snapshot {
            version: VERSION,
            plan: plan.to_string(),
            tree: tree.entries(),
            messages: Some(messages),
            machine: serde_json::to_value(&record.machine).unwrap_or_default(),
            spent,
            evidence: record.evidence.values().cloned().collect(),
            gates: record.gates.clone(),
        };
        let bytes = serde_json_canonicalizer::to_vec(&snapshot)
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
        let bytes = self.gateway.get(digest).await?;
        let snapshot: Snapshot =
            serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if snapshot.version != VERSION {
            return Err(wrong(format!(
                "version {} of the shape, this runner reads {VERSION}",
                snapshot.version
            )));
        }
        if snapshot.plan != plan.as_str() {
            return Err(wrong(format!(
                "it belongs to the plan {}, not {plan}",
                snapshot.plan
            )));
        }
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
        let gateway = &self.gateway;
        let gets = snapshot.tree.iter().map(|entry| async move {
            Ok::<_, GatewayError>((entry, gateway.get(&entry.digest).await?))
        });
        let files: Vec<_> = stream::iter(gets).buffered(AT_ONCE).try_collect().await?;
        let mut tree = Tree::default();
        for (entry, bytes) in files {
            tree.write(&entry.path, bytes, entry.executable)
                .map_err(|error: TreeError| wrong(error.to_string()))?;
        }
        self.stored.extend(
            snapshot
                .tree
                .iter()
                .chain(&snapshot.evidence)
                .map(|entry| entry.digest.clone()),
        );
        let evidence = snapshot
            .evidence
            .into_iter()
            .map(|entry| (entry.path.clone(), entry))
            .collect();
        Ok((
            tree,
            Record {
                machine,
                messages,
                evidence,
                gates: snapshot.gates,
            },
        ))
    }
}

/// JSON lines.
fn lines(messages: &[Message]) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        out.extend(serde_json::to_vec(message).unwrap_or_default());
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::LocalGateway;

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
