//! Judges and checklists on a cluster, and what a run recorded: pulled, applied as it is, and played again.

use anyhow::{Context as _, Result, ensure};
use sopwith_crds::{AgentRun, status::Phase};
use sopwith_e2e::{
    fixture, kubectl,
    namespace::{Namespace, in_namespace},
    sample,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

const RUN: &str = "foxes";

async fn stage(namespace: &Namespace, files: &[&str]) -> Result<()> {
    for file in files {
        namespace
            .apply_fixture(&format!("judged/{file}.yaml"))
            .await?;
    }
    Ok(())
}

async fn pulled(namespace: &Namespace, folder: &Path) -> Result<PathBuf> {
    let out = folder.join("out");
    let path = out.to_string_lossy();
    let pull = ["sop", "pull", RUN, "-n", &namespace.name, "--out", &path];
    let said = kubectl::kubectl(&pull).await?;
    ensure!(
        said.contains("cassette: 4 answers (cassette.yaml)"),
        "{said}"
    );
    Ok(out)
}

fn is_replayed(run: &AgentRun) -> bool {
    let status = run.status.as_ref();
    status.and_then(|status| status.replayed) == Some(true)
}

#[tokio::test]
async fn judges_send_the_author_back_and_the_checklist_and_a_tape_that_plays_again_are_pulled()
-> Result<()> {
    in_namespace("recorded", async |namespace| {
        stage(&namespace, &["cassette", "policy", "sop", "run"]).await?;
        let run = namespace.ended_as(RUN, Phase::Succeeded, 120).await?;
        ensure!(is_replayed(&run), "it does not say that it was replayed");
        let results = sample::results(&run)?;
        ensure!(results["steps"][0][1] == 2, "{results}");
        let folder = tempfile::tempdir()?;
        let out = pulled(&namespace, folder.path()).await?;
        let checklist = fs::read_to_string(out.join("evidence/gates/release/by-the-book.md"))?;
        ensure!(
            checklist.contains("| ✓ | draft | gate review/says-why passed | passed |")
                && !checklist.contains('✗'),
            "{checklist}"
        );
        let review = fs::read_to_string(out.join("evidence/gates/draft/says-why.md"))?;
        ensure!(review.contains("> because they are hungry"), "{review}");
        let tape = fixture::parse(&fs::read_to_string(out.join("cassette.yaml"))?)?;
        in_namespace("played", async |namespace| {
            namespace.apply(tape).await?;
            let mut policy =
                fixture::read(sopwith_e2e::repository().join("e2e/fixtures/judged/policy.yaml"))?;
            sample::change(&mut policy, "ToolPolicy", "judged", "foxes-cassette")?;
            namespace.apply(policy).await?;
            stage(&namespace, &["sop", "run"]).await?;
            let again = namespace.ended_as(RUN, Phase::Succeeded, 120).await?;
            ensure!(
                sample::results(&again)? == results,
                "the tape gave something else"
            );
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_policy_that_asks_for_better_evidence_refuses_the_procedure_before_anything_runs()
-> Result<()> {
    in_namespace("evidence", async |namespace| {
        let mut policy =
            fixture::read(sopwith_e2e::repository().join("e2e/fixtures/judged/policy.yaml"))?;
        let spec = &mut sample::of_kind(&mut policy, "ToolPolicy")?.data["spec"];
        spec["evidence"] =
            serde_json::json!({ "minimumTrust": "human", "gates": ["approval/release"] });
        namespace.apply(policy).await?;
        stage(&namespace, &["cassette", "sop", "run"]).await?;
        let run = namespace.ended_as(RUN, Phase::Failed, 60).await?;
        let failure = run.status.and_then(|status| status.failure);
        let failure = failure.context("no failure")?;
        ensure!(
            failure.reason.to_string() == "PolicyDenied"
                && failure
                    .message
                    .contains("the procedure has no gate approval/release"),
            "{failure:?}"
        );
        Ok(())
    })
    .await
}
