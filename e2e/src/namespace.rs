//! A namespace for one test, and waits in it that print what they saw when they fail.

use crate::{OPERATOR_NAMESPACE, fixture};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use futures::FutureExt as _;
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{Event, Namespace as Object, Pod},
};
use kube::{
    Api, Client, Discovery, Resource, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind, NamespaceResourceScope},
    runtime::wait::await_condition,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use sopwith_crds::{AgentRun, SopDefinition, ToolPolicy, status::Phase};
use std::{fmt::Debug, fmt::Write as _, future::Future, panic::AssertUnwindSafe, time::Duration};

/// A namespace in which Pod Security `restricted` is enforced, made for one test.
#[derive(Clone)]
pub struct Namespace {
    /// Client with the rights of the kubeconfig.
    pub client: Client,
    /// Its name.
    pub name: String,
}

/// Runs a test in a namespace of its own. Where it fails, the objects, events and logs concerned are printed and the
/// namespace is kept. The test also fails where the operator restarted or logged an error meanwhile.
pub async fn in_namespace<F, Fut>(feature: &str, test: F) -> Result<()>
where
    F: FnOnce(Namespace) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    within(feature, async |namespace| {
        let before = namespace.operator().await?;
        test(namespace.clone()).await?;
        namespace.operator_is_unharmed(&before).await
    })
    .await
}

/// The same for a test that harms the operator itself.
pub async fn in_namespace_with_harm<F, Fut>(feature: &str, test: F) -> Result<()>
where
    F: FnOnce(Namespace) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    within(feature, async |namespace| test(namespace).await).await
}

async fn within(feature: &str, test: impl AsyncFnOnce(Namespace) -> Result<()>) -> Result<()> {
    // The second call of several tests in one process finds a provider: that is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default()
        .await
        .context("no cluster: `make cluster-up` and e2e/cluster/env.sh")?;
    let namespace = Namespace::create(client, feature).await?;
    let result = AssertUnwindSafe(test(namespace.clone()))
        .catch_unwind()
        .await;
    let ended = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(anyhow!("panicked: {}", text.unwrap_or_default()))
    });
    if let Err(error) = ended {
        let dump = namespace.dump().await;
        return Err(error.context(format!("in namespace {}\n{dump}", namespace.name)));
    }
    namespace.delete().await
}

/// How the operator was at a time.
struct Operator {
    pod: String,
    restarts: i32,
    since: k8s_openapi::jiff::Timestamp,
}

impl Namespace {
    /// Makes one whose name tells the feature.
    pub async fn create(client: Client, feature: &str) -> Result<Self> {
        let object: Object = serde_json::from_value(json!({
            "metadata": {
                "generateName": format!("e2e-{feature}-"),
                "labels": { "pod-security.kubernetes.io/enforce": "restricted", "sopwith.dev/e2e": "true" },
            }
        }))?;
        let name = Api::<Object>::all(client.clone())
            .create(&PostParams::default(), &object)
            .await?
            .name_any();
        Ok(Self { client, name })
    }

    /// Deletes it with all that is in it; does not wait for that.
    pub async fn delete(&self) -> Result<()> {
        Api::<Object>::all(self.client.clone())
            .delete(&self.name, &DeleteParams::background())
            .await?;
        Ok(())
    }

    /// The objects of a kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Applies objects as `kubectl apply --server-side` does, into this namespace.
    pub async fn apply(&self, objects: impl IntoIterator<Item = DynamicObject>) -> Result<()> {
        for object in objects {
            self.apply_one(object, false).await?;
        }
        Ok(())
    }

    /// Applies the objects of a file below `e2e/fixtures`.
    pub async fn apply_fixture(&self, path: &str) -> Result<()> {
        self.apply(fixture::read(
            crate::repository().join("e2e/fixtures").join(path),
        )?)
        .await
    }

    /// Applies one object, or only asks whether it would be taken.
    pub async fn apply_one(&self, mut object: DynamicObject, dry_run: bool) -> Result<()> {
        let api = self.dynamic(&object)?;
        object.metadata.namespace = None;
        let params = PatchParams {
            dry_run,
            ..PatchParams::apply("e2e").force()
        };
        api.patch(&object.name_any(), &params, &Patch::Apply(&object))
            .await?;
        Ok(())
    }

