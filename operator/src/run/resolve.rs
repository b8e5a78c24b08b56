//! Resolve: reads what a run names, live: what is frozen into a plan, or bounds a launch, must not be what a cache
//! still holds of it. Who applies a procedure and a run of it at once means the new one.

use super::{
    apply::{self, ApplyError},
    earlier::{self, NotTaken, RUN_NOT_FOUND, UPLOAD_NOT_FOUND, unavailable},
    observe::Pending,
};
use crate::{
    caches::Caches,
    retention::UPLOAD_DAYS,
    store::{Store, StoreError},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Resource, ResourceExt as _, core::NamespaceResourceScope, runtime::reflector,
};
use serde::de::DeserializeOwned;
use sopwith_crds::{
    AgentRun, DEFAULT_POLICY, SopDefinition, SopDefinitionSpec, ToolPolicy,
    agent_run::KeyRef,
    contract::Digest,
    is_object_name,
    plan::{Earlier, Rejection},
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
    Ok(Resolved {
        sop,
        policy,
        idea,
        inputs,
        templates,
        earlier: earlier(run, client, caches, store).await?,
    })
}

/// The earlier run that a run begins with; and whether the project that it names is there.
async fn earlier(
    run: &AgentRun,
    client: &Client,
    caches: &Caches,
    store: &Store,
) -> Result<Option<Earlier>, Unplannable> {
    let namespace = run.metadata.namespace.as_deref().unwrap_or_default();
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
    let found = named(client, &caches.runs, namespace, name, RUN_NOT_FOUND).await?;
    let snapshot = earlier::last_snapshot(&found)?;
    Ok(Some(
        taken(&found, snapshot, "spec.project.source.run", client, store).await?,
    ))
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

/// What is taken over of an earlier run, if it is still there.
async fn taken(
    found: &AgentRun,
    snapshot: Digest,
    field: &str,
    client: &Client,
    store: &Store,
) -> Result<Earlier, Unplannable> {
    let (name, uid) = (found.name_any(), found.uid().unwrap_or_default());
    let gone = |what: &str| unavailable(field, &format!("{what} of AgentRun \"{name}\" is gone"));
    let there = store.has_blob(&uid, &snapshot).await;
    if there.map_err(Unplannable::Store)?.is_none() {
        return Err(gone("the stored project").into());
    }
    let status = found.status.clone().unwrap_or_default();
    let reference = status.plan.ok_or_else(|| gone("the plan"))?;
    match apply::read_plan(client, found, &reference).await {
        Ok(applied) => Ok(earlier::taken(found, &applied.plan, snapshot)),
        Err(ApplyError::Plan(lost)) => {
            let message = format!("the plan of AgentRun \"{name}\" is lost: {lost}");
            Err(unavailable(field, &message).into())
        }
        Err(ApplyError::Kube { source, .. }) => Err(Unresolved::Kube(source).into()),
        Err(other @ ApplyError::NameTaken { .. }) => {
            Err(unavailable(field, &other.to_string()).into())
        }
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
