//! What the apiserver takes and refuses, and with which words.

use anyhow::{Result, ensure};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde::Deserialize;
use serde_json::{Value, json};
use sopwith_crds::AgentRun;
use sopwith_e2e::{namespace::in_namespace, repository};
use std::fs;

#[derive(Deserialize)]
struct Case {
    name: String,
    object: Value,
    refused: Option<String>,
}

#[derive(Deserialize)]
struct Updates {
    before: Value,
    changes: Vec<Change>,
}

#[derive(Deserialize)]
struct Change {
    name: String,
    spec: Value,
    refused: Option<String>,
}

/// What is wrong with an answer, if anything.
fn judge(name: &str, answer: Result<(), String>, refused: Option<&str>) -> Option<String> {
    match (answer, refused) {
        (Ok(()), None) => None,
        (Ok(()), Some(words)) => Some(format!(
            "{name}: taken, but should be refused with: {words}"
        )),
        (Err(message), None) => Some(format!("{name}: should be taken, but: {message}")),
        (Err(message), Some(words)) if message.contains(words) => None,
        (Err(message), Some(words)) => Some(format!(
            "{name}: should be refused with: {words}\n  but: {message}"
        )),
    }
}

#[tokio::test]
async fn good_objects_are_taken_and_bad_ones_refused_with_a_remedy() -> Result<()> {
    in_namespace("admission", async |namespace| {
        let text = fs::read_to_string(repository().join("e2e/fixtures/admission/cases.yaml"))?;
        let cases: Vec<Case> = serde_saphyr::from_str(&text)?;
        ensure!(cases.len() >= 25, "the table is not whole");
        let mut wrong = Vec::new();
        for case in cases {
            let object: DynamicObject = serde_json::from_value(case.object)?;
            let answer = namespace
                .apply_one(object, true)
                .await
                .map_err(|error| format!("{error:#}"));
            wrong.extend(judge(&case.name, answer, case.refused.as_deref()));
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_spec_is_immutable_but_for_what_may_change() -> Result<()> {
    in_namespace("immutable", async |namespace| {
        let text = fs::read_to_string(repository().join("e2e/fixtures/admission/updates.yaml"))?;
        let updates: Updates = serde_saphyr::from_str(&text)?;
        let runs = namespace.api::<AgentRun>();
        let run: AgentRun = serde_json::from_value(
            json!({ "metadata": { "name": "fixed" }, "spec": updates.before }),
        )?;
        runs.create(&PostParams::default(), &run).await?;
        let mut wrong = Vec::new();
        for change in updates.changes {
            let params = PatchParams {
                dry_run: true,
                ..PatchParams::default()
            };
            let patched = runs
                .patch(
                    "fixed",
                    &params,
                    &Patch::Merge(json!({ "spec": change.spec })),
                )
                .await;
            let answer = patched.map(|_| ()).map_err(|error| error.to_string());
            wrong.extend(judge(&change.name, answer, change.refused.as_deref()));
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_cancel_is_not_taken_back() -> Result<()> {
    in_namespace("cancel-stays", async |namespace| {
        let run: AgentRun = serde_json::from_value(
            json!({ "metadata": { "name": "over" }, "spec": { "idea": "x", "sopRef": { "name": "none" }, "cancel": true } }),
        )?;
        namespace.api::<AgentRun>().create(&PostParams::default(), &run).await?;
        let refused = namespace.patch_run("over", json!({ "cancel": false })).await.err().map(|error| error.to_string());
        ensure!(refused.is_some_and(|message| message.contains("spec.cancel cannot be taken back")), "it was taken back");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn kubectl_explains_the_kinds() -> Result<()> {
    let said = sopwith_e2e::kubectl::kubectl(&["explain", "agentrun.spec.investment"]).await?;
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(
        said.contains("MetaGPT: investment") && said.contains("US dollars"),
        "{said}"
    );
    let listed =
        sopwith_e2e::kubectl::kubectl(&["api-resources", "--categories=sopwith", "-o", "name"])
            .await?;
    for kind in [
        "agentruns.sopwith.dev",
        "sopdefinitions.sopwith.dev",
        "toolpolicies.sopwith.dev",
    ] {
        ensure!(
            listed.contains(kind),
            "{kind} is not in the category: {listed}"
        );
    }
    Ok(())
}
