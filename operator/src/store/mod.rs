//! The artifact store: what runners reported and handed over, kept outside the cluster's own store.
//!
//! Layout, below the URL that the operator was given:
//!
//! | object | written |
//! |---|---|
//! | `runs/{uid}/launches/{n:06}/{pod_uid}/{seq:08}.json` | once: a batch of reports, as it came |
//! | `runs/{uid}/blobs/{hex}` | once: bytes under their SHA-256 |
//! | `runs/{uid}/meta.json` | once: whose run it is |
//! | `uploads/{namespace}/{hex}` | the same each time: a project's archive under its SHA-256 |
//! | `memory/{namespace}/{project}/{uid}.json` | once: what a run left for later runs of its project |
//! | `ledger/{namespace}/{policy}/{date}/…` | over and over, each time over the version before: what a launch used on a day |
//! | `probe` | once: shows that the store can be written and keeps what is there |

mod batches;
mod blobs;
mod facts;
mod open;
#[cfg(test)]
mod tests;
mod uploads;

pub use batches::{BatchKey, Put, StoredBatch};
pub use blobs::{BlobWriter, Pieces};
pub use facts::KeptFacts;
pub use open::S3Options;
pub use uploads::Upload;

use crate::leader::{Leadership, NotLeader};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::jiff::Timestamp;
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion, path::Path,
};
use serde::{Deserialize, Serialize};
use sopwith_crds::contract::Digest;
use std::{fmt, sync::Arc};

/// The artifact store. Clones share one connection.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// Whether an object can be written over one version of it only. A folder cannot, and has one writer.
    versioned: bool,
    url: Arc<str>,
    leadership: Leadership,
}

/// A version of an object.
pub(crate) type Version = UpdateVersion;

/// Whose run it is; kept beside its evidence, which outlives the run.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RunMeta {
    /// Namespace of the `AgentRun`.
    pub namespace: String,
    /// Name of the `AgentRun`.
    pub name: String,
    /// UID of the `AgentRun`.
    pub uid: String,
}

