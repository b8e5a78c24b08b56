//! The samples beside `software-company`, applied as their pages say.

use anyhow::{Context as _, Result, ensure};
use sopwith_crds::{AgentRun, status::Phase};
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
