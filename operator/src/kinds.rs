//! What the controllers of procedures and policies have in common: writes that are coalesced over runs.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client, Resource, ResourceExt, core::NamespaceResourceScope, runtime::controller::Action,
};
use serde::{Serialize, de::DeserializeOwned};
use sopwith_crds::{
    AgentRun,
    check::Finding,
    conditions::{self, Said},
};
use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{caches::Caches, ledger::Ledger, metrics::Metrics, write};

/// How often counts of runs and usage are written at most.
pub const COALESCE: SignedDuration = SignedDuration::from_secs(5);
/// How soon a failed reconciliation is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// What the controllers of procedures and policies work with.
pub struct Context {
    /// Speaks to the API server.
    pub client: Client,
    /// What is watched.
    pub caches: Caches,
    /// What was used today.
    pub ledger: Ledger,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// When the status of each object was written last, by UID.
    pub written: Written,
}

/// When the status of each object was written last, by UID.
#[derive(Debug, Default)]
pub struct Written(Mutex<HashMap<String, Timestamp>>);

/// A reconciliation failed and is tried again.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct KindError {
    /// What was tried.
    pub what: &'static str,
    /// Why it failed.
    pub source: kube::Error,
}

impl Context {
    /// Writes a status that differs from the one before. One that differs in mere counts may have to wait: then it gives
    /// how long.
    pub async fn write<K, S>(
        &self,
        object: &K,
        previous: &S,
        next: &S,
        only_counts: bool,
        now: Timestamp,
    ) -> Result<Option<Duration>, KindError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: DeserializeOwned + Clone + Debug,
        S: Serialize + PartialEq,
    {
        if next == previous {
            return Ok(None);
        }
        let uid = object.uid().unwrap_or_default();
        if let Some(wait) = self.written.wait(&uid, now).filter(|_| only_counts) {
            return Ok(Some(wait));
        }
        let namespace = object.namespace().unwrap_or_default();
        let api = Api::namespaced(self.client.clone(), &namespace);
        let failed = |source| KindError {
            what: "write the status",
            source,
        };
        write::status(&api, object, previous, next)
            .await
            .map_err(failed)?;
        self.written.note(&uid, now);
        Ok(None)
    }
}

impl Written {
    /// How long a write of mere counts has to wait.
    pub fn wait(&self, uid: &str, now: Timestamp) -> Option<Duration> {
        let last = self.lock().get(uid).copied()?;
        let left = (last + COALESCE).duration_since(now);
        Duration::try_from(left).ok().filter(|wait| !wait.is_zero())
    }

    /// Forgets all objects but these, by UID.
    pub fn keep(&self, alive: &BTreeSet<String>) {
        self.lock().retain(|uid, _| alive.contains(uid));
    }

    /// Notes a write.
    pub fn note(&self, uid: &str, now: Timestamp) {
        self.lock().insert(uid.to_owned(), now);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Timestamp>> {
        // Nothing that is done under this lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to do after a failure: conflicts are ordinary, all else is counted and logged.
pub fn on_error(kind: &str, name: &str, error: &KindError, metrics: &Metrics) -> Action {
    if matches!(&error.source, kube::Error::Api(status) if status.is_conflict()) {
        tracing::debug!(kind, name, "the object changed meanwhile and is read again");
        return Action::requeue(Duration::from_millis(200));
    }
    tracing::warn!(kind, name, %error, "a reconciliation failed and is tried again");
    metrics.reconcile_failed(kind, "Kubernetes");
    Action::requeue(TRY_AGAIN)
}

/// Ready, or Stalled with every mistake.
pub fn judged(reason: &str, findings: &[Finding], ready: String) -> Vec<Said> {
    if findings.is_empty() {
        return vec![Said::yes(conditions::READY, "Valid", ready)];
    }
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let message = lines.join("\n");
    vec![
        Said::no(conditions::READY, reason, &message),
        Said::yes(conditions::STALLED, reason, message),
    ]
}

/// Runs of a namespace that have not ended and fit.
pub fn in_flight(caches: &Caches, namespace: &str, fits: impl Fn(&AgentRun) -> bool) -> u32 {
    let runs = caches.runs.state();
    let alive = runs
        .iter()
        .filter(|run| run.metadata.namespace.as_deref() == Some(namespace) && fits(run))
        .filter(|run| {
            let phase = run.status.as_ref().and_then(|status| status.phase);
            !phase.unwrap_or_default().is_final()
        });
    u32::try_from(alive.count()).unwrap_or(u32::MAX)
}
