//! Long-term memory: what a run leaves is recalled by later runs of its project, and by no others.

use anyhow::{Result, ensure};
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use sopwith_crds::{AgentRun, contract::snapshot::Message, status::Phase};
use sopwith_e2e::{
    kubectl,
    namespace::{Namespace, in_namespace},
};
use std::fs;

/// What a run left.
struct Left {
    /// The file in which it wrote what it recalled.
    memoir: String,
    /// What its trace says of that.
    said: Vec<String>,
}

/// A run with an idea, to its end.
async fn written(namespace: &Namespace, name: &str, idea: &str, spec: Value) -> Result<Left> {
    let mut whole = json!({
        "idea": idea, "sopRef": { "name": "memoir" }, "project": { "name": "zoo" }, "longTermMemory": true,
        "runner": { "resources": { "requests": { "cpu": "10m", "memory": "32Mi" }, "limits": { "memory": "512Mi" } } },
    });
    if let (Value::Object(whole), Value::Object(spec)) = (&mut whole, spec) {
        whole.extend(spec);
    }
    let run = json!({ "metadata": { "name": name }, "spec": whole });
    let runs = namespace.api::<AgentRun>();
    runs.create(&PostParams::default(), &serde_json::from_value(run)?)
        .await?;
    let run = namespace.ended_as(name, Phase::Succeeded, 120).await?;
    let project = run.spec.project.and_then(|project| project.name);
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out");
    let path = out.to_string_lossy();
    kubectl::kubectl(&["sop", "pull", name, "-n", &namespace.name, "--out", &path]).await?;
    let memoir = fs::read_to_string(out.join(project.unwrap_or_default()).join("memoir.txt"))?;
    let mut said = Vec::new();
    for line in fs::read_to_string(out.join("messages.jsonl"))?.lines() {
        let message: Message = serde_json::from_str(line)?;
        if message.cause == "memory" {
            said.push(message.content);
        }
    }
    Ok(Left { memoir, said })
}

#[tokio::test]
async fn a_run_recalls_what_earlier_runs_of_its_project_left_and_nobody_else_does() -> Result<()> {
    in_namespace("memory", async |namespace| {
        for file in ["policy", "sop"] {
            namespace
                .apply_fixture(&format!("memory/{file}.yaml"))
                .await?;
        }
        let first = written(&namespace, "first", "count the foxes", json!({})).await?;
        ensure!(first.memoir == "nothing\n", "{}", first.memoir);
        ensure!(
            first.said == ["recalls nothing: no earlier run of project zoo left anything"],
            "{:?}",
            first.said
        );
        let second = written(&namespace, "second", "feed the foxes", json!({})).await?;
        ensure!(
            second.memoir == "first, idea: count the foxes\n",
            "{}",
            second.memoir
        );
        ensure!(
            second.said
                == ["recalls 1 fact of project zoo, left by first:\n- [run first, sopwith in idea] count the foxes"],
            "{:?}",
            second.said
        );
        for (name, spec) in [
            ("farm", json!({ "project": { "name": "farm" } })),
            ("forgets", json!({ "longTermMemory": false })),
        ] {
            let other = written(&namespace, name, "count the foxes", spec).await?;
            ensure!(other.memoir == "nothing\n", "{name}: {}", other.memoir);
        }
        // What it left outlives a run; one that keeps nothing has left nothing.
        namespace
            .api::<AgentRun>()
            .delete("first", &DeleteParams::default())
            .await?;
        let last = written(&namespace, "last", "count the foxes", json!({})).await?;
        ensure!(
            last.memoir == "first, idea: count the foxes\nsecond, idea: feed the foxes\n",
            "{}",
            last.memoir
        );
        in_namespace("memory-beside", async |beside| {
            for file in ["policy", "sop"] {
                beside
                    .apply_fixture(&format!("memory/{file}.yaml"))
                    .await?;
            }
            let other = written(&beside, "first", "count the foxes", json!({})).await?;
            ensure!(other.memoir == "nothing\n", "{}", other.memoir);
            Ok(())
        })
        .await
    })
    .await
}
