//! The samples beside `software-company`, applied as their pages say.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use sopwith_crds::{AgentRun, conditions, status::Phase};
use sopwith_e2e::{
    kubectl,
    namespace::{Namespace, in_namespace},
    repository,
};
use std::{fs, path::PathBuf};

/// Applies a sample and its run.
async fn apply(namespace: &Namespace, sample: &str) -> Result<()> {
    let folder = repository().join("config/samples").join(sample);
    let run = folder.join("agentrun.yaml");
    for (flag, path) in [("-k", folder), ("-f", run)] {
        let path = path.to_string_lossy();
        kubectl::kubectl(&["apply", "--server-side", flag, &path, "-n", &namespace.name]).await?;
    }
    Ok(())
}

/// What a run left, pulled below a folder.
async fn pulled(namespace: &Namespace, run: &str, folder: &tempfile::TempDir) -> Result<PathBuf> {
    let out = folder.path().join(run);
    let path = out.to_string_lossy().into_owned();
    kubectl::kubectl(&["sop", "pull", run, "-n", &namespace.name, "--out", &path]).await?;
    Ok(out)
}

/// Names and attempts of a run's steps.
fn attempts(run: &AgentRun) -> Vec<(&str, u32)> {
    let steps = run.status.iter().flat_map(|status| &status.steps);
    steps
        .map(|step| (step.name.as_str(), step.attempts))
        .collect()
}

#[tokio::test]
async fn a_javascript_module_is_repaired_until_node_finds_its_tests_green() -> Result<()> {
    in_namespace("javascript", async |namespace| {
        apply(&namespace, "javascript-module").await?;
        let run = namespace
            .ended_as("durations", Phase::Succeeded, 120)
            .await?;
        let expected = [
            ("specify", 1),
            ("implement", 2),
            ("verify", 2),
            ("document", 1),
        ];
        ensure!(attempts(&run) == expected, "{:?}", attempts(&run));
        let status = run.status.context("no status")?;
        let verify = &status.steps[2];
        let failure = verify.previous_failure.as_deref().unwrap_or_default();
        ensure!(
            failure.contains("15 tests: 9 passed, 6 failed"),
            "{failure}"
        );
        let tests = verify.gates.iter().find(|gate| gate.name == "unit-tests");
        let observed = tests.and_then(|gate| gate.observed.as_deref());
        ensure!(
            observed
                == Some(
                    "15 tests: 15 passed; line coverage 1.000; canary red-is-red failed as it must"
                ),
            "{observed:?}"
        );
        let folder = tempfile::tempdir()?;
        let out = pulled(&namespace, "durations", &folder).await?;
        let evidence = fs::read_to_string(out.join("evidence/quality/coverage.xml"))?;
        ensure!(
            evidence.contains("filename=\"src/durations.js\""),
            "{evidence}"
        );
        ensure!(out.join("durations/src/durations.js").is_file());
        Ok(())
    })
    .await
}

/// The run of the incident review.
const REVIEW: &str = "checkout-2026-09-17";

#[tokio::test]
async fn an_incident_review_is_published_once_its_owner_has_approved_by_the_command_that_is_shown()
-> Result<()> {
    in_namespace("review", async |namespace| {
        apply(&namespace, "incident-review").await?;
        let waits = namespace
            .until::<AgentRun>(REVIEW, 120, "a question to people", |run| {
                let status = run.status.as_ref();
                status.is_some_and(|status| {
                    conditions::is_true(&status.conditions, conditions::AWAITING_APPROVAL)
                })
            })
            .await?;
        let expected = [
            ("timeline", 1),
            ("causes", 2),
            ("actions", 3),
            ("review", 1),
        ];
        ensure!(attempts(&waits)[..4] == expected, "{:?}", attempts(&waits));
        let folder = tempfile::tempdir()?;
        let project = pulled(&namespace, REVIEW, &folder).await?.join(REVIEW);
        let review = fs::read_to_string(project.join(format!("docs/incidents/{REVIEW}.md")))?;
        ensure!(review.contains("### C-3 (detection)"), "{review}");
        let job = format!("{REVIEW}-1");
        namespace
            .until::<Job>(&job, 60, "the end of its pod", |job| {
                let status = job.status.as_ref();
                status.is_some_and(|status| status.active.unwrap_or_default() == 0)
            })
            .await?;

        let status = waits.status.context("no status")?;
        let asks = conditions::find(&status.conditions, conditions::AWAITING_APPROVAL);
        let message = &asks.context("no condition")?.message;
        let command = message.find("kubectl patch").context("no command")?;
        let said = kubectl::run("bash", ["-c", &message[command..]], &[], "").await?;
        ensure!(said.code == 0, "{message}\n{}", said.all());

        let run = namespace.ended_as(REVIEW, Phase::Succeeded, 120).await?;
        let status = run.status.context("no status")?;
        ensure!(status.launch == Some(2), "{:?}", status.launch);
        let requests = status.usage.map(|usage| usage.llm_requests);
        ensure!(requests == Some(8), "{requests:?} requests");
        let folder = tempfile::tempdir()?;
        let project = pulled(&namespace, REVIEW, &folder).await?.join(REVIEW);
        let tickets = fs::read_to_string(project.join(format!("resources/actions/{REVIEW}.csv")))?;
        ensure!(tickets.lines().count() == 6, "{tickets}");
        ensure!(
            project
                .join(format!("docs/incidents/{REVIEW}-customers.md"))
                .is_file()
        );
        Ok(())
    })
    .await
}
