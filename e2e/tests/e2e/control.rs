//! Suspend, resume, cancel, delete.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Resource,
    api::{DeleteParams, ListParams},
    runtime::wait::{await_condition, conditions},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use sopwith_crds::{AgentRun, status::Phase};
use sopwith_e2e::{
    namespace::{Namespace, in_namespace, phase},
    sample,
};
use std::{fmt::Debug, time::Duration};

async fn hanging(namespace: &Namespace) -> Result<()> {
    namespace.apply_fixture("small/policy.yaml").await?;
    namespace.apply_fixture("stuck/sop.yaml").await?;
    namespace.apply_fixture("stuck/run.yaml").await?;
    namespace
        .until::<AgentRun>("hanging", 90, "running", |run| {
            phase(run) == Some(Phase::Running)
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_cancelled_run_ends_at_once_and_keeps_its_last_words() -> Result<()> {
    in_namespace("cancel", async |namespace| {
        hanging(&namespace).await?;
        namespace
            .patch_run("hanging", json!({ "cancel": true }))
            .await?;
        namespace.ended_as("hanging", Phase::Cancelled, 30).await?;
        let pods = namespace.api::<Pod>().list(&ListParams::default()).await?;
        ensure!(
            pods.items.len() == 1,
            "the pod and its log stay, but there are {}",
            pods.items.len()
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_suspended_run_leaves_its_pod_and_goes_on_in_a_second_launch() -> Result<()> {
    in_namespace("suspend", async |namespace| {
        hanging(&namespace).await?;
        namespace
            .patch_run("hanging", json!({ "suspend": true }))
            .await?;
        namespace
            .until::<AgentRun>("hanging", 30, "suspended", |run| {
                phase(run) == Some(Phase::Suspended)
            })
            .await?;
        namespace
            .patch_run("hanging", json!({ "suspend": false }))
            .await?;
        let run = namespace.ended_as("hanging", Phase::Succeeded, 150).await?;
        let launch = run.status.context("no status")?.launch;
        ensure!(launch == Some(2), "two launches, not {launch:?}");
        let jobs = namespace.api::<Job>().list(&ListParams::default()).await?;
        ensure!(
            jobs.items.len() == 2,
            "a Job a launch, not {}",
            jobs.items.len()
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_deleted_run_leaves_nothing_behind() -> Result<()> {
    in_namespace("delete", async |namespace| {
        hanging(&namespace).await?;
        let runs = namespace.api::<AgentRun>();
        let uid = runs.get("hanging").await?.metadata.uid.context("no uid")?;
        let job = namespace
            .api::<Job>()
            .get("hanging-1")
            .await?
            .metadata
            .uid
            .context("no uid")?;
        let status = runs.get("hanging").await?.status.context("no status")?;
        let plan_name = status.plan.context("no plan")?.config_map;
        let plan = namespace.api::<ConfigMap>().get(&plan_name).await?;
        let plan = plan.metadata.uid.context("no uid")?;
        runs.delete("hanging", &DeleteParams::background()).await?;
        gone(runs, "hanging", &uid).await?;
        gone(namespace.api::<Job>(), "hanging-1", &job).await?;
        gone(namespace.api::<ConfigMap>(), &plan_name, &plan).await
    })
    .await
}

#[tokio::test]
async fn a_run_created_anew_under_the_same_name_takes_nothing_from_the_old_one() -> Result<()> {
    in_namespace("anew", async |namespace| {
        namespace.apply_fixture("small/policy.yaml").await?;
        namespace.apply_fixture("small/sop.yaml").await?;
        let refused = sample::small_sop_with("startsWith(\"hello\")", "startsWith(\"goodbye\")")?;
        namespace.apply(refused).await?;
        namespace.apply_fixture("small/run.yaml").await?;
        let run = namespace.ended_as("hello", Phase::Failed, 120).await?;
        // Its Job and pod are still being deleted when the next one begins.
        let runs = namespace.api::<AgentRun>();
        runs.delete("hello", &DeleteParams::background()).await?;
        gone(runs, "hello", &run.metadata.uid.context("no uid")?).await?;
        namespace.apply_fixture("small/sop.yaml").await?;
        namespace.apply_fixture("small/run.yaml").await?;
        namespace.ended_as("hello", Phase::Succeeded, 120).await?;
        Ok(())
    })
    .await
}

/// Waits until an object is deleted.
pub(crate) async fn gone<K>(api: Api<K>, name: &str, uid: &str) -> Result<()>
where
    K: Resource + Clone + Debug + Send + DeserializeOwned + 'static,
{
    let deleted = await_condition(api, name, conditions::is_deleted(uid));
    let waited = tokio::time::timeout(Duration::from_secs(90), deleted).await;
    waited.with_context(|| format!("{name} is still there"))??;
    Ok(())
}
