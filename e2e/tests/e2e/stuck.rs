//! Steps that leave no trace: what the procedure says of them is done.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sopwith_crds::{
    AgentRun,
    status::{FailureReason, Phase},
};
use sopwith_e2e::{
    fixture,
    namespace::{Namespace, in_namespace},
    repository,
};

/// Begins the run whose second step hangs, in a procedure that says what follows.
async fn hanging(namespace: &Namespace, on_stuck: &str) -> Result<()> {
    let folder = repository().join("e2e/fixtures");
    let mut procedure = fixture::read(folder.join("stuck/sop.yaml"))?;
    let steps = procedure
        .first_mut()
        .and_then(|sop| sop.data.pointer_mut("/spec/steps"))
        .and_then(|steps| steps.as_array_mut())
        .context("the fixture has no steps")?;
    let hang = steps.first_mut().context("the fixture has no step")?;
    hang["onStuck"] = json!(on_stuck);
    hang["needs"] = json!(["quick"]);
    let gate = json!({"name": "yes", "kind": "expression", "expression": "true"});
    steps.insert(0, json!({"name": "quick", "gates": [gate]}));
    namespace.apply_fixture("small/policy.yaml").await?;
    namespace.apply(procedure).await?;
    namespace.apply_fixture("stuck/run.yaml").await
}

fn failure(run: &AgentRun) -> Result<(FailureReason, String)> {
    let status = run.status.as_ref().context("no status")?;
    let failure = status.failure.clone().context("no failure")?;
    Ok((failure.reason, failure.message))
}

#[tokio::test]
async fn a_stuck_step_that_is_restarted_goes_on_after_the_last_finished_one_three_times_at_most()
-> Result<()> {
    in_namespace("stuck-restart", async |namespace| {
        hanging(&namespace, "Restart").await?;
        let run = namespace.ended_as("hanging", Phase::Failed, 240).await?;
        let (reason, message) = failure(&run)?;
        ensure!(
            reason == FailureReason::RunnerLost
                && message.contains("left no trace for more than 5 s"),
            "{reason}: {message}"
        );
        let status = run.status.context("no status")?;
        // The first launch finished a step; three that did not were enough.
        ensure!(status.launch == Some(4), "{:?} launches", status.launch);
        let quick = status.steps.first().context("no steps")?;
        ensure!(quick.attempts == 1, "{} attempts of quick", quick.attempts);
        let events = namespace.events().await?;
        let told = |reason: &str| events.iter().filter(|(told, _)| told == reason).count();
        ensure!(told("LaunchLost") > 0, "no Event LaunchLost: {events:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_stuck_step_that_is_cancelled_ends_the_run_with_its_reason() -> Result<()> {
    in_namespace("stuck-cancel", async |namespace| {
        hanging(&namespace, "Cancel").await?;
        let run = namespace.ended_as("hanging", Phase::Cancelled, 120).await?;
        let (reason, message) = failure(&run)?;
        ensure!(
            reason == FailureReason::Cancelled
                && message.contains("step \"hang\" (attempt 1) left no trace")
                && message.ends_with("(onStuck: Cancel)"),
            "{reason}: {message}"
        );
        Ok(())
    })
    .await
}
