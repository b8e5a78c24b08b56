//! What a user sees who forgot or misnamed something, and that the run goes on once it is there.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use sopwith_crds::{AgentRun, conditions, status::Phase};
use sopwith_e2e::{
    fixture, kubectl,
    namespace::{Namespace, in_namespace},
    sample,
};

/// Waits for a condition `Ready` with a reason, and gives its message.
async fn not_ready(namespace: &Namespace, run: &str, reason: &str) -> Result<String> {
    let seen = namespace
        .until::<AgentRun>(run, 60, &format!("Ready with reason {reason}"), |run| {
            let said = run
                .status
                .as_ref()
                .and_then(|status| conditions::find(&status.conditions, conditions::READY));
            said.is_some_and(|condition| condition.reason == reason)
        })
        .await?;
    let kstatus = kubectl::kstatus(&seen).await?;
    ensure!(
        kstatus == "InProgress",
        "a run that waits is in progress, not {kstatus}"
    );
    let status = seen.status.context("no status")?;
    let said = conditions::find(&status.conditions, conditions::READY).context("no condition")?;
    Ok(said.message.clone())
}

#[tokio::test]
async fn a_wrong_sop_is_named_with_those_there_and_the_run_goes_on_when_it_appears() -> Result<()> {
    in_namespace("wrong-sop", async |namespace| {
        namespace.apply_fixture("small/policy.yaml").await?;
        namespace.apply_fixture("stuck/sop.yaml").await?;
        namespace.apply_fixture("small/run.yaml").await?;
        let message = not_ready(&namespace, "hello", "SopNotFound").await?;
        ensure!(
            message.contains("\"hello\"") && message.contains("hanging"),
            "{message}"
        );
        namespace.apply_fixture("small/sop.yaml").await?;
        namespace.ended_as("hello", Phase::Succeeded, 120).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_missing_policy_is_named_and_the_run_goes_on_when_it_appears() -> Result<()> {
    in_namespace("no-policy", async |namespace| {
        namespace.apply_fixture("small/sop.yaml").await?;
        namespace.apply_fixture("small/run.yaml").await?;
        let message = not_ready(&namespace, "hello", "PolicyNotFound").await?;
        ensure!(message.contains("\"default\""), "{message}");
        namespace.apply_fixture("small/policy.yaml").await?;
        namespace.ended_as("hello", Phase::Succeeded, 120).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_missing_secret_is_named_and_the_run_goes_on_when_it_appears() -> Result<()> {
    in_namespace("no-secret", async |namespace| {
        namespace.apply(sample::objects()?).await?;
        let message = not_ready(&namespace, sample::RUN, "MissingSecret").await?;
        ensure!(
            message.contains(sample::SECRET) && message.contains("api-key"),
            "{message}"
        );
        namespace.apply([sample::secret()?]).await?;
        // The kubelet looks at an optional Secret about once a minute.
        let started = namespace
            .until::<AgentRun>(sample::RUN, 150, "a first step", |run| {
                run.status
                    .as_ref()
                    .is_some_and(|status| status.steps.iter().any(|step| step.attempts > 0))
            })
            .await?;
        let launch = started.status.and_then(|status| status.launch);
        ensure!(
            launch == Some(1),
            "the same launch goes on, but this is launch {launch:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_image_that_is_not_there_is_named() -> Result<()> {
    in_namespace("no-image", async |namespace| {
        namespace.apply_fixture("small/policy.yaml").await?;
        let objects =
            sample::small_sop_with("workbench-python:dev", "workbench-python:never-built")?;
        namespace.apply(objects).await?;
        namespace.apply_fixture("small/run.yaml").await?;
        let message = not_ready(&namespace, "hello", "ImageUnavailable").await?;
        ensure!(
            message.contains("workbench-python:never-built"),
            "{message}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_quota_without_room_for_a_job_is_named_and_the_run_goes_on_when_it_is_raised()
-> Result<()> {
    in_namespace("no-room", async |namespace| {
        let quotas = namespace.api::<ResourceQuota>();
        let quota = json!({ "metadata": { "name": "no-jobs" }, "spec": { "hard": { "count/jobs.batch": "0" } } });
        quotas
            .create(&PostParams::default(), &serde_json::from_value(quota)?)
            .await?;
        // Until it is counted, a quota holds nothing back.
        namespace
            .until::<ResourceQuota>("no-jobs", 30, "counted", |quota| {
                quota.status.as_ref().is_some_and(|status| status.used.is_some())
            })
            .await?;
        for path in ["small/policy.yaml", "small/sop.yaml", "small/run.yaml"] {
            namespace.apply_fixture(path).await?;
        }
        let message = not_ready(&namespace, "hello", "QuotaExceeded").await?;
        ensure!(
            message.contains("the Job is refused") && message.contains("no-jobs"),
            "{message}"
        );
        quotas.delete("no-jobs", &DeleteParams::default()).await?;
        namespace.ended_as("hello", Phase::Succeeded, 60).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_image_that_the_policy_does_not_allow_is_refused() -> Result<()> {
    in_namespace("denied-image", async |namespace| {
        namespace.apply_fixture("small/policy.yaml").await?;
        let objects = sample::small_sop_with(
            "localhost/sopwith/workbench-python:dev",
            "example.com/toolbox:1",
        )?;
        namespace.apply(objects).await?;
        namespace.apply_fixture("small/run.yaml").await?;
        let run = namespace.ended("hello", 30).await?;
        let failure = run
            .status
            .and_then(|status| status.failure)
            .context("no failure")?;
        ensure!(failure.reason.to_string() == "PolicyDenied", "{failure:?}");
        ensure!(
            failure.message.contains("example.com/toolbox:1"),
            "{failure:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_field_whose_behaviour_comes_later_is_refused_not_ignored() -> Result<()> {
    in_namespace("later", async |namespace| {
        namespace.apply_fixture("small/policy.yaml").await?;
        namespace.apply_fixture("small/sop.yaml").await?;
        let mut objects =
            fixture::read(sopwith_e2e::repository().join("e2e/fixtures/small/run.yaml"))?;
        sample::of_kind(&mut objects, "AgentRun")?.data["spec"]["features"] =
            serde_json::json!({ "x": true });
        namespace.apply(objects).await?;
        let run = namespace.ended("hello", 30).await?;
        ensure!(
            kubectl::kstatus(&run).await? == "Failed",
            "kstatus calls it {}",
            kubectl::kstatus(&run).await?
        );
        let failure = run
            .status
            .and_then(|status| status.failure)
            .context("no failure")?;
        ensure!(failure.reason.to_string() == "InvalidPlan", "{failure:?}");
        ensure!(
            failure.message.contains("spec.features[x]")
                && failure.message.contains("not supported yet"),
            "{failure:?}"
        );
        Ok(())
    })
    .await
}
