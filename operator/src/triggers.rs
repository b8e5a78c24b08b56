//! What makes a controller look at an object beside its own watch.

use crate::{
    caches::{Caches, Watch},
    run::controller as runs,
};
use futures::{Stream, StreamExt, stream};
use kube::{
    ResourceExt,
    runtime::{reflector::ObjectRef, watcher},
};
use sopwith_crds::AgentRun;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch as signal;

/// Changes of runs are told to procedures and policies together.
const GATHER: Duration = Duration::from_secs(1);

/// Passes a watch on and signals every change in it.
pub(crate) fn changes<K: Clone + Send + Sync + 'static>(
    watch: Watch<K>,
    changed: &signal::Sender<u64>,
) -> Watch<K> {
    let changed = changed.clone();
    watch
        .inspect(move |_| changed.send_modify(|count| *count = count.wrapping_add(1)))
        .boxed()
}

/// Passes the watch of runs on, and forgets what is deleted.
pub(crate) fn forgetting(watch: Watch<AgentRun>, context: Arc<runs::Context>) -> Watch<AgentRun> {
    watch
        .inspect(move |event| match event {
            Ok(watcher::Event::Delete(run)) => {
                let uid = run.uid().unwrap_or_default();
                context.memory.forget(&uid);
                context
                    .changed
                    .send_modify(|count| *count = count.wrapping_add(1));
                let inbox = context.inbox.clone();
                tokio::spawn(async move { inbox.forget(&uid).await });
            }
            // Whose deletion the watch lost is missing from the list.
            Ok(watcher::Event::InitDone) => {
                let runs = context.caches.runs.state();
                let alive = runs.iter().filter_map(|run| run.uid()).collect();
                for uid in context.memory.retain(&alive) {
                    let inbox = context.inbox.clone();
                    tokio::spawn(async move { inbox.forget(&uid).await });
                }
            }
            Ok(watcher::Event::Apply(run))
                if run.status.as_ref().is_none_or(|s| s.phase.is_none()) =>
            {
                context
                    .changed
                    .send_modify(|count| *count = count.wrapping_add(1));
            }
            _ => {}
        })
        .boxed()
}

/// All waiting runs, each time a procedure or policy changes.
pub(crate) fn those_waiting(
    changed: signal::Receiver<u64>,
    caches: Caches,
) -> impl Stream<Item = ObjectRef<AgentRun>> + Send + 'static {
    signals(changed, Duration::ZERO).flat_map(move |()| {
        let runs = caches.runs.state();
        let waiting = runs.into_iter().filter(|run| runs::waiting(run));
        stream::iter(
            waiting
                .map(|run| ObjectRef::from_obj(run.as_ref()))
                .collect::<Vec<_>>(),
        )
    })
}

pub(crate) fn gathered(changed: signal::Receiver<u64>) -> impl Stream<Item = ()> + Send + 'static {
    signals(changed, GATHER)
}

/// One item for all changes within `gather`.
pub(crate) fn signals(
    changed: signal::Receiver<u64>,
    gather: Duration,
) -> impl Stream<Item = ()> + Send + 'static {
    stream::unfold(changed, move |mut changed| async move {
        changed.changed().await.ok()?;
        tokio::time::sleep(gather).await;
        changed.mark_unchanged();
        Some(((), changed))
    })
}
