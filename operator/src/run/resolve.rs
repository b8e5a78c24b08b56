//! Resolve: reads what a run names, live: what is frozen into a plan, or bounds a launch, must not be what a cache
//! still holds of it. Who applies a procedure and a run of it at once means the new one.

use super::{
    apply::{self, ApplyError},
    earlier::{
        self, NotTaken, RECOVER, RUN_NOT_FOUND, SOURCE, STEP_NOT_FINISHED, UPLOAD_NOT_FOUND,
        unavailable,
    },
    observe::Pending,
};
use crate::{
    caches::Caches,
    retention::UPLOAD_DAYS,
    store::{Store, StoreError},
};
use bytes::Bytes;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Resource, ResourceExt as _, core::NamespaceResourceScope, runtime::reflector,
};
use serde::de::DeserializeOwned;
use sopwith_crds::{
    AgentRun, AgentRunStatus, DEFAULT_POLICY, SopDefinition, SopDefinitionSpec, ToolPolicy,
    agent_run::KeyRef,
    contract::{Digest, delta::Delta, memory::Facts, plan::RunPlan},
    is_object_name,
    plan::{Earlier, Rejection, project_name},
    status::Phase,
};
use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

/// What a run names, read.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The procedure.
    pub sop: Arc<SopDefinition>,
    /// The policy.
    pub policy: Arc<ToolPolicy>,
    /// The idea.
    pub idea: String,
    /// The inputs by name.
    pub inputs: BTreeMap<String, String>,
    /// Templates from ConfigMaps by name.
    pub templates: BTreeMap<String, String>,
    /// The earlier run that the run begins with.
    pub earlier: Option<Earlier>,
    /// What earlier runs of its project left, where the run has long-term memory.
    pub memory: Vec<Facts>,
}

/// Something the run names cannot be read.
#[derive(Debug)]
pub enum Unresolved {
    /// It is not there; it may still appear.
    Missing(Pending),
    /// The API server did not answer.
    Kube(kube::Error),
}

/// A run cannot be planned.
#[derive(Debug)]
pub enum Unplannable {
    /// Something it names cannot be read.
    Unresolved(Unresolved),
    /// What it begins with is not there and will not appear any more.
    Rejected(Rejection),
    /// The artifact store did not answer.
    Store(StoreError),
}

impl From<Unresolved> for Unplannable {
    fn from(unresolved: Unresolved) -> Self {
        Self::Unresolved(unresolved)
    }
}

impl From<NotTaken> for Unplannable {
    fn from(not_taken: NotTaken) -> Self {
        match not_taken {
            NotTaken::Pending(pending) => Unresolved::Missing(pending).into(),
            NotTaken::Rejected(rejection) => Self::Rejected(rejection),
        }
    }
}

/// The policy that a run names.
pub fn policy_name(run: &AgentRun) -> &str {
    let named = run.spec.tool_policy_ref.as_ref();
    named.map_or(DEFAULT_POLICY, |reference| reference.name.as_str())
}

/// Reads everything a run names.
pub async fn resolve(
    run: &AgentRun,
    client: &Client,
    caches: &Caches,
    store: &Store,
) -> Result<Resolved, Unplannable> {
    let namespace = run.metadata.namespace.as_deref().unwrap_or_default();
    let sop = named(
        client,
        &caches.sops,
        namespace,
        &run.spec.sop_ref.name,
        "SopNotFound",
    )
    .await?;
    let policy = policy(run, client, caches).await?;
    let reader = Reader {
        api: Api::namespaced(client.clone(), namespace),
        namespace,
    };
    let idea = match (&run.spec.idea, &run.spec.idea_from) {
        (Some(idea), _) => idea.clone(),
        (None, Some(from)) => reader.key(&from.config_map_key_ref).await?,
        (None, None) => String::new(),
    };
    let mut inputs = BTreeMap::new();
    for input in &run.spec.inputs {
        let text = match &input.config_map_key_ref {
            Some(key) => reader.key(key).await?,
            None => input.value.clone().unwrap_or_default(),
        };
        inputs.insert(input.name.clone(), text);
    }
    let templates = templates(&sop.spec, client, namespace).await?;
    let earlier = earlier(run, client, caches, store).await?;
    let memory = memory(run, earlier.as_ref(), store).await?;
    Ok(Resolved {
        sop,
        policy,
        idea,
        inputs,
        templates,
        earlier,
        memory,
    })
}

