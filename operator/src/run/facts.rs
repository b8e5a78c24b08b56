//! Long-term memory: what a run that succeeded leaves for later runs of its project.
//!
//! It is kept before the end is written: so it is kept once, and is not kept again when it has been deleted. An operator that is
//! killed in between does the same again, which changes nothing.

use super::{launch::End, look::Seen, stage::Stage};
use crate::store::{Store, StoreError};
use bytes::Bytes;
use sopwith_crds::{
    contract::{
        Digest,
        delta::Reading,
        plan::RunPlan,
        snapshot::{Message, Snapshot, messages},
    },
    memory,
    status::Phase,
};

impl Stage<'_> {
    /// Keeps what a run leaves that ends now. A trace that cannot be read is said in the log; the run ends as it would without.
    pub(super) async fn keep_facts(
        &self,
        plan: &RunPlan,
        seen: &Seen,
        end: &End,
    ) -> Result<(), StoreError> {
        let snapshot = seen.progress.snapshot.as_deref();
        keep(&self.context.store, plan, snapshot, end).await
    }
}

async fn keep(
    store: &Store,
    plan: &RunPlan,
    snapshot: Option<&str>,
    end: &End,
) -> Result<(), StoreError> {
    if plan.memory.is_none() || end.phase != Phase::Succeeded {
        return Ok(());
    }
    match trace(store, &plan.run.uid, snapshot).await {
        Ok(messages) => {
            let left = memory::left(plan, &messages, end.at);
            store.put_facts(&left).await
        }
        Err(Unread::Store(error)) => Err(error),
        Err(Unread::Wrong(why)) => {
            let run = &plan.run.name;
            tracing::warn!(run, %why, "the run leaves no facts, since its trace cannot be read");
            Ok(())
        }
    }
}

/// Why a trace was not read.
#[derive(Debug)]
enum Unread {
    /// The store did not answer.
    Store(StoreError),
    /// It is not there, or not what a runner wrote.
    Wrong(String),
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Self {
        match error {
            damaged @ StoreError::Damaged { .. } => Self::Wrong(damaged.to_string()),
            other => Self::Store(other),
        }
    }
}

/// The trace that a snapshot of a run refers to.
async fn trace(store: &Store, uid: &str, snapshot: Option<&str>) -> Result<Vec<Message>, Unread> {
    let Some(snapshot) = snapshot else {
        return Err(Unread::Wrong("it has no snapshot".to_owned()));
    };
    let digest: Digest = snapshot.parse().map_err(|error| wrong(&error))?;
    let snapshot = snapshot_of(store, uid, digest).await?;
    let mut all = Vec::new();
    for log in &snapshot.messages {
        let bytes = blob(store, uid, log).await?;
        all.extend(messages(&bytes).map_err(|error| wrong(&error))?);
    }
    Ok(all)
}

async fn snapshot_of(store: &Store, uid: &str, digest: Digest) -> Result<Snapshot, Unread> {
    let mut reading = Reading::default();
    let mut next = Some(digest);
    while let Some(part) = next {
        let bytes = blob(store, uid, &part).await?;
        next = reading.take(&part, &bytes).map_err(|error| wrong(&error))?;
    }
    Ok(reading.whole())
}

async fn blob(store: &Store, uid: &str, digest: &Digest) -> Result<Bytes, Unread> {
    let found = store.get_blob(uid, digest).await?;
    found.ok_or_else(|| Unread::Wrong(format!("{digest} is not stored")))
}

