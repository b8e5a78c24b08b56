//! Resolve: reads what a run names, live: what is frozen into a plan, or bounds a launch, must not be what a cache
//! still holds of it. Who applies a procedure and a run of it at once means the new one.

use super::observe::Pending;
use crate::caches::Caches;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, Resource, core::NamespaceResourceScope, runtime::reflector::Store};
use serde::de::DeserializeOwned;
use sopwith_crds::{
    AgentRun, DEFAULT_POLICY, SopDefinition, SopDefinitionSpec, ToolPolicy, agent_run::KeyRef,
    is_object_name,
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
}

/// Something the run names cannot be read.
#[derive(Debug)]
pub enum Unresolved {
    /// It is not there; it may still appear.
    Missing(Pending),
    /// The API server did not answer.
    Kube(kube::Error),
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
) -> Result<Resolved, Unresolved> {
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
    })
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
    store: &Store<K>,
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
