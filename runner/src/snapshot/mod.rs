//! Snapshots: everything a later launch needs, in blobs that are addressed by their digest.

mod blobs;
mod last;
mod read;
mod record;

use sopwith_crds::contract::Digest;

pub use blobs::Blobs;
pub(crate) use read::{FilesError, files, read};
pub use record::{Baseline, Begun, Frozen, Machine, Record};

use crate::gateway::GatewayError;

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
