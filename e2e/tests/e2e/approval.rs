//! Gates at which people decide: no pod while they do, and only what they decided on counts.

use crate::control::gone;
use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use sopwith_crds::{
    AgentRun, conditions,
    status::{FailureReason, GateStatus, Phase, Verdict},
};
use sopwith_e2e::{
    kubectl::{self, kubectl},
    namespace::{Namespace, in_namespace, phase},
};

const RUN: &str = "signed";

async fn asking(namespace: &Namespace) -> Result<AgentRun> {
    namespace.apply_fixture("small/policy.yaml").await?;
    namespace.apply_fixture("approval/sop.yaml").await?;
    namespace.apply_fixture("approval/run.yaml").await?;
    waits(namespace, 1).await
}

/// Waits until people are asked about an attempt, and the launch is over.
async fn waits(namespace: &Namespace, attempt: u32) -> Result<AgentRun> {
    let run = namespace
        .until::<AgentRun>(RUN, 120, "waiting for people", |run| {
            let steps = run.status.as_ref().map(|status| &status.steps);
            let attempts = steps.and_then(|steps| Some(steps.first()?.attempts));
            phase(run) == Some(Phase::Waiting) && attempts == Some(attempt)
        })
        .await?;
    let launch = run.status.as_ref().and_then(|status| status.launch);
    let job = format!("{RUN}-{}", launch.unwrap_or_default());
    namespace
        .until::<Job>(&job, 60, "ended", |job| {
            let status = job.status.as_ref();
            status.is_some_and(|status| {
                status.completion_time.is_some() && status.active.unwrap_or_default() == 0
            })
        })
        .await?;
    Ok(run)
}

/// What the condition tells people to do.
fn asks(run: &AgentRun) -> Result<String> {
    let status = run.status.as_ref().context("no status")?;
    let asks = conditions::find(&status.conditions, conditions::AWAITING_APPROVAL)
        .context("no condition AwaitingApproval")?;
    ensure!(asks.status == "True", "{asks:?}");
    Ok(asks.message.clone())
}

/// Runs the command of a condition as a person would who copies it, with something changed in it.
async fn copied(message: &str, from: &str, to: &str) -> Result<()> {
    let (_, command) = message
        .split_once("kubectl patch")
        .with_context(|| format!("no command in {message}"))?;
    ensure!(command.contains(from), "no {from} in {command}");
    let command = format!("kubectl patch{}", command.replace(from, to));
    let done = kubectl::run("bash", ["-euc", &command], &[], "").await?;
    ensure!(done.code == 0, "{command}: {}", done.all());
    Ok(())
}

fn sign_off(run: &AgentRun) -> Result<&GateStatus> {
    let status = run.status.as_ref().context("no status")?;
    let gates = status.steps[0].gates.iter();
    gates
        .into_iter()
        .find(|gate| gate.name == "sign-off")
        .context("no gate sign-off")
}

fn launches(run: &AgentRun) -> Option<u32> {
    run.status.as_ref().and_then(|status| status.launch)
}

async fn told(namespace: &Namespace, reason: &str) -> Result<usize> {
    let events = namespace.events().await?;
    Ok(events.iter().filter(|(found, _)| found == reason).count())
}

