//! One case: a run in a namespace of its own under an operator of its own, with one fault in it, and what it came to.

use crate::scenario::Scenario;
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{batch::v1::Job, core::v1::ConfigMap};
use kube::{ResourceExt, api::ListParams};
use serde_json::{Value, json};
use sopwith_crds::{AgentRun, SopDefinition, ToolPolicy};
use sopwith_e2e::{
    api_proxy::{
        ApiProxy, NotedCall,
        fault::{AtEvent, EventKey, Fault},
    },
    namespace::{Namespace, phase},
    operator_process::{OperatorProcess, Site, Storage},
    sample,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long after a run's end a fault may come that belongs to what follows it: counts are written at most every 5 s.
const LATE: Duration = Duration::from_secs(15);
/// How long the counts of procedure and policy may take.
const SETTLED: u64 = 30;

/// What a run came to.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    /// What must be the same with and without a fault.
    pub(crate) ending: Value,
    /// How often each Event was told, by reason and action.
    pub(crate) events: BTreeMap<String, i32>,
    /// Every call that the operator made.
    pub(crate) calls: Vec<NotedCall>,
    /// Every event of a watch that it got.
    pub(crate) watched: Vec<(EventKey, String)>,
    /// Whether the fault happened.
    pub(crate) fired: bool,
    /// How often the operator was started.
    pub(crate) starts: u32,
    /// How long it took, from the start of the operator to the last count.
    pub(crate) took: Duration,
}

/// Plays a scenario. What it came to, or everything that may explain why it came to nothing.
pub(crate) async fn play(site: &Site, scenario: Scenario, fault: Option<Fault>) -> Result<Came> {
    let namespace = Namespace::create(site.client.clone(), "fault").await?;
    let faulty = fault.is_some();
    // Only a list makes up for an event that never came: it must not be minutes away.
    let dropped = matches!(fault, Some(Fault::Watch(_, AtEvent::Dropped)));
    let further: &[&str] = if dropped {
        &["--relist-seconds=5"]
    } else {
        &[]
    };
    let proxy = site.proxy(fault).await?;
    let operator = site
        .operator(&namespace, &proxy, Storage::Folder, further)
        .await?;
    let came = watch_it(&namespace, &proxy, &operator, scenario, faulty).await;
    match came {
        Ok(came) => {
            namespace.delete().await?;
            Ok(came)
        }
        Err(error) => {
            let dump = namespace.dump().await;
            let calls = proxy.calls();
            let calls: Vec<String> = calls.iter().map(told).collect();
            Err(error.context(format!(
                "in namespace {}\n{dump}\n--- calls\n{}\n--- log of the operator, {} starts\n{}",
                namespace.name,
                calls.join("\n"),
                operator.starts(),
                operator.log()
            )))
        }
    }
}

/// A call in a line.
pub(crate) fn told(call: &NotedCall) -> String {
    format!("{} {} ({})", call.status, call.key, call.says)
}

async fn watch_it(
    namespace: &Namespace,
    proxy: &ApiProxy,
    operator: &OperatorProcess,
    scenario: Scenario,
    faulty: bool,
) -> Result<Came> {
    let begun = Instant::now();
    let run = scenario.play(namespace).await?;
    let end = phase(&run);
    ensure!(
        end == Some(scenario.end()),
        "it ended as {end:?}: {:?}",
        run.status.and_then(|status| status.failure)
    );
    if faulty {
        // What does not come is told by the campaign.
        let _ = tokio::time::timeout(LATE, proxy.fired()).await;
    }
    settled(namespace, scenario, &run).await?;
    let run = namespace.api::<AgentRun>().get(scenario.run()).await?;
    let ending = ending(namespace, operator, scenario, &run).await?;
    let log = operator.log();
    let wrong = log.lines().find(|line| is_wrong(line));
    ensure!(wrong.is_none(), "the operator logged an error: {wrong:?}");
    Ok(Came {
        ending,
        events: told_events(namespace).await?,
        calls: proxy.calls(),
        watched: proxy.watched(),
        fired: proxy.has_fired(),
        starts: operator.starts(),
        took: begun.elapsed(),
    })
}

/// Whether a line of the operator's log tells of a fault of its own. The client calls a broken connection an error, and an
/// operator that cannot begin ends and is begun again: what comes of it is what counts.
fn is_wrong(line: &str) -> bool {
    let error = line.contains("\"level\":\"ERROR\"");
    let expected = [
        "\"target\":\"kube_client",
        "\"message\":\"the operator ends\"",
    ];
    let expected = expected.iter().any(|part| line.contains(part));
    error && !expected || line.contains("panicked at")
}

/// Waits until procedure and policy show that the run is over, and the day what it used.
async fn settled(namespace: &Namespace, scenario: Scenario, run: &AgentRun) -> Result<()> {
    let usage = run.status.as_ref().and_then(|status| status.usage.as_ref());
    let used = usage.context("no usage")?.total_tokens;
    namespace
        .until::<ToolPolicy>("default", SETTLED, "the day's use", |policy| {
            policy.status.as_ref().is_some_and(|status| {
                let today = status.today.as_ref();
                status.running == Some(0) && today.is_some_and(|today| today.tokens == used)
            })
        })
        .await?;
    namespace
        .until::<SopDefinition>(scenario.run(), SETTLED, "no run in flight", |sop| {
            let status = sop.status.as_ref();
            status.is_some_and(|status| status.runs_in_flight == Some(0))
        })
        .await?;
    Ok(())
}

/// What must be the same whatever happened on the way. The snapshot is left out: its messages say when they were written.
async fn ending(
    namespace: &Namespace,
    operator: &OperatorProcess,
    scenario: Scenario,
    run: &AgentRun,
) -> Result<Value> {
    let status = run.status.clone().context("no status")?;
    let all = ListParams::default();
    let jobs = namespace.api::<Job>().list(&all).await?;
    let mut jobs: Vec<String> = jobs.iter().map(ResourceExt::name_any).collect();
    jobs.sort();
    let maps = namespace.api::<ConfigMap>().list(&all).await?;
    let plans = maps.iter().map(ResourceExt::name_any);
    let of_run = format!("{}-plan-", scenario.run());
    let plans = plans.filter(|name| name.starts_with(&of_run)).count();
    Ok(json!({
        "results": sample::results(run)?,
        "failure": status.failure,
        "progress": status.progress,
        "round": status.round,
        "launches": status.launch,
        "jobs": jobs,
        "plans": plans,
        "sop": status.sop,
        "policy": status.policy,
        "bookedTokens": operator.booked_tokens()?,
    }))
}

async fn told_events(namespace: &Namespace) -> Result<BTreeMap<String, i32>> {
    use k8s_openapi::api::events::v1::Event;
    let mut told = BTreeMap::new();
    for event in namespace
        .api::<Event>()
        .list(&ListParams::default())
        .await?
    {
        if event.regarding.as_ref().and_then(|it| it.kind.as_deref()) != Some("AgentRun") {
            continue;
        }
        let key = format!(
            "{} {}",
            event.reason.unwrap_or_default(),
            event.action.unwrap_or_default()
        );
        let count = event.series.map_or(1, |series| series.count);
        *told.entry(key).or_default() += count;
    }
    Ok(told)
}
