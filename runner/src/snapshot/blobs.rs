//! The blobs of a run, and snapshots as the last of them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use sopwith_crds::{
    contract::{
        Digest,
        snapshot::{self, Origin, Snapshot, TreeEntry},
    },
    status::Usage,
};

use super::{
    AT_ONCE, Baseline, Machine, Record, SnapshotError,
    last::{Last, Since},
    read::{files, read, trace, wrong},
};
use crate::{
    base::Base,
    gateway::{Gateway, GatewayError},
    tree::Tree,
};

/// The blobs of a run: each is uploaded once.
#[derive(Debug)]
pub struct Blobs {
    gateway: Gateway,
    stored: BTreeSet<Digest>,
    waiting: BTreeMap<Digest, Bytes>,
    last: Last,
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
        let entries = base.tree.entries();
        for (entry, (_, file)) in entries.iter().zip(base.tree.iter()) {
            self.add_as(entry.digest.clone(), file.bytes.clone());
        }
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

    /// Uploads a snapshot after everything it refers to; gives its digest.
    pub async fn save(
        &mut self,
        plan: &Digest,
        tree: &Tree,
        record: &Record,
        spent: Usage,
    ) -> Result<Digest, GatewayError> {
        let Since {
            mut delta,
            files,
            messages,
        } = self.last.since(plan, tree, record, spent);
        for (digest, bytes) in files {
            self.add_as(digest, bytes);
        }
        delta.messages = messages.map(|lines| self.add(lines));
        self.flush().await?;
        let bytes = serde_json::to_vec(&delta)
            .map_err(|error| GatewayError::Refused(format!("the snapshot is no JSON: {error}")))?;
        let digest = self.add(bytes.into());
        self.flush().await?;
        self.last.stands_at(digest.clone());
        Ok(digest)
    }

    /// Restores what a snapshot holds; the next one goes on from it.
    pub async fn load(
        &mut self,
        digest: &Digest,
        plan: &Digest,
    ) -> Result<(Tree, Record), SnapshotError> {
        let (snapshot, length) = read(&self.gateway, digest).await?;
        if snapshot.plan != plan.as_str() {
            let why = format!("it belongs to the plan {}, not {plan}", snapshot.plan);
            return Err(wrong(digest, &why));
        }
        let (tree, record) = self.restore(snapshot, digest).await?;
        self.last = Last::read(digest.clone(), length, &tree, &record);
        Ok((tree, record))
    }

