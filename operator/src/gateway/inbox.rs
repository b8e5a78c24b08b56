//! The inbox: what runners reported, in memory, shared with the controllers.

use crate::store::{Store, StoreError, StoredBatch};
use futures::Stream;
use k8s_openapi::jiff::Timestamp;
use sopwith_crds::{
    contract::{
        Digest,
        report::{ToolStatus, What},
    },
    status::Usage,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, OwnedMutexGuard};

/// Which run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Everything a run reported, over all its launches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunLog {
    /// The stored batches: by launch, then by pod, then by number.
    pub batches: Vec<Arc<StoredBatch>>,
    /// What each pod of each launch said last that its launch had used. Can be ahead of the batches: signs of life and
    /// refused batches of replaced launches count too.
    pub usage: BTreeMap<(u32, String), Usage>,
}

/// What runners reported, in memory, shared by the gateway and the controllers. Clones share it.
#[derive(Clone)]
pub struct Inbox {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    runs: Mutex<HashMap<String, Arc<Slot>>>,
    pokes: Mutex<BTreeSet<RunRef>>,
    poked: Notify,
}

/// One run. The lock on `turn` is held while a batch is checked and stored, so batches of a run come one at a time.
#[derive(Default)]
struct Slot {
    turn: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
}

/// The right to change what is known of a run.
pub(super) struct Turn {
    inbox: Inbox,
    run_uid: String,
    slot: Arc<Slot>,
    _held: OwnedMutexGuard<()>,
}

#[derive(Default)]
struct State {
    log: Option<Arc<RunLog>>,
    last_seen: Option<Timestamp>,
}

impl Inbox {
    /// An inbox over a store; runs are read from it when they are first asked for.
    pub fn new(store: Store) -> Self {
        let shared = Shared {
            store,
            runs: Mutex::default(),
            pokes: Mutex::default(),
            poked: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// What a run reported, as far as it is in memory: empty before [`load`](Self::load) has returned once.
    pub fn log(&self, run_uid: &str) -> Arc<RunLog> {
        let slot = lock(&self.shared.runs).get(run_uid).cloned();
        slot.and_then(|slot| lock(&slot.state).log.clone())
            .unwrap_or_default()
    }

    /// What a run reported, read from the store where it is not in memory yet.
    pub async fn load(&self, run_uid: &str) -> Result<Arc<RunLog>, StoreError> {
        let slot = self.slot(run_uid);
        let known = lock(&slot.state).log.clone();
        match known {
            Some(log) => Ok(log),
            None => self.turn(run_uid).await.load().await,
        }
    }

    /// What a run reported, read from the store anew: another leader may have stored something before its lease was over.
    pub async fn reload(&self, run_uid: &str) -> Result<Arc<RunLog>, StoreError> {
        self.turn(run_uid).await.reload().await
    }

    /// When a run was last heard of, signs of life included.
    pub fn last_seen(&self, run_uid: &str) -> Option<Timestamp> {
        let slot = lock(&self.shared.runs).get(run_uid).cloned()?;
        lock(&slot.state).last_seen
    }

    /// Runs that reported something new, each once however often it did so since the last time. For one reader.
    pub fn subscribe(&self) -> impl Stream<Item = RunRef> + Send + 'static {
        futures::stream::unfold(self.shared.clone(), |shared| async move {
            loop {
                let next = lock(&shared.pokes).pop_first();
                if let Some(run) = next {
                    return Some((run, shared));
                }
                shared.poked.notified().await;
            }
        })
    }

    /// Drops a run from memory; the store keeps it, and it is read again when it is asked for.
    pub async fn evict(&self, run_uid: &str) {
        let turn = self.turn(run_uid).await;
        lock(&turn.slot.state).log = None;
    }

    /// Drops all runs but these from memory. What the others left stays in the store until its retention is over.
    pub async fn keep(&self, alive: &BTreeSet<String>) {
        let known: Vec<_> = lock(&self.shared.runs).keys().cloned().collect();
        for run_uid in known.iter().filter(|uid| !alive.contains(*uid)) {
            let turn = self.turn(run_uid).await;
            *lock(&turn.slot.state) = State::default();
            lock(&self.shared.runs).remove(run_uid);
        }
    }

    /// Waits until nobody else changes what is known of a run.
    pub(super) async fn turn(&self, run_uid: &str) -> Turn {
        let slot = self.slot(run_uid);
        let held = slot.turn.clone().lock_owned().await;
        Turn {
            inbox: self.clone(),
            run_uid: run_uid.to_owned(),
            slot,
            _held: held,
        }
    }

    fn slot(&self, run_uid: &str) -> Arc<Slot> {
        let mut runs = lock(&self.shared.runs);
        runs.entry(run_uid.to_owned()).or_default().clone()
    }

    fn poke(&self, run: RunRef) {
        lock(&self.shared.pokes).insert(run);
        self.shared.poked.notify_one();
    }
}

impl Turn {
    /// What the run reported.
    pub(super) async fn load(&self) -> Result<Arc<RunLog>, StoreError> {
        let known = lock(&self.slot.state).log.clone();
        match known {
            Some(log) => Ok(log),
            None => self.reload().await,
        }
    }

