//! Reading what snapshots refer to.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use sopwith_crds::contract::{
    Digest,
    delta::Reading,
    snapshot::{Message, Snapshot, TreeEntry, messages},
};

use super::{AT_ONCE, SnapshotError};
use crate::{
    gateway::{Gateway, GatewayError},
    tree::{Tree, TreeError},
};

/// Reads a snapshot; says from how many blobs.
pub(crate) async fn read(
    gateway: &Gateway,
    digest: &Digest,
) -> Result<(Snapshot, usize), SnapshotError> {
    let mut reading = Reading::default();
    let mut next = Some(digest.clone());
    while let Some(part) = next {
        let bytes = gateway.get(&part).await?;
        next = reading
            .take(&part, &bytes)
            .map_err(|error| wrong(digest, &error))?;
    }
    let length = reading.length();
    Ok((reading.whole(), length))
}

/// The trace of a snapshot.
pub(super) async fn trace(
    gateway: &Gateway,
    digest: &Digest,
    blobs: &[Digest],
) -> Result<Vec<Message>, SnapshotError> {
    let gets = blobs.iter().map(|blob| gateway.get(blob));
    let blobs: Vec<Bytes> = stream::iter(gets).buffered(AT_ONCE).try_collect().await?;
    let mut all = Vec::new();
    for blob in blobs {
        let some = messages(&blob)
            .map_err(|error| wrong(digest, &format_args!("its messages: {error}")))?;
        all.extend(some);
    }
    Ok(all)
}

/// A snapshot that is not what a runner wrote.
pub(super) fn wrong(digest: &Digest, why: &impl ToString) -> SnapshotError {
    SnapshotError::Wrong {
        digest: digest.clone(),
        message: why.to_string(),
    }
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
    pub(super) fn of(self, digest: &Digest) -> SnapshotError {
        match self {
            Self::Gateway(error) => error.into(),
            Self::Tree(error) => wrong(digest, &error),
        }
    }
}

/// Fetches the files of a list; those that another tree has with the same content are taken from there.
pub(crate) async fn files<'a>(
    gateway: &Gateway,
    entries: impl IntoIterator<Item = &'a TreeEntry>,
    near: &Tree,
) -> Result<Tree, FilesError> {
    let at_hand: BTreeMap<Digest, Bytes> = near
        .iter()
        .map(|(_, file)| (Digest::of(&file.bytes), file.bytes.clone()))
        .collect();
    let gets = entries.into_iter().map(|entry| {
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
