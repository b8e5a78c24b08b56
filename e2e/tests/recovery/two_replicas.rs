//! Two replicas over an object store: one works, the other takes over, and the first does no harm when it wakes.

use crate::SHARED;
use anyhow::{Context as _, Result, bail, ensure};
use futures::FutureExt as _;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        coordination::v1::Lease,
        core::v1::{Pod, Secret},
        discovery::v1::EndpointSlice,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    core::NamespaceResourceScope,
    runtime::wait::await_condition,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sopwith_crds::{AgentRun, ToolPolicy, status::Phase};
use sopwith_e2e::{
    OPERATOR_NAMESPACE, audit, fixture, kubectl,
    namespace::{Namespace, in_namespace_with_harm},
    operator_process::node_address,
    repository,
    s3_server::{KEY, KEY_ID, S3Server},
    sample,
};
use std::{
    fmt::Debug,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

const OPERATOR: &str = "sopwith-operator";
const SECRET: &str = "e2e-s3";
/// The chart's `leaseSeconds`.
const LEASE: Duration = Duration::from_secs(15);
/// How long a takeover may take beyond the lease.
const BEYOND: Duration = Duration::from_secs(2);
/// How long beyond its lease a leader sleeps.
const OVERSLEPT: Duration = Duration::from_secs(4);
/// Runs of each case.
const RUNS: usize = 4;

/// What is done to the leader while runs are at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// Its process is killed; the kubelet starts it again.
    Killed,
    /// Its process is killed and its pod is gone, as with a node that dies.
    Gone,
    /// Its process is stopped beyond its lease, then goes on.
    Frozen,
}

#[tokio::test]
async fn of_two_replicas_the_other_takes_over_and_the_first_does_no_harm() -> Result<()> {
    let _alone = SHARED.write().await;
    if audit::path().is_none() {
        eprintln!("not the local cluster: its operator's processes cannot be reached");
        return Ok(());
    }
    in_namespace_with_harm("replicas", async |namespace| {
        let s3 = S3Server::start(node_address(&namespace.client).await?).await?;
        credentials(&namespace.client).await?;
        let mut values = s3.values(SECRET);
        values.push("replicas=2".to_owned());
        let tried = match install(&values).await {
            Ok(()) => takeovers(&namespace).boxed().await,
            Err(error) => Err(error),
        };
        // What others test is one replica over a folder.
        let restored = install(&[]).await;
        tried.and(restored)
    })
    .await
}

async fn takeovers(namespace: &Namespace) -> Result<()> {
    for file in ["cassette", "policy", "sop"] {
        namespace
            .apply_fixture(&format!("relay/{file}.yaml"))
            .await?;
    }
    begin(namespace, "unbroken").await?;
    let expected = end(namespace, "unbroken").await?;
    for (run, results) in expected.iter().enumerate() {
        ensure!(
            results == &expected[0],
            "unbroken run {run} differs: {results}"
        );
    }
    for harm in [Harm::Killed, Harm::Gone, Harm::Frozen] {
        let name = format!("{harm:?}").to_lowercase();
        begin(namespace, &name).await?;
        do_harm(namespace, harm).boxed().await?;
        for (run, results) in end(namespace, &name).await?.iter().enumerate() {
            ensure!(
                results == &expected[0],
                "{harm:?}: run {run} ended differently: {results}\nunbroken: {}",
                expected[0]
            );
        }
        two_are_ready(&namespace.client).await?;
        eprintln!("{harm:?}: {RUNS} runs ended as the unbroken ones");
    }
    everything_is_booked_once(namespace, &expected[0]).await
}

/// Starts runs, and waits until all are at work.
async fn begin(namespace: &Namespace, name: &str) -> Result<()> {
    let run = fixture::read(repository().join("e2e/fixtures/relay/run.yaml"))?;
    for nth in 0..RUNS {
        let mut run: DynamicObject = run.first().context("no run")?.clone();
        run.metadata.name = Some(format!("{name}-{nth}"));
        run.data["spec"]["parameters"] = json!({"word": "two", "seconds": "9"});
        namespace.apply([run]).await?;
    }
    for nth in 0..RUNS {
        let at_work = |run: &AgentRun| {
            run.status
                .as_ref()
                .is_some_and(|s| s.phase == Some(Phase::Running))
        };
        namespace
            .until(&format!("{name}-{nth}"), 60, "it works", at_work)
            .await?;
    }
    Ok(())
}

/// What the runs came to: their results, launches and Jobs.
async fn end(namespace: &Namespace, name: &str) -> Result<Vec<Value>> {
    let mut results = Vec::new();
    for nth in 0..RUNS {
        let name = format!("{name}-{nth}");
        let run = namespace.ended_as(&name, Phase::Succeeded, 150).await?;
        let of_run = ListParams::default().labels(&format!("{}={name}", sopwith_crds::RUN_LABEL));
        let jobs = namespace.api::<Job>().list(&of_run).await?.items.len();
        let launch = run.status.as_ref().and_then(|status| status.launch);
        results.push(json!({"run": sample::results(&run)?, "launch": launch, "jobs": jobs}));
    }
    Ok(results)
}