    /// What the run reported, as the store has it now; what was used is kept where it is ahead of that.
    pub(super) async fn reload(&self) -> Result<Arc<RunLog>, StoreError> {
        let stored = self.inbox.shared.store.batches(&self.run_uid).await?;
        let newest = stored.iter().map(|b| b.received_at).max();
        let mut log = RunLog::from(stored);
        let mut state = lock(&self.slot.state);
        if let Some(known) = &state.log {
            for ((launch, pod), usage) in &known.usage {
                log.note_usage(*launch, pod, usage);
            }
        }
        let log = Arc::new(log);
        state.last_seen = state.last_seen.max(newest);
        state.log = Some(log.clone());
        Ok(log)
    }

    /// The pod was heard of, and said what its launch has used.
    pub(super) fn seen(&self, launch: u32, pod_uid: &str, usage: &Usage, now: Timestamp) {
        let mut state = lock(&self.slot.state);
        state.last_seen = state.last_seen.max(Some(now));
        if let Some(log) = &mut state.log {
            Arc::make_mut(log).note_usage(launch, pod_uid, usage);
        }
    }

    /// A batch is in the store now: shows it to the controllers.
    pub(super) fn stored(&self, run: RunRef, batch: StoredBatch) {
        if let Some(log) = &mut lock(&self.slot.state).log {
            Arc::make_mut(log).push(batch);
        }
        self.inbox.poke(run);
    }
}

impl RunLog {
    /// The highest number stored for a pod of a launch; 0 where there is none.
    pub fn acknowledged(&self, launch: u32, pod_uid: &str) -> u64 {
        let own = |b: &&Arc<StoredBatch>| b.launch == launch && b.pod_uid == pod_uid;
        let numbers = self.batches.iter().filter(own).map(|b| b.batch.sequence);
        numbers.max().unwrap_or(0)
    }

    /// What all launches have used.
    pub fn used(&self) -> Usage {
        total(self.usage.values())
    }

    /// What all launches but this pod's have used.
    pub fn used_before(&self, launch: u32, pod_uid: &str) -> Usage {
        let other = |(n, pod): &(u32, String)| *n != launch || pod != pod_uid;
        total(
            self.usage
                .iter()
                .filter(|(key, _)| other(key))
                .map(|(_, u)| u),
        )
    }

    /// The calls of each tool in all launches but this pod's, without those that were refused.
    pub fn called_before(&self, launch: u32, pod_uid: &str) -> BTreeMap<String, u32> {
        let others = self
            .batches
            .iter()
            .filter(|b| b.launch != launch || b.pod_uid != pod_uid);
        let mut calls = BTreeMap::new();
        for event in others.flat_map(|b| &b.batch.events) {
            if let What::ToolCall { tool, status, .. } = &event.what
                && !matches!(status, ToolStatus::Invalid | ToolStatus::Denied)
            {
                *calls.entry(tool.clone()).or_default() += 1;
            }
        }
        calls
    }

    /// Digest of the newest snapshot, from which the run can be resumed.
    pub fn snapshot(&self) -> Option<Digest> {
        let mut events = self
            .batches
            .iter()
            .rev()
            .flat_map(|b| b.batch.events.iter().rev());
        events.find_map(|event| match &event.what {
            What::StepEnded { end } => Some(end.snapshot.clone()),
            What::ProjectLoaded { snapshot, .. } | What::Recovered { snapshot, .. } => {
                Some(snapshot.clone())
            }
            What::LaunchEnded { snapshot, .. } => snapshot.clone(),
            _ => None,
        })
    }

    /// Whether this pod has said its last word.
    pub fn ended(&self, launch: u32, pod_uid: &str) -> bool {
        let own = |b: &&Arc<StoredBatch>| b.launch == launch && b.pod_uid == pod_uid;
        self.batches
            .iter()
            .filter(own)
            .flat_map(|b| &b.batch.events)
            .any(|event| matches!(event.what, What::LaunchEnded { .. }))
    }

    /// Only the current launch's batches are stored, so the newest is always the last.
    fn push(&mut self, stored: StoredBatch) {
        self.note_usage(stored.launch, &stored.pod_uid, &stored.batch.usage);
        self.batches.push(Arc::new(stored));
    }

    fn note_usage(&mut self, launch: u32, pod_uid: &str, usage: &Usage) {
        let known = self.usage.entry((launch, pod_uid.to_owned())).or_default();
        if usage.total_tokens >= known.total_tokens && usage.cost >= known.cost {
            *known = usage.clone();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn total<'a>(parts: impl Iterator<Item = &'a Usage>) -> Usage {
    parts.fold(Usage::default(), |mut sum, part| {
        sum.add(part);
        sum
    })
}

impl From<Vec<StoredBatch>> for RunLog {
    fn from(stored: Vec<StoredBatch>) -> Self {
        let mut log = Self::default();
        for batch in stored {
            log.note_usage(batch.launch, &batch.pod_uid, &batch.batch.usage);
            log.batches.push(Arc::new(batch));
        }
        log
    }
}
