//! Runs that are deleted in every phase, while the operator is there and while it is not: nothing of them stays in the cluster.

use crate::{
    SHARED,
    line::{begin, prepare, question},
};
use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::json;
use sopwith_crds::{AgentRun, conditions, status::Phase};
use sopwith_e2e::{
    llm_server::LlmServer,
    namespace::{
        Namespace, bring_operator_back, in_namespace_with_harm, phase, take_operator_away,
    },
};
use std::time::Duration;

/// Where a run stands when it is deleted.
const STANDINGS: [&str; 9] = [
    "unplanned",
    "held",
    "unschedulable",
    "asking",
    "working",
    "suspended",
    "succeeded",
    "failed",
    "cancelled",
];

#[tokio::test]
async fn a_run_that_is_deleted_in_any_phase_leaves_nothing_in_the_cluster() -> Result<()> {
    let _alone = SHARED.write().await;
    in_namespace_with_harm("deletion", async |namespace| {
        let held = ["asking"];
        let server = prepare(&namespace, held.iter().map(|run| question(run))).await?;
        all_standings(&namespace, &server).await?;
        delete_all(&namespace).await?;
        eprintln!("{} phases with the operator up", STANDINGS.len());
        all_standings(&namespace, &server).await?;
        let replicas = take_operator_away(&namespace.client).await?;
        let deleted = delete_all(&namespace).await;
        bring_operator_back(&namespace.client, replicas).await?;
        deleted?;
        namespace.operator_is_back().await?;
        nothing_is_left(&namespace).await?;
        eprintln!("{} phases with the operator away", STANDINGS.len());
        Ok(())
    })
    .await
}

/// Brings one run to each standing.
async fn all_standings(namespace: &Namespace, server: &LlmServer) -> Result<()> {
    // Boxed: together they are more than a test's stack holds.
    try_join_all(STANDINGS.map(|name| {
        Box::pin(async move {
            let come = bring_to(namespace, server, name).await;
            come.with_context(|| name.to_owned())
        })
    }))
    .await?;
    Ok(())
}

async fn bring_to(namespace: &Namespace, server: &LlmServer, name: &'static str) -> Result<()> {
    let seconds = if matches!(name, "working" | "suspended" | "cancelled") {
        600
    } else {
        0
    };
    begin(namespace, name, seconds, |spec| match name {
        "unplanned" => spec["sopRef"]["name"] = "nowhere".into(),
        "held" => spec["suspend"] = true.into(),
        "unschedulable" => spec["runner"]["nodeSelector"] = json!({"sopwith.dev/none": "such"}),
        "failed" => spec["parameters"]["word"] = "three".into(),
        _ => {}
    })
    .await?;
    match name {
        "asking" => server.asked(&question(name), 120).await?,
        "working" => at_work(namespace, name).await?,
        "suspended" => {
            at_work(namespace, name).await?;
            let asked = namespace.patch_run(name, json!({"suspend": true})).await;
            asked.context("suspend")?;
        }
        "cancelled" => {
            at_work(namespace, name).await?;
            let asked = namespace.patch_run(name, json!({"cancel": true})).await;
            asked.context("cancel")?;
        }
        _ => {}
    }
    let wanted = match name {
        "unplanned" => return pending(namespace, name, "SopNotFound").await,
        "unschedulable" => return pending(namespace, name, "Unschedulable").await,
        "held" | "suspended" => Phase::Suspended,
        "succeeded" => Phase::Succeeded,
        "failed" => Phase::Failed,
        "cancelled" => Phase::Cancelled,
        _ => Phase::Running,
    };
    namespace
        .until::<AgentRun>(name, 120, "its phase", |run| phase(run) == Some(wanted))
        .await?;
    Ok(())
}

async fn at_work(namespace: &Namespace, name: &str) -> Result<()> {
    namespace
        .until::<AgentRun>(name, 120, "its second step", |run| {
            let status = run.status.as_ref();
            status.and_then(|status| status.current_step.as_deref()) == Some("copy")
        })
        .await?;
    Ok(())
}

async fn pending(namespace: &Namespace, name: &str, reason: &str) -> Result<()> {
    namespace
        .until::<AgentRun>(name, 120, reason, |run| {
            let status = run.status.as_ref();
            let said = status.and_then(|s| conditions::find(&s.conditions, conditions::READY));
            said.is_some_and(|condition| condition.reason == reason)
        })
        .await?;
    Ok(())
}

/// Deletes every run and waits until nothing of them is left.
async fn delete_all(namespace: &Namespace) -> Result<()> {
    let runs = namespace.api::<AgentRun>();
    for name in STANDINGS {
        runs.delete(name, &DeleteParams::background()).await?;
    }
    nothing_is_left(namespace).await
}

async fn nothing_is_left(namespace: &Namespace) -> Result<()> {
    let empty = async {
        while !left(namespace).await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        anyhow::Ok(())
    };
    if let Ok(looked) = tokio::time::timeout(Duration::from_secs(90), empty).await {
        return looked;
    }
    let left = left(namespace).await?;
    ensure!(left.is_empty(), "still there after 90 s: {left:?}");
    Ok(())
}

/// What there is of runs: themselves, Jobs, pods, plans.
async fn left(namespace: &Namespace) -> Result<Vec<String>> {
    let all = ListParams::default();
    let mut left = Vec::new();
    let runs = namespace.api::<AgentRun>().list(&all).await?;
    left.extend(
        runs.iter()
            .map(|one| format!("AgentRun {}", one.name_any())),
    );
    let jobs = namespace.api::<Job>().list(&all).await?;
    left.extend(jobs.iter().map(|one| format!("Job {}", one.name_any())));
    let pods = namespace.api::<Pod>().list(&all).await?;
    left.extend(pods.iter().map(|one| format!("Pod {}", one.name_any())));
    let maps = namespace.api::<ConfigMap>().list(&all).await?;
    let maps = maps.iter().map(ResourceExt::name_any);
    let plans = maps.filter(|name| name.contains("-plan-"));
    left.extend(plans.map(|name| format!("ConfigMap {name}")));
    Ok(left)
}