async fn do_harm(namespace: &Namespace, harm: Harm) -> Result<()> {
    let client = &namespace.client;
    let pods: Api<Pod> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let leader = leader(client).await?;
    let before: Lease = Api::namespaced(client.clone(), OPERATOR_NAMESPACE)
        .get(OPERATOR)
        .await?;
    let pod = pods.get(&leader).await?;
    let pid = process_of(&leader)?;
    let (begun, stopped_at) = (Instant::now(), Timestamp::now());
    signal(if harm == Harm::Frozen { "STOP" } else { "KILL" }, pid).await?;
    if harm == Harm::Gone {
        pods.delete(&leader, &DeleteParams::default().grace_period(0))
            .await?;
    }
    let new = next_leader(client, &before).await?;
    let taken_over = begun.elapsed();
    let found = gateway_leads_to(client, &new).await?;
    eprintln!(
        "{harm:?}: {leader} held the lease, {new} holds it after {:.1} s, the Service leads to it after {:.1} s",
        taken_over.as_secs_f32(),
        (found - begun).as_secs_f32()
    );
    ensure!(
        found - begun <= LEASE + BEYOND,
        "{harm:?}: the takeover took {:?}",
        found - begun
    );
    match harm {
        Harm::Killed => Ok(()),
        Harm::Gone => {
            ensure!(new != leader, "the pod that is gone holds the lease");
            Ok(())
        }
        Harm::Frozen => {
            ensure!(new != leader, "the frozen pod holds the lease");
            let sleeping = LEASE + OVERSLEPT;
            tokio::time::sleep(sleeping.saturating_sub(begun.elapsed())).await;
            wake(client, &pod, pid, stopped_at, &new).await
        }
    }
}

/// Lets the frozen leader go on: it ends without having done anything, and is back as a follower.
async fn wake(
    client: &Client,
    pod: &Pod,
    pid: u32,
    stopped_at: Timestamp,
    new: &str,
) -> Result<()> {
    let name = pod.name_any();
    signal("CONT", pid).await?;
    let restarts = restarts(pod);
    let ended = |pod: &Pod| {
        let statuses = pod
            .status
            .iter()
            .flat_map(|s| s.container_statuses.iter().flatten());
        statuses
            .into_iter()
            .any(|c| c.restart_count == restarts + 1 && c.ready)
    };
    let back: Pod = until(client, &name, 60, "it ends and is back", ended).await?;
    let statuses = back
        .status
        .and_then(|status| status.container_statuses)
        .unwrap_or_default();
    let last = statuses
        .first()
        .and_then(|c| c.last_state.clone())
        .and_then(|s| s.terminated);
    let last = last.context("no last state")?;
    ensure!(
        last.exit_code == 1,
        "it ended with {}: {last:?}",
        last.exit_code
    );
    ensure!(
        leader(client).await? == new,
        "the woken replica is the leader again"
    );
    let log = kubectl::kubectl(&["-n", OPERATOR_NAMESPACE, "logs", "--previous", &name]).await?;
    ensure!(
        log.contains(&format!("held by {new}")),
        "it did not say why it ended:\n{log}"
    );
    let written = writes_since(&name, stopped_at)?;
    ensure!(written.is_empty(), "the woken replica wrote: {written:#?}");
    eprintln!("Frozen: {name} woke, wrote nothing, ended with 1 and follows");
    Ok(())
}

