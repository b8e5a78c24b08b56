//! Many runs of the procedure `relay` at once, whose model is a server of the test: it can keep a run waiting at its first step.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{DynamicObject, ListParams},
};
use serde_json::json;
use sopwith_crds::{AgentRun, RUN_LABEL, ToolPolicy};
use sopwith_e2e::{
    fixture,
    llm_server::{API_KEY, LlmServer},
    namespace::Namespace,
    operator_process::node_address,
    repository, sample,
};

/// What a run asks its model.
pub(crate) fn question(run: &str) -> String {
    format!("Write a note about {run}.")
}

/// Applies procedure and policy; the questions in `held` wait for their answer until they are released.
pub(crate) async fn prepare(
    namespace: &Namespace,
    held: impl IntoIterator<Item = String>,
) -> Result<LlmServer> {
    let address = node_address(&namespace.client).await?;
    let server = LlmServer::held_by(address, "Take one.\n", held).await?;
    let mut policy = fixture::read(repository().join("e2e/fixtures/relay/policy.yaml"))?;
    let endpoint = sample::of_kind(&mut policy, "ToolPolicy")?
        .data
        .pointer_mut("/spec/llm/0")
        .and_then(serde_json::Value::as_object_mut)
        .context("no endpoint")?;
    endpoint.remove("replay");
    endpoint.insert("provider".into(), "openai".into());
    for limit in ["timeoutSeconds", "idleTimeoutSeconds"] {
        endpoint.insert(limit.into(), 600.into());
    }
    endpoint.insert("baseUrl".into(), server.base_url.clone().into());
    endpoint.insert(
        "caRef".into(),
        json!({"name": "private-ca", "key": "ca.crt"}),
    );
    endpoint.insert(
        "secretRef".into(),
        json!({"name": sample::SECRET, "key": "api-key"}),
    );
    let mut secret = sample::secret()?;
    secret.data["stringData"]["api-key"] = API_KEY.into();
    let authority: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "private-ca"},
        "data": {"ca.crt": server.certificate}
    }))?;
    namespace.apply([secret, authority]).await?;
    namespace.apply(policy).await?;
    namespace.apply_fixture("relay/sop.yaml").await?;
    Ok(server)
}

/// Creates a run whose second step works for so many seconds; `change` does the rest.
pub(crate) async fn begin(
    namespace: &Namespace,
    name: &str,
    seconds: u32,
    change: impl FnOnce(&mut serde_json::Value),
) -> Result<()> {
    let mut run = fixture::read(repository().join("e2e/fixtures/relay/run.yaml"))?;
    let object = sample::of_kind(&mut run, "AgentRun")?;
    object.metadata.name = Some(name.to_owned());
    let spec = &mut object.data["spec"];
    spec["idea"] = name.into();
    spec["parameters"] = json!({"word": "one", "seconds": seconds.to_string()});
    change(spec);
    namespace.apply(run).await
}

/// The pod of a launch, once it is there.
pub(crate) async fn pod(namespace: &Namespace, run: &str, launch: u32) -> Result<Pod> {
    let at_least = |run: &AgentRun| run.status.as_ref().and_then(|s| s.launch) >= Some(launch);
    namespace
        .until(run, 90, &format!("launch {launch}"), at_least)
        .await?;
    let job = format!("{run}-{launch}");
    namespace
        .until::<k8s_openapi::api::batch::v1::Job>(&job, 30, "a pod", |job| {
            let status = job.status.as_ref();
            status
                .is_some_and(|s| s.active == Some(1) || s.failed.is_some() || s.succeeded.is_some())
        })
        .await?;
    let of_launch = ListParams::default().labels(&format!("{RUN_LABEL}={run},job-name={job}"));
    let pods = namespace.api::<Pod>().list(&of_launch).await?;
    pods.items.into_iter().next().context("no pod")
}

/// UID of a pod, by which its processes are found.
pub(crate) fn uid(pod: &Pod) -> String {
    pod.uid().unwrap_or_default()
}

/// What a run has used, as its status says.
pub(crate) fn tokens(run: &AgentRun) -> u64 {
    let usage = run.status.as_ref().and_then(|status| status.usage.as_ref());
    usage.map_or(0, |usage| usage.total_tokens)
}

/// Waits until the day's use of the policy is what all its runs say they have used.
pub(crate) async fn booked_once(namespace: &Namespace) -> Result<u64> {
    let runs = namespace
        .api::<AgentRun>()
        .list(&ListParams::default())
        .await?;
    let used: u64 = runs.items.iter().map(tokens).sum();
    namespace
        .until::<ToolPolicy>("default", 60, &format!("{used} tokens today"), |policy| {
            let today = policy.status.as_ref().and_then(|s| s.today.as_ref());
            today.is_some_and(|today| today.tokens == used)
        })
        .await?;
    Ok(used)
}