/// The store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL names no store that this build can open.
    #[error(
        "storage URL \"{url}\" cannot be opened: {why}; use file:///<absolute path> or s3://<bucket>/<prefix>"
    )]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The endpoint of an object store cannot be used.
    #[error("--s3-endpoint \"{endpoint}\" cannot be used: {why}")]
    Endpoint {
        /// As given, without credentials.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store takes a write that it was told not to take.
    #[error(
        "{0} writes over an object in spite of If-None-Match: use a store with conditional writes, as Amazon S3 has"
    )]
    Careless(String),
    /// Somebody else writes an object all the time.
    #[error(
        "object {0} was changed by others several times in a row: does another installation use this store?"
    )]
    Contended(String),
    /// A part of a key that would leave its folder.
    #[error(
        "\"{0}\" cannot be part of an object's name: expected letters, digits, '-', '_' and '.'"
    )]
    Key(String),
    /// An object that is not what was once written.
    #[error("object {key} is damaged: {why}")]
    Damaged {
        /// Where it is.
        key: String,
        /// How that shows.
        why: String,
    },
    /// The bytes that came are not those of the digest.
    #[error("the content has digest {actual}, not {expected}: send it again")]
    Digest {
        /// What was announced.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// More bytes than an object of this kind may have.
    #[error("the content is longer than {most} bytes")]
    TooLarge {
        /// The bound.
        most: usize,
    },
    /// Only the leader may write.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// The store itself failed.
    #[error("the artifact store failed: {}", told(.0))]
    Backend(#[from] object_store::Error),
}

/// What failed, and of an answer in XML what it says: the rest of it repeats the request, the key's id included.
fn told(error: &object_store::Error) -> String {
    let text = error.to_string();
    let Some((head, answer)) = text.split_once("<?xml") else {
        return text;
    };
    let part = |name: &str| {
        let (_, rest) = answer.split_once(&format!("<{name}>"))?;
        rest.split_once('<').map(|(text, _)| text)
    };
    let (code, message) = (part("Code"), part("Message"));
    format!(
        "{head}{}: {}",
        code.unwrap_or("no code"),
        message.unwrap_or("no message")
    )
}

impl Store {
    /// The same store, which nothing can be written into but by the leader.
    #[must_use]
    pub fn fenced(&self, leadership: Leadership) -> Self {
        Self {
            leadership,
            ..self.clone()
        }
    }

    /// Whether the store answers, can be written, and refuses to write over what it was told not to: without that, two
    /// leaders could not be kept apart.
    pub async fn ask(&self) -> Result<(), StoreError> {
        let path = Path::from("probe");
        if self.create(&path, Bytes::new()).await? && self.create(&path, Bytes::new()).await? {
            return Err(StoreError::Careless(self.url.to_string()));
        }
        Ok(())
    }

    /// Notes whose run it is. Safe to repeat.
    pub async fn put_meta(&self, meta: &RunMeta) -> Result<(), StoreError> {
        let path = run_path(&meta.uid)?.join("meta.json");
        let bytes = serde_json::to_vec(meta).map_err(|e| damaged(&path, &e))?;
        self.create(&path, bytes.into()).await?;
        Ok(())
    }

    /// Whose run it is; none where no batch of it was stored.
    pub async fn meta(&self, uid: &str) -> Result<Option<RunMeta>, StoreError> {
        let path = run_path(uid)?.join("meta.json");
        let Some(bytes) = self.read(&path).await? else {
            return Ok(None);
        };
        let meta = serde_json::from_slice(&bytes).map_err(|e| damaged(&path, &e))?;
        Ok(Some(meta))
    }

    /// Every run of which something is kept, with the time of the last write.
    pub async fn runs(&self) -> Result<Vec<(String, Timestamp)>, StoreError> {
        let mut runs = Vec::new();
        for folder in self.folders(&Path::from("runs")).await? {
            let written = self.list(&folder).await?;
            let newest = written.iter().map(|object| object.last_modified).max();
            let newest = newest.and_then(|at| Timestamp::from_second(at.timestamp()).ok());
            if let (Some(uid), Some(newest)) = (folder.filename(), newest) {
                runs.push((uid.to_owned(), newest));
            }
        }
        Ok(runs)
    }

    /// Deletes everything that is kept of a run but its entries in the ledger. Safe to repeat.
    pub async fn delete_run(&self, uid: &str) -> Result<(), StoreError> {
        self.leadership.check()?;
        let objects = self.list(&run_path(uid)?).await?;
        let paths = objects.into_iter().map(|meta| Ok(meta.location));
        let mut deleted = self
            .objects
            .delete_stream(futures::stream::iter(paths).boxed());
        while let Some(result) = deleted.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Writes an object over the version that is known of it, none for one that is not known to be there. Gives its new
    /// version; none where another was there. A folder has no versions: there the write always counts.
    pub(crate) async fn write_over(
        &self,
        path: &Path,
        bytes: Bytes,
        known: Option<Version>,
    ) -> Result<Option<Version>, StoreError> {
        self.leadership.check()?;
        let mode = match known {
            _ if !self.versioned => PutMode::Overwrite,
            Some(version) => PutMode::Update(version),
            None => PutMode::Create,
        };
        let options = PutOptions::from(mode);
        match self.objects.put_opts(path, bytes.into(), options).await {
            Ok(written) => Ok(Some(written.into())),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Reads an object; none where it is not there.
    pub(crate) async fn read(&self, path: &Path) -> Result<Option<Bytes>, StoreError> {
        let found = self.read_version(path).await?;
        Ok(found.map(|(bytes, _)| bytes))
    }

    /// Reads an object and says which version it is; none where it is not there.
    pub(crate) async fn read_version(
        &self,
        path: &Path,
    ) -> Result<Option<(Bytes, Version)>, StoreError> {
        match self.objects.get(path).await {
            Ok(found) => {
                let version = Version {
                    e_tag: found.meta.e_tag.clone(),
                    version: found.meta.version.clone(),
                };
                Ok(Some((found.bytes().await?, version)))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Everything below a path.
    pub(crate) async fn list(&self, path: &Path) -> Result<Vec<ObjectMeta>, StoreError> {
        Ok(self.objects.list(Some(path)).try_collect().await?)
    }

    /// The folders right below a path.
    pub(crate) async fn folders(&self, path: &Path) -> Result<Vec<Path>, StoreError> {
        let listed = self.objects.list_with_delimiter(Some(path)).await?;
        Ok(listed.common_prefixes)
    }

    /// Deletes an object. Safe to repeat.
    async fn remove(&self, path: &Path) -> Result<(), StoreError> {
        self.leadership.check()?;
        match self.objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Writes an object unless it is there already, and says whether it did.
    async fn create(&self, path: &Path, bytes: Bytes) -> Result<bool, StoreError> {
        self.leadership.check()?;
        let options = PutOptions::from(PutMode::Create);
        match self.objects.put_opts(path, bytes.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({self})")
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// Where everything of a run is.
fn run_path(uid: &str) -> Result<Path, StoreError> {
    Ok(Path::from("runs").join(segment(uid)?))
}

/// A part of an object's name that comes from outside, refused where it could lead elsewhere.
pub(crate) fn segment(text: &str) -> Result<&str, StoreError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let folder = text.bytes().all(|b| b == b'.');
    if text.len() > 253 || folder || !text.bytes().all(plain) {
        return Err(StoreError::Key(text.chars().take(80).collect()));
    }
    Ok(text)
}

pub(crate) fn damaged(path: &Path, why: &impl ToString) -> StoreError {
    StoreError::Damaged {
        key: path.to_string(),
        why: why.to_string(),
    }
}