/// Everything that a pod of the operator changed in the cluster since then. A renewal that was refused changed nothing.
fn writes_since(pod: &str, since: Timestamp) -> Result<Vec<String>> {
    let records = audit::records_with(pod)?;
    let written = records.iter().filter(|record| {
        let text = |pointer: &str| {
            record
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let at = text("/requestReceivedTimestamp").parse::<Timestamp>();
        let code = record
            .pointer("/responseStatus/code")
            .and_then(Value::as_i64)
            .unwrap_or_default();
        let name = record.pointer("/user/extra/authentication.kubernetes.io~1pod-name/0");
        name.and_then(Value::as_str) == Some(pod)
            && at.is_ok_and(|at| at >= since)
            && ["create", "update", "patch", "delete"].contains(&text("/verb"))
            && (200..300).contains(&code)
    });
    Ok(written.map(ToString::to_string).collect())
}

/// The day's use of the policy is what the runs of all cases used.
async fn everything_is_booked_once(namespace: &Namespace, one: &Value) -> Result<()> {
    let tokens = one
        .pointer("/run/usage/totalTokens")
        .and_then(Value::as_u64);
    let expected = tokens.context("no tokens")? * (4 * RUNS) as u64;
    ensure!(expected > 0, "the runs used nothing");
    let booked = |policy: &ToolPolicy| {
        let today = policy
            .status
            .as_ref()
            .and_then(|status| status.today.as_ref());
        today.is_some_and(|today| today.tokens == expected)
    };
    let what = format!("{expected} tokens are booked");
    namespace
        .until::<ToolPolicy>("default", 30, &what, booked)
        .await?;
    Ok(())
}

/// Waits until the lease begins another term.
async fn next_leader(client: &Client, before: &Lease) -> Result<String> {
    let acquired = |lease: &Lease| lease.spec.as_ref().and_then(|s| s.acquire_time.clone());
    let old = acquired(before);
    let held = |lease: &Lease| {
        let holder = lease
            .spec
            .as_ref()
            .and_then(|s| s.holder_identity.as_deref());
        acquired(lease) != old && holder.is_some_and(|holder| !holder.is_empty())
    };
    let lease: Lease = until(client, OPERATOR, 60, "another term", held).await?;
    lease
        .spec
        .and_then(|s| s.holder_identity)
        .context("no holder")
}

/// Waits until the gateway's Service leads to a pod and to no other.
async fn gateway_leads_to(client: &Client, pod: &str) -> Result<Instant> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let ip = pods
        .get(pod)
        .await?
        .status
        .and_then(|status| status.pod_ip)
        .context("no address")?;
    let leads = |slice: &EndpointSlice| {
        let addresses: Vec<&String> = slice.endpoints.iter().flat_map(|e| &e.addresses).collect();
        addresses == [&ip]
    };
    until::<EndpointSlice>(
        client,
        "sopwith-gateway",
        60,
        "the Service leads to it",
        leads,
    )
    .await?;
    Ok(Instant::now())
}

async fn leader(client: &Client) -> Result<String> {
    let held = |lease: &Lease| {
        let holder = lease
            .spec
            .as_ref()
            .and_then(|s| s.holder_identity.as_deref());
        holder.is_some_and(|holder| !holder.is_empty())
    };
    let lease: Lease = until(client, OPERATOR, 30, "a leader", held).await?;
    lease
        .spec
        .and_then(|s| s.holder_identity)
        .context("no holder")
}

async fn two_are_ready(client: &Client) -> Result<()> {
    let ready = |deployment: &Deployment| {
        deployment
            .status
            .as_ref()
            .is_some_and(|s| s.ready_replicas == Some(2) && s.replicas == Some(2))
    };
    until::<Deployment>(client, OPERATOR, 90, "two replicas are ready", ready).await?;
    Ok(())
}

/// Waits until an object of the operator's namespace is as wanted.
async fn until<K>(
    client: &Client,
    name: &str,
    seconds: u64,
    what: &str,
    wanted: impl Fn(&K) -> bool,
) -> Result<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + Debug + Send + DeserializeOwned + serde::Serialize + 'static,
{
    let api: Api<K> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let condition = |object: Option<&K>| object.is_some_and(&wanted);
    let waited = await_condition(api.clone(), name, condition);
    match tokio::time::timeout(Duration::from_secs(seconds), waited).await {
        Ok(object) => object?.context("the object went away"),
        Err(_) => bail!(
            "{name}: {what}: not within {seconds} s; it is now {:#?}",
            api.get_opt(name).await?
        ),
    }
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten());
    statuses.map(|container| container.restart_count).sum()
}

/// The process of an operator's pod, which runs on this machine.
fn process_of(pod: &str) -> Result<u32> {
    let ours = format!("POD_NAME={pod}");
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == ours.as_bytes())
        {
            return Ok(pid);
        }
    }
    bail!("no process of pod {pod} on this machine")
}

async fn signal(name: &str, pid: u32) -> Result<()> {
    let said = kubectl::run("kill", ["-s", name, &pid.to_string()], &[], "").await?;
    ensure!(said.code == 0, "kill -s {name} {pid}: {}", said.all());
    Ok(())
}

/// The S3 server's key, where the chart finds it.
async fn credentials(client: &Client) -> Result<()> {
    let secret: Secret = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET},
        "stringData": {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": KEY},
    }))?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let params = PatchParams::apply("e2e").force();
    secrets
        .patch(SECRET, &params, &Patch::Apply(&secret))
        .await?;
    Ok(())
}

/// Installs the chart as `make install` does, with these values.
async fn install(values: &[String]) -> Result<()> {
    let script: PathBuf = repository().join("e2e/cluster/install.sh");
    let args: Vec<&str> = values
        .iter()
        .flat_map(|value| ["--set", value.as_str()])
        .collect();
    let said = kubectl::run(&script.to_string_lossy(), args, &[], "").await?;
    ensure!(said.code == 0, "install.sh: {}", said.all());
    Ok(())
}