fn wrong(error: &(impl std::fmt::Display + ?Sized)) -> Unread {
    Unread::Wrong(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fixture;
    use k8s_openapi::jiff::Timestamp;
    use sopwith_crds::contract::{VERSION, delta::Delta, memory::Recalled};

    const UID: &str = "run-1";

    fn remembering() -> RunPlan {
        let mut plan = fixture::plan();
        plan.run.uid = UID.to_owned();
        plan.options.project_name = "cards".to_owned();
        plan.memory = Some(Recalled::default());
        plan
    }

    #[tokio::test]
    async fn a_run_that_succeeded_leaves_facts_where_it_has_long_term_memory_and_only_once() {
        let ended = |phase: Phase, second: i64| End {
            phase,
            failure: None,
            at: fixture::at(second),
        };
        let forgetful = RunPlan {
            memory: None,
            ..remembering()
        };
        for (plan, end, kept) in [
            (remembering(), ended(Phase::Succeeded, 0), 1),
            (remembering(), ended(Phase::Failed, 0), 0),
            (remembering(), ended(Phase::Cancelled, 0), 0),
            (forgetful, ended(Phase::Succeeded, 0), 0),
        ] {
            let store = Store::in_memory();
            let snapshot = left(&store, None).await;
            keep(&store, &plan, Some(&snapshot), &end).await.unwrap();
            // The operator was killed before it wrote the end, and comes to it again later.
            let later = ended(end.phase, 9);
            keep(&store, &plan, Some(&snapshot), &later).await.unwrap();
            let facts = store.facts("demo", "cards").await.unwrap();
            assert_eq!(facts.len(), kept, "{:?}", end.phase);
            for facts in facts {
                assert_eq!((facts.run.as_str(), facts.at), ("blackjack", end.at));
                assert_eq!(facts.facts[0].text, plan.options.idea);
            }
        }
    }

    #[tokio::test]
    async fn a_run_whose_trace_cannot_be_read_ends_all_the_same() {
        let store = Store::in_memory();
        let end = End {
            phase: Phase::Succeeded,
            failure: None,
            at: fixture::at(0),
        };
        keep(&store, &remembering(), None, &end).await.unwrap();
        assert_eq!(store.facts("demo", "cards").await.unwrap(), []);
    }

    async fn put(store: &Store, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        store.put_blob(UID, &digest, bytes.into()).await.unwrap();
        digest
    }

    async fn left(store: &Store, log: Option<Digest>) -> String {
        let snapshot = Delta {
            version: VERSION,
            messages: log,
            ..Delta::default()
        };
        put(store, serde_json::to_vec(&snapshot).unwrap())
            .await
            .to_string()
    }

    #[tokio::test]
    async fn the_trace_of_the_last_snapshot_is_read() {
        let store = Store::in_memory();
        let line = |number: u64| {
            let message = Message {
                number,
                at: Timestamp::UNIX_EPOCH,
                sender: "writer".into(),
                recipients: Vec::new(),
                cause: "write/draft".into(),
                attempt: 1,
                tool: None,
                item: None,
                verdict: None,
                content: "a word".into(),
                wrote: Vec::new(),
                input_tokens: 0,
                output_tokens: 0,
            };
            serde_json::to_string(&message).unwrap()
        };
        let log = put(&store, format!("{}\n{}\n", line(1), line(2)).into()).await;
        let snapshot = left(&store, Some(log)).await;
        let read = trace(&store, UID, Some(&snapshot)).await.unwrap();
        let numbers: Vec<u64> = read.iter().map(|message| message.number).collect();
        assert_eq!(numbers, [1, 2]);
        let empty = left(&store, None).await;
        assert_eq!(trace(&store, UID, Some(&empty)).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_trace_that_cannot_be_read_is_no_reason_to_try_for_ever() {
        let store = Store::in_memory();
        let no_log = left(&store, Some(Digest::of("gone"))).await;
        let no_json = put(&store, b"{".to_vec()).await.to_string();
        let garbage = put(&store, b"{}\n".to_vec()).await;
        let no_messages = left(&store, Some(garbage)).await;
        let gone = Digest::of("gone").to_string();
        for snapshot in [
            None,
            Some("no digest"),
            Some(gone.as_str()),
            Some(no_log.as_str()),
            Some(no_json.as_str()),
            Some(no_messages.as_str()),
        ] {
            let read = trace(&store, UID, snapshot).await;
            assert!(
                matches!(read, Err(Unread::Wrong(_))),
                "{snapshot:?}: {read:?}"
            );
        }
    }
}
