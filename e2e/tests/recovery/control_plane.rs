//! API server and etcd are killed and started again, with runs at work.

use crate::{
    SHARED,
    line::{begin, booked_once, prepare, question},
};
use anyhow::{Context as _, Result, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::ConfigMap},
    jiff::Timestamp,
};
use kube::{ResourceExt as _, api::ListParams};
use sopwith_crds::{AgentRun, status::Phase};
use sopwith_e2e::{
    host, kubectl,
    namespace::{Namespace, in_namespace_with_harm, phase},
    repository, sample,
};
use std::time::{Duration, Instant};

/// Runs at work meanwhile.
const RUNS: usize = 20;
/// How long after the API server is back the operator may complain.
const STABLE_WITHIN: Duration = Duration::from_secs(30);
/// How long the watches of the tests are given to find the API server again.
const BACK: Duration = Duration::from_secs(60);

#[tokio::test]
async fn twenty_runs_outlive_a_restart_of_api_server_and_etcd() -> Result<()> {
    let _alone = SHARED.write().await;
    if !host::is_node() {
        eprintln!("not the local cluster: its control plane cannot be restarted");
        return Ok(());
    }
    in_namespace_with_harm("control-plane", async |namespace| {
        let since = Timestamp::now();
        let names: Vec<String> = (0..RUNS).map(|nth| format!("run-{nth}")).collect();
        // Half of them are at a model, half at a command.
        let held: Vec<&str> = names.iter().step_by(2).map(String::as_str).collect();
        let server = prepare(&namespace, held.iter().map(|run| question(run))).await?;
        for name in &names {
            begin(&namespace, name, 6, |_| {}).await?;
        }
        try_join_all(names.iter().map(|name| {
            // Boxed: together they are more than a test's stack holds.
            Box::pin(namespace.until::<AgentRun>(name, 180, "at work", |run| {
                phase(run).is_some_and(|phase| phase != Phase::Pending)
            }))
        }))
        .await?;
        let script = repository().join("e2e/cluster/restart-control-plane.sh");
        let script = script.to_str().context("a path that is no text")?;
        let begun = Instant::now();
        let said = kubectl::run("bash", [script], &[], "").await?;
        ensure!(said.code == 0, "{}", said.all());
        let back = Timestamp::now();
        eprintln!(
            "killed and back after {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        for name in &held {
            server.release(&question(name));
        }
        tokio::time::timeout(BACK, answers(&namespace))
            .await
            .context("the API server does not answer again")?;
        all_end_as_one(&namespace, &names).await?;
        booked_once(&namespace).await?;
        it_was_soon_quiet(&namespace, since, back).await
    })
    .await
}

async fn answers(namespace: &Namespace) {
    while namespace
        .api::<AgentRun>()
        .list(&ListParams::default())
        .await
        .is_err()
    {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Every run succeeds, all with the same results, each with one launch, one Job and one plan.
async fn all_end_as_one(namespace: &Namespace, names: &[String]) -> Result<()> {
    let ended = names
        .iter()
        .map(|name| Box::pin(namespace.ended_as(name, Phase::Succeeded, 240)));
    let ended = try_join_all(ended).await?;
    let first = sample::results(ended.first().context("no run")?)?;
    for run in &ended {
        let results = sample::results(run)?;
        ensure!(
            results["steps"][1] == first["steps"][1],
            "{}: {results}\n{first}",
            run.name_any()
        );
        let launch = run.status.as_ref().and_then(|status| status.launch);
        ensure!(launch == Some(1), "{}: launch {launch:?}", run.name_any());
    }
    let all = ListParams::default();
    let jobs = namespace.api::<Job>().list(&all).await?.items.len();
    ensure!(jobs == names.len(), "{jobs} Jobs");
    let maps = namespace.api::<ConfigMap>().list(&all).await?;
    let plans = maps.iter().filter(|map| map.name_any().contains("-plan-"));
    let plans = plans.count();
    ensure!(plans == names.len(), "{plans} plans");
    Ok(())
}

/// The operator went on in the same process, and complained of nothing but calls that found no API server, and that not for long.
async fn it_was_soon_quiet(namespace: &Namespace, since: Timestamp, back: Timestamp) -> Result<()> {
    let log = namespace.operator_log(Some(since)).await?;
    ensure!(!log.contains("the operator starts"), "it was started again");
    let stable = back + k8s_openapi::jiff::SignedDuration::try_from(STABLE_WITHIN)?;
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for line in log.lines() {
        let Ok(parsed) = serde_json::from_str::<serde_json::Value>(line) else {
            bail!("a line of its log is no JSON: {line}");
        };
        let field = |name: &str| parsed[name].as_str().unwrap_or_default();
        let level = field("level");
        if !["WARN", "ERROR"].contains(&level) {
            continue;
        }
        // The client library tells each call that found nobody as an error; whoever made the call says so again and goes on.
        let expected = level == "WARN" || field("target").starts_with("kube_client::");
        ensure!(expected, "an unexpected error: {line}");
        let at: Timestamp = field("timestamp").parse()?;
        ensure!(at <= stable, "it still complains: {line}");
        let what = format!("{level} {}", field("target"));
        *counts.entry(what).or_default() += 1;
    }
    eprintln!("told until {STABLE_WITHIN:?} after the restart, and nothing later: {counts:?}");
    Ok(())
}
