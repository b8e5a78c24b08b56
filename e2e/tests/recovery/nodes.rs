//! A second node that is cut off and comes back, and that loses its power: its runs wait until somebody knows that their pods are dead.

use crate::{
    SHARED,
    line::{begin, booked_once, pod, prepare, question},
};
use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Node, Taint},
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sopwith_crds::{AgentRun, conditions, status::Phase};
use sopwith_e2e::{
    host, kubectl,
    namespace::{Namespace, in_namespace},
    repository, sample,
};

const SOP: &str = "two-questions";
const NODE: &str = "node2";
/// The taint of a node that is known to be off.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// The reason of a run whose node does not answer.
const NODE_LOST: &str = "NodeLost";
/// How long the control plane may take to notice that a node is silent: its grace period is 50 s.
const NOTICED: u64 = 120;
/// Its pod is given up when the node is tainted.
const TAINTED: &str = "tainted";
/// Its pod stands the taint, and is given up when the node is deleted.
const DELETED: &str = "deleted";
/// A person says that its pod is dead, by deleting its Job.
const TOLD: &str = "told";
/// Waits for its model when the node is cut off, and ends on it when it is back.
const BACK: &str = "back";
/// Never leaves the first node.
const UNBROKEN: &str = "unbroken";

#[tokio::test]
async fn runs_of_a_node_that_is_gone_wait_until_that_is_certain_and_then_go_on() -> Result<()> {
    if !host::is_node() {
        eprintln!("not the local cluster: no second node can be started");
        return Ok(());
    }
    let _unharmed = SHARED.read().await;
    in_namespace("nodes", async |namespace| {
        second_node("up").await?;
        let tested = Box::pin(lose(&namespace)).await;
        second_node("off").await?;
        forget_node(&namespace).await?;
        tested
    })
    .await
}

async fn lose(namespace: &Namespace) -> Result<()> {
    let gone = [TAINTED, DELETED, TOLD];
    let all = [TAINTED, DELETED, TOLD, BACK];
    let held: Vec<String> = all.iter().map(|name| sequel(name)).collect();
    let server = prepare(namespace, held).await?;
    namespace.apply_fixture("nodes/sop.yaml").await?;
    begin(namespace, UNBROKEN, 0, |spec| {
        spec["sopRef"]["name"] = SOP.into();
    })
    .await?;
    for name in all {
        begin(namespace, name, 0, |spec| on_second_node(spec, name)).await?;
    }
    let unbroken = namespace.ended_as(UNBROKEN, Phase::Succeeded, 120).await?;
    for name in all {
        // The first step has finished, and its report was acknowledged before this is asked.
        server.asked(&sequel(name), 120).await?;
        let pod = pod(namespace, name, 1).await?;
        let node = pod.spec.and_then(|spec| spec.node_name);
        ensure!(node.as_deref() == Some(NODE), "{name}: {node:?}");
    }

    second_node("freeze").await?;
    all_are(namespace, &all, true).await?;
    second_node("thaw").await?;
    all_are(namespace, &all, false).await?;
    server.release(&sequel(BACK));
    ends(namespace, BACK, 1, &unbroken).await?;

    second_node("off").await?;
    for run in all_are(namespace, &gone, true).await? {
        let said = reconciling(&run).map(|condition| condition.message.clone());
        let said = said.context("no message")?;
        ensure!(said.contains(NODE) && said.contains("delete job"), "{said}");
    }
    let jobs = namespace.api::<Job>();
    jobs.delete(&format!("{TOLD}-1"), &DeleteParams::background())
        .await?;
    launched_again(namespace, TOLD).await?;
    taint(namespace).await?;
    launched_again(namespace, TAINTED).await?;
    let waits = namespace.api::<AgentRun>().get(DELETED).await?;
    ensure!(is_lost(&waits), "{DELETED} did not wait");
    forget_node(namespace).await?;
    launched_again(namespace, DELETED).await?;

    second_node("up").await?;
    for name in gone {
        server.release(&sequel(name));
    }
    try_join_all(gone.map(|name| Box::pin(ends(namespace, name, 2, &unbroken)))).await?;
    for name in gone {
        let (first, second) = (question(name), sequel(name));
        ensure!(server.times(&first) == 1, "{name}: asked again");
        ensure!(server.times(&second) == 2, "{name}: not asked again");
    }
    let used = booked_once(namespace).await?;
    eprintln!("5 runs, {used} tokens booked once");
    Ok(())
}

