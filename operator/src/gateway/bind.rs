//! Binding: which run and launch a pod speaks for.

use super::RunRef;
use crate::{
    admission::Admission,
    run::{
        decisions::{rules, tally},
        job,
        progress::Waiting,
        resolve::policy_name,
    },
};
use futures::future::BoxFuture;
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use sopwith_crds::{
    AgentRun, DEFAULT_POLICY, LAUNCH_LABEL, RUN_LABEL, ToolPolicy,
    agent_run::{Decision, Environment},
    contract::{Digest, report::Orders},
    is_object_name,
};
use std::{collections::BTreeMap, sync::Arc};

/// What a pod speaks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaunchBinding {
    /// UID of the run.
    pub run_uid: String,
    /// The launch the pod belongs to.
    pub launch: u32,
    /// Whether no newer launch has begun.
    pub current: bool,
    /// Name of the run's policy.
    pub policy: String,
    /// Where the run belongs to.
    pub environment: Environment,
    /// Name of the run's procedure.
    pub sop: String,
    /// What the run's spec asks of the runner.
    pub orders: Orders,
    /// UID of the earlier run that this one begins with: it may read what that one left.
    pub earlier: Option<String>,
    /// Digest of the uploaded project that the run begins with.
    pub upload: Option<String>,
}

/// What people who read a run need of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFacts {
    /// UID of the run.
    pub uid: String,
    /// The newest snapshot by its status.
    pub snapshot: Option<Digest>,
}

/// Why a pod does not speak for a run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such run.
    #[error("AgentRun \"{name}\" not found in namespace {namespace}")]
    RunNotFound {
        /// Where it was looked for.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// No such pod, or another one by its name.
    #[error("pod \"{0}\" of the token is gone: only a pod that exists can report")]
    PodNotFound(String),
    /// The pod belongs to something else.
    #[error("pod \"{pod}\" does not belong to AgentRun \"{run}\"")]
    NotOfRun {
        /// The pod.
        pod: String,
        /// The run.
        run: String,
    },
    /// The API server did not answer.
    #[error("the API server did not answer: {0}; try again")]
    Unavailable(String),
}

/// Says which run and launch a pod speaks for.
pub trait Binding: Send + Sync + 'static {
    /// What the pod speaks for. `pod_uid` is proven; the rest is looked up.
    fn launch_of<'a>(
        &'a self,
        namespace: &'a str,
        run: &'a str,
        pod_name: &'a str,
        pod_uid: &'a str,
    ) -> BoxFuture<'a, Result<LaunchBinding, Refusal>>;

    /// What people decided on the gate at which a run waits: the decisions that count, once they are enough.
    fn decided<'a>(
        &'a self,
        run: &'a RunRef,
        run_uid: &'a str,
        waiting: &'a Waiting,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Decision>, Refusal>>;

    /// What people need who read a run.
    fn run<'a>(
        &'a self,
        namespace: &'a str,
        run: &'a str,
    ) -> BoxFuture<'a, Result<RunFacts, Refusal>>;
}

/// Binds by what the API server says: from the controllers' caches where they know the objects, else by asking it,
/// since a cache that lags behind must not refuse a good runner.
#[derive(Clone)]
pub struct KubeBinding {
    /// Client for what the caches do not know yet.
    pub client: Client,
    /// All runs.
    pub runs: Store<AgentRun>,
    /// The Jobs of runs.
    pub jobs: Store<Job>,
    /// The pods of runs.
    pub pods: Store<Pod>,
    /// All policies.
    pub policies: Store<ToolPolicy>,
    /// Whether the names in runs are proven.
    pub admission: Admission,
}

impl KubeBinding {
    async fn find<K>(
        &self,
        cache: &Store<K>,
        namespace: &str,
        name: &str,
        fits: impl Fn(&K) -> bool,
    ) -> Result<Option<Arc<K>>, Refusal>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
    {
        // Callers write what they like into a path. Ours must name one object of one namespace.
        if !is_object_name(name) || !is_object_name(namespace) {
            return Ok(None);
        }
        let cached = cache.get(&ObjectRef::new(name).within(namespace));
        if let Some(found) = cached.filter(|found| fits(found)) {
            return Ok(Some(found));
        }
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(name).await;
        Ok(found
            .map_err(|e| Refusal::Unavailable(e.to_string()))?
            .map(Arc::new))
    }
}

