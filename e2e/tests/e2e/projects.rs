//! Runs that begin with a project: that of an earlier run, an uploaded one, or with the whole state of an earlier run.

use anyhow::{Context as _, Result, ensure};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use sopwith_crds::{
    AgentRun, ToolPolicy, archive, conditions,
    contract::Digest,
    status::{InheritedGates, Phase},
};
use sopwith_e2e::{
    fixture, kubectl,
    namespace::{Namespace, in_namespace},
    repository, sample,
};
use std::{fs, path::Path};

async fn stage(namespace: &Namespace) -> Result<()> {
    for file in ["policy", "sop"] {
        namespace
            .apply_fixture(&format!("tally/{file}.yaml"))
            .await?;
    }
    Ok(())
}

/// A run that adds a letter to its project, and must find so many there then.
async fn tally(namespace: &Namespace, name: &str, expect: &str, spec: Value) -> Result<()> {
    let mut whole = json!({
        "idea": "count", "sopRef": { "name": "tally" }, "parameters": { "expect": expect },
        "runner": { "resources": { "requests": { "cpu": "10m", "memory": "32Mi" }, "limits": { "memory": "512Mi" } } },
    });
    if let (Value::Object(whole), Value::Object(spec)) = (&mut whole, spec) {
        whole.extend(spec);
    }
    let run = json!({ "metadata": { "name": name }, "spec": whole });
    let runs = namespace.api::<AgentRun>();
    runs.create(&PostParams::default(), &serde_json::from_value(run)?)
        .await?;
    Ok(())
}

/// Waits until a run says why it does not begin.
async fn pending(namespace: &Namespace, run: &str, reason: &str) -> Result<()> {
    let waits = |run: &AgentRun| {
        let conditions = run.status.as_ref().map(|status| &status.conditions);
        let found = conditions.and_then(|all| conditions::find(all, conditions::RECONCILING));
        found.is_some_and(|condition| condition.reason == reason)
    };
    namespace
        .until::<AgentRun>(run, 30, reason, waits)
        .await
        .map(|_| ())
}

fn upon(run: &str) -> Value {
    json!({ "project": { "source": { "run": run } } })
}

fn uploaded(digest: &Digest) -> Value {
    json!({ "project": { "source": { "upload": digest.to_string() } } })
}

