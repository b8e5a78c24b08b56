//! The ledger: what runs used today (UTC, by time of receipt) under each policy. Survives a restart.

mod day;
#[cfg(test)]
mod tests;

pub use day::{Amount, Day, Entry, Origin, date_of};

use crate::store::{Store, StoreError, Version, damaged, segment};
use k8s_openapi::jiff::{Timestamp, ToSpan as _, civil::Date};
use object_store::path::Path;
use sopwith_crds::{status::Usage, tool_policy::Today};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How often an entry is written before those who write it, too, are believed to be stubborn.
const TRIES: usize = 5;

/// Namespace and name of a policy.
type Policy = (String, String);

/// What runs used today under each policy. Clones share it.
#[derive(Clone)]
pub struct Ledger {
    store: Store,
    days: Arc<Mutex<HashMap<Policy, Day>>>,
    versions: Arc<Mutex<Versions>>,
}

/// In which version each entry of a day was last read or written here.
#[derive(Default)]
struct Versions {
    date: Date,
    of: HashMap<Path, Version>,
}

impl Ledger {
    /// Reads what is known of the day of `now`.
    pub async fn open(store: Store, now: Timestamp) -> Result<Self, StoreError> {
        let date = date_of(now);
        let (mut days, mut of) = (HashMap::new(), HashMap::new());
        for namespace in store.folders(&Path::from("ledger")).await? {
            for policy in store.folders(&namespace).await? {
                let name = |path: &Path| path.filename().unwrap_or_default().to_owned();
                let key = (name(&namespace), name(&policy));
                let mut entries = Vec::new();
                for object in store.list(&policy.join(date.to_string())).await? {
                    let path = object.location;
                    if let Some((entry, version)) = read_entry(&store, &path).await? {
                        entries.push(entry);
                        of.insert(path, version);
                    }
                }
                days.insert(key, Day::new(date, entries));
            }
        }
        Ok(Self {
            store,
            days: Arc::new(Mutex::new(days)),
            versions: Arc::new(Mutex::new(Versions { date, of })),
        })
    }

    /// Books what a pod says its launch has used since its start. In the store before it returns; safe to repeat.
    ///
    /// `before` is what the pod had reported before today, as far as its batches tell.
    pub async fn book(
        &self,
        namespace: &str,
        policy: &str,
        origin: &Origin,
        used: &Usage,
        before: Amount,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let date = date_of(now);
        let key = (namespace.to_owned(), policy.to_owned());
        let folder = Path::from("ledger")
            .join(segment(namespace)?)
            .join(segment(policy)?);
        let known = self.with_day(&key, date, |day| day.entry(origin).is_some());
        let base = if known {
            before
        } else {
            before.max(self.yesterday(&folder, origin, date).await?)
        };
        let used = Amount::of(used);
        let path = entry_path(&folder, date, origin)?;
        for _ in 0..TRIES {
            let booking = self.with_day(&key, date, |day| day.booking(origin, base, used));
            let Some(entry) = booking else {
                return Ok(());
            };
            if self.write(&path, date, &entry).await? {
                self.with_day(&key, date, |day| day.put(entry));
                return Ok(());
            }
            // Another leader wrote it before its lease was over: what it knew counts, too.
            if let Some((there, version)) = read_entry(&self.store, &path).await? {
                self.remember(&path, date, version);
                self.with_day(&key, date, |day| day.put(there));
            }
        }
        Err(StoreError::Contended(path.to_string()))
    }

    /// Writes an entry over the version that is known of it, and says whether that was still the version there.
    async fn write(&self, path: &Path, date: Date, entry: &Entry) -> Result<bool, StoreError> {
        let bytes = serde_json::to_vec(entry).map_err(|e| damaged(path, &e))?;
        let known = lock(&self.versions).of.get(path).cloned();
        let written = self.store.write_over(path, bytes.into(), known).await?;
        let written = written.map(|version| self.remember(path, date, version));
        Ok(written.is_some())
    }

    fn remember(&self, path: &Path, date: Date, version: Version) {
        let mut versions = lock(&self.versions);
        if versions.date < date {
            // Nobody writes the entries of an earlier day any more.
            *versions = Versions {
                date,
                of: HashMap::new(),
            };
        }
        versions.of.insert(path.clone(), version);
    }

    /// What was used under a policy on the day of `now`.
    pub fn today(&self, namespace: &str, policy: &str, now: Timestamp) -> Today {
        let key = (namespace.to_owned(), policy.to_owned());
        self.with_day(&key, date_of(now), |day| day.today(now))
    }

    /// What the pod had used by the end of yesterday, by yesterday's entry.
    async fn yesterday(
        &self,
        folder: &Path,
        origin: &Origin,
        today: Date,
    ) -> Result<Amount, StoreError> {
        let Ok(yesterday) = today.checked_sub(1.day()) else {
            return Ok(Amount::default());
        };
        let path = entry_path(folder, yesterday, origin)?;
        let entry = read_entry(&self.store, &path).await?;
        Ok(entry.map(|(e, _)| e.total).unwrap_or_default())
    }

    fn with_day<T>(&self, key: &Policy, date: Date, act: impl FnOnce(&mut Day) -> T) -> T {
        let mut days = lock(&self.days);
        let fresh = || Day::new(date, []);
        let day = days.entry(key.clone()).or_insert_with(fresh);
        if day.date < date {
            *day = fresh();
        }
        act(day)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_entry(store: &Store, path: &Path) -> Result<Option<(Entry, Version)>, StoreError> {
    let Some((bytes, version)) = store.read_version(path).await? else {
        return Ok(None);
    };
    let entry = serde_json::from_slice(&bytes).map_err(|e| damaged(path, &e))?;
    Ok(Some((entry, version)))
}

fn entry_path(folder: &Path, date: Date, origin: &Origin) -> Result<Path, StoreError> {
    let (run, pod) = (segment(&origin.run_uid)?, segment(&origin.pod_uid)?);
    Ok(folder
        .clone()
        .join(date.to_string())
        .join(format!("{run}-{}-{pod}.json", origin.launch)))
}
