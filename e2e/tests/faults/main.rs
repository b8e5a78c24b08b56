//! A fault at every write, every read and every watched event of the operator: whatever happens, the end is that of the
//! unbroken run. What is written, read and watched is taken from unbroken runs.
//!
//! `SOPWITH_FAULTS=all` plays every case; `SOPWITH_FAULTS=TEXT` those whose name, as printed, contains the text. Without it the
//! short form is played: the writes of plans, Jobs and runs, and each event of runs and Jobs dropped once.

mod campaign;
mod case;
mod scenario;

use anyhow::{Context as _, Result};
use campaign::{Case, say};
use case::{Came, play, told};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use scenario::Scenario;
use sopwith_e2e::operator_process::Site;
use std::collections::BTreeMap;

/// The kinds that are watched, as their paths name them.
const WATCHED: [&str; 8] = [
    "agentruns",
    "jobs",
    "pods",
    "events",
    "sopdefinitions",
    "toolpolicies",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_lost_on_the_way_to_the_apiserver_the_end_is_the_same() -> Result<()> {
    campaigns(&Site::open().await?).await
}

async fn campaigns(site: &Site) -> Result<()> {
    let unbroken = unbroken_runs(site).await?;
    let mut cases = Vec::new();
    for (scenario, came) in &unbroken {
        // An operator starts the same way whatever runs come after.
        let whole = *scenario == Scenario::Succeeds;
        cases.extend(campaign::at_each_write(*scenario, came, whole));
        cases.extend(campaign::at_each_watch(*scenario, came, &WATCHED));
        if whole {
            cases.extend(campaign::at_each_read(*scenario, came));
        }
    }
    let wanted = wanted();
    cases.retain(|case: &Case| match wanted.as_str() {
        "" => campaign::is_short(case),
        "all" => true,
        text => campaign::name(case).contains(text),
    });
    campaign::run(site, cases, &unbroken).await
}

fn wanted() -> String {
    std::env::var("SOPWITH_FAULTS").unwrap_or_default()
}

/// Each scenario without a fault.
async fn unbroken_runs(site: &Site) -> Result<BTreeMap<Scenario, Came>> {
    let wanted = wanted();
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
        let (writes, reads): (Vec<_>, Vec<_>) =
            came.calls.iter().partition(|call| call.key.is_write());
        say(&format!(
            "--- {}, unbroken: {} writes, {} reads, {} watched events in {:.1} s",
            scenario.as_str(),
            writes.len(),
            reads.len(),
            came.watched.len(),
            came.took.as_secs_f64()
        ));
        for call in writes {
            say(&told(call));
        }
    }
    Ok(played.into_iter().collect())
}