#[tokio::test]
async fn a_run_takes_over_what_an_earlier_one_leaves_and_keeps_it_when_that_one_is_gone()
-> Result<()> {
    in_namespace("source-run", async |namespace| {
        stage(&namespace).await?;
        tally(&namespace, "second", "xx", upon("first")).await?;
        pending(&namespace, "second", "RunNotFound").await?;
        let slow = json!({ "parameters": { "expect": "x", "seconds": "4" } });
        tally(&namespace, "first", "x", slow).await?;
        pending(&namespace, "second", "RunNotFinished").await?;
        let second = namespace.ended_as("second", Phase::Succeeded, 120).await?;
        let first = namespace.api::<AgentRun>().get("first").await?;
        let inherited = second.status.and_then(|status| status.inherited);
        let inherited = inherited.context("nothing inherited")?;
        ensure!(Some(inherited.uid) == first.uid(), "of another run");
        let left = first.status.and_then(|status| status.snapshot);
        ensure!(Some(inherited.snapshot) == left, "another snapshot");
        namespace
            .api::<AgentRun>()
            .delete("first", &DeleteParams::default())
            .await?;
        let folder = tempfile::tempdir()?;
        let out = folder.path().join("out");
        let path = out.to_string_lossy();
        let namespace_name = &namespace.name;
        kubectl::kubectl(&[
            "sop",
            "pull",
            "second",
            "-n",
            namespace_name,
            "--out",
            &path,
        ])
        .await?;
        // Unless it says otherwise, a run goes on with the project under its name.
        ensure!(fs::read_to_string(out.join("first/tally.txt"))? == "xx");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_run_that_left_nothing_cannot_be_begun_with() -> Result<()> {
    in_namespace("source-none", async |namespace| {
        stage(&namespace).await?;
        tally(&namespace, "refused", "x", json!({ "environment": "prod" })).await?;
        namespace.ended_as("refused", Phase::Failed, 60).await?;
        tally(&namespace, "next", "x", upon("refused")).await?;
        let next = namespace.ended_as("next", Phase::Failed, 60).await?;
        let failure = next.status.and_then(|status| status.failure);
        let failure = failure.context("no failure")?;
        ensure!(
            failure.reason.to_string() == "ProjectUnavailable"
                && failure.message.contains("\"refused\" left no project"),
            "{failure:?}"
        );
        Ok(())
    })
    .await
}

/// A project, and the digest of its archive.
fn project(folder: &Path) -> Result<Digest> {
    fs::write(folder.join("tally.txt"), "xxx")?;
    fs::write(folder.join("build.log"), "not this one")?;
    fs::write(folder.join(".gitignore"), "*.log\n")?;
    let found = archive::folder::read(folder)?;
    Ok(Digest::of(archive::pack(&found.files)?))
}

#[tokio::test]
async fn a_run_begins_with_a_folder_that_was_pushed_into_its_namespace() -> Result<()> {
    in_namespace("source-upload", async |namespace| {
        stage(&namespace).await?;
        let folder = tempfile::tempdir()?;
        let digest = project(folder.path())?;
        tally(&namespace, "pushed", "xxxx", uploaded(&digest)).await?;
        pending(&namespace, "pushed", "UploadNotFound").await?;
        let path = folder.path().to_string_lossy();
        let push = ["sop", "push", &path, "-n", &namespace.name];
        let said = kubectl::kubectl(&push).await?;
        ensure!(said.trim() == digest.as_str(), "{said}");
        ensure!(kubectl::kubectl(&push).await? == said, "the same again");
        namespace.ended_as("pushed", Phase::Succeeded, 120).await?;
        // What was pushed there is nothing to another namespace.
        let other = Namespace::create(namespace.client.clone(), "other").await?;
        let tried = async {
            stage(&other).await?;
            tally(&other, "pushed", "xxxx", uploaded(&digest)).await?;
            pending(&other, "pushed", "UploadNotFound").await
        };
        let tried = tried.await;
        other.delete().await?;
        tried
    })
    .await
}

/// A run of the relay under another name.
async fn relay(namespace: &Namespace, name: &str, spec: Value) -> Result<()> {
    let mut run = fixture::read(repository().join("e2e/fixtures/relay/run.yaml"))?;
    let object = sample::of_kind(&mut run, "AgentRun")?;
    object.metadata.name = Some(name.to_owned());
    if let (Some(whole), Value::Object(spec)) = (object.data["spec"].as_object_mut(), spec) {
        whole.extend(spec);
    }
    namespace.apply(run).await
}

fn is_at(step: &str) -> impl Fn(&AgentRun) -> bool + Send {
    let step = step.to_owned();
    move |run| {
        let status = run.status.as_ref();
        status.and_then(|status| status.current_step.as_deref()) == Some(&step)
    }
}

#[tokio::test]
async fn a_run_recovers_from_a_finished_step_and_what_was_paid_is_not_booked_again() -> Result<()> {
    in_namespace("recover", async |namespace| {
        Box::pin(recovered(&namespace)).await
    })
    .await
}

async fn recovered(namespace: &Namespace) -> Result<()> {
    for file in ["cassette", "policy", "sop"] {
        namespace
            .apply_fixture(&format!("relay/{file}.yaml"))
            .await?;
    }
    let slow = json!({ "word": "one", "seconds": "8" });
    relay(namespace, "first", json!({ "parameters": slow })).await?;
    let at_copy = is_at("copy");
    namespace
        .until::<AgentRun>("first", 90, "the second step at work", at_copy)
        .await?;
    namespace
        .patch_run("first", json!({ "cancel": true }))
        .await?;
    let first = namespace.ended_as("first", Phase::Cancelled, 60).await?;
    let spent = first
        .status
        .and_then(|status| status.usage)
        .context("nothing used")?;
    ensure!(spent.total_tokens == 43, "{spent:?}");

    let from = json!({ "run": "first", "step": "draft" });
    let spec = json!({ "parameters": slow, "recoverFrom": from });
    relay(namespace, "second", spec).await?;
    let second = namespace.ended_as("second", Phase::Succeeded, 120).await?;
    let status = second.status.context("no status")?;
    let inherited = status.inherited.context("nothing inherited")?;
    ensure!(
        inherited.gates == Some(InheritedGates::TakenOver),
        "{inherited:?}"
    );
    ensure!(inherited.usage.as_ref() == Some(&spent), "{inherited:?}");
    ensure!(
        status.usage.unwrap_or_default().total_tokens == 0,
        "a model was asked again"
    );
    let draft = &status.steps[0];
    let message = draft.message.as_deref();
    ensure!(
        message == Some("taken over from AgentRun first"),
        "{message:?}"
    );
    ensure!(draft.gates.len() == 1 && draft.cost.is_none(), "{draft:?}");

    // Under other parameters the verdicts do not stand, and the wrong word sends nobody back to a step that is paid.
    let other = json!({ "word": "Take", "seconds": "0" });
    relay(
        namespace,
        "third",
        json!({ "parameters": other, "recoverFrom": from }),
    )
    .await?;
    let third = namespace.ended_as("third", Phase::Succeeded, 120).await?;
    let status = third.status.context("no status")?;
    let gates = status.inherited.and_then(|inherited| inherited.gates);
    ensure!(gates == Some(InheritedGates::JudgedAgain), "{gates:?}");
    ensure!(
        status.usage.unwrap_or_default().total_tokens == 0,
        "a model was asked again"
    );

    let booked = |policy: &ToolPolicy| {
        let today = policy
            .status
            .as_ref()
            .and_then(|status| status.today.as_ref());
        today.is_some_and(|today| today.tokens == 43)
    };
    namespace
        .until::<ToolPolicy>("default", 30, "43 tokens booked, once", booked)
        .await?;
    let watch = ["sop", "watch", "second", "--plain", "-n", &namespace.name];
    let said = kubectl::kubectl(&watch).await?;
    ensure!(
        said.contains(
            "recovers from first after step draft, its verdicts stand; inherited: 1 request"
        ),
        "{said}"
    );
    let never = json!({ "recoverFrom": { "run": "first", "step": "copy" }, "parameters": slow });
    relay(namespace, "fourth", never).await?;
    let fourth = namespace.ended_as("fourth", Phase::Failed, 60).await?;
    let failure = fourth
        .status
        .and_then(|status| status.failure)
        .context("no failure")?;
    ensure!(
        failure
            .message
            .contains("ended without finishing step copy; it finished: draft"),
        "{failure:?}"
    );
    Ok(())
}
