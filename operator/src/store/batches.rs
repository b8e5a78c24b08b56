//! Batches of reports: each written once, under its launch, pod and sequence number.

use super::{Store, StoreError, damaged, run_path, segment};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::jiff::Timestamp;
use object_store::{ObjectMeta, path::Path};
use sopwith_crds::contract::report::ReportBatch;
use std::collections::HashMap;

/// How many objects are read at once when a run's batches are loaded.
const READ_AT_ONCE: usize = 8;

/// Under which name a batch is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchKey {
    /// UID of the run.
    pub run_uid: String,
    /// The launch that reported.
    pub launch: u32,
    /// The pod that reported.
    pub pod_uid: String,
    /// Number of the batch, from 1.
    pub sequence: u64,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is stored now.
    Stored,
    /// The same batch was stored before.
    Already,
    /// Another batch is stored under its number.
    Conflict,
}

/// A batch as it was stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredBatch {
    /// The launch that reported.
    pub launch: u32,
    /// The pod that reported.
    pub pod_uid: String,
    /// When it was stored.
    pub received_at: Timestamp,
    /// What was reported.
    pub batch: ReportBatch,
}

impl BatchKey {
    fn path(&self) -> Result<Path, StoreError> {
        Ok(run_path(&self.run_uid)?
            .join("launches")
            .join(format!("{:06}", self.launch))
            .join(segment(&self.pod_uid)?)
            .join(format!("{:08}.json", self.sequence)))
    }
}

impl Store {
    /// Stores a batch as it came, unless its number is taken.
    pub async fn put_batch(&self, key: &BatchKey, bytes: Bytes) -> Result<Put, StoreError> {
        let path = key.path()?;
        if self.create(&path, bytes.clone()).await? {
            return Ok(Put::Stored);
        }
        let there = self.read(&path).await?;
        let same = there.is_some_and(|there| there == bytes);
        Ok(if same { Put::Already } else { Put::Conflict })
    }

    /// All batches of a run: by launch, then by pod in the order of their first batches, then by number.
    pub async fn batches(&self, run_uid: &str) -> Result<Vec<StoredBatch>, StoreError> {
        let folder = run_path(run_uid)?.join("launches");
        let objects = self.list(&folder).await?;
        let mut batches: Vec<StoredBatch> = futures::stream::iter(objects)
            .map(|meta| self.read_batch(meta))
            .buffer_unordered(READ_AT_ONCE)
            .try_filter_map(|found| std::future::ready(Ok(found)))
            .try_collect()
            .await?;
        sort(&mut batches);
        Ok(batches)
    }

    async fn read_batch(&self, meta: ObjectMeta) -> Result<Option<StoredBatch>, StoreError> {
        let path = meta.location;
        let Some((launch, pod_uid)) = origin(&path) else {
            return Err(damaged(&path, &"its name is not that of a batch"));
        };
        // Gone between listing and reading: the run was deleted meanwhile.
        let Some(bytes) = self.read(&path).await? else {
            return Ok(None);
        };
        let batch = serde_json::from_slice(&bytes).map_err(|e| damaged(&path, &e))?;
        let stored = meta.last_modified.timestamp_millis();
        let received_at = Timestamp::from_millisecond(stored).map_err(|e| damaged(&path, &e))?;
        Ok(Some(StoredBatch {
            launch,
            pod_uid,
            received_at,
            batch,
        }))
    }
}

/// Launch and pod from the name of a batch.
fn origin(path: &Path) -> Option<(u32, String)> {
    let parts: Vec<_> = path.parts().collect();
    let [_, _, _, launch, pod, _] = parts.as_slice() else {
        return None;
    };
    let launch = launch.as_ref().parse().ok()?;
    Some((launch, pod.as_ref().to_owned()))
}

fn sort(batches: &mut [StoredBatch]) {
    let mut first: HashMap<String, Timestamp> = HashMap::new();
    for batch in batches.iter() {
        first
            .entry(batch.pod_uid.clone())
            .and_modify(|at| *at = batch.received_at.min(*at))
            .or_insert(batch.received_at);
    }
    batches.sort_by(|a, b| {
        let key = |s: &StoredBatch| (s.launch, first.get(&s.pod_uid).copied());
        key(a)
            .cmp(&key(b))
            .then_with(|| a.pod_uid.cmp(&b.pod_uid))
            .then_with(|| a.batch.sequence.cmp(&b.batch.sequence))
    });
}
