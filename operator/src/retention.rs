//! Retention: what a run left outlives the run, and is swept when its time is over.
//!
//! A sweep looks at the store and the API server only, so that it also finds what was deleted while no operator was there.

use crate::{
    caches::Scope,
    store::{Store, StoreError},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Client, ResourceExt, api::ListParams};
use sopwith_crds::AgentRun;
use std::{collections::BTreeSet, time::Duration};

/// From one sweep to the next. Retention counts in days: a quarter of one is exact enough.
const EVERY: Duration = Duration::from_secs(6 * 60 * 60);

/// Days for which an uploaded project is kept.
pub(crate) const UPLOAD_DAYS: u32 = 7;

/// Why a sweep was not finished. The next one begins anew.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error("the runs of the cluster could not be listed: {0}")]
    Kube(#[from] kube::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Sweeps at once and then every few hours, for as long as the process lives.
pub(crate) async fn sweep_always(store: Store, client: Client, scope: Scope, days: u32) {
    let mut turns = tokio::time::interval(EVERY);
    loop {
        turns.tick().await;
        match sweep(&store, &client, &scope, days, Timestamp::now()).await {
            Ok(0) => {}
            Ok(runs) => tracing::info!(runs, days, "swept what deleted runs had left"),
            Err(error) => tracing::warn!(%error, "a sweep was not finished"),
        }
        match sweep_uploads(&store, &scope, Timestamp::now()).await {
            Ok(0) => {}
            Ok(uploads) => tracing::info!(uploads, days = UPLOAD_DAYS, "swept uploaded projects"),
            Err(error) => tracing::warn!(%error, "a sweep was not finished"),
        }
    }
}

async fn sweep(
    store: &Store,
    client: &Client,
    scope: &Scope,
    days: u32,
    now: Timestamp,
) -> Result<usize, SweepError> {
    // The store first: a run that is created in between is not in this list.
    let kept = store.runs().await?;
    let runs = scope.api::<AgentRun>(client);
    let alive = runs.list_metadata(&ListParams::default()).await?;
    let alive: BTreeSet<String> = alive.iter().filter_map(ResourceExt::uid).collect();
    let mut swept = 0;
    for (uid, newest) in kept {
        let over = !alive.contains(&uid) && is_over(newest, days, now);
        if over && is_ours(store, scope, &uid).await? {
            store.delete_run(&uid).await?;
            swept += 1;
        }
    }
    sweep_facts(store, scope, &alive, days, now).await?;
    Ok(swept)
}

/// What a run left for later runs of its project goes when its evidence would: once the run is deleted and its days are over.
async fn sweep_facts(
    store: &Store,
    scope: &Scope,
    alive: &BTreeSet<String>,
    days: u32,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let mut swept = 0;
    for facts in store.kept_facts().await? {
        let over = !alive.contains(&facts.uid) && is_over(facts.at, days, now);
        if over && scope.covers(&facts.namespace) {
            store.delete_facts(&facts).await?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Uploads are taken over by the first launch of the run that names them, so they need not be kept for long.
async fn sweep_uploads(store: &Store, scope: &Scope, now: Timestamp) -> Result<usize, StoreError> {
    let mut swept = 0;
    for upload in store.uploads().await? {
        if scope.covers(&upload.namespace) && is_over(upload.at, UPLOAD_DAYS, now) {
            store.delete_upload(&upload).await?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Whether a run is one of those that would be listed if it lived: another operator may keep its runs in the same store.
async fn is_ours(store: &Store, scope: &Scope, uid: &str) -> Result<bool, StoreError> {
    if *scope == Scope::Cluster {
        return Ok(true);
    }
    let meta = store.meta(uid).await?;
    Ok(meta.is_some_and(|meta| scope.covers(&meta.namespace)))
}

/// Whether what was last written then has been kept for so many days.
fn is_over(newest: Timestamp, days: u32, now: Timestamp) -> bool {
    now.duration_since(newest) > SignedDuration::from_hours(24 * i64::from(days))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{RunMeta, S3Options};
    use rstest::rstest;
    use sopwith_crds::contract::{Digest, memory::Facts};

    #[rstest]
    #[case::of_all_namespaces(Scope::Cluster, Some("shop"), true)]
    #[case::of_all_namespaces_and_unnamed(Scope::Cluster, None, true)]
    #[case::of_the_watched_namespace(Scope::Namespace("shop".into()), Some("shop"), true)]
    #[case::of_another_namespace(Scope::Namespace("shop".into()), Some("bank"), false)]
    #[case::of_nobody_knows_which(Scope::Namespace("shop".into()), None, false)]
    #[tokio::test]
    async fn only_runs_that_would_be_seen_alive_are_swept(
        #[case] scope: Scope,
        #[case] namespace: Option<&str>,
        #[case] ours: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let url = url::Url::from_directory_path(folder.path()).unwrap();
        let store = Store::open(url.as_str(), &S3Options::default()).unwrap();
        if let Some(namespace) = namespace {
            let meta = RunMeta {
                namespace: namespace.into(),
                name: "one".into(),
                uid: "uid-1".into(),
            };
            store.put_meta(&meta).await.unwrap();
        }
        assert_eq!(is_ours(&store, &scope, "uid-1").await.unwrap(), ours);
    }

    #[tokio::test]
    async fn uploads_go_after_their_days_where_the_operator_looks() {
        let folder = tempfile::tempdir().unwrap();
        let url = url::Url::from_directory_path(folder.path()).unwrap();
        let store = Store::open(url.as_str(), &S3Options::default()).unwrap();
        for namespace in ["shop", "bank"] {
            let digest = Digest::of(namespace);
            let mut writer = store.upload_writer(namespace, &digest).unwrap();
            writer.write(namespace.into()).await.unwrap();
            writer.finish().await.unwrap();
        }
        let shop = Scope::Namespace("shop".into());
        let days = |days: i64| Timestamp::now() + SignedDuration::from_hours(24 * days);
        let swept = async |scope, days_from_now| {
            let now = days(days_from_now);
            sweep_uploads(&store, scope, now).await.unwrap()
        };
        assert_eq!(swept(&Scope::Cluster, 6).await, 0);
        assert_eq!(swept(&shop, 8).await, 1);
        assert_eq!(swept(&shop, 8).await, 0);
        let there = store.has_upload("bank", &Digest::of("bank")).await;
        assert_eq!(there.unwrap(), Some(4));
        assert_eq!(swept(&Scope::Cluster, 8).await, 1);
    }

    #[tokio::test]
    async fn facts_go_with_their_run_and_its_days() {
        let folder = tempfile::tempdir().unwrap();
        let url = url::Url::from_directory_path(folder.path()).unwrap();
        let store = Store::open(url.as_str(), &S3Options::default()).unwrap();
        for (namespace, uid) in [("shop", "alive"), ("shop", "gone"), ("bank", "theirs")] {
            let facts = Facts {
                version: 1,
                namespace: namespace.into(),
                project: "game".into(),
                run: uid.into(),
                uid: uid.into(),
                at: Timestamp::UNIX_EPOCH,
                facts: Vec::new(),
            };
            store.put_facts(&facts).await.unwrap();
        }
        let shop = Scope::Namespace("shop".into());
        let alive = BTreeSet::from(["alive".to_owned()]);
        let swept = async |scope, days: i64| {
            let now = Timestamp::now() + SignedDuration::from_hours(24 * days);
            sweep_facts(&store, scope, &alive, 30, now).await.unwrap()
        };
        assert_eq!(swept(&Scope::Cluster, 29).await, 0);
        assert_eq!(swept(&shop, 31).await, 1);
        assert_eq!(swept(&shop, 31).await, 0);
        let left = store.facts("shop", "game").await.unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].uid, "alive");
        assert_eq!(swept(&Scope::Cluster, 31).await, 1);
    }

    #[rstest]
    #[case::written_now("2026-01-31T00:00:00Z", false)]
    #[case::written_on_the_last_day("2026-01-01T00:00:00Z", false)]
    #[case::written_before_it("2025-12-31T23:59:59Z", true)]
    #[case::written_by_a_clock_ahead_of_ours("2026-02-01T00:00:00Z", false)]
    fn evidence_is_kept_for_its_days(#[case] newest: &str, #[case] over: bool) {
        let now = "2026-01-31T00:00:00Z".parse().unwrap();
        assert_eq!(is_over(newest.parse().unwrap(), 30, now), over);
    }
}
