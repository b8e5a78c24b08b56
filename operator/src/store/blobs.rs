//! Blobs: bytes under their SHA-256, per run.

use super::{Store, StoreError, damaged, run_path};
use crate::leader::Leadership;
use bytes::Bytes;
use futures::{TryStreamExt, stream::BoxStream};
use object_store::{ObjectStoreExt, buffered::BufWriter, path::Path};
use sha2::{Digest as _, Sha256};
use sopwith_crds::contract::{Digest, report::MAX_BLOB_BYTES};
use tokio::io::AsyncWriteExt as _;

/// What is smaller goes up in one request; the rest in parts of this size, the least that S3 takes.
const PART_BYTES: usize = 5 * 1024 * 1024;
/// How many parts of one upload may be under way.
const PARTS_AT_ONCE: usize = 2;

/// The content of an object.
pub type Pieces = BoxStream<'static, Result<Bytes, StoreError>>;

/// A blob on its way in. Nothing can be read under its digest before [`finish`](Self::finish) has proven it.
pub struct BlobWriter {
    upload: BufWriter,
    leadership: Leadership,
    hasher: Sha256,
    expected: Digest,
    length: usize,
}

impl Store {
    /// Whether a run has a blob, and how many bytes it has.
    pub async fn has_blob(
        &self,
        run_uid: &str,
        digest: &Digest,
    ) -> Result<Option<u64>, StoreError> {
        self.size(&blob_path(run_uid, digest)?).await
    }

    /// Makes a blob of one run a blob of another, too; false where the first does not have it. Safe to repeat.
    pub async fn adopt_blob(
        &self,
        from_uid: &str,
        run_uid: &str,
        digest: &Digest,
    ) -> Result<bool, StoreError> {
        self.leadership.check()?;
        let (from, to) = (blob_path(from_uid, digest)?, blob_path(run_uid, digest)?);
        match self.objects.copy(&from, &to).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Begins to store a blob that comes in pieces.
    pub fn blob_writer(&self, run_uid: &str, digest: &Digest) -> Result<BlobWriter, StoreError> {
        self.writer(blob_path(run_uid, digest)?, digest)
    }

    /// Begins to store bytes that come in pieces and have a digest.
    pub(super) fn writer(&self, path: Path, digest: &Digest) -> Result<BlobWriter, StoreError> {
        self.leadership.check()?;
        Ok(BlobWriter {
            upload: BufWriter::with_capacity(self.objects.clone(), path, PART_BYTES)
                .with_max_concurrency(PARTS_AT_ONCE),
            leadership: self.leadership.clone(),
            hasher: Sha256::new(),
            expected: digest.clone(),
            length: 0,
        })
    }

    /// Stores a blob. Safe to repeat.
    pub async fn put_blob(
        &self,
        run_uid: &str,
        digest: &Digest,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        let mut writer = self.blob_writer(run_uid, digest)?;
        match writer.write(bytes).await {
            Ok(()) => writer.finish().await,
            Err(e) => {
                writer.abort().await;
                Err(e)
            }
        }
    }

    /// A blob of at most [`MAX_BLOB_BYTES`]; none where it is not there. Its content is checked.
    pub async fn get_blob(
        &self,
        run_uid: &str,
        digest: &Digest,
    ) -> Result<Option<Bytes>, StoreError> {
        let path = blob_path(run_uid, digest)?;
        let Some(bytes) = self.read(&path).await? else {
            return Ok(None);
        };
        if Digest::of(&bytes) != *digest {
            return Err(damaged(&path, &"its content has another digest"));
        }
        Ok(Some(bytes))
    }

    /// A blob in pieces, with its length; none where it is not there. Who reads it checks it.
    pub async fn stream_blob(
        &self,
        run_uid: &str,
        digest: &Digest,
    ) -> Result<Option<(u64, Pieces)>, StoreError> {
        self.stream(&blob_path(run_uid, digest)?).await
    }

    /// Whether there is an object, and how many bytes it has.
    pub(super) async fn size(&self, path: &Path) -> Result<Option<u64>, StoreError> {
        match self.objects.head(path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// An object in pieces, with its length; none where it is not there.
    pub(super) async fn stream(&self, path: &Path) -> Result<Option<(u64, Pieces)>, StoreError> {
        match self.objects.get(path).await {
            Ok(found) => {
                let size = found.meta.size;
                let pieces = found.into_stream().map_err(StoreError::from);
                Ok(Some((size, Box::pin(pieces))))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

impl BlobWriter {
    /// The next piece.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), StoreError> {
        self.length += piece.len();
        if self.length > MAX_BLOB_BYTES {
            return Err(StoreError::TooLarge {
                most: MAX_BLOB_BYTES,
            });
        }
        self.hasher.update(&piece);
        self.upload.put(piece).await?;
        Ok(())
    }

    /// Makes the blob readable where its content has the digest, or drops it.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        let hex = hex::encode(self.hasher.finalize());
        if hex != self.expected.hex() {
            // What is left of a failed upload is never read.
            let _ = self.upload.abort().await;
            let actual = hex.parse().unwrap_or_else(|_| Digest::of([]));
            return Err(StoreError::Digest {
                expected: self.expected,
                actual,
            });
        }
        self.leadership.check()?;
        let failed = |source: std::io::Error| object_store::Error::Generic {
            store: "upload",
            source: source.into(),
        };
        self.upload.shutdown().await.map_err(failed)?;
        Ok(())
    }

    /// Drops what came so far.
    pub async fn abort(mut self) {
        // What is left of a failed upload is never read.
        let _ = self.upload.abort().await;
    }
}

fn blob_path(run_uid: &str, digest: &Digest) -> Result<Path, StoreError> {
    Ok(run_path(run_uid)?.join("blobs").join(digest.hex()))
}
