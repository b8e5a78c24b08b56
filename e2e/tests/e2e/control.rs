//! Suspend, resume, cancel, delete.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use sopwith_crds::{AgentRun, status::Phase};
use sopwith_e2e::namespace::{Namespace, in_namespace, phase};

async fn hanging(namespace: &Namespace) -> Result<()> {
    namespace.apply_fixture("small/policy.yaml").await?;
    namespace.apply_fixture("stuck/sop.yaml").await?;
    namespace.apply_fixture("stuck/run.yaml").await?;
    namespace
        .until::<AgentRun>("hanging", 90, "running", |run| phase(run) == Some(Phase::Running))
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_cancelled_run_ends_at_once_and_keeps_its_last_words() -> Result<()> {
    in_namespace("cancel", async |namespace| {
        hanging(&namespace).await?;
        namespace.patch_run("hanging", json!({ "cancel": true })).await?;
        let run = namespace.ended("hanging", 30).await?;
        ensure!(phase(&run) == Some(Phase::Cancelled), "it ended as {:?}", phase(&run));
        let pods = namespace.api::<Pod>().list(&ListParams::default()).await?;
        ensure!(pods.items.len() == 1, "the pod and its log stay, but there are {}", pods.items.len());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_suspended_run_leaves_its_pod_and_goes_on_in_a_second_launch() -> Result<()> {
    in_namespace("suspend", async |namespace| {
        hanging(&namespace).await?;
        namespace.patch_run("hanging", json!({ "suspend": true })).await?;
        namespace
            .until::<AgentRun>("hanging", 30, "suspended", |run| phase(run) == Some(Phase::Suspended))
            .await?;
        namespace.patch_run("hanging", json!({ "suspend": false })).await?;
        let run = namespace.ended("hanging", 150).await?;
        ensure!(phase(&run) == Some(Phase::Succeeded), "it ended as {:?}", phase(&run));
        let launch = run.status.context("no status")?.launch;
        ensure!(launch == Some(2), "two launches, not {launch:?}");
        let jobs = namespace.api::<Job>().list(&ListParams::default()).await?;
        ensure!(jobs.items.len() == 2, "a Job a launch, not {}", jobs.items.len());
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
        runs.delete("hanging", &DeleteParams::foreground()).await?;
        let gone = kube::runtime::wait::await_condition(runs, "hanging", kube::runtime::wait::conditions::is_deleted(&uid));
        tokio::time::timeout(std::time::Duration::from_secs(90), gone).await.context("it is still there")??;
        let jobs = namespace.api::<Job>().list(&ListParams::default()).await?;
        ensure!(jobs.items.is_empty(), "a Job stayed");
        Ok(())
    })
    .await
}