/// What earlier runs left of the project of a run with long-term memory. What is no name of a project is the checker's to refuse.
async fn memory(
    run: &AgentRun,
    earlier: Option<&Earlier>,
    store: &Store,
) -> Result<Vec<Facts>, Unplannable> {
    if run.spec.long_term_memory != Some(true) {
        return Ok(Vec::new());
    }
    let namespace = run.metadata.namespace.as_deref().unwrap_or_default();
    match store.facts(namespace, &project_name(run, earlier)).await {
        Err(StoreError::Key(_)) => Ok(Vec::new()),
        facts => facts.map_err(Unplannable::Store),
    }
}

/// The earlier run that a run begins with; and whether the project that it names is there.
async fn earlier(
    run: &AgentRun,
    client: &Client,
    caches: &Caches,
    store: &Store,
) -> Result<Option<Earlier>, Unplannable> {
    let namespace = run.metadata.namespace.as_deref().unwrap_or_default();
    let find = async |name: &str, field| {
        let found = named(client, &caches.runs, namespace, name, RUN_NOT_FOUND).await?;
        if found.uid() == run.uid() {
            let message = "names the run itself; name an earlier one";
            return Err(Unplannable::from(unavailable(field, message)));
        }
        Ok(found)
    };
    if let Some(from) = &run.spec.recover_from {
        let found = find(&from.run, RECOVER).await?;
        earlier::agrees(&run.spec, &found.spec)?;
        let from = from.step.as_deref();
        return recovered(&found, from, client, store).await.map(Some);
    }
    let source = run.spec.project.as_ref().and_then(|p| p.source.as_ref());
    let Some(source) = source else {
        return Ok(None);
    };
    if let Some(digest) = &source.upload {
        uploaded(store, namespace, digest).await?;
    }
    let Some(name) = &source.run else {
        return Ok(None);
    };
    let found = find(name, SOURCE).await?;
    let snapshot = earlier::last_snapshot(&found)?;
    there(&found, &snapshot, SOURCE, store).await?;
    let plan = plan_of(&found, SOURCE, client).await?;
    Ok(Some(earlier::taken(&found, plan, snapshot, None)))
}

/// The state that a run recovers from.
async fn recovered(
    found: &AgentRun,
    step: Option<&str>,
    client: &Client,
    store: &Store,
) -> Result<Earlier, Unplannable> {
    let planned = found
        .status
        .as_ref()
        .and_then(|status| status.plan.as_ref());
    if planned.is_none() && !found.status.as_ref().is_some_and(has_ended) {
        return Err(Unresolved::Missing(Pending {
            reason: STEP_NOT_FINISHED,
            message: format!(
                "AgentRun \"{}\" ({RECOVER}) has not begun yet",
                found.name_any()
            ),
        })
        .into());
    }
    let plan = plan_of(found, RECOVER, client).await?;
    // Not by way of the inbox, which keeps what it reads.
    let batches = store.batches(&found.uid().unwrap_or_default()).await;
    let batches = batches.map_err(Unplannable::Store)?;
    let (step, digest) = earlier::finished_step(found, &plan, &batches, step)?;
    let bytes = there(found, &digest, RECOVER, store).await?;
    let snapshot: Delta = serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("the snapshot {digest} is wrong: {error}");
        unavailable(RECOVER, &message)
    })?;
    // Each says all of what was used.
    let usage = snapshot.used_in_all();
    Ok(earlier::taken(found, plan, digest, Some((step, usage))))
}

fn has_ended(status: &AgentRunStatus) -> bool {
    status.phase.is_some_and(Phase::is_final)
}

/// A snapshot of an earlier run, if it is still kept.
async fn there(
    found: &AgentRun,
    snapshot: &Digest,
    field: &str,
    store: &Store,
) -> Result<Bytes, Unplannable> {
    let uid = found.uid().unwrap_or_default();
    let kept = store.get_blob(&uid, snapshot).await;
    kept.map_err(Unplannable::Store)?.ok_or_else(|| {
        let message = format!(
            "what AgentRun \"{}\" left is not stored any more",
            found.name_any()
        );
        unavailable(field, &message).into()
    })
}

/// The plan of an earlier run.
async fn plan_of(found: &AgentRun, field: &str, client: &Client) -> Result<RunPlan, Unplannable> {
    let lost = |why: &dyn std::fmt::Display| {
        let message = format!(
            "the plan of AgentRun \"{}\" is gone: {why}",
            found.name_any()
        );
        Unplannable::from(unavailable(field, &message))
    };
    let planned = found.status.as_ref().and_then(|status| status.plan.clone());
    let reference = planned.ok_or_else(|| lost(&"it never had one"))?;
    match apply::read_plan(client, found, &reference).await {
        Ok(applied) => Ok(applied.plan),
        Err(ApplyError::Kube { source, .. }) => Err(Unresolved::Kube(source).into()),
        Err(other) => Err(lost(&other)),
    }
}