#[tokio::test]
async fn a_run_waits_without_a_pod_and_goes_on_when_the_command_it_shows_is_copied() -> Result<()> {
    in_namespace("approve", async |namespace| {
        let run = asking(&namespace).await?;
        let pods = namespace.api::<Pod>().list(&ListParams::default()).await?;
        let working = pods.items.iter().filter(|pod| {
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            !matches!(phase, Some("Succeeded" | "Failed"))
        });
        ensure!(working.count() == 0, "a pod is at work while people think");
        ensure!(
            kubectl::kstatus(&run).await? == "InProgress",
            "it is under way"
        );
        let gate = sign_off(&run)?;
        ensure!(gate.verdict == Verdict::Pending, "{gate:?}");
        ensure!(
            told(&namespace, "ApprovalRequested").await? == 1,
            "no Event"
        );
        let before = run.status.clone().context("no status")?;
        copied(&asks(&run)?, "Approve", "Approve").await?;
        let run = namespace.ended_as(RUN, Phase::Succeeded, 120).await?;
        ensure!(launches(&run) == Some(2), "{:?}", launches(&run));
        let gate = sign_off(&run)?;
        ensure!(
            gate.verdict == Verdict::Passed && gate.decided_by.is_some(),
            "{gate:?}"
        );
        let status = run.status.clone().context("no status")?;
        ensure!(status.steps[0].attempts == 1, "{:?}", status.steps[0]);
        ensure!(
            status.steps[0].started_at == before.steps[0].started_at,
            "the first step began again"
        );
        ensure!(
            conditions::find(&status.conditions, conditions::AWAITING_APPROVAL).is_none(),
            "nobody is asked any more"
        );
        ensure!(told(&namespace, "DecisionCounted").await? == 1, "no Event");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn who_rejects_is_answered_with_another_attempt_and_then_ends_the_run() -> Result<()> {
    in_namespace("reject", async |namespace| {
        let run = asking(&namespace).await?;
        let first = sign_off(&run)?.evidence.clone();
        copied(
            &asks(&run)?,
            "\"Approve\"",
            "\"Reject\",\"reason\":\"too vague\"",
        )
        .await?;
        let run = waits(&namespace, 2).await?;
        let gate = sign_off(&run)?;
        ensure!(gate.evidence != first, "another attempt is another subject");
        let status = run.status.as_ref().context("no status")?;
        let why = status.steps[0].previous_failure.clone().unwrap_or_default();
        ensure!(why.contains("too vague"), "{why}");
        // The rule allows one more attempt; that was it.
        copied(&asks(&run)?, "Approve", "Reject").await?;
        let run = namespace.ended_as(RUN, Phase::Failed, 120).await?;
        let failure = run
            .status
            .and_then(|status| status.failure)
            .context("no failure")?;
        ensure!(failure.reason == FailureReason::Rejected, "{failure:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn decisions_on_something_else_are_told_and_change_nothing() -> Result<()> {
    in_namespace("ignored", async |namespace| {
        let run = asking(&namespace).await?;
        let message = asks(&run)?;
        let subject = sign_off(&run)?.evidence.clone().context("no subject")?;
        let other = format!("sha256:{}", "0".repeat(64));
        copied(&message, "\"attempt\":1", "\"attempt\":7").await?;
        copied(&message, "\"gate\":\"sign-off\"", "\"gate\":\"written\"").await?;
        copied(&message, "\"step\":\"plan\"", "\"step\":\"build\"").await?;
        let run = namespace
            .until::<AgentRun>(RUN, 60, "three decisions that do not count", |run| {
                let fates = run
                    .status
                    .as_ref()
                    .map(|status| status.decisions.as_slice());
                fates.is_some_and(|fates| fates.len() == 3 && fates.iter().all(|fate| !fate.counts))
            })
            .await?;
        ensure!(phase(&run) == Some(Phase::Waiting), "{:?}", phase(&run));
        copied(&message, &subject, &other).await?;
        let run = namespace
            .until::<AgentRun>(RUN, 60, "a fourth", |run| {
                run.status
                    .as_ref()
                    .is_some_and(|status| status.decisions.len() == 4)
            })
            .await?;
        let status = run.status.as_ref().context("no status")?;
        ensure!(!status.decisions[3].counts, "{:?}", status.decisions);
        ensure!(launches(&run) == Some(1), "{:?}", launches(&run));
        ensure!(
            told(&namespace, "DecisionIgnored").await? == 4,
            "an Event for each: {:?}",
            namespace.events().await?
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_run_that_waits_can_be_held_and_goes_on_when_it_is_resumed() -> Result<()> {
    in_namespace("wait-held", async |namespace| {
        let run = asking(&namespace).await?;
        namespace.patch_run(RUN, json!({ "suspend": true })).await?;
        let held = |run: &AgentRun| phase(run) == Some(Phase::Suspended);
        namespace.until::<AgentRun>(RUN, 30, "held", held).await?;
        copied(&asks(&run)?, "Approve", "Approve").await?;
        namespace
            .until::<AgentRun>(RUN, 30, "held, with a decision that counts", |run| {
                let status = run.status.as_ref();
                held(run) && status.is_some_and(|s| s.decisions.iter().any(|fate| fate.counts))
            })
            .await?;
        let jobs = namespace.api::<Job>().list(&ListParams::default()).await?;
        ensure!(jobs.items.len() == 1, "a held run has no new launch");
        namespace
            .patch_run(RUN, json!({ "suspend": false }))
            .await?;
        namespace.ended_as(RUN, Phase::Succeeded, 120).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_run_that_waits_can_be_cancelled() -> Result<()> {
    in_namespace("wait-cancel", async |namespace| {
        asking(&namespace).await?;
        namespace.patch_run(RUN, json!({ "cancel": true })).await?;
        let run = namespace.ended_as(RUN, Phase::Cancelled, 30).await?;
        ensure!(launches(&run) == Some(1), "{:?}", launches(&run));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_run_that_is_deleted_while_it_waits_leaves_nothing() -> Result<()> {
    in_namespace("wait-delete", async |namespace| {
        let run = asking(&namespace).await?;
        let job = namespace.api::<Job>().get("signed-1").await?;
        let plan = run
            .status
            .and_then(|status| status.plan)
            .context("no plan")?;
        let plan = namespace.api::<ConfigMap>().get(&plan.config_map).await?;
        let runs = namespace.api::<AgentRun>();
        runs.delete(RUN, &DeleteParams::background()).await?;
        let (run, job) = (
            run.metadata.uid.context("no uid")?,
            job.metadata.uid.context("no uid")?,
        );
        gone(runs, RUN, &run).boxed().await?;
        gone(namespace.api::<Job>(), "signed-1", &job)
            .boxed()
            .await?;
        let (name, uid) = (plan.metadata.name, plan.metadata.uid);
        let (name, uid) = (name.context("no name")?, uid.context("no uid")?);
        gone(namespace.api::<ConfigMap>(), &name, &uid)
            .boxed()
            .await
    })
    .await
}

#[tokio::test]
async fn a_policy_that_asks_for_two_and_separates_duties_is_live() -> Result<()> {
    in_namespace("two-people", async |namespace| {
        let run = asking(&namespace).await?;
        let two = r#"{"spec":{"approvals":{"count":2}}}"#;
        kubectl(&[
            "patch",
            "tp",
            "default",
            "-n",
            &namespace.name,
            "--type",
            "merge",
            "-p",
            two,
        ])
        .await?;
        namespace
            .until::<AgentRun>(RUN, 30, "a question to two", |run| {
                asks(run).is_ok_and(|message| message.contains("0 of 2"))
            })
            .await?;
        copied(&asks(&run)?, "Approve", "Approve").await?;
        let run = namespace
            .until::<AgentRun>(RUN, 30, "one of two", |run| {
                asks(run).is_ok_and(|message| message.contains("1 of 2"))
            })
            .await?;
        ensure!(launches(&run) == Some(1), "{:?}", launches(&run));
        let one = r#"{"spec":{"approvals":{"count":1}}}"#;
        kubectl(&[
            "patch",
            "tp",
            "default",
            "-n",
            &namespace.name,
            "--type",
            "merge",
            "-p",
            one,
        ])
        .await?;
        namespace.ended_as(RUN, Phase::Succeeded, 120).await?;
        Ok(())
    })
    .await
}
