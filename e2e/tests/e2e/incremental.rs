//! Incremental runs: classified, on the way of their kind, and told what people edited since the last run.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use serde_json::{Value, json};
use sopwith_crds::{
    AgentRun,
    status::{IdeaKind, IncrementalStatus, Phase, StepPhase},
};
use sopwith_e2e::{
    fixture, kubectl,
    namespace::{Namespace, in_namespace},
    repository, sample,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

const FIXTURES: &str = "e2e/fixtures/iteration";

/// Uploads a folder; gives its digest.
async fn push(namespace: &Namespace, folder: &Path) -> Result<String> {
    let path = folder.to_string_lossy();
    let said = kubectl::kubectl(&["sop", "push", &path, "-n", &namespace.name]).await?;
    Ok(said.trim().to_owned())
}

/// A run on an uploaded project.
async fn run(namespace: &Namespace, name: &str, upload: &str, derive: &str) -> Result<AgentRun> {
    let mut run = fixture::read(repository().join(FIXTURES).join("run.yaml"))?;
    let object = sample::of_kind(&mut run, "AgentRun")?;
    object.metadata.name = Some(name.to_owned());
    object.data["spec"]["project"]["source"] = json!({ "upload": upload });
    object.data["spec"]["parameters"] = json!({ "derive": derive });
    namespace.apply(run).await?;
    namespace.ended_as(name, Phase::Succeeded, 120).await
}

/// What a run left; gives the folder of its project.
async fn pulled(namespace: &Namespace, run: &str, out: &Path) -> Result<PathBuf> {
    let path = out.to_string_lossy();
    let pull = ["sop", "pull", run, "-n", &namespace.name, "--out", &path];
    kubectl::kubectl(&pull).await?;
    Ok(out.join("game"))
}

fn incremental(run: &AgentRun) -> Result<IncrementalStatus> {
    let status = run.status.as_ref().context("no status")?;
    status
        .incremental
        .clone()
        .context("nothing about the iteration")
}

/// Events of a run: type, reason, note.
async fn events(namespace: &Namespace, run: &str) -> Result<Vec<[String; 3]>> {
    let all = namespace
        .api::<Event>()
        .list(&ListParams::default())
        .await?;
    let of_run = |event: &Event| event.involved_object.name.as_deref() == Some(run);
    let said =
        |event: Event| [event.type_, event.reason, event.message].map(Option::unwrap_or_default);
    Ok(all.into_iter().filter(of_run).map(said).collect())
}

#[tokio::test]
async fn a_bug_report_goes_past_the_requirements_and_edits_by_hand_are_told_apart() -> Result<()> {
    in_namespace("incremental", async |namespace| {
        Box::pin(iterated(&namespace)).await
    })
    .await
}

async fn iterated(namespace: &Namespace) -> Result<()> {
    for file in ["cassette", "policy", "sop"] {
        namespace
            .apply_fixture(&format!("iteration/{file}.yaml"))
            .await?;
    }
    let folder = tempfile::tempdir()?;
    let begun = folder.path().join("begun");
    fs::create_dir_all(begun.join("game"))?;
    fs::write(begun.join("game/run.bat"), "@echo off\r\n")?;
    let upload = push(namespace, &begun).await?;
    let first = run(namespace, "first", &upload, "yes").await?;
    let about = incremental(&first)?;
    ensure!(
        about.kind == IdeaKind::Bug && about.path == "docs/bugfix.txt",
        "{about:?}"
    );
    let status = first.status.clone().context("no status")?;
    let phases: Vec<StepPhase> = status.steps.iter().map(|step| step.phase).collect();
    ensure!(
        phases
            == [
                StepPhase::Skipped,
                StepPhase::Succeeded,
                StepPhase::Succeeded
            ],
        "{phases:?}"
    );
    let usage = status.usage.unwrap_or_default();
    ensure!(
        (usage.llm_requests, usage.total_tokens) == (1, 140),
        "{usage:?}"
    );
    let left = pulled(namespace, "first", &folder.path().join("first")).await?;
    let idea = "A hand of 21 is counted as lost.";
    ensure!(fs::read_to_string(left.join("docs/bugfix.txt"))? == format!("{idea}\n"));
    ensure!(fs::read_to_string(left.join("game/mended.txt"))? == format!("{idea} ()\n"));
    ensure!(fs::read_to_string(left.join("game/run.bat"))? == "@echo off\r\n");
    let list: Value = serde_json::from_slice(&fs::read(left.join(".dependencies.json"))?)?;
    let listed = &list["/sopwith"]["files"];
    ensure!(
        listed["game/mended.txt"].is_string() && listed["docs/bugfix.txt"].is_null(),
        "{list}"
    );

    fs::write(left.join("game/rules.txt"), "21 wins\n")?;
    fs::write(left.join("resources/seq_flow/game.mmd"), "by hand\n")?;
    let upload = push(namespace, &left).await?;
    let second = run(namespace, "second", &upload, "no").await?;
    let about = incremental(&second)?;
    ensure!(
        (about.edited_files, about.derived_files) == (1, 1),
        "{about:?}"
    );
    let events = events(namespace, "second").await?;
    let told = |kind: &str, reason: &str, words: &str| {
        events.iter().any(|[found, because, note]| {
            found == kind && because == reason && note.contains(words)
        })
    };
    ensure!(
        told(
            "Normal",
            "Classified",
            "is a bug report, written to docs/bugfix.txt"
        ) && told("Normal", "ProjectEdited", "game/rules.txt (added)")
            && told(
                "Warning",
                "DerivedEdited",
                "resources/seq_flow/game.mmd (changed)"
            ),
        "{events:?}"
    );
    let left = pulled(namespace, "second", &folder.path().join("second")).await?;
    let mended = fs::read_to_string(left.join("game/mended.txt"))?;
    ensure!(mended == format!("{idea} (game/rules.txt)\n"), "{mended}");
    Ok(())
}
