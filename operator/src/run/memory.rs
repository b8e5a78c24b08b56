//! What is remembered of a run between two reconciliations. All of it can be forgotten: it is read again.

use k8s_openapi::jiff::Timestamp;
use sopwith_crds::{AgentRun, contract::plan::RunPlan, status::PlanRef};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

/// What is remembered of each run, by UID.
#[derive(Debug, Default)]
pub struct Memory {
    runs: Mutex<HashMap<String, Remembered>>,
}

#[derive(Debug, Default)]
struct Remembered {
    newest: Option<Arc<AgentRun>>,
    plan: Option<Arc<(PlanRef, RunPlan)>>,
    ordered_at: Option<Timestamp>,
    evicted: bool,
}

impl Memory {
    /// The newer of the object from the cache and the one that our own last write returned: the cache lags behind it.
    pub fn newest(&self, uid: &str, cached: Arc<AgentRun>) -> Arc<AgentRun> {
        self.with(uid, |known| match &known.newest {
            Some(ours) if version(ours) > version(&cached) => ours.clone(),
            _ => {
                known.newest = None;
                cached
            }
        })
    }

    /// Remembers what a write returned.
    pub fn wrote(&self, uid: &str, run: Arc<AgentRun>) {
        self.with(uid, |known| known.newest = Some(run));
    }

    /// The plan, where it was read already.
    pub fn plan(&self, uid: &str) -> Option<Arc<(PlanRef, RunPlan)>> {
        self.with(uid, |known| known.plan.clone())
    }

    /// Remembers the plan.
    pub fn planned(&self, uid: &str, plan: Arc<(PlanRef, RunPlan)>) {
        self.with(uid, |known| known.plan = Some(plan));
    }

    /// Since when an order stands: from the first time it was seen. A restart gives the runner its time again.
    pub fn ordered_at(&self, uid: &str, ordered: bool, now: Timestamp) -> Option<Timestamp> {
        self.with(uid, |known| {
            known.ordered_at = if ordered {
                known.ordered_at.or(Some(now))
            } else {
                None
            };
            known.ordered_at
        })
    }

    /// Whether it is the first time that a finished run is put aside; drops what is kept of it.
    pub fn put_aside(&self, uid: &str) -> bool {
        self.with(uid, |known| {
            known.plan = None;
            !std::mem::replace(&mut known.evicted, true)
        })
    }

    /// Forgets all runs but these, by UID.
    pub fn keep(&self, alive: &BTreeSet<String>) {
        self.lock().retain(|uid, _| alive.contains(uid));
    }

    fn with<T>(&self, uid: &str, act: impl FnOnce(&mut Remembered) -> T) -> T {
        act(self.lock().entry(uid.to_owned()).or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Remembered>> {
        // Nothing that is done under this lock can panic half-way.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resource versions of one object can be compared as numbers (Kubernetes API conventions since 1.35, true before).
fn version(run: &AgentRun) -> u64 {
    let version = run.metadata.resource_version.as_deref();
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_missing_from_a_list_is_forgotten() {
        let memory = Memory::default();
        let now = Timestamp::UNIX_EPOCH;
        for uid in ["stays", "gone"] {
            memory.ordered_at(uid, true, now);
        }
        let listed = BTreeSet::from(["stays".to_owned(), "new".to_owned()]);
        memory.keep(&listed);
        let later = Timestamp::from_second(9).unwrap();
        assert_eq!(memory.ordered_at("stays", true, later), Some(now));
        assert_eq!(memory.ordered_at("gone", true, later), Some(later));
    }
}
