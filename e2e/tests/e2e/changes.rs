//! Procedures and policies that change while a run is at work.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sopwith_crds::{
    AgentRun,
    status::{FailureReason, Phase},
};
use sopwith_e2e::{
    fixture,
    namespace::{Namespace, in_namespace, phase},
    repository, sample,
};

const RUN: &str = "relay";

/// A run whose second step is at work for so many seconds.
async fn at_work(namespace: &Namespace, seconds: &str) -> Result<()> {
    for file in ["cassette", "policy", "sop"] {
        namespace
            .apply_fixture(&format!("relay/{file}.yaml"))
            .await?;
    }
    let mut run = fixture::read(repository().join("e2e/fixtures/relay/run.yaml"))?;
    sample::of_kind(&mut run, "AgentRun")?.data["spec"]["parameters"] =
        json!({"word": "one", "seconds": seconds});
    namespace.apply(run).await?;
    namespace
        .until::<AgentRun>(RUN, 90, "the second step at work", |run| {
            let status = run.status.as_ref();
            status.and_then(|status| status.current_step.as_deref()) == Some("copy")
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_procedure_that_is_edited_while_a_run_is_at_work_changes_nothing_for_it() -> Result<()> {
    in_namespace("sop-edited", async |namespace| {
        at_work(&namespace, "8").await?;
        let before = namespace.api::<AgentRun>().get(RUN).await?.status;
        let mut sop = fixture::read(repository().join("e2e/fixtures/relay/sop.yaml"))?;
        let rule = "artifacts.copied.text.contains(parameters.word)";
        sample::change(&mut sop, "SopDefinition", rule, "false")?;
        namespace.apply(sop).await?;
        // The next launch is of the old procedure, too.
        namespace.patch_run(RUN, json!({"suspend": true})).await?;
        namespace
            .until::<AgentRun>(RUN, 60, "suspended", |run| {
                phase(run) == Some(Phase::Suspended)
            })
            .await?;
        namespace.patch_run(RUN, json!({"suspend": false})).await?;
        let run = namespace.ended_as(RUN, Phase::Succeeded, 120).await?;
        let (before, after) = (before.context("no status")?, run.status.context("none")?);
        ensure!(
            (before.sop, before.plan) == (after.sop, after.plan),
            "another procedure or plan"
        );
        ensure!(after.launch == Some(2), "{:?}", after.launch);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_policy_that_is_made_narrower_bites_at_the_next_launch() -> Result<()> {
    in_namespace("policy-narrowed", async |namespace| {
        at_work(&namespace, "600").await?;
        let mut policy = fixture::read(repository().join("e2e/fixtures/relay/policy.yaml"))?;
        sample::of_kind(&mut policy, "ToolPolicy")?.data["spec"]["commands"] =
            json!([{"argv": ["ruff"]}]);
        namespace.apply(policy).await?;
        namespace.patch_run(RUN, json!({"suspend": true})).await?;
        namespace
            .until::<AgentRun>(RUN, 60, "suspended", |run| {
                phase(run) == Some(Phase::Suspended)
            })
            .await?;
        namespace.patch_run(RUN, json!({"suspend": false})).await?;
        let run = namespace.ended_as(RUN, Phase::Failed, 60).await?;
        let failure = run.status.and_then(|status| status.failure);
        let failure = failure.context("no failure")?;
        ensure!(failure.reason == FailureReason::PolicyDenied, "{failure:?}");
        ensure!(failure.message.contains("python3"), "{failure:?}");
        Ok(())
    })
    .await
}