    /// Restores what a snapshot holds, of whatever plan.
    pub(crate) async fn restore(
        &mut self,
        snapshot: Snapshot,
        digest: &Digest,
    ) -> Result<(Tree, Record), SnapshotError> {
        let machine =
            serde_json::from_value(snapshot.machine).map_err(|error| wrong(digest, &error))?;
        let messages = trace(&self.gateway, digest, &snapshot.messages).await?;
        let tree = files(&self.gateway, snapshot.tree.values(), &Tree::default())
            .await
            .map_err(|error| error.of(digest))?;
        let baseline = match snapshot.base {
            Some(base) => Some(self.baseline(base, &tree).await?),
            None => None,
        };
        self.stored.extend(
            snapshot
                .tree
                .values()
                .chain(snapshot.evidence.values())
                .map(|entry| entry.digest.clone())
                .chain(snapshot.cassette.iter().cloned()),
        );
        Ok((
            tree,
            Record {
                baseline,
                commits: snapshot.commits,
                machine,
                messages,
                trail: snapshot.trail,
                evidence: snapshot.evidence,
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
            serde_json::from_slice(&bytes).map_err(|error| wrong(&base.manifest, &error))?;
        let files = files(&self.gateway, &entries, tree).await;
        let tree = files.map_err(|error| error.of(&base.manifest))?;
        self.stored.insert(base.manifest.clone());
        self.stored
            .extend(entries.into_iter().map(|entry| entry.digest));
        Ok(Baseline { base, tree })
    }

    /// The tree of an earlier snapshot of the same run, and which files of it programs wrote. What is the same in `near` is not
    /// fetched again.
    pub async fn earlier(
        &self,
        digest: &Digest,
        near: &Tree,
    ) -> Result<(Tree, BTreeSet<String>), SnapshotError> {
        let (snapshot, _) = read(&self.gateway, digest).await?;
        let machine: Machine =
            serde_json::from_value(snapshot.machine).map_err(|error| wrong(digest, &error))?;
        let tree = files(&self.gateway, snapshot.tree.values(), near).await;
        let tree = tree.map_err(|error| error.of(digest))?;
        Ok((tree, machine.by_programs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::LocalGateway;
    use sopwith_crds::contract::{delta::LONGEST, snapshot::Message, trail};

    fn message(number: usize) -> Message {
        Message {
            number: number as u64,
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
        }
    }

    fn report(path: &str, content: &str) -> TreeEntry {
        TreeEntry {
            path: path.to_owned(),
            digest: Digest::of(content),
            size: 1,
            executable: false,
        }
    }

    #[tokio::test]
    async fn each_of_many_snapshots_is_restored_and_a_foreign_plan_is_refused() {
        let gateway = LocalGateway::default();
        let plan = Digest::of("plan");
        let mut blobs = Blobs::new(Gateway::Local(gateway.clone()));
        let (mut tree, mut record) = (Tree::default(), Record::default());
        let mut saved = Vec::new();
        for number in 1..=3 * LONGEST {
            let text = number.to_string();
            let bytes = Bytes::copy_from_slice(text.as_bytes());
            let path = format!("a/{}", number % 7);
            tree.write(&path, bytes, number % 2 == 0).unwrap();
            tree.remove(&format!("a/{}", number % 5));
            record.add(message(number));
            record.trail.push(trail::Entry {
                step: text.clone(),
                attempt: 1,
                round: 1,
                what: trail::Passage::Began,
            });
            record.machine.state.round = u32::try_from(number).unwrap();
            record.evidence.remove(&format!("r{}", number % 2));
            let path = format!("r{}", number % 3);
            record.evidence.insert(path.clone(), report(&path, &text));
            record.cassette.push(blobs.add(text.into()));
            let spent = Usage::default();
            let digest = blobs.save(&plan, &tree, &record, spent).await.unwrap();
            saved.push((
                digest,
                tree.clone(),
                record.messages.clone(),
                record.trail.clone(),
                record.evidence.clone(),
                record.cassette.clone(),
            ));
            if number % 10 == 0 {
                // A launch that is lost: the next one goes on from what it reads.
                let at = saved.last().map(|(digest, ..)| digest.clone()).unwrap();
                blobs = Blobs::new(Gateway::Local(gateway.clone()));
                (tree, record) = blobs.load(&at, &plan).await.unwrap();
            }
        }
        for (digest, tree, messages, trail, evidence, cassette) in saved {
            let gateway = Gateway::Local(gateway.clone());
            let (_, length) = read(&gateway, &digest).await.unwrap();
            assert!(length <= LONGEST, "{length}");
            let (restored, after) = Blobs::new(gateway).load(&digest, &plan).await.unwrap();
            assert_eq!(restored, tree);
            assert_eq!(after.machine.state.round as usize, messages.len());
            assert_eq!(after.messages, messages);
            assert_eq!(after.trail, trail);
            assert_eq!(after.evidence, evidence);
            assert_eq!(after.cassette, cassette);
            let other = Digest::of("other");
            let refused = Blobs::new(blobs.gateway.clone())
                .load(&digest, &other)
                .await;
            assert!(refused.is_err());
        }
    }

    #[tokio::test]
    async fn a_snapshot_says_what_is_new_with_it() {
        let gateway = LocalGateway::default();
        let plan = Digest::of("plan");
        let mut blobs = Blobs::new(Gateway::Local(gateway.clone()));
        let (mut tree, mut record) = (Tree::default(), Record::default());
        let mut sizes = Vec::new();
        for number in 1..LONGEST {
            let path = format!("docs/part-{number:03}");
            let bytes = Bytes::copy_from_slice(path.as_bytes());
            tree.write(&path, bytes, false).unwrap();
            record.add(message(100 + number));
            let spent = Usage::default();
            let digest = blobs.save(&plan, &tree, &record, spent).await.unwrap();
            sizes.push(gateway.blob(&digest).unwrap().len());
        }
        let (second, last) = (sizes[1], sizes[LONGEST - 2]);
        assert_eq!(second, last, "{sizes:?}");
    }
}
