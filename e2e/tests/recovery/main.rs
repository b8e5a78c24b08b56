//! What stays true when the operator, its surroundings or a runner are killed. Most of these tests harm what all others use: one of
//! those runs at a time, and none that relies on an unharmed operator beside it.

mod admission;
mod control_plane;
mod deletion;
mod gateway_away;
mod line;
mod nodes;
mod runners;
mod store;
mod two_replicas;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use kube::api::ListParams;
use sopwith_crds::{
    AgentRun, ToolPolicy,
    status::{AgentRunStatus, Phase},
};
use sopwith_e2e::{
    OPERATOR_NAMESPACE,
    kubectl::kubectl,
    namespace::{Namespace, in_namespace_with_harm},
    sample,
};

/// What all tests use: written to by a test as long as it harms that, read by one as long as it relies on it.
static SHARED: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// A moment in a run at which the operator is killed.
type Moment = (&'static str, fn(&AgentRunStatus) -> bool);

const MOMENTS: [Moment; 3] = [
    ("planned", |status| status.plan.is_some()),
    ("running", |status| status.phase == Some(Phase::Running)),
    ("second-round", |status| status.round == Some(2)),
];

#[tokio::test]
async fn an_operator_that_is_killed_loses_and_doubles_nothing() -> Result<()> {
    let _alone = SHARED.write().await;
    in_namespace_with_harm("unbroken", async |unbroken| {
        start(&unbroken).await?;
        let expected = sample::results(&unbroken.ended(sample::RUN, 120).await?)?;
        for (name, moment) in MOMENTS {
            in_namespace_with_harm(name, async |broken| {
                start(&broken).await?;
                broken
                    .until::<AgentRun>(sample::RUN, 60, name, |run| {
                        run.status.as_ref().is_some_and(moment)
                    })
                    .await?;
                broken.kill_operator().await?;
                let run = broken.ended_as(sample::RUN, Phase::Succeeded, 180).await?;
                ensure!(
                    sample::results(&run)? == expected,
                    "killed at {name}, it ended differently"
                );
                let jobs = broken.api::<Job>().list(&ListParams::default()).await?;
                ensure!(jobs.items.len() == 1, "{} Jobs", jobs.items.len());
                broken.operator_is_back().await
            })
            .await?;
        }
        the_days_use_survives(&unbroken).await
    })
    .await
}

async fn start(namespace: &Namespace) -> Result<()> {
    namespace.apply([sample::secret()?]).await?;
    namespace.apply(sample::objects()?).await
}

/// The day's use of a policy is what its runs used, counted once, also by an operator that saw none of them.
async fn the_days_use_survives(namespace: &Namespace) -> Result<()> {
    let used = namespace.api::<AgentRun>().get(sample::RUN).await?;
    let used = used
        .status
        .and_then(|status| status.usage)
        .context("no usage")?;
    let policy = namespace.api::<ToolPolicy>().get("default").await?;
    let today = policy
        .status
        .and_then(|status| status.today)
        .context("no use today")?;
    ensure!(
        today.tokens == used.total_tokens && today.cost == used.cost,
        "{today:?} {used:?}"
    );
    let ratio: f64 = today.ratio.context("no ratio")?.parse()?;
    let path = format!(
        "/api/v1/namespaces/{OPERATOR_NAMESPACE}/services/sopwith-metrics:http/proxy/metrics"
    );
    let metrics = kubectl(&["get", "--raw", &path]).await?;
    let ours = format!("namespace=\"{}\"", namespace.name);
    let line = metrics
        .lines()
        .find(|line| line.starts_with("sopwith_budget_used_ratio{") && line.contains(&ours))
        .context("the restarted operator knows nothing of the day's use")?;
    let value: f64 = line.rsplit(' ').next().context("no value")?.parse()?;
    ensure!((value - ratio).abs() < 0.001, "{value} is not {ratio}");
    Ok(())
}