impl Binding for KubeBinding {
    fn launch_of<'a>(
        &'a self,
        namespace: &'a str,
        run: &'a str,
        pod_name: &'a str,
        pod_uid: &'a str,
    ) -> BoxFuture<'a, Result<LaunchBinding, Refusal>> {
        Box::pin(async move {
            let is_pod = |pod: &Pod| pod.metadata.uid.as_deref() == Some(pod_uid);
            let pod = self.find(&self.pods, namespace, pod_name, is_pod).await?;
            let gone = || Refusal::PodNotFound(pod_name.to_owned());
            let pod = pod.filter(|pod| is_pod(pod)).ok_or_else(gone)?;
            let not_of_run = || Refusal::NotOfRun {
                pod: pod_name.to_owned(),
                run: run.to_owned(),
            };
            let owner = controller(&pod.metadata, "Job").ok_or_else(not_of_run)?;
            let is_job = |job: &Job| job.metadata.uid.as_ref() == Some(&owner.uid);
            let job = self
                .find(&self.jobs, namespace, &owner.name, is_job)
                .await?;
            let job = job.ok_or_else(not_of_run)?;
            // A Job is made after the plan is in status: one without is older than the Job.
            let planned = |run: &AgentRun| run.status.as_ref().is_some_and(|s| s.plan.is_some());
            let is_owner = |run: &AgentRun| owns(run, &job.metadata) && planned(run);
            let found = self.find(&self.runs, namespace, run, is_owner).await?;
            let found = found.ok_or_else(|| not_found(namespace, run))?;
            bind(&found, &job, &pod)
        })
    }

    fn decided<'a>(
        &'a self,
        run: &'a RunRef,
        run_uid: &'a str,
        waiting: &'a Waiting,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Decision>, Refusal>> {
        Box::pin(async move {
            let RunRef { namespace, name } = run;
            let is_run = |run: &AgentRun| run.metadata.uid.as_deref() == Some(run_uid);
            let found = self.find(&self.runs, namespace, name, is_run).await?;
            let found = found.filter(|run| is_run(run));
            let run = found.ok_or_else(|| not_found(namespace, name))?;
            let policy = policy_name(&run);
            let policy = self
                .find(&self.policies, namespace, policy, |_| true)
                .await?;
            self.admission.ready().await;
            let rules = rules(policy.as_deref(), self.admission.proves(&run));
            Ok(tally(&run.spec, Some(waiting), &rules, now).answer)
        })
    }

    fn run<'a>(
        &'a self,
        namespace: &'a str,
        run: &'a str,
    ) -> BoxFuture<'a, Result<RunFacts, Refusal>> {
        Box::pin(async move {
            let found = self.find(&self.runs, namespace, run, |_| true).await?;
            let found = found.ok_or_else(|| not_found(namespace, run))?;
            let snapshot = found.status.as_ref().and_then(|s| s.snapshot.as_ref());
            Ok(RunFacts {
                uid: found.metadata.uid.clone().unwrap_or_default(),
                snapshot: snapshot.and_then(|digest| digest.parse().ok()),
            })
        })
    }
}

/// Decides what `pod` speaks for: its controller is `job`, the Job's is `run`, and the labels name run and launch. Whoever may make
/// pods or Jobs can name any owner; what bears our labels only the operator and the Job controller make, as admission sees to.
pub fn bind(run: &AgentRun, job: &Job, pod: &Pod) -> Result<LaunchBinding, Refusal> {
    let refuse = || Refusal::NotOfRun {
        pod: pod.name_any(),
        run: run.name_any(),
    };
    let job_owns = controller(&pod.metadata, "Job")
        .is_some_and(|owner| Some(&owner.uid) == job.metadata.uid.as_ref());
    let of_run = |labels: &BTreeMap<_, _>| labels.get(RUN_LABEL) == run.metadata.name.as_ref();
    let named = of_run(pod.labels()) && of_run(job.labels());
    if !job_owns || !owns(run, &job.metadata) || !named {
        return Err(refuse());
    }
    // The Job's label counts: the operator wrote it.
    let launch = job.labels().get(LAUNCH_LABEL).and_then(|n| n.parse().ok());
    let launch: u32 = launch.ok_or_else(refuse)?;
    if job.name_any() != job::name(&run.name_any(), launch) {
        return Err(refuse());
    }
    let newest = run.status.as_ref().and_then(|s| s.launch).unwrap_or(0);
    let spec = &run.spec;
    let policy = spec.tool_policy_ref.as_ref().map(|r| r.name.as_str());
    Ok(LaunchBinding {
        run_uid: run.metadata.uid.clone().unwrap_or_default(),
        launch,
        // The status is written before the Job: a launch ahead of it is newer than the cache.
        current: launch >= newest,
        policy: policy.unwrap_or(DEFAULT_POLICY).to_owned(),
        environment: spec.environment.unwrap_or_default(),
        sop: spec.sop_ref.name.clone(),
        orders: Orders {
            suspend: spec.suspend.unwrap_or_default(),
            cancel: spec.cancel.unwrap_or_default(),
        },
        earlier: run
            .status
            .as_ref()
            .and_then(|status| status.inherited.as_ref())
            .map(|inherited| inherited.uid.clone()),
        upload: spec
            .project
            .as_ref()
            .and_then(|project| project.source.as_ref())
            .and_then(|source| source.upload.clone()),
    })
}

fn not_found(namespace: &str, name: &str) -> Refusal {
    Refusal::RunNotFound {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn controller<'a>(meta: &'a ObjectMeta, kind: &str) -> Option<&'a OwnerReference> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    owners
        .iter()
        .find(|owner| owner.controller == Some(true) && owner.kind == kind)
}

fn owns(run: &AgentRun, meta: &ObjectMeta) -> bool {
    let owner = controller(meta, "AgentRun");
    owner.is_some_and(|owner| Some(&owner.uid) == run.metadata.uid.as_ref())
}
