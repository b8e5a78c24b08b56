//! What the operator watches, kept in memory and trimmed to what it needs.

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::{batch::v1::Job, core::v1};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::NamespaceResourceScope,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use sopwith_crds::{AgentRun, RUN_LABEL, SopDefinition, ToolPolicy};
use std::{collections::BTreeSet, fmt::Debug, future, time::Duration};

/// Everything that is watched.
#[derive(Clone)]
pub struct Caches {
    /// All runs.
    pub runs: Store<AgentRun>,
    /// The Jobs of runs.
    pub jobs: Store<Job>,
    /// The pods of runs.
    pub pods: Store<v1::Pod>,
    /// Why Jobs could not make their pods.
    pub refusals: Store<v1::Event>,
    /// All procedures.
    pub sops: Store<SopDefinition>,
    /// All policies.
    pub policies: Store<ToolPolicy>,
    /// Which of them have been filled once.
    pub filled: Filled,
}

/// Which caches have been filled once.
///
/// `Store::wait_until_ready` wakes the last of several waiters only (kube-runtime 5.0), so this is counted here.
#[derive(Clone, Debug)]
pub struct Filled(tokio::sync::watch::Sender<BTreeSet<String>>);

impl Default for Filled {
    fn default() -> Self {
        Self(tokio::sync::watch::Sender::new(BTreeSet::new()))
    }
}

/// How many caches there are.
const CACHES: usize = 6;

impl Caches {
    /// Waits until every cache has been filled once: before, what is not there yet would seem deleted.
    pub async fn ready(&self) {
        let mut filled = self.filled.0.subscribe();
        // It cannot fail: `self` keeps the sender.
        let _ = filled.wait_for(|kinds| kinds.len() == CACHES).await;
    }
}

/// A watch that has not been started: it fills its cache while it is polled, and yields what changed.
pub type Watch<K> = futures::stream::BoxStream<'static, Result<watcher::Event<K>, watcher::Error>>;

/// Where the operator looks for runs and what belongs to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// In every namespace.
    #[default]
    Cluster,
    /// In this namespace only: no right is needed in any other.
    Namespace(String),
}

impl Scope {
    /// The objects of a kind within it.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self {
            Self::Cluster => Api::all(client.clone()),
            Self::Namespace(name) => Api::namespaced(client.clone(), name),
        }
    }

    /// Whether a namespace lies within it.
    pub fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::Cluster => true,
            Self::Namespace(name) => name == namespace,
        }
    }
}

/// Watches all objects of a kind that the operator reconciles or reads, and lists them anew `every` so long: an event that
/// a watch lost would otherwise never be made up for.
pub fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
    filled: &Filled,
    every: Duration,
) -> (Store<K>, Watch<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let filled = filled.0.clone();
    let watches = futures::stream::repeat_with(move || {
        let watch = watcher(api.clone(), config.clone()).default_backoff();
        watch.take_until(tokio::time::sleep(every))
    });
    let stream = watches
        .flatten()
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .inspect_ok(move |event| {
            if matches!(event, watcher::Event::InitDone) {
                filled.send_if_modified(|kinds| kinds.insert(K::kind(&()).into_owned()));
            }
        });
    (reader, stream.boxed())
}

/// Only what is made for runs.
pub fn of_runs() -> watcher::Config {
    watcher::Config::default().labels(RUN_LABEL)
}

/// Only the warnings of the Job controller that a pod could not be made.
pub fn refusals() -> watcher::Config {
    watcher::Config::default().fields("involvedObject.kind=Job,reason=FailedCreate")
}

/// The runs that changes of a watch concern. Errors are logged; the watch goes on by itself.
pub fn concerning<K>(
    watch: Watch<K>,
    kind: &'static str,
    runs: impl Fn(&K) -> Vec<ObjectRef<AgentRun>> + Send + 'static,
) -> impl Stream<Item = ObjectRef<AgentRun>> + Send + 'static
where
    K: Clone + Send + Sync + 'static,
{
    watch
        .touched_objects()
        .inspect_err(
            move |error| tracing::info!(kind, %error, "a watch was interrupted and is begun again"),
        )
        .filter_map(|object| future::ready(object.ok()))
        .flat_map(move |object| futures::stream::iter(runs(&object)))
}

/// The run of an object made for it, by its label.
pub fn run_of<K: Resource>(object: &K) -> Vec<ObjectRef<AgentRun>> {
    let name = object.labels().get(RUN_LABEL);
    let reference = name
        .zip(object.namespace())
        .map(|(name, namespace)| ObjectRef::new(name).within(&namespace));
    reference.into_iter().collect()
}

/// The run of an event about its Job, whose name is `<run>-<launch>`.
pub fn run_of_refusal(event: &v1::Event) -> Vec<ObjectRef<AgentRun>> {
    let about = &event.involved_object;
    let run = about.name.as_deref().and_then(|job| job.rsplit_once('-'));
    let reference = run
        .zip(about.namespace.as_deref())
        .map(|((run, _), namespace)| ObjectRef::new(run).within(namespace));
    reference.into_iter().collect()
}
