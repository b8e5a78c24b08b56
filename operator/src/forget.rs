//! What is held in memory for an object goes some moments after the object has gone.
//!
//! It is compared with the caches rather than dropped at each deletion: deletions that happened while a watch was interrupted
//! are never told, and a reconciliation under way can take up again what was just dropped.

use crate::{caches::Caches, kinds, run::controller as runs, triggers::gathered};
use futures::StreamExt as _;
use kube::{Resource, ResourceExt as _, runtime::reflector::Store};
use std::{collections::BTreeSet, sync::Arc};
use tokio::sync::watch as signal;

/// Forgets what has gone, each time that something may have, for as long as the process lives.
pub(crate) async fn forget_always(
    runs: Arc<runs::Context>,
    kinds: Arc<kinds::Context>,
    gone: signal::Receiver<u64>,
) {
    let mut turns = std::pin::pin!(gathered(gone));
    while turns.next().await.is_some() {
        // What is not in a cache that was never filled has not gone.
        runs.caches.ready().await;
        forget(&runs, &kinds, &runs.caches).await;
    }
}

async fn forget(runs: &runs::Context, kinds: &kinds::Context, caches: &Caches) {
    let alive = uids(&caches.runs);
    runs.memory.keep(&alive);
    runs.inbox.keep(&alive).await;
    let mut definitions = uids(&caches.sops);
    definitions.extend(uids(&caches.policies));
    kinds.written.keep(&definitions);
}

fn uids<K>(cache: &Store<K>) -> BTreeSet<String>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let objects = cache.state();
    objects.iter().filter_map(|object| object.uid()).collect()
}
