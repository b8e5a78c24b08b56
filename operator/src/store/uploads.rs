//! Uploads: archives of projects under their SHA-256, each in the namespace that it was uploaded into.

use super::{BlobWriter, Pieces, Store, StoreError, segment};
use k8s_openapi::jiff::Timestamp;
use object_store::path::Path;
use sopwith_crds::contract::Digest;

/// An archive that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its namespace.
    pub namespace: String,
    /// Bytes.
    pub size: u64,
    /// When it was last uploaded.
    pub at: Timestamp,
    path: Path,
}

impl Store {
    /// Begins to store an archive. The same archive again begins its time anew.
    pub fn upload_writer(
        &self,
        namespace: &str,
        digest: &Digest,
    ) -> Result<BlobWriter, StoreError> {
        self.writer(upload_path(namespace, digest)?, digest)
    }

    /// Whether a namespace has an archive, and how many bytes it has.
    pub async fn has_upload(
        &self,
        namespace: &str,
        digest: &Digest,
    ) -> Result<Option<u64>, StoreError> {
        self.size(&upload_path(namespace, digest)?).await
    }

    /// An archive in pieces, with its length; none where the namespace does not have it. Who reads it checks it.
    pub async fn stream_upload(
        &self,
        namespace: &str,
        digest: &Digest,
    ) -> Result<Option<(u64, Pieces)>, StoreError> {
        self.stream(&upload_path(namespace, digest)?).await
    }

    /// Every archive of a namespace.
    pub async fn uploads_of(&self, namespace: &str) -> Result<Vec<Upload>, StoreError> {
        let folder = Path::from("uploads").join(segment(namespace)?);
        let kept = self.list(&folder).await?.into_iter();
        Ok(kept
            .filter_map(|object| {
                Some(Upload {
                    namespace: namespace.to_owned(),
                    size: object.size,
                    at: Timestamp::from_second(object.last_modified.timestamp()).ok()?,
                    path: object.location,
                })
            })
            .collect())
    }

    /// Every archive of every namespace.
    pub async fn uploads(&self) -> Result<Vec<Upload>, StoreError> {
        let mut all = Vec::new();
        for folder in self.folders(&Path::from("uploads")).await? {
            if let Some(namespace) = folder.filename() {
                all.extend(self.uploads_of(namespace).await?);
            }
        }
        Ok(all)
    }

    /// Deletes an archive. Safe to repeat.
    pub async fn delete_upload(&self, upload: &Upload) -> Result<(), StoreError> {
        self.remove(&upload.path).await
    }
}

fn upload_path(namespace: &str, digest: &Digest) -> Result<Path, StoreError> {
    Ok(Path::from("uploads")
        .join(segment(namespace)?)
        .join(digest.hex()))
}