/// Whether the namespace has an upload. What is no digest is the checker's to refuse.
async fn uploaded(store: &Store, namespace: &str, digest: &str) -> Result<(), Unplannable> {
    let Ok(parsed) = digest.parse::<Digest>() else {
        return Ok(());
    };
    let there = store.has_upload(namespace, &parsed).await;
    match there.map_err(Unplannable::Store)? {
        Some(_) => Ok(()),
        None => Err(NotTaken::Pending(Pending {
            reason: UPLOAD_NOT_FOUND,
            message: format!(
                "namespace {namespace} has no upload {digest} (spec.project.source.upload); it is kept for {UPLOAD_DAYS} days: push the \
                 folder again with kubectl sop push DIR -n {namespace}"
            ),
        })
        .into()),
    }
}

/// The policy of a run as it is now.
pub async fn policy(
    run: &AgentRun,
    client: &Client,
    caches: &Caches,
) -> Result<Arc<ToolPolicy>, Unresolved> {
    let namespace = run.metadata.namespace.as_deref().unwrap_or_default();
    named(
        client,
        &caches.policies,
        namespace,
        policy_name(run),
        "PolicyNotFound",
    )
    .await
}

/// The templates of the ConfigMaps that a procedure names.
pub async fn templates(
    sop: &SopDefinitionSpec,
    client: &Client,
    namespace: &str,
) -> Result<BTreeMap<String, String>, Unresolved> {
    let reader = Reader {
        api: Api::namespaced(client.clone(), namespace),
        namespace,
    };
    let mut templates = BTreeMap::new();
    for from in &sop.templates_from {
        templates.extend(reader.map(&from.config_map).await?);
    }
    Ok(templates)
}

struct Reader<'a> {
    api: Api<ConfigMap>,
    namespace: &'a str,
}

impl Reader<'_> {
    async fn map(&self, name: &str) -> Result<BTreeMap<String, String>, Unresolved> {
        if !is_object_name(name) {
            return Err(missing(format!(
                "\"{name}\" is no name of a ConfigMap: use lower-case letters, digits, - and ."
            )));
        }
        let found = self.api.get_opt(name).await.map_err(Unresolved::Kube)?;
        let found = found.ok_or_else(|| {
            missing(format!(
                "ConfigMap \"{name}\" not found in namespace {}",
                self.namespace
            ))
        })?;
        Ok(found.data.unwrap_or_default())
    }

    async fn key(&self, key: &KeyRef) -> Result<String, Unresolved> {
        let mut map = self.map(&key.name).await?;
        let keys: Vec<_> = map.keys().cloned().collect();
        map.remove(&key.key).ok_or_else(|| {
            missing(format!(
                "ConfigMap \"{}\" in namespace {} has no key \"{}\"; it has: {}",
                key.name,
                self.namespace,
                key.key,
                listed(keys)
            ))
        })
    }
}

fn missing(message: String) -> Unresolved {
    Unresolved::Missing(Pending {
        reason: "ConfigMapNotFound",
        message,
    })
}

async fn named<K>(
    client: &Client,
    store: &reflector::Store<K>,
    namespace: &str,
    name: &str,
    reason: &'static str,
) -> Result<Arc<K>, Unresolved>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned + 'static,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    // A name with / or ? in it would ask for something else.
    if is_object_name(name)
        && let Some(found) = api.get_opt(name).await.map_err(Unresolved::Kube)?
    {
        return Ok(Arc::new(found));
    }
    // The others are only named in a message: the cache is good enough.
    let there = store.state();
    let mut names: Vec<String> = there
        .iter()
        .filter(|object| object.meta().namespace.as_deref() == Some(namespace))
        .filter_map(|object| object.meta().name.clone())
        .filter(|other| other != name)
        .collect();
    names.sort();
    Err(Unresolved::Missing(Pending {
        reason,
        message: format!(
            "{} \"{name}\" not found in namespace {namespace}; there are: {}",
            K::kind(&()),
            listed(names)
        ),
    }))
}

/// The first ten of a list, for messages.
fn listed(names: Vec<String>) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let more = names.len().saturating_sub(10);
    let first: Vec<String> = names.into_iter().take(10).collect();
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", first.join(", "))
}
