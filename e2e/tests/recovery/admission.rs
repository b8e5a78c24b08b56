//! The operator alone: what it does when the admission policies are taken away or weakened.

use crate::SHARED;
use anyhow::{Context as _, Result, anyhow, ensure};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    batch::v1::Job,
    core::v1::ConfigMap,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sopwith_crds::{AgentRun, RUN_LABEL, conditions, status::Phase};
use sopwith_e2e::{
    OPERATOR_NAMESPACE,
    kubectl::kubectl,
    namespace::{Namespace, in_namespace_with_harm},
    people::Person,
};
use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

const REASON: &str = "AdmissionNotEnforced";
/// How long after the policy took effect a run may still not be believed, as times have whole seconds and API servers some delay.
const BELIEVED_WITHIN: Duration = Duration::from_secs(15);
const POLICIES: [&str; 5] = [
    "sopwith-agentruns",
    "sopwith-sopdefinitions",
    "sopwith-status",
    "sopwith-owned",
    "sopwith-tokens",
];

/// Waits until the operator says of itself that admission is enforced, or not.
async fn said(enforced: bool) -> Result<()> {
    let path = format!(
        "/api/v1/namespaces/{OPERATOR_NAMESPACE}/services/sopwith-metrics:http/proxy/metrics"
    );
    let line = format!("sopwith_admission_enforced {}", i32::from(enforced));
    let seen = async {
        loop {
            if kubectl(&["get", "--raw", &path])
                .await?
                .lines()
                .any(|said| said == line)
            {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), seen).await;
    waited.with_context(|| format!("the metrics never said {line}"))?
}

/// Weakens an object, tests, and puts it back as it was, whatever the test said.
async fn weakened<K>(
    client: &Client,
    name: &str,
    weaken: Option<Value>,
    test: impl AsyncFnOnce() -> Result<()>,
) -> Result<()>
where
    K: Resource<DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static,
{
    let api: Api<K> = Api::all(client.clone());
    let mut before = api
        .get(name)
        .await
        .with_context(|| format!("{name}: install the chart"))?;
    before.meta_mut().managed_fields = None;
    before.meta_mut().resource_version = None;
    before.meta_mut().uid = None;
    match &weaken {
        Some(spec) => {
            let patch = Patch::Merge(json!({ "spec": spec }));
            api.patch(name, &PatchParams::default(), &patch).await?;
        }
        None => {
            api.delete(name, &DeleteParams::default()).await?;
        }
    }
    let tested = test().await;
    // The apiserver notes in the status of a policy what it found in its expressions, some time after each change.
    let restored = loop {
        let written = match api.get_opt(name).await? {
            None => api.create(&PostParams::default(), &before).await,
            Some(there) => {
                before
                    .meta_mut()
                    .resource_version
                    .clone_from(&there.meta().resource_version);
                api.replace(name, &PostParams::default(), &before).await
            }
        };
        match written {
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            written => break written,
        }
    };
    restored.with_context(|| format!("{name} could not be put back: run `make install`"))?;
    tested
}

#[tokio::test]
async fn a_weakened_admission_policy_is_noticed_and_so_is_its_return() -> Result<()> {
    let _alone = SHARED.write().await;
    in_namespace_with_harm("weakened", async |namespace| {
        let client = &namespace.client;
        said(true).await?;
        let noticed = async || said(false).await;
        let mut tried = 0;
        for name in POLICIES {
            let edited = json!({ "validations": [{ "expression": "true" }] });
            let scoped = json!({ "namespaceSelector": { "matchLabels": { "a": "b" } } });
            for weaken in [
                Some(json!({ "failurePolicy": "Ignore" })),
                Some(edited),
                Some(json!({ "matchConstraints": scoped })),
                Some(json!({ "matchConditions": [{ "name": "never", "expression": "false" }] })),
            ] {
                let what = format!("policy {name}: {weaken:?}");
                weakened::<ValidatingAdmissionPolicy>(client, name, weaken, noticed)
                    .await
                    .context(what.clone())?;
                said(true).await.context(what)?;
                tried += 1;
            }
            let warns = json!({ "validationActions": ["Warn"] });
            for weaken in [Some(warns), Some(json!({ "matchResources": scoped })), None] {
                let what = format!("binding {name}: {weaken:?}");
                weakened::<ValidatingAdmissionPolicyBinding>(client, name, weaken, noticed)
                    .await
                    .context(what.clone())?;
                said(true).await.context(what)?;
                tried += 1;
            }
        }
        eprintln!("admission: {tried} ways of weakening it, each noticed");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_admission_nothing_begins_and_what_came_meanwhile_is_not_believed_later()
-> Result<()> {
    let _alone = SHARED.write().await;
    in_namespace_with_harm("no-admission", async |namespace| {
        namespace.apply_fixture("small/policy.yaml").await?;
        namespace.apply_fixture("small/sop.yaml").await?;
        let payroll = json!({ "metadata": { "name": "payroll" }, "data": { "k": "the-payroll-of-everybody" } });
        namespace.api::<ConfigMap>().create(&PostParams::default(), &serde_json::from_value(payroll)?).await?;
        let dev = Person::user("dev").await?.given(&namespace, "sopwith-edit").await?;
        let dev = dev.can(&namespace, "create agentruns.sopwith.dev").await?;
        weakened::<ValidatingAdmissionPolicyBinding>(&namespace.client, POLICIES[0], None, async || {
            said(false).await?;
            unproven(&namespace, &dev).await
        })
        .await?;
        said(true).await?;
        // What was asked in another's name stays where it is; who asks now, goes on.
        for name in ["anothers", "anybodys", "hidden"] {
            waits(&namespace, name, "Create it again").await?;
        }
        nothing_was_made(&namespace).await?;
        goes_on(&namespace, &dev).await?;
        Ok(())
    })
    .await
}

fn asked() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

fn run(name: &str, spec: Value) -> Result<AgentRun> {
    let resources =
        json!({ "requests": { "cpu": "50m", "memory": "64Mi" }, "limits": { "memory": "512Mi" } });
    let mut whole = json!({ "sopRef": { "name": "hello" }, "runner": { "resources": resources } });
    if spec.get("ideaFrom").is_none() {
        whole["idea"] = "x".into();
    }
    let (fields, more) = (whole.as_object_mut().context("no object")?, spec);
    fields.extend(more.as_object().context("no object")?.clone());
    Ok(serde_json::from_value(
        json!({ "metadata": { "name": name }, "spec": whole }),
    )?)
}

/// A run is believed from a moment after the policy took effect on: one of those that are created meanwhile goes on.
async fn goes_on(namespace: &Namespace, dev: &Person) -> Result<()> {
    let begun = Instant::now();
    let answered = |run: &AgentRun| {
        let status = run.status.as_ref();
        status.is_some_and(|status| status.plan.is_some() || reason(run).is_some())
    };
    let mut tried = 0;
    loop {
        let name = format!("proven-{tried}");
        let next = run(&name, json!({ "requestedBy": "dev" }))?;
        dev.api::<AgentRun>(namespace)
            .create(&PostParams::default(), &next)
            .await?;
        let seen = namespace
            .until::<AgentRun>(&name, 30, "an answer", answered)
            .await?;
        if reason(&seen) != Some(REASON) {
            namespace.ended_as(&name, Phase::Succeeded, 120).await?;
            return Ok(());
        }
        ensure!(
            begun.elapsed() < BELIEVED_WITHIN,
            "no run goes on although admission is enforced"
        );
        tried += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Why a run is not ready, where it waits for admission.
fn reason(run: &AgentRun) -> Option<&'static str> {
    let status = run.status.as_ref()?;
    let ready = conditions::find(&status.conditions, conditions::READY)?;
    (ready.reason == REASON).then_some(REASON)
}

/// What admission would have refused is taken now, and waits.
async fn unproven(namespace: &Namespace, dev: &Person) -> Result<()> {
    let runs = dev.api::<AgentRun>(namespace);
    let taken = async {
        while let Err(error) = runs
            .create(&asked(), &run("x", json!({ "requestedBy": "boss" }))?)
            .await
        {
            ensure!(error.to_string().contains("spec.requestedBy is"), "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(20), taken)
        .await
        .context("the policy stayed in force")??;
    for (name, spec) in [
        ("anothers", json!({ "requestedBy": "boss" })),
        ("anybodys", json!({})),
        (
            "hidden",
            json!({ "ideaFrom": { "configMapKeyRef": { "name": "payroll", "key": "k" } } }),
        ),
    ] {
        runs.create(&PostParams::default(), &run(name, spec)?)
            .await?;
    }
    for name in ["anothers", "anybodys", "hidden"] {
        waits(
            namespace,
            name,
            "ValidatingAdmissionPolicyBinding sopwith-agentruns not found",
        )
        .await?;
    }
    nothing_was_made(namespace).await
}

async fn waits(namespace: &Namespace, name: &str, words: &str) -> Result<()> {
    let said = |run: &AgentRun| {
        let status = run.status.as_ref()?;
        let ready = conditions::find(&status.conditions, conditions::READY)?;
        (status.phase == Some(Phase::Pending) && ready.reason == REASON)
            .then(|| ready.message.clone())
    };
    let wanted = |run: &AgentRun| said(run).is_some_and(|message| message.contains(words));
    let run = namespace.until::<AgentRun>(name, 30, words, wanted).await?;
    let message = said(&run).ok_or_else(|| anyhow!("no message"))?;
    ensure!(
        message.contains("admission.insecure=true"),
        "no remedy: {message}"
    );
    Ok(())
}

async fn nothing_was_made(namespace: &Namespace) -> Result<()> {
    let jobs = namespace.api::<Job>().list(&ListParams::default()).await?;
    ensure!(jobs.items.is_empty(), "{} Jobs", jobs.items.len());
    let plans = namespace
        .api::<ConfigMap>()
        .list(&ListParams::default().labels(RUN_LABEL))
        .await?;
    ensure!(plans.items.is_empty(), "{} plans", plans.items.len());
    Ok(())
}
