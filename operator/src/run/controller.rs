//! The controller of runs: resolve → plan → launch → apply → status.

use super::{apply::ApplyError, job::Site, memory::Memory, stage::Stage};
use crate::{
    admission::Admission,
    caches::Caches,
    gateway::{GatewayTls, Inbox},
    metrics::Metrics,
    store::{Store, StoreError},
};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Client, ResourceExt,
    runtime::{controller::Action, events::Recorder},
};
use sopwith_crds::{AgentRun, status::Phase};
use std::{sync::Arc, time::Duration};

/// How soon a failed reconciliation is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How soon a run is read again that has changed meanwhile.
const READ_AGAIN: Duration = Duration::from_millis(200);

/// What the controller works with.
pub struct Context {
    /// Speaks to the API server.
    pub client: Client,
    /// What is watched.
    pub caches: Caches,
    /// Whether the names in runs are proven.
    pub admission: Admission,
    /// What runners report.
    pub inbox: Inbox,
    /// What runs left.
    pub store: Store,
    /// The gateway's certificate authority goes into each plan.
    pub tls: GatewayTls,
    /// What the operator's own configuration adds to pods.
    pub site: Site,
    /// Records Events.
    pub recorder: Recorder,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Remembers.
    pub memory: Memory,
    /// Since when this process takes reports.
    pub listening_since: Timestamp,
    /// Tells the other controllers that a run changed its phase.
    pub changed: tokio::sync::watch::Sender<u64>,
}

/// A reconciliation failed and is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A write or read of the API server.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// What a run names could not be read.
    #[error("read what the run names: {0}")]
    Resolve(kube::Error),
    /// The artifact store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ReconcileError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Apply(error) => error.reason(),
            Self::Resolve(_) => "Kubernetes",
            Self::Store(_) => "Store",
        }
    }
}

/// What to do after a failure: conflicts are ordinary, all else is counted and logged.
pub fn on_error(run: &AgentRun, error: &ReconcileError, context: &Context) -> Action {
    if matches!(error, ReconcileError::Apply(apply) if apply.is_conflict()) {
        tracing::debug!(
            run = run.name_any(),
            "the run changed meanwhile and is read again"
        );
        return Action::requeue(READ_AGAIN);
    }
    let (name, namespace) = (run.name_any(), run.namespace());
    tracing::warn!(run = name, namespace, %error, "a reconciliation failed and is tried again");
    context.metrics.reconcile_failed("AgentRun", error.reason());
    Action::requeue(TRY_AGAIN)
}

/// Brings a run one step further.
pub async fn reconcile(
    cached: Arc<AgentRun>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let uid = cached.uid().unwrap_or_default();
    let run = context.memory.newest(&uid, cached);
    if run.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let stage = Stage {
        now: Timestamp::now(),
        uid,
        context: &context,
    };
    let status = run.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    match &status.plan {
        _ if phase.is_final() => stage.finished(&run, &status).await,
        None => stage.unplanned(run).await,
        Some(reference) => stage.planned(&run, &status, reference).await,
    }
}

/// Runs that wait for something a procedure or policy may bring, or for people, whose decisions a policy counts.
pub fn waiting(run: &AgentRun) -> bool {
    let status = run.status.as_ref();
    let phase = status.and_then(|status| status.phase).unwrap_or_default();
    matches!(phase, Phase::Pending | Phase::Waiting)
}