    fn dynamic(&self, object: &DynamicObject) -> Result<Api<DynamicObject>> {
        let types = object.types.as_ref().context("an object without kind")?;
        let gvk = GroupVersionKind::try_from(types)?;
        let plural = match types.kind.as_str() {
            "ToolPolicy" => "toolpolicies".to_owned(),
            kind => format!("{}s", kind.to_lowercase()),
        };
        Ok(Api::namespaced_with(
            self.client.clone(),
            &self.name,
            &ApiResource::from_gvk_with_plural(&gvk, &plural),
        ))
    }

    /// Waits until an object is as wanted, watching it; says what it last was where it takes too long.
    pub async fn until<K>(
        &self,
        name: &str,
        seconds: u64,
        what: &str,
        wanted: impl Fn(&K) -> bool + Send,
    ) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + Send + DeserializeOwned + serde::Serialize + 'static,
    {
        let condition = |object: Option<&K>| object.is_some_and(&wanted);
        let waited = tokio::time::timeout(
            Duration::from_secs(seconds),
            // Boxed: it is large, and tests wait for many at once.
            Box::pin(await_condition(self.api::<K>(), name, condition)),
        );
        if let Ok(object) = waited.await {
            return object?.context("the object went away");
        }
        let last = self.api::<K>().get_opt(name).await?;
        let last = serde_saphyr::to_string(&last).unwrap_or_default();
        bail!("{name}: {what}: not within {seconds} s; it is now:\n{last}")
    }

    /// Waits until a run has ended.
    pub async fn ended(&self, run: &str, seconds: u64) -> Result<AgentRun> {
        self.until::<AgentRun>(run, seconds, "an end", |run| {
            phase(run).is_some_and(Phase::is_final)
        })
        .await
    }

    /// Waits until a run has ended, and asks that it ended in this phase.
    pub async fn ended_as(&self, run: &str, wanted: Phase, seconds: u64) -> Result<AgentRun> {
        let ended = self.ended(run, seconds).await?;
        ensure!(
            phase(&ended) == Some(wanted),
            "it ended as {:?}, not as {wanted}",
            phase(&ended)
        );
        Ok(ended)
    }

