//! Apply: the writes of a run. Each is safe to repeat, and what was made by an earlier try counts as done.

use super::{
    job::{self, JobInputs},
    observe::{self, Pending},
    plan::{self, PlanLost, PreparedPlan},
};
use crate::write::{self, FIELD_MANAGER};
use k8s_openapi::api::{batch::v1::Job, core::v1::ConfigMap};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;
use sopwith_crds::{
    AgentRun, AgentRunStatus, LAUNCH_LABEL, RUN_LABEL, STUCK_ANNOTATION, contract::plan::RunPlan,
    plan::digest, status::PlanRef,
};

/// An object of that name exists and is not of this run.
const NAME_TAKEN: &str = "NameTaken";

/// A write failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// An object of that name exists and is not of this run.
    #[error(
        "{kind} \"{name}\" exists and does not belong to this run; delete it, or create the run under another name"
    )]
    NameTaken {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The plan that is there is not readable.
    #[error(transparent)]
    Plan(#[from] PlanLost),
    /// The API server refused or did not answer.
    #[error("{what}: {source}")]
    Kube {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: kube::Error,
    },
}

impl ApplyError {
    /// Whether the object changed since it was read: nothing is wrong, it is read again.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Kube { source: kube::Error::Api(status), .. } if status.is_conflict())
    }

    /// Why `object` was not taken, where it is not for us to mend and may pass: a name that is taken, a quota, a webhook.
    pub fn refusal(&self, object: &str) -> Option<Pending> {
        match self {
            Self::NameTaken { .. } => Some(Pending {
                reason: NAME_TAKEN,
                message: self.to_string(),
            }),
            Self::Kube {
                source: kube::Error::Api(status),
                ..
            } if status.is_forbidden() || status.code == 422 => {
                Some(observe::refusal(object, &status.message))
            }
            Self::Plan(_) | Self::Kube { .. } => None,
        }
    }

    /// For the label of a metric.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NameTaken { .. } => NAME_TAKEN,
            Self::Plan(_) => "PlanLost",
            Self::Kube { .. } => "Kubernetes",
        }
    }
}

/// A plan that exists in the cluster. Only that can appear in status.
#[derive(Clone, Debug)]
pub struct AppliedPlan {
    /// Where it is.
    pub reference: PlanRef,
    /// What it says.
    pub plan: RunPlan,
}

/// What came of making a Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It was made now.
    Now,
    /// An earlier try had made it.
    Before,
}

/// Freezes a plan, or takes the same one that an earlier try froze.
pub async fn plan(
    client: &Client,
    run: &AgentRun,
    prepared: PreparedPlan,
    authority: &str,
) -> Result<AppliedPlan, ApplyError> {
    let api: Api<ConfigMap> = namespaced(client, run);
    let wanted = plan::config_map(run, &prepared, authority);
    let name = wanted.metadata.name.clone().unwrap_or_default();
    match api.create(&params(), &wanted).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let there = api.get(&name).await.map_err(failed("read the plan"))?;
            if !belongs(run, &there) || !plan::holds(&there, &wanted) {
                return Err(ApplyError::NameTaken {
                    kind: "ConfigMap",
                    name,
                });
            }
        }
        Err(source) => return Err(failed("freeze the plan")(source)),
    }
    let reference = PlanRef {
        config_map: name,
        digest: digest(&prepared.plan).to_string(),
    };
    Ok(AppliedPlan {
        reference,
        plan: prepared.plan,
    })
}

/// Reads the frozen plan that status names.
pub async fn read_plan(
    client: &Client,
    run: &AgentRun,
    reference: &PlanRef,
) -> Result<AppliedPlan, ApplyError> {
    let api: Api<ConfigMap> = namespaced(client, run);
    let found = api
        .get_opt(&reference.config_map)
        .await
        .map_err(failed("read the plan"))?;
    let found = found.ok_or_else(|| PlanLost::Gone(reference.config_map.clone()))?;
    let (reference, plan) = plan::read(&found, Some(&reference.digest))?;
    Ok(AppliedPlan { reference, plan })
}

/// Writes the status of a run over the one that was read.
pub async fn status(
    client: &Client,
    run: &AgentRun,
    next: &AgentRunStatus,
) -> Result<AgentRun, ApplyError> {
    let api: Api<AgentRun> = namespaced(client, run);
    let previous = run.status.clone().unwrap_or_default();
    write::status(&api, run, &previous, next)
        .await
        .map_err(failed("write the status"))
}

/// Makes the Job of a launch.
pub async fn job(client: &Client, inputs: &JobInputs<'_>) -> Result<Made, ApplyError> {
    let api: Api<Job> = namespaced(client, inputs.run);
    let wanted = job::job(inputs);
    match api.create(&params(), &wanted).await {
        Ok(_) => Ok(Made::Now),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let name = wanted.name_any();
            let there = api.get(&name).await.map_err(failed("read the Job"))?;
            // What bears our labels was made by us: admission keeps others from it.
            let labelled = |label: &&str| there.labels().get(*label) == wanted.labels().get(*label);
            if belongs(inputs.run, &there) && [RUN_LABEL, LAUNCH_LABEL].iter().all(labelled) {
                Ok(Made::Before)
            } else {
                Err(ApplyError::NameTaken { kind: "Job", name })
            }
        }
        Err(source) => Err(failed("make the Job")(source)),
    }
}

/// Ends the Job of a launch: its pod gets SIGTERM and its grace period, and the Job fails with `DeadlineExceeded`. Refused
/// with a conflict where the Job has changed since it was read here. `stuck` is what the Job says of a step that was stuck.
pub async fn stop(
    client: &Client,
    run: &AgentRun,
    launch: u32,
    stuck: Option<&str>,
) -> Result<(), ApplyError> {
    let api: Api<Job> = namespaced(client, run);
    let name = job::name(run.metadata.name.as_deref().unwrap_or_default(), launch);
    let there = api.get_opt(&name).await.map_err(failed("read the Job"))?;
    let Some(there) = there.filter(|job| belongs(run, job)) else {
        return Ok(());
    };
    let annotations = stuck.map(|stuck| json!({STUCK_ANNOTATION: stuck}));
    let patch = Patch::Merge(json!({
        "metadata": {
            "uid": there.metadata.uid,
            "resourceVersion": there.metadata.resource_version,
            "annotations": annotations.unwrap_or_else(|| json!({})),
        },
        "spec": {"activeDeadlineSeconds": 0},
    }));
    match api.patch(&name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(failed("end the Job")(source)),
    }
}

/// Deletes a finished run whose time has come. Refused with a conflict where it has changed since it was read.
pub async fn delete(client: &Client, run: &AgentRun) -> Result<(), ApplyError> {
    let api: Api<AgentRun> = namespaced(client, run);
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: run.metadata.uid.clone(),
            resource_version: run.metadata.resource_version.clone(),
        }),
        ..DeleteParams::background()
    };
    match api
        .delete(run.metadata.name.as_deref().unwrap_or_default(), &params)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(failed("delete the run")(source)),
    }
}

fn namespaced<K>(client: &Client, run: &AgentRun) -> Api<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(
        client.clone(),
        run.metadata.namespace.as_deref().unwrap_or_default(),
    )
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn belongs<K: Resource>(run: &AgentRun, object: &K) -> bool {
    let owners = object.meta().owner_references.iter().flatten();
    let mut uids = owners.map(|owner| &owner.uid);
    uids.any(|uid| Some(uid) == run.metadata.uid.as_ref())
}

fn failed(what: &'static str) -> impl FnOnce(kube::Error) -> ApplyError {
    move |source| ApplyError::Kube { what, source }
}