/// What the second step of a run asks its model.
fn sequel(run: &str) -> String {
    format!("Write a sequel about {run}.")
}

fn on_second_node(spec: &mut Value, name: &str) {
    let mut tolerations = vec![json!({ "key": "sopwith.dev/e2e", "operator": "Exists" })];
    if name == DELETED {
        tolerations.push(json!({ "key": OUT_OF_SERVICE, "operator": "Exists" }));
    }
    spec["sopRef"]["name"] = SOP.into();
    spec["runner"]["nodeSelector"] = json!({ "sopwith.dev/e2e": "second" });
    spec["runner"]["tolerations"] = tolerations.into();
}

async fn second_node(what: &str) -> Result<()> {
    let script = repository().join("e2e/cluster/second-node.sh");
    let script = script.to_str().context("a path that is no text")?;
    let said = kubectl::run("bash", [script, what], &[], "").await?;
    ensure!(said.code == 0, "second-node.sh {what}: {}", said.all());
    Ok(())
}

fn reconciling(run: &AgentRun) -> Option<&Condition> {
    let status = run.status.as_ref()?;
    conditions::find(&status.conditions, conditions::RECONCILING)
}

/// Whether a run says that its node does not answer.
fn is_lost(run: &AgentRun) -> bool {
    reconciling(run).is_some_and(|condition| condition.reason == NODE_LOST)
}

async fn all_are(namespace: &Namespace, names: &[&str], lost: bool) -> Result<Vec<AgentRun>> {
    let what = if lost { "NodeLost" } else { "not NodeLost" };
    let waits = names.iter().map(|name| {
        Box::pin(namespace.until::<AgentRun>(name, NOTICED, what, move |run| is_lost(run) == lost))
    });
    try_join_all(waits).await
}

/// Waits until a run has announced its second launch: the pod of the first is known to be dead.
async fn launched_again(namespace: &Namespace, name: &str) -> Result<()> {
    let second = |run: &AgentRun| run.status.as_ref().and_then(|status| status.launch) == Some(2);
    namespace.until(name, 120, "launch 2", second).await?;
    Ok(())
}

async fn taint(namespace: &Namespace) -> Result<()> {
    let nodes = Api::<Node>::all(namespace.client.clone());
    let mut node = nodes.get(NODE).await?;
    let spec = node.spec.get_or_insert_default();
    spec.taints.get_or_insert_default().push(Taint {
        key: OUT_OF_SERVICE.to_owned(),
        value: Some("nodeshutdown".to_owned()),
        effect: "NoExecute".to_owned(),
        time_added: None,
    });
    let taints = json!({ "spec": { "taints": spec.taints } });
    nodes
        .patch(NODE, &PatchParams::default(), &Patch::Merge(taints))
        .await?;
    Ok(())
}

/// Deletes the Node, where there is one.
async fn forget_node(namespace: &Namespace) -> Result<()> {
    let nodes = Api::<Node>::all(namespace.client.clone());
    match nodes.delete(NODE, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        deleted => Ok(deleted.map(|_| ())?),
    }
}

/// Waits for a run's end, which is that of the unbroken one, after so many launches with a Job each.
async fn ends(namespace: &Namespace, name: &str, launches: u32, unbroken: &AgentRun) -> Result<()> {
    let run = namespace.ended_as(name, Phase::Succeeded, 180).await?;
    let (steps, expected) = (sample::results(&run)?, sample::results(unbroken)?);
    let (steps, expected) = (&steps["steps"], &expected["steps"]);
    ensure!(steps == expected, "{name}: {steps}\nunbroken: {expected}");
    let launch = run.status.as_ref().and_then(|status| status.launch);
    ensure!(launch == Some(launches), "{name}: launch {launch:?}");
    Ok(())
}