    /// Changes fields of a run's spec.
    pub async fn patch_run(
        &self,
        run: &str,
        spec: serde_json::Value,
    ) -> Result<AgentRun, kube::Error> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.api::<AgentRun>()
            .patch(run, &PatchParams::default(), &patch)
            .await
    }

    /// Reasons and notes of the Events in this namespace.
    pub async fn events(&self) -> Result<Vec<(String, String)>> {
        let events = self.api::<Event>().list(&ListParams::default()).await?;
        let said = |event: Event| {
            (
                event.reason.unwrap_or_default(),
                event.message.unwrap_or_default(),
            )
        };
        Ok(events.into_iter().map(said).collect())
    }

    async fn operator_pod(&self) -> Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let list = pods
            .list(&ListParams::default().labels("app.kubernetes.io/component=operator"))
            .await?;
        list.into_iter()
            .next()
            .with_context(|| format!("no operator pod in {OPERATOR_NAMESPACE}: install the chart"))
    }

    async fn operator(&self) -> Result<Operator> {
        let pod = self.operator_pod().await?;
        let now = k8s_openapi::jiff::Timestamp::now();
        Ok(Operator {
            restarts: restarts(&pod),
            pod: pod.name_any(),
            since: now,
        })
    }

    async fn operator_is_unharmed(&self, before: &Operator) -> Result<()> {
        let pod = self.operator_pod().await?;
        if pod.name_any() != before.pod || restarts(&pod) != before.restarts {
            bail!(
                "the operator restarted: {} had {} restarts, {} has {}",
                before.pod,
                before.restarts,
                pod.name_any(),
                restarts(&pod)
            );
        }
        let log = self.operator_log(Some(before.since)).await?;
        let errors: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("\"level\":\"ERROR\""))
            .collect();
        if !errors.is_empty() {
            bail!("the operator logged errors:\n{}", errors.join("\n"));
        }
        Ok(())
    }

    /// Kills the operator without a word of warning, as a node that dies does.
    pub async fn kill_operator(&self) -> Result<()> {
        let pod = self.operator_pod().await?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let at_once = DeleteParams::default().grace_period(0);
        pods.delete(&pod.name_any(), &at_once).await?;
        Ok(())
    }

    /// Waits until the operator is ready again.
    pub async fn operator_is_back(&self) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let ready = |deployment: Option<&Deployment>| {
            let status = deployment.and_then(|deployment| deployment.status.as_ref());
            status.is_some_and(|status| {
                status.ready_replicas == Some(1) && status.unavailable_replicas.is_none()
            })
        };
        let waited = Box::pin(await_condition(deployments, "sopwith-operator", ready));
        let waited = tokio::time::timeout(Duration::from_secs(120), waited).await;
        waited.context("the operator did not come back within 120 s")??;
        Ok(())
    }

    /// The operator's log, all of it or since a time.
    pub async fn operator_log(
        &self,
        since: Option<k8s_openapi::jiff::Timestamp>,
    ) -> Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let params = LogParams {
            since_time: since,
            ..LogParams::default()
        };
        Ok(pods
            .logs(&self.operator_pod().await?.name_any(), &params)
            .await?)
    }

    /// Everything that may explain a failure: objects, events and logs.
    pub async fn dump(&self) -> String {
        let mut text = String::new();
        self.dump_kind::<AgentRun>(&mut text).await;
        self.dump_kind::<SopDefinition>(&mut text).await;
        self.dump_kind::<ToolPolicy>(&mut text).await;
        self.dump_kind::<Job>(&mut text).await;
        for (reason, note) in self.events().await.unwrap_or_default() {
            let _ = writeln!(text, "event {reason}: {note}");
        }
        let pods = self.api::<Pod>();
        for pod in pods
            .list(&ListParams::default())
            .await
            .map(|list| list.items)
            .unwrap_or_default()
        {
            let status = serde_json::to_string(&pod.status).unwrap_or_default();
            let _ = writeln!(text, "--- pod {}: {status}", pod.name_any());
            for container in ["runner"] {
                let params = LogParams {
                    container: Some(container.into()),
                    tail_lines: Some(40),
                    ..LogParams::default()
                };
                let log = pods
                    .logs(&pod.name_any(), &params)
                    .await
                    .unwrap_or_else(|error| error.to_string());
                let _ = writeln!(text, "--- log of {}/{container}\n{log}", pod.name_any());
            }
        }
        let log = self
            .operator_log(None)
            .await
            .unwrap_or_else(|error| error.to_string());
        let tail: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(&self.name))
            .collect();
        let _ = writeln!(
            text,
            "--- log of the operator\n{}",
            tail[tail.len().saturating_sub(40)..].join("\n")
        );
        text
    }

    async fn dump_kind<K>(&self, text: &mut String)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned + serde::Serialize,
    {
        for mut object in self
            .api::<K>()
            .list(&ListParams::default())
            .await
            .map(|list| list.items)
            .unwrap_or_default()
        {
            object.meta_mut().managed_fields = None;
            let value = serde_json::to_value(&object).unwrap_or_default();
            let status = serde_saphyr::to_string(&value["status"]).unwrap_or_default();
            let _ = writeln!(text, "--- {} {}\n{status}", K::kind(&()), object.name_any());
        }
    }
}

/// Scales the operator to nothing, and returns when it is gone; gives how many replicas it had.
pub async fn take_operator_away(client: &Client) -> Result<i32> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let deployment = deployments.get("sopwith-operator").await?;
    let replicas = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
    bring_operator_back(client, 0).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let params = ListParams::default().labels("app.kubernetes.io/component=operator");
    for pod in pods.list(&params).await? {
        let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
        let gone = kube::runtime::conditions::is_deleted(&uid);
        let waited = Box::pin(await_condition(pods.clone(), &name, gone));
        tokio::time::timeout(Duration::from_secs(60), waited)
            .await
            .context("the cluster's operator does not go")??;
    }
    Ok(replicas.max(1))
}

/// Scales the operator to so many replicas.
pub async fn bring_operator_back(client: &Client, replicas: i32) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    deployments
        .patch("sopwith-operator", &PatchParams::default(), &patch)
        .await?;
    Ok(())
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|container| container.restart_count).sum()
}

/// The phase in a run's status.
pub fn phase(run: &AgentRun) -> Option<Phase> {
    run.status.as_ref().and_then(|status| status.phase)
}

/// Whether the apiserver serves the three kinds at all.
pub async fn kinds_are_served(client: &Client) -> Result<bool> {
    let discovery = Discovery::new(client.clone())
        .filter(&[sopwith_crds::GROUP])
        .run()
        .await?;
    Ok(discovery
        .groups()
        .flat_map(kube::discovery::ApiGroup::recommended_resources)
        .count()
        >= 3)
}
