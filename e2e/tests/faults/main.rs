//! A fault at every write, every read and every watched event of the operator: whatever happens, the end is that of the
//! unbroken run. What is written, read and watched is taken from unbroken runs. They need the cluster for themselves: its own
//! operator is taken out of the way meanwhile.
//!
//! `SOPWITH_FAULTS=TEXT` plays only cases whose name, as printed, contains the text.

mod campaign;
mod case;
mod scenario;

use anyhow::{Context as _, Result};
use campaign::{Case, say};
use case::{Came, play, told};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use scenario::Scenario;
use sopwith_e2e::operator_process::Site;
use std::{collections::BTreeMap, panic::AssertUnwindSafe};

/// The kinds that are watched, as their paths name them.
const WATCHED: [&str; 6] = [
    "agentruns",
    "jobs",
    "pods",
    "events",
    "sopdefinitions",
    "toolpolicies",
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_lost_on_the_way_to_the_apiserver_the_end_is_the_same() -> Result<()> {
    let site = Site::open().await?;
    let replicas = site.make_way().await?;
    let done = AssertUnwindSafe(campaigns(&site)).catch_unwind().await;
    site.scale(replicas).await?;
    done.unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")))
}

async fn campaigns(site: &Site) -> Result<()> {
    let unbroken = unbroken_runs(site).await?;
    let mut cases = Vec::new();
    for (scenario, came) in &unbroken {
        cases.extend(campaign::at_each_write(*scenario, came));
        cases.extend(campaign::at_each_watch(*scenario, came, &WATCHED));
        if *scenario == Scenario::Succeeds {
            cases.extend(campaign::at_each_read(*scenario, came));
        }
    }
    if let Ok(text) = std::env::var("SOPWITH_FAULTS") {
        cases.retain(|case: &Case| campaign::name(case).contains(&text));
    }
    campaign::run(site, cases, &unbroken).await
}

/// Each scenario without a fault.
async fn unbroken_runs(site: &Site) -> Result<BTreeMap<Scenario, Came>> {
    let wanted = std::env::var("SOPWITH_FAULTS").unwrap_or_default();
    let scenarios = Scenario::ALL.into_iter().filter(move |scenario| {
        let named = Scenario::ALL
            .iter()
            .any(|other| wanted.starts_with(other.as_str()));
        !named || wanted.starts_with(scenario.as_str())
    });
    let played: Vec<(Scenario, Came)> = stream::iter(scenarios)
        .map(|scenario| async move {
            let came = play(site, scenario, None).await;
            came.with_context(|| format!("the unbroken run {}", scenario.as_str()))
                .map(|came| (scenario, came))
        })
        .buffer_unordered(Scenario::ALL.len())
        .try_collect()
        .await?;
    for (scenario, came) in &played {
        say(&format!(
            "--- {}, unbroken: {:.1} s",
            scenario.as_str(),
            came.took.as_secs_f64()
        ));
        came.calls.iter().for_each(|call| say(&told(call)));
        came.watched
            .iter()
            .for_each(|(key, what)| say(&format!("{key}: {what}")));
        say(&format!("{:?}\n{}", came.events, came.ending));
    }
    Ok(played.into_iter().collect())
}
