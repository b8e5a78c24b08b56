//! What makes a controller look at an object beside its own watch.

use crate::{
    caches::{Caches, Watch},
    run::controller as runs,
};
use futures::{Stream, StreamExt, stream};
use kube::runtime::{reflector::ObjectRef, watcher};
use sopwith_crds::{AgentRun, status::Phase};
use std::time::Duration;
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

/// Passes the watch of runs on, and signals that one appeared, ended or went, or that all were listed anew: what happened to them
/// meanwhile is told by no event of its own.
pub(crate) fn comings(watch: Watch<AgentRun>, changed: &signal::Sender<u64>) -> Watch<AgentRun> {
    let changed = changed.clone();
    watch
        .inspect(move |event| {
            // Who wrote the end of a run may never have learned it: where the answer was lost, only the watch tells.
            let counts = |run: &AgentRun| {
                let phase = run.status.as_ref().and_then(|status| status.phase);
                phase.is_none_or(Phase::is_final)
            };
            match event {
                Ok(watcher::Event::Apply(run)) if !counts(run) => {}
                Ok(
                    watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone,
                ) => {
                    changed.send_modify(|count| *count = count.wrapping_add(1));
                }
                _ => {}
            }
        })
        .boxed()
}

/// Passes a watch on, and signals that objects may have gone: one was seen to go, or all were listed anew, and what went
/// before that is not told.
pub(crate) fn goings<K: Send + Sync + 'static>(
    watch: Watch<K>,
    gone: &signal::Sender<u64>,
) -> Watch<K> {
    let gone = gone.clone();
    watch
        .inspect(move |event| {
            if let Ok(watcher::Event::Delete(_) | watcher::Event::InitDone) = event {
                gone.send_modify(|count| *count = count.wrapping_add(1));
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use watcher::Event;

    fn run() -> AgentRun {
        AgentRun::new("one", sopwith_crds::agent_run::AgentRunSpec::default())
    }

    fn run_in(phase: Phase) -> AgentRun {
        let mut run = run();
        run.status.get_or_insert_default().phase = Some(phase);
        run
    }

    #[rstest]
    #[case::it_appeared(vec![Event::Apply(run())], 1)]
    #[case::it_is_at_work(vec![Event::Apply(run_in(Phase::Running))], 0)]
    #[case::it_ended(vec![Event::Apply(run_in(Phase::Failed))], 1)]
    #[case::it_went(vec![Event::Delete(run_in(Phase::Running))], 1)]
    #[case::it_ended_while_nobody_watched(vec![Event::Init, Event::InitApply(run_in(Phase::Failed)), Event::InitDone], 1)]
    #[tokio::test]
    async fn runs_are_counted_when_one_may_have_come_ended_or_gone(
        #[case] events: Vec<Event<AgentRun>>,
        #[case] signals: u64,
    ) {
        let changed = signal::Sender::new(0);
        let watch: Watch<AgentRun> = stream::iter(events.into_iter().map(Ok)).boxed();
        comings(watch, &changed).collect::<Vec<_>>().await;
        assert_eq!(*changed.borrow(), signals);
    }

    #[rstest]
    #[case::it_was_deleted(vec![Event::Delete(run())], 1)]
    #[case::deletions_in_between_are_not_told(vec![Event::Init, Event::InitApply(run()), Event::InitDone], 1)]
    #[case::nothing_went(vec![Event::Apply(run())], 0)]
    #[tokio::test]
    async fn whatever_may_have_gone_is_looked_for(
        #[case] events: Vec<Event<AgentRun>>,
        #[case] signals: u64,
    ) {
        let gone = signal::Sender::new(0);
        let watch: Watch<AgentRun> = stream::iter(events.into_iter().map(Ok)).boxed();
        goings(watch, &gone).collect::<Vec<_>>().await;
        assert_eq!(*gone.borrow(), signals);
    }
}
